// Package test checks the module as a whole: who imports what, that packages say their job, and
// what the files must not mention.
package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module  = "github.com/towpath/towpath"
	netlink = "github.com/mdlayher/netlink/..."
	unix    = "golang.org/x/sys/unix"
)

// arrow says what the packages that match from may import: packages of this module (named without
// its path) and of other modules. "x/..." is x and all below it. The standard library is open to
// all, but its impure parts to a pure package only when named.
type arrow struct {
	from string
	to   []string
	pure bool // plain values in and out: no files, processes, system calls or HTTP
}

// arrows is the architecture. The first line that matches a package holds; a package that no line
// matches is an error, so that a new package gets its place here. Test files are exempt.
func arrows() []arrow {
	return []arrow{
		// os: a namespace is handed over as an open file; net/http: the status code of an error kind.
		{from: "api", to: []string{"os", "net/http"}, pure: true},
		{from: "client", to: []string{"api"}},

		{from: "internal/author", pure: true},
		{from: "internal/nft", pure: true},
		{from: "internal/kernel", to: []string{"internal/nft"}, pure: true},
		{from: "internal/kernel/fake", to: []string{"internal/kernel"}, pure: true},
		{from: "internal/ipam", to: []string{"go4.org/netipx"}, pure: true},
		{from: "internal/driver", to: []string{"api", "internal/kernel", "internal/nft", "github.com/tidwall/btree"}, pure: true},
		{from: "internal/machine", to: []string{"internal/kernel", "internal/nft"}, pure: true},
		{from: "internal/firewall", to: []string{"internal/author", "internal/kernel", "internal/nft"}, pure: true},
		{from: "internal/walk", to: []string{"api", "internal/author", "internal/machine", "internal/nft"}, pure: true},
		{from: "internal/owner", to: []string{"internal/machine"}, pure: true},
		{from: "internal/topology", to: []string{"api", "internal/author", "internal/machine", "internal/nft", "internal/owner"}, pure: true},
		{from: "internal/doctor", to: []string{"api", "internal/author", "internal/firewall", "internal/kernel", "internal/machine", "internal/nft", "internal/owner", "internal/topology"}, pure: true},
		{from: "internal/reach", to: []string{"api", "internal/machine", "internal/nft", "internal/owner", "internal/topology", "internal/walk"}, pure: true},
		{from: "internal/explain", to: []string{"api", "internal/author", "internal/machine", "internal/nft", "internal/owner", "internal/walk"}, pure: true},
		{from: "internal/draw", to: []string{"api"}, pure: true},
		{from: "internal/openapi", pure: true},
		{from: "internal/cni", to: []string{"api"}, pure: true},
		{from: "internal/docker", to: []string{"api"}, pure: true},
		{from: "internal/netavark", to: []string{"api"}, pure: true},

		{from: "internal/store/storetest", to: []string{"api", "internal/store/...", "github.com/google/go-cmp/...", "pgregory.net/rapid"}},
		{from: "internal/store/...", to: []string{"api", "internal/store/...", "go.etcd.io/..."}},
		{from: "internal/event", to: []string{"api"}},
		{from: "internal/metrics", to: []string{"github.com/prometheus/..."}},
		{from: "internal/fdstore", to: []string{unix, "github.com/coreos/go-systemd/..."}},
		{from: "internal/fault", to: []string{"internal/store"}},
		{from: "internal/reconcile", to: []string{"api", "internal/driver", "internal/kernel", "internal/nft"}},
		{from: "internal/engine", to: []string{"api", "internal/ipam", "internal/store/...", "internal/driver", "internal/firewall", "internal/kernel", "internal/nft", "internal/reconcile"}},
		{from: "internal/server/servertest", to: []string{"api", "internal/event", "internal/server"}},
		{from: "internal/server", to: []string{"api", "internal/openapi", unix}},

		{from: "internal/linux/engines", to: []string{"internal/machine", "internal/owner"}},
		{from: "internal/linux/...", to: []string{"internal/kernel", "internal/machine", "internal/nft", "internal/linux/...", netlink, unix}},
		{from: "internal/ports", to: []string{"api", "internal/kernel", netlink, unix}},
		{from: "internal/dns", to: []string{"api", "golang.org/x/net/..."}},
		{from: "internal/trace/bpf", to: []string{"internal/linux/netns", "internal/trace", "github.com/cilium/ebpf/...", unix}},
		{from: "internal/trace/...", to: []string{"api", "internal/explain", "internal/kernel", "internal/machine", "internal/nft", "internal/linux/...", "internal/trace/...", netlink, unix}},
		{from: "internal/firewalld", to: []string{"github.com/godbus/dbus/..."}},
		{from: "internal/spawn", to: []string{"api", netlink, unix}},
		{from: "internal/term", to: []string{"api", "golang.org/x/term"}},
		{from: "internal/testnet", to: []string{"internal/linux/...", netlink, unix}},

		{from: "cmd/towpath", to: []string{"api", "client", "internal/draw", "internal/spawn", "internal/term", "internal/docker", "github.com/spf13/...", unix}},
		{from: "cmd/towpath-cni", to: []string{"api", "client", "internal/cni"}},
		{from: "cmd/towpath-netavark", to: []string{"api", "client", "internal/netavark"}},
		{from: "cmd/towpathd", to: daemonParts()},

		{from: "dist/gen"},
		{from: "test/summary"},
		{from: "test/bench", to: []string{"api", "client", "internal/testnet", "internal/store", "internal/store/bolt", "internal/linux/...", "internal/nft", "internal/trace", "internal/trace/bpf", "github.com/cilium/ebpf/...", unix}},
		{from: "test/dnsbench", to: []string{"internal/dns", "internal/linux/netns", "internal/testnet", unix}},
		{from: "test/demo", to: []string{"api", "internal/testnet", "internal/linux/netns", "internal/linux/rt"}},
		{from: "test/...", to: []string{"api", "client", "internal/testnet", unix}},
	}
}

// daemonParts is everything that is wired together; what only tests or the command line need is
// not among it.
func daemonParts() []string {
	return []string{
		"api", "internal/author", "internal/nft", "internal/kernel", "internal/ipam", "internal/driver", "internal/explain", "internal/machine", "internal/owner", "internal/walk",
		"internal/topology", "internal/doctor", "internal/reach", "internal/store", "internal/store/mem", "internal/store/bolt",
		"internal/store/etcd", "internal/fault", "internal/event", "internal/metrics", "internal/reconcile", "internal/engine", "internal/firewall", "internal/firewalld", "internal/server", "internal/linux/...",
		"internal/ports", "internal/dns", "internal/trace/...", "github.com/spf13/...",
		"internal/term", // for the near ones of a flag that it does not know
		"internal/fdstore", "github.com/coreos/go-systemd/...", "go.yaml.in/yaml/v4", unix,
	}
}

// impure are the parts of the standard library that reach outside of the process.
func impure() []string {
	return []string{"os", "os/...", "syscall", "net/http/...", "net/rpc/...", "plugin"}
}

// pkg is what `go list -json` tells of a package.
type pkg struct {
	ImportPath string
	Doc        string
	GoFiles    []string
	Imports    []string
	Standard   bool
}

// path is the import path without that of the module.
func (p pkg) path() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

// ours lists the packages of the module, their imports as paths inside it; std tells which imports
// are of the standard library.
func ours(t *testing.T) (pkgs []pkg, std map[string]bool) {
	t.Helper()
	std = map[string]bool{"C": true, "unsafe": true}
	dec := json.NewDecoder(bytes.NewReader(output(t, "go", "list", "-deps", "-json=ImportPath,Doc,GoFiles,Imports,Standard", "./...")))
	for {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs, std
		}
		if err != nil {
			t.Fatalf("read package list: %v", err)
		}
		if p.Standard {
			std[p.ImportPath] = true
		}
		if strings.HasPrefix(p.ImportPath, module+"/") {
			pkgs = append(pkgs, p)
		}
	}
}

// output runs a command in the top folder of the module.
func output(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = ".."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("run %s %s: %v\n%s", name, args[0], err, stderr.String())
	}
	return out
}

// matches tells whether path is what pattern names.
func matches(pattern, path string) bool {
	parent, below := strings.CutSuffix(pattern, "/...")
	return path == parent || below && strings.HasPrefix(path, parent+"/")
}

func matchesAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return matches(pattern, path) })
}

// wrong names each import of p that the table does not allow.
func wrong(table []arrow, p pkg, std map[string]bool) (found []string) {
	at := slices.IndexFunc(table, func(a arrow) bool { return matches(a.from, p.path()) })
	if at < 0 {
		return []string{p.path() + " has no place in the table of arrows: add what it may import"}
	}
	rule := table[at]
	for _, imported := range p.Imports {
		short := strings.TrimPrefix(imported, module+"/")
		switch {
		case matchesAny(rule.to, short):
		case std[imported] && rule.pure && matchesAny(impure(), imported):
			found = append(found, fmt.Sprintf("%s -> %s: a pure package reaches outside of the process", p.path(), imported))
		case !std[imported]:
			found = append(found, fmt.Sprintf("%s -> %s: it may import only the standard library and %v", p.path(), short, rule.to))
		}
	}
	return found
}

func TestArrows(t *testing.T) {
	pkgs, std := ours(t)
	for _, p := range pkgs {
		for _, offence := range wrong(arrows(), p, std) {
			t.Error(offence)
		}
	}
	if len(pkgs) == 0 {
		t.Error("go list names no package of the module")
	}
}

func TestArrowsFindOffences(t *testing.T) {
	std := map[string]bool{"fmt": true, "os": true, "os/exec": true}
	tests := []struct {
		from, imported, want string // want: "" or the start of the complaint
	}{
		{"api", "fmt", ""},
		{"api", "os/exec", "api -> os/exec: a pure package"},
		{"api", module + "/internal/nft", "api -> internal/nft: it may import only"},
		{"internal/kernel", module + "/internal/nft", ""},
		{"internal/linux/rt", "github.com/mdlayher/netlink", ""},
		{"internal/linux/rt", "github.com/mdlayher/netlink/nlenc", ""},
		{"internal/linux/rt", module + "/internal/linux/netns", ""},
		{"internal/linuxes", "fmt", "internal/linuxes has no place"},
		{"internal/engine", "os", ""},
		{"internal/engine", module + "/internal/linux/rt", "internal/engine -> internal/linux/rt: it may"},
		{"internal/server", module + "/internal/engine", "internal/server -> internal/engine: it may"},
		{"cmd/towpathd", module + "/internal/testnet", "cmd/towpathd -> internal/testnet: it may"},
	}
	for _, tt := range tests {
		p := pkg{ImportPath: module + "/" + tt.from, Imports: []string{tt.imported}}
		got := strings.Join(wrong(arrows(), p, std), "; ")
		if (got == "") != (tt.want == "") || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s -> %s: got %q, want %q", tt.from, tt.imported, got, tt.want)
		}
	}
}

// TestPackagesSayTheirJob asks for a doc comment of more than the name.
func TestPackagesSayTheirJob(t *testing.T) {
	pkgs, _ := ours(t)
	for _, p := range pkgs {
		if len(p.GoFiles) > 0 && len(strings.Fields(p.Doc)) < 4 {
			t.Errorf("%s: no doc comment that says its job (doc: %q)", p.path(), p.Doc)
		}
	}
}

// TestNoPrivatePlaces: a file must mean the same on any machine.
func TestNoPrivatePlaces(t *testing.T) {
	if _, err := os.Stat(filepath.Join("..", ".git")); errors.Is(err, fs.ErrNotExist) {
		t.Skip("needs a git checkout: no .git here")
	}
	// git refuses a checkout of another user because of what its hooks might run; a list runs none.
	list := output(t, "git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	names := strings.Split(string(list), "\x00")
	work := "/" + "work" + "/" // in pieces, as this file is read too
	words := []string{work + "main", work + "shared", "../" + "shared"}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("..", name))
		if name == "" || err != nil { // the end of the list; removed but still tracked; a link to a folder
			continue
		}
		for _, word := range words {
			if bytes.Contains(text, []byte(word)) {
				t.Errorf("%s mentions %s", name, word)
			}
		}
	}
}
