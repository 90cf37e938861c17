//go:build linux

package xt

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/testnet"
)

// BenchmarkForward reads a table of many rules that nobody changes.
func BenchmarkForward(b *testing.B) {
	testnet.Require(b, "netns", "iptables-legacy-binary")
	for _, n := range []int{0, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread() // not used again: the namespace goes with it
				benchmark(b, n)
			}()
			<-done
		})
	}
}

// TestLongTable: a change that leaves a long table its size is seen a little
// later, and one that does not at once.
func TestLongTable(t *testing.T) {
	testnet.Require(t, "netns", "iptables-legacy-binary")
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not used again: the namespace goes with it
		longTable(t)
	}()
	<-done
}

func longTable(t *testing.T) {
	ns, r := filled(t, 5000)
	if r == nil {
		return
	}
	defer ns.Close()
	defer r.Close()
	first, _, err := r.Forward(false)
	if err != nil || forward(first) != "accept 5000" {
		t.Errorf("first %q, %v", forward(first), err)
	}
	iptables := func(args ...string) {
		if out, err := exec.Command("iptables-legacy", args...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v: %s", args, err, out)
		}
	}
	iptables("-A", "FORWARD", "-j", "ACCEPT")
	if now, changed, err := r.Forward(false); err != nil || !changed || forward(now) != "accept 5001" {
		t.Errorf("a rule more: %q, changed %v, %v", forward(now), changed, err)
	}
	iptables("-P", "FORWARD", "DROP")
	for end := time.Now().Add(10 * time.Second); ; {
		now, changed, err := r.Forward(false)
		if err != nil || time.Now().After(end) {
			t.Errorf("the policy is not seen: %q, %v", forward(now), err)
			return
		}
		if changed {
			if forward(now) != "drop 5001" {
				t.Errorf("the policy: %q", forward(now))
			}
			return
		}
	}
}

func benchmark(b *testing.B, n int) {
	ns, r := filled(b, n)
	if r == nil {
		return
	}
	defer ns.Close()
	defer r.Close()
	for b.Loop() {
		if _, _, err := r.Forward(false); err != nil {
			b.Error(err)
		}
	}
}

// filled takes the thread to a namespace with so many rules; nil where the kernel
// has none.
func filled(t testing.TB, n int) (*os.File, *Reader) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Errorf("make namespace: %v", err)
		return nil, nil
	}
	restore := exec.Command("iptables-legacy-restore")
	restore.Stdin = strings.NewReader("*filter\n" + manyRules(n) + "COMMIT\n")
	if out, err := restore.CombinedOutput(); err != nil {
		t.Logf("skip: this kernel has no iptables-legacy: %v: %s", err, out)
		return nil, nil
	}
	ns, err := netns.Self()
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	return ns, New(ns)
}

func manyRules(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, "-A FORWARD -d 10.%d.%d.1/32 -p tcp -m tcp --dport %d -j ACCEPT\n", i/256, i%256, 1000+i%60000)
	}
	return s.String()
}
