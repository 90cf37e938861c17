package walk

import (
	"fmt"
	"slices"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// station is a link that takes frames for itself.
type station struct {
	at   *space
	link *machine.Link
}

// frame is a packet on a link, on its way to a station.
type frame struct {
	p        *packet
	to, from station
}

// crossing is where a frame came into a bridge with br_netfilter on, and from
// whom. A reset that a rule sends, also later when the packet is routed, goes
// straight back there, past the hooks and all translation (nf_send_reset).
type crossing struct {
	port *machine.Link
	from station
}

// mac is the station's address; that of one nobody knows is not known.
func (s station) mac() string {
	if stranger(s.link) {
		return ""
	}
	return s.link.MAC
}

// String is "eth0 of web", or an address that nobody has.
func (s station) String() string {
	if s.at == nil {
		return s.link.Name
	}
	return s.link.Name + " of " + s.at.Name
}

// stranger reports whether it is not known what is at the other end of a link.
func stranger(l *machine.Link) bool {
	return l.Type != "bridge" && l.Type != "loopback" && l.Peer == ""
}

// ownStation is who takes a frame that comes in by a link and is for the
// namespace: a port hands it to its bridge.
func ownStation(at *space, l *machine.Link) station {
	if m := at.links[l.Master]; m != nil {
		return station{at, m}
	}
	return station{at, l}
}

// maxCrossings is how many links a packet may cross: bridges have no time to live.
const maxCrossings = 256

// transmit sends a routed packet by the link of its route, to the next hop.
func (r *run) transmit(at *space, rt machine.Route, p *packet, in string) *fate {
	l := at.links[rt.Dev]
	if l == nil || !l.Up {
		return r.drop(at, rt.Dev, api.LayerLink, p, "link %s is down", rt.Dev)
	}
	next := p.dst.Addr()
	if rt.Via.IsValid() {
		next = rt.Via
	}
	switch {
	case l.NoCarrier && in != "" && at.neighbour(l.Name, next) == "":
		// The next hop is asked for in vain, and then the sender is told.
		return r.reject(at, rt.Dev, api.LayerLink, p, hostUnreachable, "link %s has no carrier%s", rt.Dev, otherEnd(r.w, l))
	case l.NoCarrier:
		return r.drop(at, rt.Dev, api.LayerLink, p, "link %s has no carrier%s", rt.Dev, otherEnd(r.w, l))
	}
	to, f := r.resolve(at, l, next, p, in)
	if f != nil {
		return f
	}
	p.from, p.to = l.MAC, to.mac()
	if in != "" {
		r.hop(at, rt.Dev, api.Hop{Layer: api.LayerLink, Action: "sends", Detail: p.text(), Before: new(p.flow())})
	}
	return r.put(at, l, frame{p, to, station{at, l}})
}

// put puts a frame on a link.
func (r *run) put(at *space, l *machine.Link, f frame) *fate {
	switch {
	case !l.Up:
		return r.drop(at, l.Name, api.LayerLink, f.p, "link %s is down", l.Name)
	case l.NoCarrier:
		return r.drop(at, l.Name, api.LayerLink, f.p, "link %s has no carrier%s", l.Name, otherEnd(r.w, l))
	}
	if e := r.linkHook(at, "egress", "egress", f.p, "", l.Name); e != nil {
		return e
	}
	switch {
	case stranger(l):
		return r.out(at, l, f)
	case l.Type == "bridge":
		port := r.w.portTo(at, l, nil, f.to)
		if port == nil {
			return r.drop(at, l.Name, api.LayerBridge, f.p, "no port of bridge %s leads to %s", l.Name, f.to)
		}
		return r.put(at, port, f)
	}
	far := r.w.spaces[l.PeerNS]
	if far == nil || far.links[l.Peer] == nil {
		return end(at, f.p, api.Lost, "the other end of %s, %s in %s, is not known", l.Name, l.Peer, l.PeerNS)
	}
	if !far.up(l.Peer) {
		return r.drop(at, l.Name, api.LayerLink, f.p, "link %s has no carrier: its other end %s in %s is down", l.Name, l.Peer, l.PeerNS)
	}
	if far != at { // skb_scrub_packet
		f.p.mark = 0
	}
	return r.enter(far, far.links[l.Peer], f)
}

// otherEnd says why a link of a pair has no carrier.
func otherEnd(w *Walker, l *machine.Link) string {
	far := w.spaces[l.PeerNS]
	if far == nil || far.links[l.Peer] == nil || far.up(l.Peer) {
		return ""
	}
	return fmt.Sprintf(": its other end %s in %s is down", l.Peer, l.PeerNS)
}

// out lets a frame go by a link with nobody known behind it.
func (r *run) out(at *space, l *machine.Link, f frame) *fate {
	if f.to.link != l {
		return end(at, f.p, api.Lost, "it leaves by %s, which does not lead to %s", l.Name, f.to)
	}
	e := &fate{verdict: api.Delivered, at: at, packet: f.p, left: l}
	if f.p.kind == first {
		e.back = backTo(f.p, answer)
	}
	return e
}

// enter takes a frame in by a link. What connection tracking knew ends here.
func (r *run) enter(at *space, l *machine.Link, f frame) *fate {
	if r.crossed++; r.crossed > maxCrossings {
		return end(at, f.p, api.Lost, "it goes round in circles")
	}
	f.p.track, f.p.state, f.p.reverse, f.p.crossing, f.p.port = nil, 0, false, nil, ""
	if f.p.isARP() {
		f.p.state = nft.StateUntracked
	}
	if e := r.linkHook(at, "ingress", "ingress", f.p, l.Name, ""); e != nil {
		return e
	}
	if b := at.links[l.Master]; b != nil {
		return r.cross(at, b, l, f)
	}
	if f.to != (station{at, l}) {
		return r.drop(at, l.Name, api.LayerLink, f.p, "the frame is for %s, not for %s", f.to, station{at, l})
	}
	r.hop(at, l.Name, api.Hop{Layer: api.LayerLink, Action: "receives", Detail: f.p.text(), Before: new(f.p.flow())})
	return r.arrive(at, l.Name, f.p, false)
}

// cross takes a frame that came in by a port through the bridge: up to the
// namespace, or on to another port. With br_netfilter on, the hooks of IP see
// it, as coming from and going to the bridge.
func (r *run) cross(at *space, b, in *machine.Link, f frame) *fate {
	r.hop(at, in.Name, api.Hop{Port: in.Name, Layer: api.LayerBridge, Action: "receives", Detail: "port of bridge " + b.Name, Before: new(f.p.flow())})
	if !b.Up {
		return r.drop(at, b.Name, api.LayerBridge, f.p, "bridge %s is down", b.Name)
	}
	if e := r.linkHook(at, "prerouting", bridged+"prerouting", f.p, in.Name, ""); e != nil {
		return e
	}
	hooked := at.bridgeNF(b, f.p.is6()) && !f.p.isARP()
	if hooked {
		f.p.crossing = &crossing{in, f.from}
		var e *fate
		if f, e = r.hookBridged(at, b, f); e != nil {
			return e
		}
	}
	if e := r.unlock(at, b, in, f.p); e != nil {
		return e
	}
	if f.to == (station{at, b}) {
		if e := r.linkHook(at, "input", bridged+"input", f.p, in.Name, ""); e != nil {
			return e
		}
		return r.arrive(at, b.Name, f.p, hooked)
	}
	return r.bridge(at, b, in, f, hooked)
}

// unlock takes a frame in by a locked port if the bridge knows that its sender
// is behind it (br_handle_frame_finish).
func (r *run) unlock(at *space, b, in *machine.Link, p *packet) *fate {
	knows := func(e machine.ForwardingEntry) bool {
		return e.Bridge == b.Name && e.Dev == in.Name && e.MAC == p.from && !e.Local
	}
	if !in.Locked || p.from == "" || slices.ContainsFunc(at.Forwarding, knows) {
		return nil
	}
	return r.drop(at, in.Name, api.LayerBridge, p, "port %s is locked, and %s is not an address it is known to have", in.Name, p.from)
}

// hookBridged takes a frame through prerouting. A new destination is routed: it
// stays on the bridge if it is behind it, and goes up to the namespace if not
// (br_nf_pre_routing_finish). IPv4 must be forwarded for that, IPv6 need not.
func (r *run) hookBridged(at *space, b *machine.Link, f frame) (frame, *fate) {
	p := f.p
	if p.is6() && (p.src.Addr().IsLoopback() || p.dst.Addr().IsLoopback()) {
		return f, nil // arrive drops it
	}
	was := p.dst.Addr()
	if e := r.hook(at, "prerouting", p, b.Name, ""); e != nil {
		return f, e
	}
	if p.dst.Addr() == was {
		return f, nil
	}
	rt, e := r.routeIn(at, b.Name, p)
	if e != nil {
		return f, e
	}
	if outDev(rt) != b.Name {
		f.to = station{at, b}
		return f, nil
	}
	next := p.dst.Addr()
	if rt.Via.IsValid() {
		next = rt.Via
	}
	f.to, e = r.resolve(at, b, next, p, b.Name)
	p.to = "" // neigh_hh_bridge leaves the sender's
	f.from = station{at, b}
	if e == nil {
		p.to = f.to.mac()
	}
	return f, e
}

// bridge passes a frame on to the port that leads to its station.
func (r *run) bridge(at *space, b, in *machine.Link, f frame, hooked bool) *fate {
	p := f.p
	out := r.w.portTo(at, b, in, f.to)
	switch {
	case out == nil:
		return r.drop(at, b.Name, api.LayerBridge, p, "no port of bridge %s leads to %s", b.Name, f.to)
	case out == in && !in.Hairpin:
		return r.drop(at, b.Name, api.LayerBridge, p, "port %s would have to send the frame back: hairpin is off", in.Name)
	case p.size > 0 && out.MTU > 0 && p.size > out.MTU: // is_skb_forwardable
		return r.drop(at, b.Name, api.LayerBridge, p, "%d bytes do not fit the MTU of port %s, %d, and a bridge says nothing", p.size, out.Name, out.MTU)
	case in.Isolated && out.Isolated:
		return r.drop(at, b.Name, api.LayerBridge, p, "ports %s and %s are isolated", in.Name, out.Name)
	}
	p.port = out.Name
	if e := r.linkHook(at, "forward", bridged+"forward", p, in.Name, out.Name); e != nil {
		return e
	}
	if hooked {
		if e := r.hook(at, "forward", p, b.Name, b.Name); e != nil {
			return e
		}
	}
	if e := r.linkHook(at, "postrouting", bridged+"postrouting", p, "", out.Name); e != nil {
		return e
	}
	if hooked { // here the hook is not told where the frame came from
		if e := r.hook(at, "postrouting", p, "", b.Name); e != nil {
			return e
		}
	}
	r.hop(at, b.Name, api.Hop{Port: out.Name, Layer: api.LayerBridge, Action: "bridges", Detail: "to port " + out.Name, Before: new(p.flow())})
	return r.put(at, out, f)
}
