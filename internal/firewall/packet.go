package firewall

import (
	"net/netip"

	"github.com/towpath/towpath/internal/nft"
)

// sample is a family with addresses that stand for many: a container, its
// neighbour, the host, and somebody on the Internet, whom no rule has in mind.
type sample struct {
	icmp                             uint8
	container, other, host, somebody netip.Addr
}

func families(v4, v6 bool) []sample {
	var out []sample
	if v4 {
		out = append(out, sample{
			nft.ProtoICMP, netip.AddrFrom4([4]byte{172, 20, 0, 2}), netip.AddrFrom4([4]byte{172, 20, 0, 3}),
			netip.AddrFrom4([4]byte{192, 168, 1, 2}), netip.AddrFrom4([4]byte{1, 1, 1, 1}),
		})
	}
	if v6 {
		out = append(out, sample{
			nft.ProtoICMPv6, netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::3"),
			netip.MustParseAddr("2a00:1450::2"), netip.MustParseAddr("2606:4700:4700::1111"),
		})
	}
	return out
}

// of takes the containers' addresses from the network, behind that of the bridge.
func (s sample) of(n Network) sample {
	for _, p := range n.Subnets {
		first := p.Masked().Addr().Next().Next()
		if p.Addr().Is6() != s.container.Is6() || p.Addr().IsLinkLocalUnicast() || !p.Contains(first) {
			continue
		}
		s.container, s.other = first, first
		if p.Contains(first.Next()) {
			s.other = first.Next()
		}
		break
	}
	return s
}

// at takes the container's address from a publication.
func (s sample) at(p Publication) sample {
	s = s.of(p.Network)
	for _, a := range p.To {
		if a.Is6() == s.container.Is6() {
			s.container = a
		}
	}
	return s
}

// client is a port that connections come from.
const client = 40000

// flow is a packet from one link to another in a connection.
type flow struct {
	proto    uint8
	src, dst netip.AddrPort
	in, out  string
	state    uint32
	reply    bool
	dnat     netip.AddrPort // what the first packet was sent to, when that was translated
}

// packet makes the flow's packet as it passes the forward hook.
func (f flow) packet() *nft.Packet {
	var head []byte
	if f.proto == nft.ProtoTCP && f.reply {
		head = make([]byte, 20)
		head[12], head[13] = 5<<4, 0x12 // SYN, ACK
	}
	p := nft.NewPacket(f.proto, f.src, f.dst, head)
	p.IIf, p.OIf = &nft.Device{Index: 2, Name: f.in, Type: 1}, &nft.Device{Index: 3, Name: f.out, Type: 1}
	if f.in == f.out {
		p.OIf.Index = p.IIf.Index
	}
	p.CT.State, p.CT.Reply = f.state, f.reply
	if f.reply {
		p.CT.Original, p.CT.Answer = p.CT.Answer, p.CT.Original
	}
	if f.dnat.IsValid() {
		p.CT.Status |= nft.StatusDNAT
		p.CT.Original.Dst = f.dnat
	}
	if f.state != nft.StateNew {
		p.CT.Status |= nft.StatusConfirmed
	}
	// What is forwarded is routed, there by one link and back by the other.
	p.FIB = func(addr netip.Addr, flags nft.FIBFlags) (nft.FIBAnswer, bool) {
		switch {
		case addr == f.dst.Addr() && flags&nft.FIBDAddr != 0:
			return nft.FIBAnswer{OIf: *p.OIf, Type: 1}, true
		case addr == f.src.Addr() && flags&nft.FIBSAddr != 0:
			return nft.FIBAnswer{OIf: *p.IIf, Type: 1}, true
		}
		return nft.FIBAnswer{}, false
	}
	return p
}

// back is the answer.
func (f flow) back() flow {
	f.src, f.dst, f.in, f.out = f.dst, f.src, f.out, f.in
	f.state, f.reply = nft.StateEstablished, true
	return f
}

func packets(flows []flow) []*nft.Packet {
	var out []*nft.Packet
	for _, f := range flows {
		out = append(out, f.packet())
	}
	return out
}

// outFlows are what containers do most: ask the web and the names.
func (s sample) outFlows(n Network) []flow {
	var out []flow
	if n.Internal {
		return nil
	}
	for _, way := range n.Ways {
		for _, to := range []struct {
			proto uint8
			port  uint16
		}{{nft.ProtoTCP, 443}, {nft.ProtoUDP, 53}} {
			out = append(out, flow{
				proto: to.proto, src: netip.AddrPortFrom(s.container, client), dst: netip.AddrPortFrom(s.somebody, to.port),
				in: n.Device, out: way, state: nft.StateNew,
			})
		}
	}
	return out
}

func (s sample) out(n Network) []*nft.Packet { return packets(s.outFlows(n)) }

func (s sample) answers(n Network) []*nft.Packet {
	flows := s.outFlows(n)
	for i := range flows {
		flows[i] = flows[i].back()
	}
	return packets(flows)
}

// within is between two containers of a network, as frames of family bridge and
// where br_netfilter is on as packets of IP too.
func (s sample) within(n Network) []*nft.Packet {
	f := flow{
		proto: nft.ProtoTCP, src: netip.AddrPortFrom(s.container, client), dst: netip.AddrPortFrom(s.other, 80),
		in: n.Device, out: n.Device, state: nft.StateNew,
	}
	frame := f.packet()
	frame.Bridged, frame.Link = true, link(s.container.Is6())
	frame.IIf.Name, frame.OIf.Name, frame.CT = "v-a-eth0", "v-b-eth0", nil
	if !n.Bridged4 && !s.container.Is6() || !n.Bridged6 && s.container.Is6() {
		return []*nft.Packet{frame}
	}
	return []*nft.Packet{f.packet(), f.back().packet(), frame}
}

// link is an Ethernet header between two locally administered addresses.
func link(ipv6 bool) []byte {
	h := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00}
	if ipv6 {
		h[12], h[13] = 0x86, 0xdd
	}
	return h
}

// inFlows come in over each way to a published port.
func (s sample) inFlows(p Publication) []flow {
	var out []flow
	for _, way := range p.Network.Ways {
		out = append(out, flow{
			proto: p.Proto, src: netip.AddrPortFrom(s.somebody, client), dst: netip.AddrPortFrom(s.container, p.Port),
			in: way, out: p.Network.Device, state: nft.StateNew, dnat: netip.AddrPortFrom(s.host, p.HostPort),
		})
	}
	return out
}

func (s sample) in(p Publication) []*nft.Packet { return packets(s.inFlows(p)) }

func (s sample) inAnswers(p Publication) []*nft.Packet {
	flows := s.inFlows(p)
	for i := range flows {
		flows[i] = flows[i].back()
	}
	return packets(flows)
}
