//go:build linux

package xt

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
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
		if f, err := r.Forward(ipv6); f != nil || err != nil {
			t.Errorf("%s, before: %v, %v", tool, f, err)
		}
	}
	for _, step := range []struct {
		args string
		want Forward
	}{
		{"-P FORWARD ACCEPT", Forward{"accept", 0}},
		{"-P FORWARD DROP", Forward{"drop", 0}},
		{"-A FORWARD -i eth0 -p tcp --dport 80 -j ACCEPT", Forward{"drop", 1}},
		{"-A FORWARD -j DROP", Forward{"drop", 2}},
		{"-A INPUT -j DROP", Forward{"drop", 2}},
		{"-F FORWARD", Forward{"drop", 0}},
	} {
		if out, err := exec.Command(tool, strings.Fields(step.args)...).CombinedOutput(); err != nil {
			t.Logf("skip: this kernel has no %s: %v: %s", tool, err, out)
			return
		}
		if f, err := r.Forward(ipv6); err != nil || f == nil || *f != step.want {
			t.Errorf("%s %s: %v, %v, want %v", tool, step.args, f, err, step.want)
		}
	}
}

// FuzzForward: entries that lead nowhere, or in a circle, are an error.
func FuzzForward(f *testing.F) {
	l := layoutOf(false)
	table := make([]byte, 152)
	binary.NativeEndian.PutUint16(table[l.targetAt:], 112)
	binary.NativeEndian.PutUint16(table[l.targetAt+2:], 152)
	binary.NativeEndian.PutUint32(table[144:], ^uint32(0))
	f.Add(table, uint32(0), uint32(0))
	f.Add(table, uint32(0), uint32(152))
	if got, err := l.forward(table, 0, 0); err != nil || got != (Forward{Policy: "drop"}) {
		f.Errorf("one entry: %v, %v", got, err)
	}
	f.Fuzz(func(t *testing.T, table []byte, first, policy uint32) {
		got, err := l.forward(table, first, policy)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("error %v", err)
		}
		if err == nil && (got.Policy == "" || got.Rules > len(table)) {
			t.Errorf("read %v", got)
		}
	})
}
