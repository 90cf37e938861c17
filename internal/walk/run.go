package walk

import (
	"fmt"
	"net/netip"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// Question is a packet to follow.
type Question struct {
	// From is the namespace that sends it or, with Link, takes it in by that
	// link from somebody who is not known.
	From, Link string
	// Src may be left out but for packets from outside: its address is then
	// chosen as the kernel does. A port of 0 is ephemeralPort.
	Src, Dst netip.AddrPort
	// Proto is "tcp", "udp", "sctp" or "icmp", which is an echo request.
	Proto string
	// Size is how many bytes the packet has, headers and all, and that it may not
	// be cut up; 0: it fits everywhere.
	Size int
	// TTL is its time to live, or hop limit; 0: what the sender's kernel gives it.
	TTL int
}

// ephemeralPort stands for the one that a sender would be given.
const ephemeralPort = 49152

// firstTTL is what packets start with (net.ipv4.ip_default_ttl, the hop limit of IPv6).
const firstTTL = 64

// outside names who is beyond the links that are known.
const outside = "outside"

// run is one walk.
type run struct {
	w         *Walker
	path      *api.Path
	direction api.Direction
	origin    *space
	packet    nft.Tuple // the request as it was sent
	conns     map[string][]*tracked
	learned   map[acquaintance]station
	quiet     int    // above 0: hops are of a packet that only helps this one
	uncertain bool   // something was drawn by lot
	crossed   int    // links so far, against loops of bridges
	reached   string // namespace and link by which the packet first came to a stack
}

// fate is how one leg of a walk ends.
type fate struct {
	verdict api.Verdict
	reason  string
	rule    *api.Rule
	at      *space // where
	place   *space // where a message of neighbour discovery ended
	packet  *packet
	left    *machine.Link // it has left by a link with nobody known behind it
	back    *packet       // what at sends because of it
	direct  *crossing     // by this port, past the hooks, if not nil
}

// Walk follows a packet, and its answer.
func (w *Walker) Walk(q Question) (api.Path, error) {
	path := api.Path{Schema: api.PathSchema, Kind: api.Expected, Level: api.LevelWalk, Complete: true, Hops: []api.Hop{}}
	r := &run{w: w, path: &path, direction: api.Request, conns: map[string][]*tracked{}, learned: map[acquaintance]station{}}
	p, err := r.question(q)
	if err != nil {
		return api.Path{}, fmt.Errorf("walk from %s to %s: %w", q.From, q.Dst, err)
	}
	f := r.request(q, p)
	path.To = api.Party{Addr: r.packet.Dst.Addr()}
	path.Verdict, path.Reason, path.Culprit = f.verdict, f.reason, f.rule
	switch f.verdict {
	case api.Delivered, api.Refused:
		path.To.Name, path.To.NS = f.at.Name, f.at.Name
		if f.left != nil {
			path.To.Name, path.To.NS = outside, ""
		}
		r.answer(f)
	case api.Rejected:
		r.direction = api.ErrorBack
		if reason, ok := r.comesBack(f); !ok && path.Verdict != api.Undecided {
			path.Verdict, path.Reason = api.Dropped, f.reason+"; the error does not come back: "+reason
		}
	}
	path.Complete = path.Verdict != api.Undecided
	return path, nil
}

// question makes the packet that is asked for.
func (r *run) question(q Question) (*packet, error) {
	r.origin = r.w.spaces[q.From]
	dst := q.Dst.Addr()
	proto, known := protoNumber(q.Proto, dst)
	switch {
	case r.origin == nil:
		return nil, fmt.Errorf("there is no namespace %q", q.From)
	case !known:
		return nil, fmt.Errorf("protocol %q is not known", q.Proto)
	case !dst.IsValid():
		return nil, fmt.Errorf("no destination")
	case q.Src.Addr().IsValid() && q.Src.Addr().Is4() != dst.Is4():
		return nil, fmt.Errorf("source %s and destination are of two families", q.Src.Addr())
	case q.Link != "" && r.origin.links[q.Link] == nil:
		return nil, fmt.Errorf("there is no link %q", q.Link)
	case q.Link != "" && !q.Src.Addr().IsValid():
		return nil, fmt.Errorf("a packet from outside needs a source")
	}
	p := &packet{proto: proto, src: q.Src, dst: netip.AddrPortFrom(dst.WithZone(""), q.Dst.Port()), ttl: r.origin.firstTTL(dst), size: q.Size, oif: dst.Zone()}
	switch {
	case q.TTL != 0:
		p.ttl = q.TTL
	case q.Link != "": // of who sent it nothing is known
		p.ttl = firstTTL
	}
	switch {
	case p.isICMP(): // the identifier stands in both ports
		p.src = netip.AddrPortFrom(q.Src.Addr(), q.Src.Port())
		p.dst = netip.AddrPortFrom(p.dst.Addr(), q.Src.Port())
	case q.Src.Port() == 0:
		p.src = netip.AddrPortFrom(q.Src.Addr(), ephemeralPort)
	}
	r.packet, r.path.Flow = p.tuple(), p.flow()
	return p, nil
}

// request walks the packet to its end.
func (r *run) request(q Question, p *packet) *fate {
	if q.Link == "" {
		f := r.send(r.origin, p)
		r.path.From = api.Party{Name: r.origin.Name, NS: r.origin.Name, Addr: r.packet.Src.Addr()}
		return f
	}
	r.path.From = api.Party{Name: outside, Addr: p.src.Addr()}
	l := r.origin.links[q.Link]
	return r.enter(r.origin, l, frame{p: p, to: ownStation(r.origin, l)})
}

// answer walks what comes back of a packet that has arrived, and notes in the
// path when it does not get there: the verdict is about the packet.
func (r *run) answer(f *fate) {
	r.direction = api.Reply
	if f.back != nil && f.back.kind == icmpError {
		r.direction = api.ErrorBack
	}
	reason, ok := r.comesBack(f)
	if ok || r.path.Verdict == api.Undecided {
		return
	}
	r.path.Reason = "its answer does not come back: " + reason
	if f.reason != "" {
		r.path.Reason = f.reason + "; " + r.path.Reason
	}
}

// comesBack walks the way back, and says why it does not lead to the sender.
func (r *run) comesBack(f *fate) (reason string, ok bool) {
	if f.back == nil {
		return "nothing is sent", false
	}
	var b *fate
	switch {
	case f.left != nil:
		b = r.enter(f.at, f.left, frame{p: f.back, to: ownStation(f.at, f.left)})
	case f.direct != nil:
		r.hop(f.at, f.direct.port.Name, api.Hop{Layer: api.LayerBridge, Action: "sends", Detail: f.back.text(), Before: new(f.back.flow())})
		b = r.put(f.at, f.direct.port, frame{p: f.back, to: f.direct.from})
	default:
		b = r.send(f.at, f.back)
	}
	switch {
	case b.verdict == api.Undecided:
		r.path.Verdict, r.path.Reason, r.path.Culprit = api.Undecided, b.reason, b.rule
		return b.reason, false
	case b.verdict != api.Delivered:
		if r.path.Culprit == nil {
			r.path.Culprit = b.rule
		}
		return b.reason, false
	case b.at != r.origin || (b.left == nil) != (r.path.From.NS != ""):
		return fmt.Sprintf("it goes to %s, who did not ask", b.at.Name), false
	}
	return r.belongs(b.packet)
}

// belongs reports whether the sender takes an answer for one to its packet.
func (r *run) belongs(p *packet) (reason string, ok bool) {
	switch {
	case p.kind == icmpError && p.quoted != r.packet:
		return fmt.Sprintf("it is about a packet from %s to %s, which was not sent", p.quoted.Src, p.quoted.Dst), false
	case p.kind != icmpError && p.tuple() != inverse(r.packet):
		return fmt.Sprintf("it comes as %s, which was not asked", p.text()), false
	}
	return "", true
}

// backTo is a packet in answer to p.
func backTo(p *packet, k kind) *packet {
	return &packet{proto: p.proto, src: p.dst, dst: p.src, ttl: firstTTL, kind: k}
}

// errorAbout is an ICMP error about p from at: from the address it was for, if
// that is at's own, else from the one that the route back chooses.
func errorAbout(at *space, p *packet, m icmp) *packet {
	if unanswerable(at, p) {
		return nil
	}
	e := &packet{proto: nft.ProtoICMP, dst: netip.AddrPortFrom(p.src.Addr(), 0), ttl: firstTTL, kind: icmpError, icmp: m, quoted: p.tuple()}
	if p.is6() {
		e.proto = nft.ProtoICMPv6
	}
	if at.isLocal(p.dst.Addr()) {
		e.src = netip.AddrPortFrom(p.dst.Addr(), 0)
	}
	if p.track != nil { // even if it is not confirmed yet (nf_ct_attach)
		e.track, e.state, e.reverse = p.track, nft.StateRelated, !p.reverse
	}
	return e
}

// unanswerable reports whether a packet causes no error: one that is an error
// itself, or that was sent to many (RFC 1122, 3.2.2).
func unanswerable(at *space, p *packet) bool {
	to := at.addressType(p.dst.Addr(), "")
	return p.kind == icmpError || p.kind == reset || to == machine.Broadcast || to == machine.Multicast
}

// Errors by family: destination unreachable (RFC 792, RFC 4443), time exceeded,
// and what does not fit (RFC 1191).
type errorKind byte

const (
	noRoute errorKind = iota
	portUnreachable
	hostUnreachable
	prohibited
	timeExceeded
	tooBig
)

// message is the error's type and code.
func (k errorKind) message(v6 bool) icmp {
	if v6 {
		return [...]icmp{{1, 0}, {1, 4}, {1, 3}, {1, 1}, {3, 0}, {2, 0}}[k]
	}
	return [...]icmp{{3, 0}, {3, 3}, {3, 1}, {3, 13}, {11, 0}, {3, 4}}[k]
}

// rejection is what a reject statement sends.
func rejection(at *space, p *packet, j nft.Reject) *packet {
	switch {
	case unanswerable(at, p):
		return nil
	case j.Type == nft.RejectTCP:
		return backTo(p, reset)
	case j.Type == nft.RejectICMPX:
		return errorAbout(at, p, errorKind(min(j.Code, uint8(prohibited))).message(p.is6()))
	case p.is6():
		return errorAbout(at, p, icmp{1, j.Code})
	}
	return errorAbout(at, p, icmp{3, j.Code})
}

// hop notes a hop of the packet.
func (r *run) hop(at *space, dev string, h api.Hop) {
	if r.quiet > 0 {
		return
	}
	h.Index, h.Direction, h.NS, h.NSInode, h.Device = len(r.path.Hops), r.direction, at.Name, at.Inode, dev
	if l := at.links[dev]; l != nil {
		h.Ifindex = l.Index
	}
	h.Sources, h.Certain = []string{"walk"}, !r.uncertain && len(at.Partial) == 0
	r.path.Hops = append(r.path.Hops, h)
}
