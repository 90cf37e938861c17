package machine

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/nft"
)

// FromState makes a Host of wanted or observed state, and adds what the kernel
// adds by itself: the loopback, the rules of the three tables, link-local
// addresses, and connected and local routes of links that are up. Listeners,
// connections and anything that the state does not hold are for the caller to
// add; sockets of the host are taken for those that hold published ports.
func FromState(s kernel.State) (Host, error) {
	spaces := map[string]*Space{}
	at := func(ns string) *Space {
		if spaces[ns] == nil {
			spaces[ns] = &Space{Name: ns, Sysctls: map[string]string{}}
		}
		return spaces[ns]
	}
	at(HostName)
	// The order of the ops is that in which the kernel comes by the objects, on
	// which hangs whose connected route is first.
	for _, op := range kernel.Diff(nil, s) {
		if err := at(op.Object.Key().NS).add(op.Object, s); err != nil {
			return Host{}, fmt.Errorf("read state: %w", err)
		}
	}
	var h Host
	for _, k := range s.Keys() {
		if n, ok := s[k].(kernel.Namespace); ok {
			at(n.Name)
		}
	}
	for name, sp := range spaces {
		n, isSandbox := s[kernel.Namespace{Name: name}.Key()].(kernel.Namespace)
		_, up := s[kernel.Up{NS: name, Dev: "lo"}.Key()]
		// The loopback of the host and of an adopted namespace is not in the state.
		sp.addLoopback(up || !isSandbox || n.Cookie != 0)
		sp.fill()
		h.Spaces = append(h.Spaces, *sp)
	}
	slices.SortFunc(h.Spaces, func(a, b Space) int { return compareNames(a.Name, b.Name) })
	return h, nil
}

// compareNames puts the host first.
func compareNames(a, b string) int {
	switch {
	case a == b:
		return 0
	case a == HostName || b != HostName && a < b:
		return -1
	}
	return 1
}

// add takes over one object.
func (s *Space) add(o kernel.Object, all kernel.State) error {
	switch o := o.(type) {
	case kernel.Link:
		s.Links = append(s.Links, link(o, all))
	case kernel.Address:
		s.Addresses = append(s.Addresses, Address{Dev: o.Dev, Prefix: o.Prefix})
	case kernel.Route:
		s.Routes = append(s.Routes, route(o))
	case kernel.Rule:
		s.Rules = append(s.Rules, Rule{
			Priority: o.Priority, IPv6: o.From.Addr().Is6(), From: o.From, Action: Unicast, Table: o.Table, SuppressPrefix: -1,
		})
	case kernel.Neighbour:
		s.addNeighbour(o)
	case kernel.Socket:
		if o.NS != HostName {
			return nil
		}
		passes, err := PassedBy(o)
		if err != nil {
			return err
		}
		for a := range o.Each() {
			proto, v6only := strings.CutSuffix(o.Proto, "6")
			s.Held = append(s.Held, Listener{Proto: proto, V6Only: v6only, Addr: a.Addr(), Port: a.Port(), Passes: passes})
		}
	case kernel.Sysctl:
		s.Sysctls[o.Name] = o.Value
	case kernel.Table:
		def, err := nft.ParseTable(all.TableString(o))
		if err != nil {
			return err
		}
		s.Tables = append(s.Tables, def)
	}
	return nil
}

// addNeighbour adds a neighbour or, where it has no address, a static entry of
// the forwarding database of the bridge that the link is a port of.
func (s *Space) addNeighbour(o kernel.Neighbour) {
	if o.IP.IsValid() {
		s.Neighbours = append(s.Neighbours, Neighbour{Dev: o.Dev, IP: o.IP, MAC: o.MAC, State: NeighbourPermanent})
		return
	}
	s.Forwarding = append(s.Forwarding, ForwardingEntry{Dev: o.Dev, MAC: o.MAC, Bridge: o.Master, Static: true})
}

// PassedBy reads whom a socket passes on; nil: nobody.
func PassedBy(o kernel.Socket) (*Passing, error) {
	if !o.To.IsValid() {
		return nil, nil //nolint:nilnil // nobody
	}
	p := &Passing{IPv6: o.To.Addr().Is4()}
	for text := range strings.SplitSeq(o.From, ",") {
		if text == "" {
			continue
		}
		f, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		p.From = append(p.From, f)
	}
	return p, nil
}

func link(o kernel.Link, all kernel.State) Link {
	_, up := all[kernel.Up{NS: o.NS, Dev: o.Name}.Key()]
	l := Link{
		Name: o.Name, Type: o.Type, MAC: o.MAC, Up: up, Master: o.Master,
		PeerNS: o.PeerNS, Peer: o.Peer, Hairpin: o.Hairpin, Isolated: o.Isolated,
		Locked: o.Locked, Learning: o.Master != "" && !o.Locked,
	}
	if o.PeerOf != "" {
		l.PeerNS, l.Peer = HostName, o.PeerOf
	}
	return l
}

func route(o kernel.Route) Route {
	r := Route{Table: o.Table, Type: Unicast, Dst: o.Dst, Dev: o.Dev, Via: o.Via, Metric: o.Metric}
	if r.Table == 0 {
		r.Table = TableMain
	}
	if o.Local {
		r.Type = Local
	}
	// What is left at 0 the kernel makes 1024 (IP6_RT_PRIO_USER).
	if o.Dst.Addr().Is6() && r.Metric == 0 {
		r.Metric = 1024
	}
	return r
}

// addLoopback adds lo and the rules every namespace starts with.
func (s *Space) addLoopback(up bool) {
	s.Links = append(s.Links, Link{Index: 1, Name: loopback, Type: "loopback", Up: up})
	s.Addresses = append(
		s.Addresses,
		Address{Dev: loopback, Prefix: netip.MustParsePrefix("127.0.0.1/8")},
		Address{Dev: loopback, Prefix: netip.MustParsePrefix("::1/128")},
	)
	rule := func(priority uint32, ipv6 bool, table uint32) Rule {
		return Rule{Priority: priority, IPv6: ipv6, Action: Unicast, Table: table, SuppressPrefix: -1}
	}
	s.Rules = append(
		s.Rules,
		rule(0, false, TableLocal), rule(32766, false, TableMain), rule(32767, false, TableDefault),
		rule(0, true, TableLocal), rule(32766, true, TableMain),
	)
}

const loopback = "lo"

// fill adds addresses and routes that the kernel makes.
func (s *Space) fill() {
	var all []Route
	for i := range s.Links {
		l := &s.Links[i]
		if !l.Up {
			continue
		}
		s.addLinkLocal(l)
		for _, a := range s.Addresses {
			if a.Dev == l.Name && a.Prefix.Addr().Is4() {
				all = append(all, routes4(a)...)
			} else if a.Dev == l.Name {
				all = append(all, s.routes6(a)...)
			}
		}
		if s.has6(l.Name) && l.Type != "loopback" {
			all = append(all, Route{Table: TableLocal, Type: Multicast, Dst: netip.MustParsePrefix("ff00::/8"), Dev: l.Name, Metric: 256})
		}
	}
	// Routes that were asked for come after those of the addresses.
	s.Routes = append(all, s.Routes...)
}

// has6 reports whether a link has an IPv6 address.
func (s *Space) has6(dev string) bool {
	return slices.ContainsFunc(s.Addresses, func(a Address) bool { return a.Dev == dev && a.Prefix.Addr().Is6() })
}

// addLinkLocal adds the address that the kernel makes of the MAC (EUI-64) for a
// link with IPv6 that is no bridge port.
func (s *Space) addLinkLocal(l *Link) {
	off := s.Sysctls["net/ipv6/conf/"+l.Name+"/disable_ipv6"] == "1"
	mac, ok := ParseMAC(l.MAC)
	if l.Type == "loopback" || l.Master != "" || off || !ok {
		return
	}
	a := [16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}
	s.Addresses = append(s.Addresses, Address{Dev: l.Name, Prefix: netip.PrefixFrom(netip.AddrFrom16(a), 64)})
}

// ParseMAC reads aa:bb:cc:dd:ee:ff.
func ParseMAC(text string) (mac [6]byte, ok bool) {
	if len(text) != 17 {
		return mac, false
	}
	for i := range mac {
		n, err := strconv.ParseUint(text[3*i:3*i+2], 16, 8)
		if err != nil {
			return mac, false
		}
		mac[i] = byte(n)
	}
	return mac, true
}

// routes4 are those of an IPv4 address (fib_add_ifaddr): the address, its
// prefix, and the broadcast address.
func routes4(a Address) []Route {
	addr, p := a.Prefix.Addr(), a.Prefix.Masked()
	out := []Route{{Table: TableLocal, Type: Local, Dst: netip.PrefixFrom(addr, 32), Dev: a.Dev, Src: addr}}
	switch {
	case addr.IsLoopback():
		out = append(out, Route{Table: TableLocal, Type: Local, Dst: p, Dev: a.Dev, Src: addr})
	case p.Bits() < 32:
		out = append(out, Route{Table: TableMain, Type: Unicast, Dst: p, Dev: a.Dev, Src: addr})
	}
	if p.Bits() < 31 {
		out = append(out, Route{Table: TableLocal, Type: Broadcast, Dst: netip.PrefixFrom(lastAddr(p), 32), Dev: a.Dev, Src: addr})
	}
	return out
}

// lastAddr is the address of an IPv4 prefix with all host bits set.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// routes6 are those of an IPv6 address: the address, its prefix, and where the
// namespace forwards the address of the routers there (RFC 4291, 2.6.1).
func (s *Space) routes6(a Address) []Route {
	addr, p := a.Prefix.Addr(), a.Prefix.Masked()
	out := []Route{
		{Table: TableLocal, Type: Local, Dst: netip.PrefixFrom(addr, 128), Dev: a.Dev},
		{Table: TableMain, Type: Unicast, Dst: p, Dev: a.Dev, Metric: 256},
	}
	if p.Bits() < 127 && s.Sysctls["net/ipv6/conf/all/forwarding"] == "1" {
		out = append(out, Route{Table: TableLocal, Type: Anycast, Dst: netip.PrefixFrom(p.Addr(), 128), Dev: a.Dev})
	}
	return out
}
