//go:build linux

package sysctl_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

func TestPath(t *testing.T) {
	for in, want := range map[string]string{
		"net.ipv4.ip_forward":                 "net/ipv4/ip_forward",
		"net/ipv4/ip_forward":                 "net/ipv4/ip_forward",
		"net/ipv4/conf/eth0.10/forwarding":    "net/ipv4/conf/eth0.10/forwarding",
		"net.ipv4.conf.eth0.10.forwarding":    "net/ipv4/conf/eth0.10/forwarding",
		"net.ipv4.conf.eth0/10.forwarding":    "net/ipv4/conf/eth0.10/forwarding",
		"net.ipv6.neigh.a.b.c.base_reachable": "net/ipv6/neigh/a.b.c/base_reachable",
		"net.ipv4.conf.all.rp_filter":         "net/ipv4/conf/all/rp_filter",
		"kernel.hostname":                     "kernel/hostname",
	} {
		got, err := sysctl.Path(in)
		if err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "net", "net//ip", "/net/ipv4", "net/../kernel/x", "net..ipv4", "../x", "net/ipv4/"} {
		if got, err := sysctl.Path(in); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%q is %q (%v), want an error", in, got, err)
		}
	}
}

func TestReadWriteInNamespace(t *testing.T) {
	a, b := testnet.New(t, "a"), testnet.New(t, "b")
	c := a.Conn(t)
	if err := c.AddVeth(t.Context(), rt.VethSpec{LinkSpec: rt.LinkSpec{Name: "eth0.10"}}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv4.conf.eth0.10.route_localnet", "net/ipv6/conf/eth0.10/forwarding"} {
		if err := sysctl.Write(a.F, key, "1"); err != nil {
			t.Fatal(err)
		}
		if got, err := sysctl.Read(a.F, key); err != nil || got != "1" {
			t.Errorf("%s is %q (%v), want 1", key, got, err)
		}
	}
	// The other namespace, and this one, are as they were.
	if got, err := sysctl.Read(b.F, "net.ipv4.ip_forward"); err != nil || got != "0" {
		t.Errorf("ip_forward of the other namespace is %q (%v)", got, err)
	}
	if got, err := sysctl.Read(nil, "net.ipv4.ip_forward"); err != nil || got != "0" {
		t.Errorf("ip_forward of this namespace is %q (%v)", got, err)
	}
	// Several words, without a second thread for each.
	a.Do(t, func() error {
		if err := sysctl.Write(nil, "net/ipv4/ip_local_port_range", "20000 30001"); err != nil {
			return err
		}
		got, err := sysctl.Read(nil, "net/ipv4/ip_local_port_range")
		if strings.Join(strings.Fields(got), " ") != "20000 30001" {
			t.Errorf("ip_local_port_range is %q", got)
		}
		return err
	})
}

func TestErrors(t *testing.T) {
	ns := testnet.New(t, "a")
	var unsupported *sysctl.UnsupportedError
	_, err := sysctl.Read(ns.F, "net.ipv4.no_such_thing")
	if !errors.As(err, &unsupported) || unsupported.Key != "net/ipv4/no_such_thing" || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("missing parameter, read: %v", err)
	}
	if err := sysctl.Write(ns.F, "net.ipv4.conf.lo.no_such_thing", "1"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("missing parameter, write: %v", err)
	}
	err = sysctl.Write(ns.F, "net.ipv4.conf.eth9.forwarding", "1")
	if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "no interface eth9") {
		t.Errorf("missing interface: %v", err)
	}
	if err := sysctl.Write(ns.F, "net.ipv4.ip_forward", "yes"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("wrong value: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	testnet.Require(t, "netns")
	// A bind mount of its own, so that the rest of /proc/sys stays as it is.
	dir := "/proc/sys/net/ipv4"
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	err := sysctl.Write(nil, filepath.Join("net", "ipv4", "ip_forward"), "1")
	if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("read-only /proc/sys: %v", err)
	}
}
