//go:build linux

package taps_test

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace/taps"
)

// TestManyLinks: a chain takes 255 links, and a machine may have more.
func TestManyLinks(t *testing.T) {
	testnet.Require(t, "netns")
	const pairs = 130
	ns := testnet.New(t, "ns")
	c := ns.Conn(t)
	var exits []string
	links := map[int]string{}
	for i := range pairs {
		a, b := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
		if err := c.AddVeth(t.Context(), rt.VethSpec{LinkSpec: rt.LinkSpec{Name: a}, Peer: rt.LinkSpec{Name: b}}); err != nil {
			t.Fatal(err)
		}
		exits, links[2*i+2], links[2*i+3] = append(exits, a, b), a, b
	}
	for _, source := range []string{"198.51.100.1", "2001:db8::1"} {
		s, err := taps.Open(t.Context(), []taps.Space{{Name: "ns", File: ns.F, Links: links}}, unix.IPPROTO_TCP, 40000)
		if err != nil {
			t.Fatal(err)
		}
		stop := taps.Stop{Proto: unix.IPPROTO_TCP, Mark: 40000, Source: netip.MustParseAddr(source), Exits: map[string][]string{"ns": exits, "other": nil}}
		if err := s.Stop(t.Context(), stop); err != nil {
			t.Error(err)
		}
		for _, hook := range []string{"ingress", "egress"} {
			if n := hooked(t, ns, hook); n != len(exits) {
				t.Errorf("%s: %d links, want %d", hook, n, len(exits))
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// hooked counts the links of the chains of a hook.
func hooked(t *testing.T, ns *testnet.NS, hook string) (n int) {
	t.Helper()
	c, err := nft.Dial(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // only read
	list, err := c.Tables(t.Context(), rules.FamilyNetdev)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range list {
		def, err := c.ReadTable(t.Context(), rules.FamilyNetdev, table.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range def.Chains {
			if x.Hook == hook {
				n += len(x.Devices)
			}
		}
	}
	return n
}
