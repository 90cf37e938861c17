package dns

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

func TestParseConf(t *testing.T) {
	for _, tt := range []struct {
		text string
		want string // servers, search, options
	}{
		{"", "[] [] []"},
		{"nameserver 192.0.2.1\nnameserver 2001:db8::1\n", "[192.0.2.1 2001:db8::1] [] []"},
		{"nameserver 192.0.2.1\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4", "[192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4] [] []"},
		{"# nameserver 192.0.2.1\n; nameserver 192.0.2.2\n nameserver 192.0.2.3\n", "[] [] []"},
		{"nameserver fe80::1%eth0 # by DHCP\nnameserver example.org\nnameserver\n", "[fe80::1%eth0] [] []"},
		{"nameserver\t192.0.2.1\r\nsearch a.example b.example\ndomain c.example d.example\noptions ndots:2\noptions edns0 trust-ad\n", "[192.0.2.1] [c.example] [ndots:2 edns0 trust-ad]"},
	} {
		c := ParseConf(tt.text)
		if got := fmt.Sprint(c.Nameservers, c.Search, c.Options); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}

// fileHost is a file system with a resolv.conf.
type fileHost struct {
	t       *testing.T
	root    string
	changes chan Conf
	conf    *HostConf
}

func newHost(t *testing.T, files map[string]string) *fileHost {
	h := &fileHost{t: t, root: t.TempDir(), changes: make(chan Conf, 100)}
	for name, text := range files {
		h.write(name, text)
	}
	return h
}

func (h *fileHost) path(name string) string { return filepath.Join(h.root, name) }

func (h *fileHost) write(name, text string) {
	h.t.Helper()
	must(h.t, os.MkdirAll(filepath.Dir(h.path(name)), 0o755))
	must(h.t, os.WriteFile(h.path(name), []byte(text), 0o644))
}

// replace renames a new file over the old one, as programs do.
func (h *fileHost) replace(name, text string) {
	h.t.Helper()
	h.write(name+".new", text)
	must(h.t, os.Rename(h.path(name+".new"), h.path(name)))
}

func (h *fileHost) link(name, target string) {
	h.t.Helper()
	must(h.t, os.MkdirAll(filepath.Dir(h.path(name)), 0o755))
	must(h.t, os.Symlink(target, h.path(name)+".new"))
	must(h.t, os.Rename(h.path(name)+".new", h.path(name)))
}

func (h *fileHost) watch() {
	h.t.Helper()
	var err error
	h.conf, err = WatchHostConf(h.path("etc/resolv.conf"), h.path("run/systemd/resolve/resolv.conf"), func(c Conf) { h.changes <- c })
	must(h.t, err)
	h.t.Cleanup(func() { must(h.t, h.conf.Close()) })
}

// becomes waits for a change that leaves these servers.
func (h *fileHost) becomes(want string) {
	h.t.Helper()
	<-h.changes
	h.is(want)
}

func (h *fileHost) is(want string) {
	h.t.Helper()
	if got := fmt.Sprint(h.conf.Upstreams()); got != want {
		h.t.Errorf("upstreams %s, want %s", got, want)
	}
}

// TestHostConfFollows changes the file in the ways that programs have.
func TestHostConfFollows(t *testing.T) {
	h := newHost(t, map[string]string{"etc/resolv.conf": "nameserver 192.0.2.1\nsearch example.org\n"})
	h.watch()
	h.is("[192.0.2.1:53]")
	if diff := cmp.Diff([]string{"example.org"}, h.conf.Conf().Search); diff != "" {
		t.Error(diff)
	}
	before := h.conf.Upstreams()
	h.write("etc/resolv.conf", "nameserver 192.0.2.2\n")
	h.becomes("[192.0.2.2:53]")
	if before[0].String() != "192.0.2.1:53" {
		t.Error("a list that was given out has changed")
	}
	h.replace("etc/resolv.conf", "nameserver 192.0.2.3\n")
	h.becomes("[192.0.2.3:53]")
	must(t, os.Remove(h.path("etc/resolv.conf"))) // keeps the last
	h.write("etc/resolv.conf", "# nothing yet\n")
	h.write("etc/resolv.conf", "nameserver 192.0.2.4\n")
	h.becomes("[192.0.2.4:53]")
	h.write("run/vpn/resolv.conf", "nameserver 192.0.2.5\n")
	h.link("etc/resolv.conf", "../run/vpn/resolv.conf")
	h.becomes("[192.0.2.5:53]")
	h.replace("run/vpn/resolv.conf", "nameserver 192.0.2.6\n")
	h.becomes("[192.0.2.6:53]")
	h.replace("etc/resolv.conf", "nameserver 192.0.2.7\n")
	h.becomes("[192.0.2.7:53]")
}

// TestHostConfOfResolved: the stub stands for what it asks, also if that is
// known only later.
func TestHostConfOfResolved(t *testing.T) {
	h := newHost(t, map[string]string{"run/systemd/resolve/stub-resolv.conf": "nameserver 127.0.0.53\noptions edns0\nsearch example.org\n"})
	h.link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
	h.watch()
	h.is("[127.0.0.53:53]")
	h.write("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch other.example\n")
	h.becomes("[192.0.2.1:53 192.0.2.2:53]")
	if got := h.conf.Conf().Search; len(got) != 1 || got[0] != "example.org" {
		t.Errorf("search %v", got)
	}
	h.replace("run/systemd/resolve/resolv.conf", "nameserver 198.51.100.1\n") // a VPN comes up
	h.becomes("[198.51.100.1:53]")
}

// TestHostConfLater: nothing is there at first, not even the folder.
func TestHostConfLater(t *testing.T) {
	h := newHost(t, nil)
	h.watch()
	h.is("[]")
	h.write("etc/resolv.conf", "nameserver 192.0.2.1\n")
	h.becomes("[192.0.2.1:53]")
	must(t, os.RemoveAll(h.path("etc")))
	h.write("etc/resolv.conf", "nameserver 192.0.2.2\n")
	h.becomes("[192.0.2.2:53]")
}

// TestHostConfMounted: the file of another place is mounted over it, as ip-netns
// does.
func TestHostConfMounted(t *testing.T) {
	testnet.Require(t, "netns")
	h := newHost(t, map[string]string{"etc/resolv.conf": "nameserver 192.0.2.1\n", "etc/netns/a/resolv.conf": "nameserver 192.0.2.2\n"})
	must(t, unix.Mount(h.path("etc/netns/a/resolv.conf"), h.path("etc/resolv.conf"), "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(h.path("etc/resolv.conf"), unix.MNT_DETACH)) })
	h.watch()
	h.is("[192.0.2.2:53]")
	h.write("etc/netns/a/resolv.conf", "nameserver 192.0.2.3\n")
	h.becomes("[192.0.2.3:53]")
}

// TestHostConfLoop: links that go round are no file.
func TestHostConfLoop(t *testing.T) {
	h := newHost(t, nil)
	h.link("etc/resolv.conf", "resolv.conf")
	if c, err := WatchHostConf(h.path("etc/resolv.conf"), h.path("resolved"), nil); err == nil {
		c.Close()
		t.Error("no error")
	}
}

// FuzzParseConf: whatever is in the file, what is read of it can be asked.
func FuzzParseConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\nsearch example.org\noptions ndots:1\n")
	f.Add("nameserver ::ffff:192.0.2.1\nnameserver fe80::1%eth0\r\ndomain a b")
	f.Add("nameserver\x00 1.1.1.1\n\n;")
	f.Fuzz(func(t *testing.T, text string) {
		c := ParseConf(text)
		for i, a := range c.Upstreams() {
			if !a.IsValid() || a.Addr().Is4In6() || a.Port() != Port {
				t.Errorf("%q: upstream %d is %v", text, i, a)
			}
		}
	})
}
