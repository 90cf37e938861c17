package walk

import (
	"fmt"
	"net/netip"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// Frame is a frame that is put on a link as somebody has made it, past the stack
// of its sender.
type Frame struct {
	// From is the namespace, Link the link it leaves by.
	From, Link string
	// SrcMAC and DstMAC are those of the Ethernet header.
	SrcMAC, DstMAC string
	// Proto is "tcp", "udp" or "icmp", which is an echo request; "arp", which is a
	// reply that says that SrcMAC has Src; "probe", an ARP request for Dst; "na" and
	// "ns", a neighbour advertisement and solicitation; or "ra", a router advertisement.
	Proto    string
	Src, Dst netip.AddrPort
	// Target is the address that an advertisement or solicitation is about.
	Target netip.Addr
}

// WalkFrame follows a frame. reached is the namespace and the link by which it
// comes to a stack, "host tp-front"; "" if it comes to none.
func (w *Walker) WalkFrame(f Frame) (path api.Path, reached string, err error) {
	path = api.Path{Schema: api.PathSchema, Kind: api.Expected, Level: api.LevelWalk, Complete: true, Hops: []api.Hop{}}
	r := &run{w: w, path: &path, direction: api.Request, conns: map[string][]*tracked{}, learned: map[acquaintance]station{}}
	p, err := f.packet()
	at := w.spaces[f.From]
	switch {
	case err != nil:
	case at == nil || at.links[f.Link] == nil:
		err = fmt.Errorf("there is no link %q in namespace %q", f.Link, f.From)
	}
	if err != nil {
		return api.Path{}, "", fmt.Errorf("walk a frame: %w", err)
	}
	l := at.links[f.Link]
	r.origin, r.packet, path.Flow = at, p.tuple(), p.flow()
	path.From = api.Party{Name: at.Name, NS: at.Name, Addr: p.src.Addr()}
	to, found := r.holder(at, l, f.DstMAC)
	if !found {
		path.Verdict, path.Reason = api.Lost, "nobody on the link has the address "+f.DstMAC
		return path, "", nil
	}
	end := r.put(at, l, frame{p: p, to: to, from: station{at, l}})
	path.Verdict, path.Reason, path.Culprit = end.verdict, end.reason, end.rule
	path.To = api.Party{Name: to.at.Name, NS: to.at.Name, Addr: p.dst.Addr()}
	path.Complete = path.Verdict != api.Undecided
	return path, r.reached, nil
}

// holder finds who has a MAC address, of those that a link leads to.
func (r *run) holder(at *space, l *machine.Link, mac string) (station, bool) {
	for _, s := range r.w.search(at, l, false) {
		if s.mac() == mac {
			return s, true
		}
	}
	return station{}, false
}

// packet is what is in the frame.
func (f Frame) packet() (*packet, error) {
	p := &packet{src: f.Src, dst: f.Dst, ttl: firstTTL, from: f.SrcMAC, to: f.DstMAC}
	switch f.Proto {
	case "arp":
		p.proto, p.kind = protoARP, advertise
	case "probe":
		p.proto, p.kind = protoARP, solicit
	case "na", "ns":
		p.proto, p.kind, p.ttl = nft.ProtoICMPv6, advertise, 255
		if f.Proto == "ns" {
			p.kind = solicit
		}
		p.quoted = nft.Tuple{Dst: netip.AddrPortFrom(f.Target, 0)}
	case "ra":
		p.proto, p.kind, p.icmp, p.ttl = nft.ProtoICMPv6, other, icmp{routerAdvert, 0}, 255
	default:
		var known bool
		if p.proto, known = protoNumber(f.Proto, f.Dst.Addr()); !known {
			return nil, fmt.Errorf("protocol %q is not known", f.Proto)
		}
	}
	if !f.Dst.Addr().IsValid() || f.Src.Addr().Is4() != f.Dst.Addr().Is4() {
		return nil, fmt.Errorf("source %s and destination %s are not of one family", f.Src.Addr(), f.Dst.Addr())
	}
	if p.isICMP() {
		p.dst = netip.AddrPortFrom(p.dst.Addr(), p.src.Port())
	}
	return p, nil
}
