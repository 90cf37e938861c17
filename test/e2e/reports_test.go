package e2e

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

// report sends a report of multicast listeners (RFC 3810, 5.2), as the kernel
// does for groups that a sandbox joins: behind a router alert (RFC 2711).
func (s *scene) report(marker []byte, groups ...netip.Addr) {
	s.Helper()
	b := binary.BigEndian.AppendUint16([]byte{143, 0, 0, 0, 0, 0}, uint16(len(groups)))
	for _, g := range groups {
		b = append(append(b, 4, 0, 0, 0), g.AsSlice()...)
	}
	all := netip.MustParseAddr("ff02::16")
	plain := testnet.IPv6(unix.IPPROTO_ICMPV6, 1, s.evil.local, all, append(b, marker...)) // for its checksum
	alert := []byte{unix.IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0}
	packet := testnet.IPv6(unix.IPPROTO_HOPOPTS, 1, s.evil.local, all, append(alert, plain[40:]...))
	s.send(s.evil.mac, s.web, unix.ETH_P_IPV6, packet)
}

// TestListenerReports: what says only that a sandbox listens for solicitations of
// its own addresses goes to nobody, unless somebody may snoop on the bridge; other
// reports of listeners, and solicitations themselves, pass.
func TestListenerReports(t *testing.T) {
	s := newScene(t)
	marker := []byte("towpath-report")
	tap := newTap(s.web.ns.Packets(t, "eth0"), marker)
	own := []netip.Addr{testnet.SolicitedNode(s.evil.local), testnet.SolicitedNode(s.evil.v6)}
	mdns := netip.MustParseAddr("ff02::fb")
	for _, groups := range [][]netip.Addr{{mdns}, {own[0], mdns}, {mdns, own[0]}, {own[0], own[1], mdns}} {
		s.report(marker, own[0])
		s.report(marker, own...)
		last := append(bytes.Clone(marker), " other"...)
		s.report(last, groups...)
		if got := tap.first(); !bytes.Contains(got, last) {
			t.Errorf("groups %s: there came %x", groups, got)
		}
	}
	c := s.host.Conn(t)
	s.check(c.AddVeth(t.Context(), rt.VethSpec{LinkSpec: rt.LinkSpec{Name: "lan0"}, Peer: rt.LinkSpec{Name: "lan1"}}))
	change := func(dev string, ch rt.LinkChange) {
		t.Helper()
		l, err := c.LinkByName(t.Context(), dev)
		s.check(err)
		s.check(c.SetLink(t.Context(), l.Index, ch))
	}
	bridge, err := c.LinkByName(t.Context(), "tp-front")
	s.check(err)
	drops := func() bool { return strings.Contains(s.must("sandbox", "inspect", "evil"), "report of own address") }
	if !drops() {
		t.Error("inspect shows no rule for reports")
	}
	change("lan0", rt.LinkChange{Master: &bridge.Index})
	s.eventually("reports pass to who may be snooping", func() bool { return !drops() && s.must("diff") == "" })
	for _, groups := range [][]netip.Addr{own[:1], own} {
		s.report(marker, groups...)
		if got := tap.first(); !bytes.Contains(got, marker) {
			t.Errorf("with a port of others, groups %s: nothing came", groups)
		}
	}
	change("lan0", rt.LinkChange{Master: new(int)})
	s.eventually("reports are dropped again", drops)
	s.clean()
}
