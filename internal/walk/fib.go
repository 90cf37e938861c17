package walk

import (
	"net/netip"

	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// query is what a routing decision hangs on. What the namespace itself sends
// has iif "lo".
type query struct {
	src, dst netip.Addr
	iif, oif string
	mark     uint32
	// proto and the ports are those of the packet; 0: not known to who asks.
	proto        uint8
	sport, dport uint16
	// strict asks for a route over iif itself: link-local, loopback and multicast
	// destinations of IPv6 that come in (rt6_need_strict).
	strict bool
}

// matches reports whether a rule is for the query.
func matches(r machine.Rule, q query) bool {
	if r.IPv6 != q.dst.Is6() {
		return false
	}
	hit := within(r.From, q.src) && within(r.To, q.dst) && (r.IIf == "" || r.IIf == q.iif) &&
		(r.OIf == "" || r.OIf == q.oif) && q.mark&r.Mask == r.Mark&r.Mask &&
		(r.IPProto == 0 || r.IPProto == q.proto) && between(r.SrcPorts, q.sport) && between(r.DstPorts, q.dport)
	return hit != r.Not
}

// between reports whether a port is in a range; the zero range has all in it.
func between(r [2]uint16, port uint16) bool {
	return r == [2]uint16{} || port >= r[0] && port <= r[1]
}

// undecided is the type of what a rule chooses that asks for more than is known
// of packets here; the kernel has no such number.
const undecided machine.RouteType = 0xff

// within reports whether a is in p; a prefix that is not valid has all in it.
func within(p netip.Prefix, a netip.Addr) bool {
	return !p.IsValid() || p.Bits() == 0 || (a.IsValid() && p.Contains(a))
}

// lookup asks the rules for a route.
func (s *space) lookup(q query) (machine.Route, bool) {
	for _, rule := range s.rules {
		if !matches(rule, q) {
			continue
		}
		if rule.Unknown != "" {
			return machine.Route{Type: undecided}, true
		}
		if rule.Action != machine.Unicast {
			return machine.Route{Type: rule.Action}, true
		}
		r, ok := s.lookupTable(rule.Table, q)
		if ok && r.Type != machine.Throw && (rule.SuppressPrefix < 0 || r.Dst.Bits() > rule.SuppressPrefix) {
			return r, true
		}
	}
	return machine.Route{}, false
}

// lookupTable finds the best route of one table. Links that are down have none.
func (s *space) lookupTable(table uint32, q query) (machine.Route, bool) {
	for _, r := range s.tables[table] {
		switch {
		case !r.Dst.Contains(q.dst), r.Dead,
			r.Dev != "" && (!s.up(r.Dev) || s.unplugged(r.Dev)),
			q.oif != "" && r.Dev != "" && r.Dev != q.oif && r.Type != machine.Local,
			q.strict && r.Dev != q.iif:
			continue
		}
		return r, true
	}
	return machine.Route{}, false
}

// unplugged reports whether routes over a link without carrier are passed over.
func (s *space) unplugged(dev string) bool {
	return s.links[dev].NoCarrier && s.conf("ipv4", dev, "ignore_routes_with_linkdown") != 0
}

// isLocal reports whether an address is one of the namespace's own, and so
// answered for on all links.
func (s *space) isLocal(a netip.Addr) bool {
	r, ok := s.lookupTable(machine.TableLocal, query{dst: a})
	return ok && r.Type == machine.Local
}

// addressType is what `fib daddr type` finds (inet_dev_addr_type): IPv4 by the
// local table alone.
func (s *space) addressType(a netip.Addr, dev string) machine.RouteType {
	switch {
	case a == limitedBroadcast():
		return machine.Broadcast
	case a.IsMulticast():
		return machine.Multicast
	}
	r, ok := s.lookupTable(machine.TableLocal, query{dst: a, oif: dev})
	switch {
	case ok && (dev == "" || r.Dev == dev):
		return r.Type
	case a.Is4():
		return machine.Unicast
	}
	if r, ok = s.lookup(query{dst: a, oif: dev, iif: loopback}); !ok {
		return machine.Unreachable
	}
	return r.Type
}

// fib answers for a rule that asks the routing table about an address: it looks
// the address up as for sending there, and then sees whether the route is over
// the link that is asked about (nft_fib4_eval).
func (s *space) fib(p *packet, in, out string) func(netip.Addr, nft.FIBFlags) (nft.FIBAnswer, bool) {
	return func(a netip.Addr, flags nft.FIBFlags) (nft.FIBAnswer, bool) {
		dev, q := "", query{dst: a, src: p.src.Addr(), iif: loopback}
		switch {
		case flags&nft.FIBIIf != 0:
			dev = in
		case flags&nft.FIBOIf != 0:
			dev = out
		}
		if flags&nft.FIBSAddr != 0 {
			q.src = p.dst.Addr()
		}
		if flags&nft.FIBMark != 0 {
			q.mark = p.mark
		}
		answer := nft.FIBAnswer{Type: uint32(s.addressType(a, dev))}
		r, ok := s.lookup(q)
		if ok && r.Type != machine.Local && (dev == "" || r.Dev == dev) {
			answer.OIf = value(s.device(r.Dev))
		}
		// What the namespace sends to itself comes in over lo, whatever its
		// source (nft_fib_is_loopback).
		if in == loopback {
			answer.OIf = value(s.device(in))
		}
		return answer, true
	}
}

// value is what a pointer points to, or the zero value.
func value[T any](p *T) T {
	var v T
	if p != nil {
		v = *p
	}
	return v
}

// source chooses the address a packet over a route is sent from.
func (s *space) source(r machine.Route, dst netip.Addr) netip.Addr {
	switch {
	case r.Src.IsValid():
		return r.Src
	case dst.Is6():
		return s.source6(r.Dev, dst)
	case r.Type == machine.Local:
		return dst
	}
	next := dst
	if r.Via.Is4() {
		next = r.Via
	}
	return s.source4(r.Dev, next)
}

// source4 chooses as inet_select_addr does: on the link that address in whose
// prefix the next hop is, else the first; without one there, one of another link.
func (s *space) source4(dev string, next netip.Addr) netip.Addr {
	var first, other netip.Addr
	for _, a := range s.Addresses {
		addr := a.Prefix.Addr()
		switch {
		case !addr.Is4():
		case a.Dev == dev && a.Prefix.Contains(next):
			return addr
		case a.Dev == dev && !first.IsValid():
			first = addr
		case a.Dev != dev && !other.IsValid() && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() && s.up(a.Dev):
			other = addr
		}
	}
	if first.IsValid() {
		return first
	}
	return other
}

// source6 chooses by RFC 6724, section 5, rules 1, 2, 3, 5, 6 and 8.
func (s *space) source6(dev string, dst netip.Addr) netip.Addr {
	var best machine.Address
	for _, a := range s.Addresses {
		if a.Prefix.Addr().Is6() && s.up(a.Dev) && usable(a) && (!dst.IsLinkLocalUnicast() || a.Dev == dev) &&
			(!best.Prefix.IsValid() || better6(a, best, dev, dst)) {
			best = a
		}
	}
	return best.Prefix.Addr()
}

// usable reports whether an address may be sent from and answers: not before it
// is known to be nobody else's (RFC 4862, 5.4).
func usable(a machine.Address) bool { return !a.Tentative && !a.DADFailed }

// better6 reports whether a is to be preferred to b.
func better6(a, b machine.Address, dev string, dst netip.Addr) bool {
	x, y := a.Prefix.Addr(), b.Prefix.Addr()
	if (x == dst) != (y == dst) {
		return x == dst
	}
	if sx, sy, sd := scope6(x), scope6(y), scope6(dst); sx != sy {
		if sx < sy {
			return sx >= sd
		}
		return sy < sd
	}
	if (a.Dev == dev) != (b.Dev == dev) {
		return a.Dev == dev
	}
	if a.Deprecated != b.Deprecated {
		return b.Deprecated
	}
	if lx, ly := label6(x) == label6(dst), label6(y) == label6(dst); lx != ly {
		return lx
	}
	return common6(a.Prefix, dst) > common6(b.Prefix, dst)
}

// scope6 is that of RFC 4291; the loopback counts as link-local.
func scope6(a netip.Addr) int {
	if a.IsLinkLocalUnicast() || a.IsLoopback() || a.IsLinkLocalMulticast() {
		return 2
	}
	return 14
}

// label6 is that of RFC 6724, section 2.1, as far as anybody uses it.
func label6(a netip.Addr) int {
	switch {
	case a.IsLoopback():
		return 0
	case a.IsPrivate(): // fc00::/7
		return 5
	}
	return 1
}

// common6 counts the leading bits that an address has in common with dst, those
// of its prefix at most.
func common6(p netip.Prefix, dst netip.Addr) int {
	n := 0
	for n < p.Bits() && netip.PrefixFrom(p.Addr(), n+1).Contains(dst) {
		n++
	}
	return n
}
