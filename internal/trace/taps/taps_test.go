//go:build linux

package taps_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace"
	"github.com/towpath/towpath/internal/trace/taps"
)

// tables are the names of those in a namespace.
func tables(t *testing.T, ns *testnet.NS) string {
	t.Helper()
	c, err := nft.Dial(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // only read
	list, err := c.Tables(t.Context(), rules.FamilyInet)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, x := range list {
		names = append(names, x.Name)
	}
	return strings.Join(names, " ")
}

// TestNothingStays: each watch has a table of its own, which goes with it.
func TestNothingStays(t *testing.T) {
	testnet.Require(t, "netns")
	ns := testnet.New(t, "ns")
	spaces := []taps.Space{{Name: "ns", File: ns.F}}
	var open []*taps.Session
	for _, mark := range []trace.Mark{0, 40000, 0} {
		s, err := taps.Open(t.Context(), spaces, 6, mark)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	if got := tables(t, ns); got != "towpath_trace towpath_trace_2 towpath_trace_3" {
		t.Errorf("tables %q", got)
	}
	for _, s := range open {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := tables(t, ns); got != "" {
		t.Errorf("tables %q are left", got)
	}
}

// TestHears sees a datagram that nobody takes on the loopback, and the error that
// says so, in both families.
func TestHears(t *testing.T) {
	testnet.Require(t, "netns")
	ns := testnet.New(t, "ns")
	for _, dst := range []string{"127.0.0.1:9", "[::1]:9"} {
		to := netip.MustParseAddrPort(dst)
		mark, release, err := taps.Port(ns.F, to.Addr().Is6())
		if err != nil {
			t.Fatal(err)
		}
		s, err := taps.Open(t.Context(), []taps.Space{{Name: "ns", File: ns.F, Links: map[int]string{1: "lo"}}}, 17, mark)
		if err != nil {
			t.Fatal(err)
		}
		release()
		start := time.Now()
		sent, err := taps.Send(ns.F, taps.Shot{Proto: "udp", Dst: to, Mark: mark})
		if err != nil {
			t.Fatal(err)
		}
		w, err := s.Hear(t.Context(), start, func(w *trace.Watch) bool { return len(w.Sightings) >= 4 })
		if err != nil || w.Lost {
			t.Errorf("%v, lost %v", err, w.Lost)
		}
		for i, x := range w.Sightings {
			if x.Link != "lo" || x.Space != "ns" || x.Out != (i%2 == 0) || (x.Quoted != nil) != (i >= 2) {
				t.Errorf("%s: sighting %d: %+v", dst, i, x)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := sent.Close(); err != nil {
			t.Error(err)
		}
	}
}
