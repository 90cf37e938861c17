package walk

import (
	"net/netip"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/nft"
)

// tracked is a connection as one namespace knows it.
type tracked struct {
	proto            uint8
	original, answer nft.Tuple
	status, mark     uint32
	// seen: it is there from before, or its first packet has got through.
	seen bool
	// old: answers were seen before the walk.
	old bool
	// dstDone and srcDone: the chains of nat were asked, once a connection.
	dstDone, srcDone bool
}

// newTracked is the connection of a first packet.
func newTracked(p *packet) *tracked {
	t := p.tuple()
	return &tracked{proto: p.proto, original: t, answer: inverse(t)}
}

func inverse(t nft.Tuple) nft.Tuple { return nft.Tuple{Src: t.Dst, Dst: t.Src} }

// known makes the connections that a namespace tracks already, but those of echo:
// who asks chooses an identifier that none of them has.
func known(s *space) []*tracked {
	var out []*tracked
	for _, c := range s.Connections {
		proto, ok := protoNumber(c.Proto, c.Original.Dst.Addr())
		if !ok || proto == nft.ProtoICMP || proto == nft.ProtoICMPv6 {
			continue
		}
		out = append(out, &tracked{
			proto: proto, original: c.Original, answer: c.Answer, status: c.Status, mark: c.Mark,
			seen: true, old: true, dstDone: true, srcDone: true,
		})
	}
	return out
}

// follow finds the connection of a packet in a namespace, or begins one
// (nf_conntrack_in). What it has looked at before, it leaves alone: so it does
// with a packet on the loopback.
func (r *run) follow(at *space, name string, p *packet, dev string) *fate {
	switch {
	case p.state != 0:
	case p.kind == solicit || p.kind == advertise || p.kind == other:
		p.state = nft.StateUntracked // nf_conntrack_icmpv6_error
	case p.kind == icmpError:
		r.followError(at, p)
	case !r.followPacket(at, p):
		f := end(at, p, api.Dropped, "the table of connections of %s is full: %s are tracked", at.Name, at.Sysctls["net/netfilter/nf_conntrack_count"])
		r.hop(at, dev, api.Hop{Layer: api.Layer(name), Action: "drop", Detail: f.reason, Before: new(p.flow())})
		return f
	}
	return nil
}

// full reports whether no more connections are tracked: the first packet of
// another is dropped, unless one that was never answered can make room.
func (s *space) full() bool {
	count, most := s.sysctl("net/netfilter/nf_conntrack_count"), s.sysctl("net/netfilter/nf_conntrack_max")
	return most > 0 && count >= most
}

// followPacket reports whether the packet may go on.
func (r *run) followPacket(at *space, p *packet) bool {
	t := p.tuple()
	// The type of an echo message, which is part of its tuple, says its direction:
	// one to oneself has the same addresses both ways.
	maybeFirst, maybeAnswer := !p.isICMP() || p.kind == first, !p.isICMP() || p.kind != first
	for _, c := range r.connections(at) {
		switch {
		case c.proto != p.proto:
		case c.original == t && maybeFirst:
			p.track, p.state, p.reverse = c, nft.StateNew, false
			if c.old {
				p.state = nft.StateEstablished
			}
			return true
		case c.answer == t && maybeAnswer:
			p.track, p.state, p.reverse = c, nft.StateEstablished, true
			return true
		}
	}
	// An answer alone begins a connection of UDP; those of TCP and ICMP do not.
	if p.kind != first && p.proto != nft.ProtoUDP {
		p.state = nft.StateInvalid
		return true
	}
	if at.full() {
		return false
	}
	p.track, p.state, p.reverse = newTracked(p), nft.StateNew, false
	r.conns[at.Name] = append(r.conns[at.Name], p.track)
	return true
}

// followError finds the connection of an error from elsewhere by the packet that is
// quoted: it looks as it did after all translation, and one that never got through
// is not known (nf_conntrack_inet_error).
func (r *run) followError(at *space, p *packet) {
	p.state = nft.StateInvalid
	for _, c := range r.connections(at) {
		switch {
		case !c.seen:
		case c.answer == inverse(p.quoted):
			p.track, p.state, p.reverse = c, nft.StateRelated, true
			return
		case c.original == inverse(p.quoted):
			p.track, p.state, p.reverse = c, nft.StateRelated, false
			return
		}
	}
}

// connections are those of a namespace, of before and of this walk.
func (r *run) connections(at *space) []*tracked {
	if _, asked := r.conns[at.Name]; !asked {
		r.conns[at.Name] = known(at)
	}
	return r.conns[at.Name]
}

// translate gives the packet the addresses that its connection says: the
// destination (toDst) or the source. Answers get back what the first packet had
// (nf_nat_packet).
func (p *packet) translate(toDst bool) {
	c := p.track
	if c == nil {
		return
	}
	dnat, snat := c.status&nft.StatusDNAT != 0, c.status&nft.StatusSNAT != 0
	switch {
	case toDst && !p.reverse && dnat:
		p.setDst(c.answer.Src)
	case toDst && p.reverse && snat:
		p.setDst(c.original.Src)
	case !toDst && !p.reverse && snat:
		p.setSrc(c.answer.Dst)
	case !toDst && p.reverse && dnat:
		p.setSrc(c.original.Dst)
	}
}

// setDst changes the destination, and in what an error quotes the source.
func (p *packet) setDst(to netip.AddrPort) {
	p.dst = to
	if p.kind == icmpError {
		p.quoted.Src = to
	}
}

// setSrc changes the source, and in what an error quotes the destination.
func (p *packet) setSrc(to netip.AddrPort) {
	p.src = to
	if p.kind == icmpError {
		p.quoted.Dst = to
	}
}

// confirm notes that a packet has passed the last hook of a namespace: from
// then on errors about it are known to be related.
func (p *packet) confirm() {
	if p.track != nil {
		p.track.seen = true
	}
}
