//go:build linux

package xt

import (
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
		if f, err := r.Forward(ipv6); len(f) > 0 || err != nil {
			t.Errorf("%s, before: %v, %v", tool, f, err)
		}
	}
	for _, step := range []struct{ args, want string }{
		{"-P FORWARD ACCEPT", "accept 0"},
		{"-P FORWARD DROP", "drop 0"},
		{"-A FORWARD -i eth0 -p tcp --dport 80 -j ACCEPT", "drop 1"},
		{"-A FORWARD -j DROP", "drop 2"},
		{"-A INPUT -j DROP", "drop 2"},
		{"-F FORWARD", "drop 0"},
	} {
		if out, err := exec.Command(tool, strings.Fields(step.args)...).CombinedOutput(); err != nil {
			t.Logf("skip: this kernel has no %s: %v: %s", tool, err, out)
			return
		}
		f, err := r.Forward(ipv6)
		if got := forward(f); err != nil || got != step.want {
			t.Errorf("%s %s: %q, %v, want %q", tool, step.args, got, err, step.want)
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
