package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

// scene is a network with three sandboxes, of which one is hostile.
type scene struct {
	*world
	evil, web, good *member
	gateway         *member // the host on the network's bridge
	wire            *os.File
}

// member is somebody on a network.
type member struct {
	ns     *testnet.NS
	dev    string
	mac    rt.MAC
	v4, v6 netip.Addr
	local  netip.Addr // link-local
}

// newScene makes the network, with options of its own.
func newScene(t *testing.T, options ...string) *scene {
	t.Helper()
	w := newWorld(t)
	w.start()
	w.must(append([]string{"network", "create", "front", "--ipv6"}, options...)...)
	s := &scene{world: w}
	for name, m := range map[string]**member{"evil": &s.evil, "web": &s.web, "good": &s.good} {
		w.must("sandbox", "create", name, "--network", "front")
		ns, info := w.sandbox(name)
		v4, v6 := addresses(info)
		*m = s.member(ns, "eth0", v4, v6)
		s.gateway = &member{v4: info.Endpoints[0].Gateways[0], v6: info.Endpoints[0].Gateways[1]}
	}
	s.gateway = s.member(w.host, "tp-front", s.gateway.v4, s.gateway.v6)
	s.wire = s.evil.ns.Packets(t, "eth0")
	return s
}

func (s *scene) member(ns *testnet.NS, dev string, v4, v6 netip.Addr) *member {
	s.Helper()
	l, err := ns.Conn(s).LinkByName(s.Context(), dev)
	if err != nil {
		s.Fatal(err)
	}
	m := l.MAC
	local := netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
	return &member{ns: ns, dev: dev, mac: m, v4: v4, v6: v6, local: local}
}

// send puts a frame of the hostile sandbox on its link.
func (s *scene) send(from rt.MAC, to *member, etherType uint16, payload []byte) {
	s.Helper()
	if _, err := s.wire.Write(testnet.Ethernet(to.mac, from, etherType, payload)); err != nil {
		s.Fatal(err)
	}
}

// dropped is how often a rule of the guard has dropped, as inspect shows it.
func (s *scene) dropped(reason string) int {
	s.Helper()
	m := regexp.MustCompile(`netdev towpath guard_tp-front handle \d+: [^"]*counter packets (\d+) bytes \d+ drop comment \\"` + reason + `\\"`).
		FindStringSubmatch(s.must("sandbox", "inspect", "evil"))
	if m == nil {
		s.Fatalf("inspect shows no rule %q:\n%s", reason, s.must("sandbox", "inspect", "evil"))
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		s.Fatal(err)
	}
	return n
}

// forged are the frames that a hostile sandbox may send, by the rule that drops
// them. All of them carry the marker where it can be seen.
func (s *scene) forged(to *member, marker []byte) map[string][]func() {
	e, own := s.evil, s.evil.mac
	udp := func(src, dst netip.Addr, sport uint16) []byte {
		if src.Is4() {
			return testnet.IPv4(unix.IPPROTO_UDP, src, dst, testnet.UDP(sport, 7000, marker))
		}
		return testnet.IPv6(unix.IPPROTO_UDP, 64, src, dst, testnet.UDP(sport, 7000, marker))
	}
	send := func(from rt.MAC, typ uint16, b []byte) func() { return func() { s.Helper(); s.send(from, to, typ, b) } }
	icmp6 := func(src, dst netip.Addr, b []byte) []byte {
		return testnet.IPv6(unix.IPPROTO_ICMPV6, 255, src, dst, append(b, marker...))
	}
	stranger := rt.MAC{2, 0, 0, 0, 0, 0x66}
	return map[string][]func(){
		"spoofed source address": {
			send(own, unix.ETH_P_IP, udp(s.good.v4, to.v4, 7)),
			send(own, unix.ETH_P_IP, udp(s.gateway.v4, to.v4, 7)),
			send(own, unix.ETH_P_IP, udp(outside4(), to.v4, 7)),
			send(own, unix.ETH_P_IP, udp(netip.IPv4Unspecified(), to.v4, 7)),
			send(own, unix.ETH_P_8021Q, append([]byte{0, 5, 8, 0}, udp(s.good.v4, to.v4, 7)...)), // tagged once
			send(own, unix.ETH_P_IPV6, udp(s.good.v6, to.v6, 7)),
			send(own, unix.ETH_P_IPV6, udp(s.good.local, to.v6, 7)),
			send(own, unix.ETH_P_IPV6, udp(outside6(), to.v6, 7)),
			send(own, unix.ETH_P_IPV6, udp(netip.IPv6Unspecified(), to.v6, 7)),
		},
		"spoofed MAC address": {
			send(stranger, unix.ETH_P_IP, udp(e.v4, to.v4, 7)),
			send(s.good.mac, unix.ETH_P_IP, udp(s.good.v4, to.v4, 7)),
			send(s.gateway.mac, unix.ETH_P_IPV6, udp(e.v6, to.v6, 7)),
			send(stranger, unix.ETH_P_ARP, append(testnet.ARPReply(stranger, e.v4, to.mac, to.v4), marker...)),
		},
		"spoofed ARP sender": {
			send(own, unix.ETH_P_ARP, append(testnet.ARPReply(own, s.gateway.v4, to.mac, to.v4), marker...)),
			send(own, unix.ETH_P_ARP, append(testnet.ARPReply(own, s.good.v4, to.mac, to.v4), marker...)),
			send(own, unix.ETH_P_ARP, append(testnet.ARPReply(stranger, e.v4, to.mac, to.v4), marker...)),
			send(own, unix.ETH_P_ARP, append(testnet.ARPProbe(own, to.v4), marker...)),
		},
		"spoofed neighbour solicitation": { // who is asking for the address itself gives it up
			send(own, unix.ETH_P_IPV6, icmp6(netip.IPv6Unspecified(), testnet.SolicitedNode(to.local), testnet.NeighbourSolicit(to.local))),
			send(own, unix.ETH_P_IPV6, icmp6(netip.IPv6Unspecified(), testnet.SolicitedNode(s.good.v6), testnet.NeighbourSolicit(s.good.v6))),
		},
		"spoofed neighbour advertisement": {
			send(own, unix.ETH_P_IPV6, icmp6(e.local, to.local, testnet.NeighbourAdvert(own, s.gateway.v6))),
			send(own, unix.ETH_P_IPV6, icmp6(e.v6, to.v6, testnet.NeighbourAdvert(own, s.good.v6))),
			send(own, unix.ETH_P_IPV6, icmp6(s.good.v6, to.v6, testnet.NeighbourAdvert(own, s.good.local))),
		},
		"router advertisement or redirect": {
			send(own, unix.ETH_P_IPV6, icmp6(e.local, to.local, []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0})),
			send(own, unix.ETH_P_IPV6, icmp6(e.local, to.local, append([]byte{137, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 32)...))),
		},
		"DHCP server": {
			send(own, unix.ETH_P_IP, udp(e.v4, to.v4, 67)),
			send(own, unix.ETH_P_IPV6, udp(e.local, to.local, 547)),
		},
		"neither IP nor ARP": {
			send(own, 0x88cc, marker), // LLDP
			send(own, 0x88b5, marker), // for experiments (IEEE 802)
			send(own, unix.ETH_P_8021Q, append([]byte{0, 5, 0x81, 0, 0, 6, 8, 0}, udp(e.v4, to.v4, 7)...)), // tagged twice
		},
	}
}

// own are frames that a sandbox sends as itself.
func (s *scene) own(to *member, marker []byte) []func() {
	e := s.evil
	ask := append(testnet.NeighbourSolicit(e.local), marker...)
	var out []func()
	for _, f := range []struct {
		typ uint16
		b   []byte
	}{
		{unix.ETH_P_IP, testnet.IPv4(unix.IPPROTO_UDP, e.v4, to.v4, testnet.UDP(7, 7000, marker))},
		{unix.ETH_P_IPV6, testnet.IPv6(unix.IPPROTO_UDP, 64, e.v6, to.v6, testnet.UDP(7, 7000, marker))},
		{unix.ETH_P_ARP, append(testnet.ARPReply(e.mac, e.v4, to.mac, to.v4), marker...)},
		{unix.ETH_P_ARP, append(testnet.ARPProbe(e.mac, e.v4), marker...)},
		{unix.ETH_P_IPV6, testnet.IPv6(unix.IPPROTO_ICMPV6, 255, e.v6, to.v6, append(testnet.NeighbourAdvert(e.mac, e.v6), marker...))},
		{unix.ETH_P_IPV6, testnet.IPv6(unix.IPPROTO_ICMPV6, 255, netip.IPv6Unspecified(), testnet.SolicitedNode(e.local), ask)},
	} {
		out = append(out, func() { s.Helper(); s.send(e.mac, to, f.typ, f.b) })
	}
	return out
}

// TestGuard: a hostile sandbox sends whatever it likes. Nothing that claims to be
// somebody else's gets to a neighbour or to the host, each is counted by the rule
// that names the reason, what is its own passes, and others notice nothing.
func TestGuard(t *testing.T) {
	s := newScene(t)
	ping, err := s.web.ns.EchoEvery(t.Context(), s.good.v4, 2*time.Millisecond)
	s.check(err)
	for _, to := range []*member{s.web, s.gateway} {
		marker := []byte("towpath-forged-" + to.ns.Name)
		tap := newTap(to.ns.Packets(t, to.dev), marker)
		for reason, frames := range s.forged(to, marker) {
			for i, send := range frames {
				before := s.dropped(reason)
				send()
				s.eventually(fmt.Sprintf("frame %d to %s is counted by rule %q", i, to.ns.Name, reason), func() bool { return s.dropped(reason) == before+1 })
			}
		}
		// What is the sandbox's own comes after all of it, and is the first to arrive.
		last := append(bytes.Clone(marker), " own"...)
		for _, b := range s.own(to, last) {
			b()
			if got := tap.first(); !bytes.Contains(got, last) {
				t.Errorf("to %s came: %x", to.ns.Name, got)
			}
		}
	}
	if r := ping.Stop(patience); len(r.Probes) == 0 || len(r.Lost()) > 0 {
		t.Errorf("a ping between others: %s", r)
	}
	reaches(s.world, s.evil.ns, s.web.ns, s.web.v4)
	reaches(s.world, s.evil.ns, s.outside, outside6())
	s.clean()
}

func (s *scene) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// tap is what comes in by a link and carries a marker.
type tap struct{ frames chan []byte }

func newTap(f *os.File, marker []byte) tap {
	t := tap{make(chan []byte, 64)}
	go func() {
		b := make([]byte, 2048)
		for {
			n, err := f.Read(b)
			if err != nil {
				return // closed
			}
			if bytes.Contains(b[:n], marker) {
				t.frames <- bytes.Clone(b[:n])
			}
		}
	}()
	return t
}

// first is the first frame, nil if none comes.
func (t tap) first() []byte {
	select {
	case b := <-t.frames:
		return b
	case <-time.After(patience):
		return nil
	}
}

// known is the MAC address that a member has for an address.
func (m *member) known(s *scene, a netip.Addr) string {
	s.Helper()
	c := m.ns.Conn(s)
	l, err := c.LinkByName(s.Context(), m.dev)
	s.check(err)
	list, err := c.Neighbours(s.Context(), rt.NeighbourFilter{Index: l.Index}, 0)
	s.check(err)
	for _, n := range list {
		if n.IP == a {
			return n.MAC.String()
		}
	}
	return ""
}

// poison claims addresses of others towards everybody, and sends something of its
// own after it, which arrives when the claims have been worked through.
func (s *scene) poison() {
	s.Helper()
	for _, to := range []*member{s.web, s.gateway} {
		for _, of := range []*member{s.good, s.gateway, s.web} {
			if of == to {
				continue
			}
			s.send(s.evil.mac, to, unix.ETH_P_ARP, testnet.ARPReply(s.evil.mac, of.v4, to.mac, to.v4))
			for _, src := range []netip.Addr{of.v6, s.evil.v6} {
				b := testnet.IPv6(unix.IPPROTO_ICMPV6, 255, src, to.v6, testnet.NeighbourAdvert(s.evil.mac, of.v6))
				s.send(s.evil.mac, to, unix.ETH_P_IPV6, b)
			}
		}
		s.check(s.evil.ns.Echo(to.v4, patience))
		s.check(s.evil.ns.Echo(to.v6, patience))
	}
}

// TestPoison: with the guard no claim of a hostile sandbox gets into the
// neighbour cache of another or of the host; without it they do, which shows that
// the claims are worth stopping.
func TestPoison(t *testing.T) {
	for _, guard := range []string{"on", "off"} {
		t.Run("spoof-guard="+guard, func(t *testing.T) {
			s := newScene(t, "-o", "towpath.spoof-guard="+guard)
			for _, a := range []*member{s.web, s.gateway} {
				for _, b := range []*member{s.good, s.gateway, s.web} {
					if a != b {
						s.check(a.ns.Echo(b.v4, patience))
						s.check(a.ns.Echo(b.v6, patience))
					}
				}
			}
			s.poison()
			poisoned := 0
			for _, a := range []*member{s.web, s.gateway} {
				for _, b := range []*member{s.good, s.gateway, s.web} {
					for _, ip := range []netip.Addr{b.v4, b.v6} {
						if a != b && a.known(s, ip) == s.evil.mac.String() {
							poisoned++
						}
					}
				}
			}
			if (poisoned > 0) != (guard == "off") {
				t.Errorf("%d entries are poisoned", poisoned)
			}
			s.clean()
		})
	}
}

// TestTenantChangesItsAddresses: a tenant who gives itself other addresses is cut
// off with them, and goes on with its own.
func TestTenantChangesItsAddresses(t *testing.T) {
	s := newScene(t)
	c := s.evil.ns.Conn(t)
	l, err := c.LinkByName(t.Context(), "eth0")
	s.check(err)
	other := s.evil.v4.As4()
	other[3] = 200
	extra := netip.PrefixFrom(netip.AddrFrom4(other), 24)
	s.check(c.AddAddress(t.Context(), rt.Address{Index: l.Index, Prefix: extra}))
	if err := s.web.ns.Echo(extra.Addr(), impatience); err == nil {
		t.Errorf("an address that the tenant gave itself is reached")
	}
	s.check(s.evil.ns.Echo(s.web.v4, patience))
	mac := rt.MAC{2, 0, 0, 0, 0, 0x77}
	s.check(c.SetLink(t.Context(), l.Index, rt.LinkChange{MAC: &mac}))
	if err := s.evil.ns.Echo(s.web.v4, impatience); err == nil {
		t.Errorf("a MAC address that the tenant gave itself is let through")
	}
	own := s.evil.mac
	s.check(c.SetLink(t.Context(), l.Index, rt.LinkChange{MAC: &own}))
	s.check(s.evil.ns.Echo(s.web.v4, patience))
}
