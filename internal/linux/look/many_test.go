//go:build linux

package look_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/look"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/testnet"
)

// crowd is how many namespaces the benchmarks have.
const crowd = 500

// crowded makes a machine with many containers: namespaces that are bound, linked
// to the host, and have a process each.
func crowded(b *testing.B) (c look.Config, host *testnet.NS) {
	b.Helper()
	testnet.Require(b, "netns")
	host = testnet.New(b, "host")
	dir := filepath.Join(b.TempDir(), "netns")
	b.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			b.Error(err)
		}
	})
	for i := range crowd {
		ns := testnet.New(b, fmt.Sprintf("c%d", i))
		path := filepath.Join(dir, ns.Name)
		if err := netns.Bind(ns.FD(), path); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := netns.Remove(path); err != nil {
				b.Error(err)
			}
		})
		cmd := exec.CommandContext(b.Context(), "sleep", "600")
		if err := ns.Start(cmd); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = errors.Join(cmd.Process.Kill(), cmd.Wait()) })
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(i%250 + 1)})
		testnet.Link(b, host, ns, fmt.Sprintf("v%d", i), "eth0", nil, []netip.Prefix{netip.PrefixFrom(addr, 24)})
	}
	return look.Config{Self: host.F, RunDir: filepath.Dir(dir), Owners: true, Limits: look.DefaultLimits()}, host
}

// BenchmarkNamespaces is what it costs to list the namespaces.
func BenchmarkNamespaces(b *testing.B) {
	c, _ := crowded(b)
	l := look.List(c)
	b.Cleanup(func() { l.Close() })
	for b.Loop() {
		if list, err := l.Inodes(); err != nil || len(list) <= crowd {
			b.Fatal(len(list), err)
		}
	}
}

// BenchmarkMachine is what it costs to read the machine.
func BenchmarkMachine(b *testing.B) {
	c, _ := crowded(b)
	for b.Loop() {
		if h, err := look.Machine(b.Context(), c); err != nil || len(h.Spaces) <= crowd {
			b.Fatal(len(h.Spaces), err)
		}
	}
}

// BenchmarkMachineAgain is what it costs to read what is new of it, one namespace.
func BenchmarkMachineAgain(b *testing.B) {
	c, _ := crowded(b)
	h, err := look.Machine(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	c.Earlier = &look.Earlier{Host: &h, Again: []uint64{h.Space("c7").Inode}}
	for b.Loop() {
		if h, err := look.Machine(b.Context(), c); err != nil || len(h.Spaces) <= crowd {
			b.Fatal(len(h.Spaces), err)
		}
	}
}
