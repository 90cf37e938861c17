//go:build linux

package xt

import (
	"encoding/binary"
	"errors"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

// TestTables reads what the old iptables made, in the words of nft.
func TestTables(t *testing.T) {
	testnet.Require(t, "netns", "iptables-legacy-binary", "ip6tables-legacy-binary")
	for _, c := range []struct {
		tool string
		ipv6 bool
		args []string
		want []string
	}{
		{"iptables-legacy", false, []string{
			"-P FORWARD DROP", "-N mine", "-A FORWARD -s 10.0.0.0/8 ! -d 10.1.2.3 -i eth0 -o veth+ -p tcp --dport 80 -j mine",
			"-A FORWARD ! -p udp -g mine", "-A mine -m comment --comment here -j RETURN", "-A mine -j ACCEPT", "-t nat -A POSTROUTING -j MASQUERADE",
		}, []string{
			"FORWARD forward 0 drop 1: ip saddr 10.0.0.0/8 ip daddr != 10.1.2.3 iifname \"eth0\" oifname \"veth*\" meta l4proto tcp xt match \"tcp\" jump mine",
			"FORWARD forward 0 drop 2: meta l4proto != udp goto mine",
			"mine  0  1: xt match \"comment\" return", "mine  0  2: accept", "POSTROUTING postrouting 100 accept 1: xt target \"MASQUERADE\"",
		}},
		{"ip6tables-legacy", true, []string{"-A INPUT -s fd00::/16 -p icmpv6 -j DROP", "-A OUTPUT ! -o lo -j DROP"}, []string{
			"INPUT input 0 accept 1: ip6 saddr fd00::/16 meta l4proto ipv6-icmp drop", "OUTPUT output 0 accept 1: oifname != \"lo\" drop",
		}},
	} {
		t.Run(c.tool, func(t *testing.T) {
			got, ok := legacyTables(t, c.tool, c.args, c.ipv6)
			if !ok {
				return
			}
			for _, want := range c.want {
				if !slices.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, strings.Join(got, "\n"))
				}
			}
		})
	}
}

// legacyTables makes rules in a namespace of their own, and reads them; not ok:
// the kernel has none.
func legacyTables(t *testing.T, tool string, args []string, ipv6 bool) (lines []string, ok bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not used again: the namespace goes with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("make namespace: %v", err)
			return
		}
		for _, a := range args {
			if out, err := exec.Command(tool, strings.Fields(a)...).CombinedOutput(); err != nil {
				t.Logf("skip: this kernel has no %s: %v: %s", tool, err, out)
				return
			}
		}
		ns, err := netns.Self()
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close()
		r := New(ns)
		defer r.Close()
		tables, err := r.Tables(ipv6)
		if err != nil {
			t.Error(err)
		}
		for _, d := range tables {
			lines = append(lines, linesOf(t, d)...)
		}
		ok = true
	}()
	<-done
	return lines, ok
}

func linesOf(t *testing.T, d nft.TableDef) []string {
	if !strings.HasPrefix(d.Name, nft.LegacyTable) {
		t.Errorf("table %q", d.Name)
	}
	var out []string
	for _, c := range d.Chains {
		for i, r := range c.Rules {
			if r.Handle != uint64(i+1) {
				t.Errorf("rule %d has number %d", i+1, r.Handle)
			}
			out = append(out, strings.Join([]string{c.Name, c.Hook, strconv.Itoa(c.Priority), c.Policy, strconv.Itoa(i+1) + ":", r.String()}, " "))
		}
	}
	return out
}

// hookForward is NF_INET_FORWARD.
const hookForward = 2

// FuzzTables: entries that do not hold together are an error.
func FuzzTables(f *testing.F) {
	for _, ipv6 := range []bool{false, true} {
		l := layoutOf(ipv6)
		target := l.matchesAt()
		table := make([]byte, target+40)
		binary.NativeEndian.PutUint16(table[l.targetAt:], uint16(target))
		binary.NativeEndian.PutUint16(table[l.targetAt+2:], uint16(len(table)))
		binary.NativeEndian.PutUint16(table[target:], 40)
		binary.NativeEndian.PutUint32(table[target+xtHeader:], ^uint32(0))
		got, err := l.table("filter", info{ValidHooks: 1 << hookForward}, table)
		if err != nil || len(got.Chains) != 1 || got.Chains[0].Policy != "drop" || len(got.Chains[0].Rules) != 0 {
			f.Errorf("one entry: %+v, %v", got, err)
		}
		f.Add(table, ipv6, uint32(0), uint32(0))
	}
	f.Fuzz(func(t *testing.T, table []byte, ipv6 bool, first, policy uint32) {
		in := info{ValidHooks: 1 << hookForward}
		in.HookEntry[hookForward], in.Underflow[hookForward] = first, policy
		if _, err := layoutOf(ipv6).table("filter", in, table); err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("error %v", err)
		}
	})
}
