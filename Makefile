# Needs: Go, git, make. No target but `install` writes outside this folder and Go's own caches,
# and none changes the network of the machine: kernel tests run in network namespaces of their own.

PREFIX    ?= /usr/local
VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
TESTFLAGS ?=
FUZZTIME  ?= 10s
PACKAGES  ?= ./...

# The version comes from VERSION: Go need not ask git, which refuses in a checkout of another user.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

BINARIES := towpath towpathd
LINT     := go tool -modfile=tools/go.mod golangci-lint

.PHONY: build test lint demo install clean fuzz cover

build: ## static binaries in bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ $(BINARIES:%=./cmd/%)

test: ## every test this machine can run, as root or not, and what was skipped and why
	@go run ./test/summary -p 2 -count=1 $(TESTFLAGS) $(PACKAGES)

lint: ## the linter is built from tools/go.mod on first use: some minutes
	$(LINT) run

demo: build ## a tour in throw-away namespaces
	@go run ./test/demo bin

install: ## binaries only; builds them when bin/ is empty, so `make && sudo make install` works
	@test -x bin/towpath -a -x bin/towpathd || $(MAKE) build
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 0755 $(BINARIES:%=bin/%) '$(DESTDIR)$(PREFIX)/bin/'

clean:
	rm -rf bin

fuzz: ## every fuzz test, FUZZTIME each
	@set -e; grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort | \
	while IFS=: read -r file func; do \
		name=$${func#func }; echo "== $$(dirname $$file) $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname $$file)"; \
	done

cover: ## coverage by function, the total last; the page is bin/coverage.html
	@mkdir -p bin
	@go run ./test/summary -p 2 -count=1 -coverprofile=bin/coverage.out $(TESTFLAGS) $(PACKAGES)
	@go tool cover -html=bin/coverage.out -o bin/coverage.html
	@go tool cover -func=bin/coverage.out | tail -n 1
