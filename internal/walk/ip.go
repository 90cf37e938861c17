package walk

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// end is a fate at a place.
func end(at *space, p *packet, v api.Verdict, format string, args ...any) *fate {
	return &fate{verdict: v, reason: fmt.Sprintf(format, args...), at: at, packet: p}
}

// drop ends the packet at a place, with a hop that says why.
func (r *run) drop(at *space, dev string, layer api.Layer, p *packet, format string, args ...any) *fate {
	f := end(at, p, api.Dropped, format, args...)
	r.hop(at, dev, api.Hop{Layer: layer, Action: "drop", Detail: f.reason, Before: new(p.flow())})
	return f
}

// reject ends the packet with an ICMP error from at.
func (r *run) reject(at *space, dev string, layer api.Layer, p *packet, k errorKind, format string, args ...any) *fate {
	f := end(at, p, api.Rejected, format, args...)
	f.back = errorAbout(at, p, k.message(p.is6()))
	r.hop(at, dev, api.Hop{Layer: layer, Action: "reject", Detail: f.reason, Before: new(p.flow())})
	return f
}

// send sends a packet from the namespace itself.
func (r *run) send(at *space, p *packet) *fate {
	rt, f := r.routeOut(at, p)
	if f != nil {
		return f
	}
	if !p.src.Addr().IsValid() {
		a := at.source(rt, p.dst.Addr())
		if !a.IsValid() {
			return r.drop(at, rt.Dev, api.LayerRoute, p, "there is no address to send from: EADDRNOTAVAIL")
		}
		p.src = netip.AddrPortFrom(a, p.src.Port())
	}
	if p.kind == first {
		r.packet, r.path.Flow = p.tuple(), p.flow()
	}
	if f := r.refuseSend(at, rt, p); f != nil {
		return f
	}
	if mtu := at.mtu(rt); mtu != 0 && p.size > mtu {
		return r.drop(at, rt.Dev, api.LayerRoute, p, "%d bytes do not fit the MTU of %s, %d: EMSGSIZE", p.size, rt.Dev, mtu)
	}
	r.hop(at, outDev(rt), api.Hop{Layer: api.LayerRoute, Action: "sends", Detail: p.text() + viaText(rt), Before: new(p.flow())})
	dst, mark := p.dst.Addr(), p.mark
	p.via = rt.Via
	if f := r.hook(at, "output", p, "", outDev(rt)); f != nil {
		return f
	}
	if p.dst.Addr() != dst || p.mark != mark { // ip_route_me_harder
		if rt, f = r.routeOut(at, p); f != nil {
			return f
		}
		r.hop(at, rt.Dev, api.Hop{Layer: api.LayerRoute, Action: "routes", Detail: rt.Way(p.dst.Addr()), Before: new(p.flow())})
	}
	return r.leave(at, rt, p, "")
}

// refuseSend is what a socket refuses by itself: an ordinary one may not send
// to a broadcast address.
func (r *run) refuseSend(at *space, rt machine.Route, p *packet) *fate {
	switch {
	case p.kind != first:
		return nil
	case rt.Type == machine.Broadcast && p.proto == nft.ProtoTCP:
		return r.drop(at, rt.Dev, api.LayerRoute, p, "%s is a broadcast address: ENETUNREACH", p.dst.Addr())
	case rt.Type == machine.Broadcast:
		return r.drop(at, rt.Dev, api.LayerRoute, p, "%s is a broadcast address: EACCES", p.dst.Addr())
	case p.dst.Addr().IsMulticast():
		return end(at, p, api.Undecided, "packets to many are not followed")
	}
	return nil
}

// outDev is the link a route sends by: what is for the namespace itself goes
// over its loopback, whatever link has the address.
func outDev(rt machine.Route) string {
	if rt.Type == machine.Local || rt.Type == machine.Anycast {
		return loopback
	}
	return rt.Dev
}

func viaText(rt machine.Route) string {
	if rt.Via.IsValid() {
		return " via " + rt.Via.String()
	}
	return ""
}

// leave takes a routed packet out of the IP layer; in is the link it came by,
// "" for one that is sent here.
func (r *run) leave(at *space, rt machine.Route, p *packet, in string) *fate {
	out := outDev(rt)
	p.via = rt.Via
	if f := r.hook(at, "postrouting", p, in, out); f != nil {
		return f
	}
	if out != loopback {
		return r.transmit(at, rt, p, in)
	}
	if !at.up(loopback) {
		return r.drop(at, loopback, api.LayerLink, p, "link lo is down")
	}
	p.from, p.to = "", ""
	if f := r.linkHook(at, "egress", "egress", p, "", loopback); f != nil {
		return f
	}
	if f := r.linkHook(at, "ingress", "ingress", p, loopback, ""); f != nil {
		return f
	}
	return r.arrive(at, loopback, p, false)
}

// arrive takes a packet into the IP layer; hooked says that a bridge has taken
// it through prerouting already.
func (r *run) arrive(at *space, in string, p *packet, hooked bool) *fate {
	if r.reached == "" && r.quiet == 0 {
		r.reached = at.Name + " " + in
	}
	if p.isARP() {
		return &fate{verdict: api.Delivered, at: at, packet: p}
	}
	if in != loopback && p.is6() && (p.src.Addr().IsLoopback() || p.dst.Addr().IsLoopback()) {
		return r.drop(at, in, api.LayerRoute, p, "the loopback address of IPv6 came in by a link")
	}
	if !hooked {
		if f := r.hook(at, "prerouting", p, in, ""); f != nil {
			return f
		}
	}
	// On the loopback a packet keeps the route it was sent with.
	if in == loopback || p.kind == solicit || p.kind == advertise || p.kind == other {
		return r.input(at, in, p, machine.Local)
	}
	rt, f := r.routeIn(at, in, p)
	switch {
	case f != nil:
		return f
	case rt.Type == machine.Unicast:
		return r.forward(at, in, rt, p)
	}
	return r.input(at, in, p, rt.Type)
}

// forward passes a packet on.
func (r *run) forward(at *space, in string, rt machine.Route, p *packet) *fate {
	switch {
	case p.is6() && !at.forwards6(in):
		return r.drop(at, in, api.LayerRoute, p, "%s does not forward IPv6 that comes in by %s", at.Name, in)
	case p.is6() && p.src.Addr().IsLinkLocalUnicast():
		return r.reject(at, in, api.LayerRoute, p, noRoute, "a link-local source does not leave its link")
	case p.ttl <= 1:
		return r.reject(at, in, api.LayerRoute, p, timeExceeded, "its time to live is over")
	}
	if mtu := at.mtu(rt); mtu != 0 && p.size > mtu {
		return r.reject(at, in, api.LayerRoute, p, tooBig, "%d bytes do not fit the MTU of %s, %d, and may not be cut up", p.size, rt.Dev, mtu)
	}
	p.ttl--
	r.hop(at, in, api.Hop{Layer: api.LayerRoute, Action: "routes", Detail: rt.Way(p.dst.Addr()), Before: new(p.flow())})
	if f := r.hook(at, "forward", p, in, rt.Dev); f != nil {
		return f
	}
	return r.leave(at, rt, p, in)
}

// mtu is how long a packet may be on a route; 0: not known.
func (s *space) mtu(rt machine.Route) int {
	l := s.links[outDev(rt)]
	switch {
	case rt.MTU != 0 || l == nil:
		return rt.MTU
	}
	return l.MTU
}

// input hands a packet to the sockets.
func (r *run) input(at *space, in string, p *packet, to machine.RouteType) *fate {
	if f := r.hook(at, "input", p, in, ""); f != nil {
		return f
	}
	f := &fate{verdict: api.Delivered, at: at, packet: p}
	if p.kind != first {
		if p.kind != solicit && p.kind != advertise {
			r.hop(at, in, api.Hop{Layer: api.LayerSocket, Action: "delivers", Detail: p.text(), Before: new(p.flow())})
		}
		return f
	}
	if why := ignored(at, p, to); why != "" {
		return r.drop(at, in, api.LayerSocket, p, "%s", why)
	}
	if !listens(at, in, p) {
		f.verdict, f.reason = api.Refused, fmt.Sprintf("nothing in %s listens on %s port %d", at.Name, protoName(p.proto), p.dst.Port())
		f.back = backTo(p, reset)
		if p.proto != nft.ProtoTCP {
			f.back = errorAbout(at, p, portUnreachable.message(p.is6()))
		}
		r.hop(at, in, api.Hop{Layer: api.LayerSocket, Action: "refuses", Detail: f.reason, Before: new(p.flow())})
		return f
	}
	f.back = backTo(p, answer)
	if to == machine.Broadcast { // answered from an address of one's own
		f.back.src = netip.AddrPortFrom(netip.Addr{}, p.dst.Port())
	}
	r.hop(at, in, api.Hop{Layer: api.LayerSocket, Action: "delivers", Detail: p.text(), Before: new(p.flow())})
	return f
}

// ignored says why the stack takes no notice of a packet.
func ignored(at *space, p *packet, to machine.RouteType) string {
	switch {
	case p.proto == nft.ProtoTCP && to == machine.Broadcast:
		return "TCP to a broadcast address"
	case p.proto == nft.ProtoICMP && to == machine.Broadcast:
		return "echo requests to a broadcast address are ignored"
	case slices.ContainsFunc(at.Held, func(l machine.Listener) bool { return takes(l, p) && !l.Passes.Lets(p.src.Addr()) }):
		return "the port is held for a publication, which is not for this packet"
	case to == machine.Broadcast && !listens(at, "", p): // RFC 1122, 3.2.2
		return "nothing listens, and a broadcast is not refused"
	case p.proto == nft.ProtoICMP && at.sysctl("net/ipv4/icmp_echo_ignore_all") != 0,
		p.proto == nft.ProtoICMPv6 && at.sysctl("net/ipv6/icmp/echo_ignore_all") != 0:
		return "echo requests are ignored here"
	}
	return ""
}

// listens reports whether a socket takes the packet that came in by a link ("":
// any), or none is known.
func listens(at *space, in string, p *packet) bool {
	return at.Listeners == nil || p.isICMP() || slices.ContainsFunc(at.Listeners, func(l machine.Listener) bool {
		return takes(l, p) && (l.Dev == "" || in == "" || l.Dev == in)
	}) || slices.ContainsFunc(at.Held, func(l machine.Listener) bool { return takes(l, p) && l.Passes.Lets(p.src.Addr()) })
}

// takes reports whether a packet is for the socket.
func takes(l machine.Listener, p *packet) bool {
	every := l.Addr.IsUnspecified() && (l.Addr.Is6() && (p.is6() || !l.V6Only) || l.Addr.Is4() && !p.is6())
	return l.Proto == protoName(p.proto) && l.Port == p.dst.Port() && (every || l.Addr == p.dst.Addr())
}
