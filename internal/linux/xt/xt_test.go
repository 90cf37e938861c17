//go:build linux

package xt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// TestForward compares with what the old iptables made, and sees that to
// look makes nothing.
func TestForward(t *testing.T) {
	testnet.Require(t, "netns", "iptables-legacy-binary", "ip6tables-legacy-binary")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not used again: the namespace goes with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make namespace: %v", err)
			return
		}
		for tool, ipv6 := range map[string]bool{"iptables-legacy": false, "ip6tables-legacy": true} {
			testForward(t, tool, ipv6)
		}
	}()
	<-done
}

func testForward(t *testing.T, tool string, ipv6 bool) {
	ns, err := netns.Self()
	if err != nil {
		t.Error(err)
		return
	}
	defer ns.Close()
	r := New(ns)
	defer r.Close()
	for range 2 { // the first look must not make the table
		if f, changed, err := r.Forward(ipv6); len(f) > 0 || changed || err != nil {
			t.Errorf("%s, before: %v, %v", tool, f, err)
		}
	}
	for _, step := range []struct{ args, want string }{
		{"-P FORWARD ACCEPT", "accept 0"},
		{"-P FORWARD DROP", "drop 0"},
		{"-A FORWARD -i eth0 -p tcp --dport 80 -j ACCEPT", "drop 1"},
		{"-A FORWARD -j DROP", "drop 2"},
		{"-A INPUT -j DROP", "drop 2"},
		{"-R FORWARD 2 -j ACCEPT", "drop 2"}, // no byte more
		{"-P FORWARD ACCEPT", "accept 2"},
		{"-t mangle -A FORWARD -j ACCEPT", "accept 2"}, // a table more
		{"-F FORWARD", "accept 0"},
	} {
		if out, err := exec.Command(tool, strings.Fields(step.args)...).CombinedOutput(); err != nil {
			t.Logf("skip: this kernel has no %s: %v: %s", tool, err, out)
			return
		}
		f, changed, err := r.Forward(ipv6)
		if got := forward(f); err != nil || got != step.want || !changed {
			t.Errorf("%s %s: %q, %v, want %q; changed %v", tool, step.args, got, err, step.want, changed)
		}
		again, changed, err := r.Forward(ipv6)
		if err != nil || changed || forward(again) != step.want {
			t.Errorf("%s %s, read again: %q, %v; changed %v", tool, step.args, forward(again), err, changed)
		}
	}
}

// TestSame: counters are no difference, and everything else is one.
func TestSame(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		l := layoutOf(ipv6)
		size := l.matchesAt() + 40
		was := make([]byte, 2*size)
		for at := 0; at < len(was); at += size {
			binary.NativeEndian.PutUint16(was[at+l.targetAt:], uint16(l.matchesAt()))
			binary.NativeEndian.PutUint16(was[at+l.targetAt+2:], uint16(size))
		}
		for i := range was {
			now := bytes.Clone(was)
			now[i] ^= 1
			counter := i%size >= l.matchesAt()-16 && i%size < l.matchesAt()
			if got := l.same(was, now); got != counter {
				t.Errorf("IPv6 %v, byte %d another: same %v", ipv6, i, got)
			}
		}
		if l.same(was, was[:size]) || l.same(was, was[:len(was)-1]) || !l.same(was, was) {
			t.Errorf("IPv6 %v: by length", ipv6)
		}
	}
}

// forward is the chain of table filter in short: its policy, and how many rules.
func forward(tables []nft.TableDef) string {
	for _, t := range tables {
		for _, c := range t.Chains {
			if t.Name == nft.LegacyTable+"filter" && c.Hook == "forward" {
				return fmt.Sprintf("%s %d", c.Policy, len(c.Rules))
			}
		}
	}
	return ""
}
