package explain

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace/probe"
)

// lan makes the uplink a port of a bridge, which has the host's address now, and
// gives web a link to that bridge.
func (w *world) lan() {
	w.Helper()
	w.bridgeNF("0")
	c := w.spaces["host"].Conn(w)
	w.must(c.AddBridge(w.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "lan"}}))
	bridge, own := w.index("host", "lan"), netip.MustParsePrefix("192.0.2.10/24")
	w.must(c.DelAddress(w.Context(), rt.Address{Index: w.index("host", "eth0"), Prefix: own}))
	w.must(c.SetLink(w.Context(), w.index("host", "eth0"), rt.LinkChange{Master: &bridge}))
	w.must(c.SetLink(w.Context(), bridge, rt.LinkChange{Up: new(true)}))
	w.must(c.AddAddress(w.Context(), rt.Address{Index: bridge, Prefix: own}))
	w.route("host", rt.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.1"), OIF: bridge})
	testnet.Link(w.T, w.spaces["host"], w.spaces["web"], "v-lan", "eth1", nil, prefixes("192.0.2.20/24"))
	w.must(c.SetLink(w.Context(), w.index("host", "v-lan"), rt.LinkChange{Master: &bridge}))
	w.spaces["host"].WaitUp(w.T, "lan")
}

// fromLAN probes from outside, of which the machine knows no more than it does of
// what is at the end of a cable.
func (w *world) fromLAN(level api.PathLevel) api.Probe {
	w.Helper()
	m := w.machine()
	l := m.Host.Space("host").Link("eth0")
	l.PeerNS, l.Peer = "", ""
	p, err := probe.Run(w.Context(), probe.Config{Machine: m, Open: w.looking().Open}, api.ProbeQuery{PathQuery: api.PathQuery{From: "outside", To: "192.0.2.10:8080"}, Level: level})
	w.must(err)
	return p
}

// TestOutsideByBridge: the uplink may be a bridge. What goes out by its ports past
// all hooks of IP, since br_netfilter is off, is stopped too: here the answer of a
// container that has another way out.
func TestOutsideByBridge(t *testing.T) {
	testnet.Require(t, "root", "bpf")
	for _, level := range allLevels() {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			requireLevel(t, level)
			w := newWorld(t)
			w.lan()
			out := w.listen()
			p := w.fromLAN(level)
			if p.Verdict != api.Answered || p.FirstDifference != nil {
				t.Errorf("%s\n%s\n%s", p.Verdict, text(t, p.Actual), text(t, p.Expected))
			}
			out.nothing(wireTime)
			w.noDefault("web", "0.0.0.0/0")
			w.route("web", rt.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.1"), OIF: w.index("web", "eth1")})
			p = w.fromLAN(level)
			const why = "its answer does not come back: it leaves by eth0 of host as 172.20.0.2:80 > 198.51.100.1:"
			if p.Verdict != api.Dropped || !strings.HasPrefix(p.Actual.Reason, why) || p.FirstDifference != nil {
				t.Errorf("another way out: %s\n%s\n%s", p.Verdict, text(t, p.Actual), text(t, p.Expected))
			}
			for _, b := range out.left(wireTime) {
				if !asksForGateway(b) {
					t.Errorf("this left the machine:\n%s", hex.Dump(b))
				}
			}
		})
	}
}

// asksForGateway reports whether a frame is a container's question for the MAC address
// of its gateway, as it asks for whatever it sends.
func asksForGateway(b []byte) bool {
	const target = 14 + 24
	return len(b) >= target+4 && binary.BigEndian.Uint16(b[12:]) == unix.ETH_P_ARP && netip.AddrFrom4([4]byte(b[target:])) == netip.MustParseAddr("192.0.2.1")
}
