package walk

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// origin is where a flood begins.
type origin struct {
	link     *machine.Link
	isolated bool
}

// flood goes where a broadcast goes, and finds each link that takes frames for
// itself.
type flood struct {
	w     *Walker
	seen  map[*machine.Link]bool
	found []station
	// isolated: ports that are isolated from each other end it. They do not end
	// a search for the port that leads to somebody.
	isolated bool
}

func (f *flood) put(at *space, l *machine.Link) {
	switch {
	case !l.Up:
		return
	case stranger(l):
		f.found = append(f.found, station{at, l})
		return
	case l.Type == "bridge":
		f.bridge(at, l, nil)
		return
	}
	far := f.w.spaces[l.PeerNS]
	if far == nil || !far.up(l.Peer) || f.seen[far.links[l.Peer]] {
		return
	}
	peer := far.links[l.Peer]
	f.seen[peer] = true
	b := far.links[peer.Master]
	switch {
	case b == nil:
		f.found = append(f.found, station{far, peer})
	case b.Up:
		f.found = append(f.found, station{far, b})
		f.bridge(far, b, peer)
	}
}

// bridge floods the ports of a bridge but the one a frame came in by.
func (f *flood) bridge(at *space, b, in *machine.Link) {
	for i := range at.Links {
		p := &at.Links[i]
		kept := f.isolated && in != nil && in.Isolated && p.Isolated
		if p.Master == b.Name && p != in && !kept {
			f.put(at, p)
		}
	}
}

// search is a flood by one link.
func (w *Walker) search(at *space, l *machine.Link, isolated bool) []station {
	from := origin{l, isolated}
	w.mu.Lock()
	found, known := w.stations[from]
	w.mu.Unlock()
	if known {
		return found
	}
	f := flood{w: w, seen: map[*machine.Link]bool{}, isolated: isolated}
	f.put(at, l)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stations[from] = f.found
	return f.found
}

// portTo is the port of a bridge behind which a station is: where an entry of
// the forwarding database says, else where it is found. in comes last.
func (w *Walker) portTo(at *space, b, in *machine.Link, to station) *machine.Link {
	for _, e := range at.Forwarding {
		p := at.links[e.Dev]
		if e.Bridge == b.Name && !e.Local && e.MAC != "" && e.MAC == to.mac() && p != nil && p.Master == b.Name {
			return p
		}
	}
	leads := func(p *machine.Link) bool {
		return p.Master == b.Name && slices.Contains(w.search(at, p, false), to)
	}
	for i := range at.Links {
		if p := &at.Links[i]; p != in && leads(p) {
			return p
		}
	}
	if in != nil && leads(in) {
		return in
	}
	return nil
}

// resolve finds who has an address on a link. Somebody unknown has it if there
// may be one; nobody else does.
func (r *run) resolve(at *space, l *machine.Link, next netip.Addr, p *packet, in string) (station, *fate) {
	mac, asker := at.neighbour(l.Name, next), p.src.Addr()
	if !at.isLocal(asker) {
		asker = at.source(machine.Route{Dev: l.Name, Type: machine.Unicast}, next)
	}
	var found []station
	var unknown station
	silent := "" // why who has the address does not answer
	for _, s := range r.w.search(at, l, mac == "") {
		switch {
		case stranger(s.link):
			unknown = s
		case mac == "" && s.silence(next, asker) != "":
			silent = fmt.Sprintf(" (%s has it, but %s)", s.at.Name, s.silence(next, asker))
		case mac != "" && s.link.MAC == mac, mac == "" && s.answersFor(next):
			found = append(found, s)
		}
	}
	known, isKnown := r.learned[acquaintance{l, next}]
	switch {
	case isKnown:
		return known, nil
	case len(found) > 0 && mac == "":
		return r.get(at, l, found, next, asker, p)
	case len(found) > 0:
		r.uncertain = r.uncertain || len(found) > 1
		return found[0], nil
	case unknown.link != nil && !at.gaveUp(l.Name, next):
		return unknown, nil
	case unknown.link != nil: // it may be there by now
		r.uncertain = true
	case mac != "":
		return r.w.remembered(mac, next), nil
	}
	if silent == "" {
		silent = r.w.asleep(next)
	}
	if in == "" {
		return station{}, r.drop(at, l.Name, api.LayerNeighbour, p, "nobody on %s answers for %s%s: EHOSTUNREACH", l.Name, next, silent)
	}
	return station{}, r.reject(at, l.Name, api.LayerNeighbour, p, hostUnreachable, "nobody on %s answers for %s%s", l.Name, next, silent)
}

// remembered is a station that nothing leads to any more. Whoever remembers its
// address does not ask, and sends as before.
func (w *Walker) remembered(mac string, a netip.Addr) station {
	// With a peer it is nobody that might be anywhere.
	return station{nil, &machine.Link{Name: mac + w.asleep(a), MAC: mac, Type: "veth", Peer: mac}}
}

// asleep says whose link is down that an address is on; "" of none. A link that
// is down cannot be found by what leads to it.
func (w *Walker) asleep(a netip.Addr) string {
	for _, name := range slices.Sorted(maps.Keys(w.spaces)) {
		for _, own := range w.spaces[name].Addresses {
			if l := w.spaces[name].links[own.Dev]; own.Prefix.Addr() == a && l != nil && !l.Up {
				return fmt.Sprintf(" (%s has it, but its link %s is down)", name, own.Dev)
			}
		}
	}
	return ""
}

// acquaintance is an address that is known on a link.
type acquaintance struct {
	link *machine.Link
	ip   netip.Addr
}

// get asks those who would answer for an address. Who is asked learns who asks
// (neigh_event_ns), and need not ask for the answer's way. Of two answers that
// come back the last is believed, which is a matter of luck.
func (r *run) get(at *space, l *machine.Link, all []station, next, asker netip.Addr, p *packet) (station, *fate) {
	var found station
	var failure *fate
	for _, to := range all {
		f := r.discover(at, l, to, next, asker)
		switch {
		case f == nil && found.link != nil:
			r.uncertain = true
		case f == nil:
			found = to
			r.learned[acquaintance{to.link, asker}] = station{at, l}
		default:
			failure = cmp.Or(failure, f)
		}
	}
	if found.link != nil {
		return found, nil
	}
	dev := ""
	if failure.place == at {
		dev = l.Name
	}
	r.hop(failure.place, dev, api.Hop{Layer: api.LayerNeighbour, Action: "drop", Detail: failure.reason, Rule: failure.rule, Before: new(p.flow())})
	return all[0], failure
}

// neighbour is the MAC of a neighbour that need not be asked for.
func (s *space) neighbour(dev string, ip netip.Addr) string {
	for _, n := range s.Neighbours {
		if n.Dev == dev && n.IP == ip && n.Usable() {
			return n.MAC
		}
	}
	return ""
}

// gaveUp reports whether the kernel has asked for a neighbour lately, in vain.
func (s *space) gaveUp(dev string, ip netip.Addr) bool {
	return slices.ContainsFunc(s.Neighbours, func(n machine.Neighbour) bool {
		return n.Dev == dev && n.IP == ip && n.State == machine.NeighbourFailed
	})
}

// silence says why a station does not answer a question for an IPv4 address of
// its namespace: it would not take a packet from the asker there (arp_process).
func (s station) silence(a, asker netip.Addr) string {
	if !a.Is4() || !s.at.isLocal(a) {
		return ""
	}
	if why := martian(s.at, s.link.Name, asker, a); why != "" {
		return why
	}
	return validateSource(s.at, s.link.Name, "", asker, a)
}

// answersFor reports whether a station has an address to answer for: with IPv6
// one of its own, with IPv4 any of its namespace's (arp_ignore 0).
func (s station) answersFor(a netip.Addr) bool {
	if a.Is4() {
		return s.at.isLocal(a)
	}
	for _, own := range s.at.Addresses {
		if own.Dev == s.link.Name && own.Prefix.Addr() == a && usable(own) {
			return true
		}
	}
	return false
}

// discover sends the question for an address and its answer through the hooks:
// rules that drop ICMPv6 cut IPv6 off, and so do those that drop ARP with IPv4.
func (r *run) discover(at *space, l *machine.Link, to station, target, src netip.Addr) *fate {
	r.quiet++
	defer func() { r.quiet-- }()
	bare := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 0) }
	ask := &packet{proto: protoARP, src: bare(src), dst: bare(target), kind: solicit, from: l.MAC, to: broadcastMAC}
	if target.Is6() {
		ask.proto, ask.dst, ask.ttl, ask.to = nft.ProtoICMPv6, bare(solicitedNode(target)), 255, to.mac()
	}
	tell := &packet{proto: ask.proto, src: bare(target), dst: bare(src), ttl: ask.ttl, kind: advertise, from: to.mac(), to: l.MAC}
	ask.quoted, tell.quoted = nft.Tuple{Dst: bare(target)}, nft.Tuple{Dst: bare(target)}
	for _, leg := range []struct {
		at, by station
		p      *packet
	}{{station{at, l}, to, ask}, {to, station{at, l}, tell}} {
		if f := r.say(leg.at, leg.by, leg.p); f.verdict != api.Delivered {
			f.reason = "neighbour discovery of " + target.String() + ": " + f.reason
			f.place, f.at, f.back = f.at, at, nil
			if f.verdict != api.Undecided {
				f.verdict = api.Dropped
			}
			return f
		}
	}
	return nil
}

// say sends a message of neighbour discovery from a station to another.
func (r *run) say(from, to station, p *packet) *fate {
	if p.isARP() { // the chains of family arp are not walked
		return r.put(from.at, from.link, frame{p, to, from})
	}
	for _, hook := range []string{"output", "postrouting"} {
		if f := r.hook(from.at, hook, p, "", from.link.Name); f != nil {
			return f
		}
	}
	return r.put(from.at, from.link, frame{p, to, from})
}

// solicitedNode is the multicast address of all with the same last 24 bits
// (RFC 4291, 2.7.1).
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}
