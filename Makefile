# Needs: Go, git, make. No target but `install` writes outside this folder and Go's own caches,
# and none changes the network of the machine: kernel tests run in network namespaces of their own.

PREFIX    ?= /usr/local
UNITS     ?= $(PREFIX)/lib/systemd/system
NETWORKD  ?= $(PREFIX)/lib/systemd/network
UDEV      ?= $(PREFIX)/lib/udev/rules.d
# NetworkManager looks into its own prefix and into /etc, not into /usr/local.
NMCONF    ?= $(if $(filter /usr,$(PREFIX)),/usr/lib,/etc)/NetworkManager/conf.d
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
TESTFLAGS ?=
FUZZTIME  ?= 10s
SOAKTIME  ?= 5m
PACKAGES  ?= ./...

# The version comes from VERSION: Go need not ask git, which refuses in a checkout of another user.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

BINARIES := towpath towpathd
LINT     := go tool -modfile=tools/go.mod golangci-lint

.PHONY: journeys soak build test lint demo bench bench-dns bpf install clean fuzz cover

build: ## static binaries in bin/; in bin/share man pages and completions, which say what they do
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ $(BINARIES:%=./cmd/%)
	@GOOS= GOARCH= go run ./dist/gen bin

test: ## every test this machine can run, as root or not, and what was skipped and why
	@go run ./test/summary -p 2 -count=1 -timeout 20m $(TESTFLAGS) $(PACKAGES)

lint: ## the linter is built from tools/go.mod on first use: some minutes
	$(LINT) run

demo: build ## a tour in throw-away namespaces
	@go run ./test/demo bin

bench: build ## control plane and data path beside bare ones, some 5 minutes; BENCHFLAGS=-quick for less, -part control, path or trace for one
	@go run ./test/bench $(BENCHFLAGS) bin

bench-dns: ## the resolver beside those of Docker, Podman and dnsmasq where they are installed, 5 minutes; BENCHFLAGS=-quick for less
	@go build -o bin/dnsbench ./test/dnsbench
	@bin/dnsbench $(BENCHFLAGS)

bpf: ## the programs for the kernel, from their source; only who changes them needs clang 14
	internal/trace/bpf/build.sh '$(CURDIR)/internal/trace/bpf/trace_bpfel.o'

install: ## to DESTDIR and PREFIX; builds when bin/ is empty, so `make && sudo make install` works
	@test -x bin/towpath -a -x bin/towpathd -a -d bin/share || $(MAKE) build
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share' '$(DESTDIR)$(UNITS)' '$(DESTDIR)$(NETWORKD)' '$(DESTDIR)$(UDEV)' '$(DESTDIR)$(NMCONF)'
	install -m 0755 $(BINARIES:%=bin/%) '$(DESTDIR)$(PREFIX)/bin/'
	share=$$(cd '$(DESTDIR)$(PREFIX)/share' && pwd) && cd bin/share && find . -type f -exec install -D -m 0644 {} "$$share/{}" \;
	sed 's|@bindir@|$(PREFIX)/bin|' dist/systemd/towpathd.service.in | install -m 0644 /dev/stdin '$(DESTDIR)$(UNITS)/towpathd.service'
	install -m 0644 dist/networkd/* '$(DESTDIR)$(NETWORKD)/'
	install -m 0644 dist/udev/* '$(DESTDIR)$(UDEV)/'
	install -m 0644 dist/NetworkManager/* '$(DESTDIR)$(NMCONF)/'

journeys: ## write docs/journeys.md anew, from packets that are sent in throw-away namespaces
	go test ./test/scripts -run 'TestJourneys$$' -count=1 -args -update-journeys

clean:
	rm -rf bin

fuzz: ## every fuzz test, FUZZTIME each
	@set -e; grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | \
	while IFS=: read -r file func; do \
		name=$${func#func }; echo "== $$(dirname $$file) $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname $$file)"; \
	done

soak: ## 32 clients doing random verbs against a model, for five minutes
	TOWPATH_SOAK=$(SOAKTIME) go test ./test/e2e -run 'TestSoak$$' -count=1 -timeout 30m -v | grep -v '^time='

cover: ## coverage by function, the total last; the page is bin/coverage.html
	@mkdir -p bin
	@go run ./test/summary -p 2 -count=1 -timeout 20m -coverprofile=bin/coverage.out $(TESTFLAGS) $(PACKAGES)
	@go tool cover -html=bin/coverage.out -o bin/coverage.html
	@go tool cover -func=bin/coverage.out | tail -n 1
