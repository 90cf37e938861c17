package spawn

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
)

func TestHosts(t *testing.T) {
	got := Hosts([]netip.Addr{netip.MustParseAddr("172.20.0.2"), netip.MustParseAddr("fd00::2")}, "web.example.org", "web", "")
	for _, want := range []string{"127.0.0.1\tlocalhost\n", "\n172.20.0.2\tweb.example.org web\n", "\nfd00::2\tweb.example.org web\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

func TestReachable(t *testing.T) {
	for _, c := range []struct {
		name, in, out string
		some          bool
	}{
		{"kept", "search a b\nnameserver 192.0.2.1\noptions ndots:2\n", "search a b\nnameserver 192.0.2.1\noptions ndots:2\n", true},
		{"stub resolver", "# by resolved\nnameserver 127.0.0.53\noptions edns0\n", "# by resolved\noptions edns0\n", false},
		{"mixed", "nameserver ::1\nnameserver 2001:db8::1", "nameserver 2001:db8::1", true},
		{"another zone's", "nameserver fe80::1%eth0\n", "", false},
		{"mapped", "nameserver ::ffff:127.0.0.1\n", "", false},
		{"the unspecified is the host itself", "nameserver 0.0.0.0\n", "", false},
		{"nonsense", "nameserver\nnameserver x\n", "nameserver\n", false},
		{"empty", "", "", false},
	} {
		if out, some := reachable(c.in); out != c.out || some != c.some {
			t.Errorf("%s: %q %v", c.name, out, some)
		}
	}
}

func TestMountsBelow(t *testing.T) {
	info := `22 1 0:20 / / rw - ext4 a b
23 22 0:21 / /sys rw - sysfs a b
24 23 0:22 / /sys/fs/cgroup rw - tmpfs a b
25 24 0:23 / /sys/fs/cgroup/cpu rw - cgroup a b
26 23 0:24 / /sys/kernel/a\040b rw - x a b
27 22 0:25 / /system rw - x a b
`
	if got := mountsBelow(info, "/sys"); !slices.Equal(got, []string{"/sys/fs/cgroup", "/sys/kernel/a b"}) {
		t.Errorf("got %q", got)
	}
}

func TestOpenNetns(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(fifo, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		code api.Code
	}{
		{"/proc/self/ns/net", ""},
		{"/proc/self/ns/uts", api.Invalid},
		{fifo, api.Invalid},
		{"/nonexistent", api.NotFound},
	} {
		f, err := OpenNetns(c.path)
		if c.code == "" && err != nil || c.code != "" && (err == nil || api.CodeOf(err) != c.code) {
			t.Errorf("%s: %v", c.path, err)
		}
		_ = f.Close()
	}
}

func TestOpenPIDNetns(t *testing.T) {
	f, err := OpenPIDNetns(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat("/proc/self/ns/net")
	if err != nil || !os.SameFile(got, want) {
		t.Errorf("another namespace: %v", err)
	}
	for pid, code := range map[int]api.Code{-1: api.Invalid, 1 << 22: api.NotFound} {
		if _, err := OpenPIDNetns(pid); api.CodeOf(err) != code || err == nil {
			t.Errorf("%d: %v", pid, err)
		}
	}
}
