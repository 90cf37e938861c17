package walk

import (
	"encoding/binary"
	"net/netip"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// packet is the one that walks. ICMP echo has its identifier for both ports, as
// connection tracking sees it.
type packet struct {
	proto    uint8
	src, dst netip.AddrPort
	ttl      int
	size     int // bytes, of a packet that may not be cut up; 0: it fits
	mark     uint32
	kind     kind
	icmp     icmp // of an error; the type of an echo follows from kind
	// quoted is the packet an error is about, as it looks here.
	quoted nft.Tuple
	// track is what connection tracking of the namespace says; state 0 is
	// before it has looked.
	track *tracked
	state uint32
	// reverse: it goes against the direction of the connection's first packet.
	reverse bool
	// oif ties what is sent to a link: the zone of a link-local address.
	oif string
	// via is the gateway of the route it leaves by.
	via netip.Addr
	// crossing is the bridge that handed it to the hooks of IP.
	crossing *crossing
	// port is the bridge port it goes on to, while the hooks see it.
	port string
	// from is the MAC of the link it was sent by, to that it is for.
	from, to string
}

// kind is what a packet is to its flow.
type kind byte

const (
	first     kind = iota // SYN, datagram, echo request
	answer                // SYN-ACK, datagram, echo reply
	reset                 // RST
	icmpError             // about a packet of the flow
	solicit               // neighbour solicitation, or ARP request
	advertise             // neighbour advertisement, or ARP reply
	other                 // another message of ICMP, which nobody answers
)

// protoARP stands for ARP, which has no number among the protocols of IP.
const protoARP uint8 = 255

// broadcastMAC is everybody on a link.
const broadcastMAC = "ff:ff:ff:ff:ff:ff"

// isARP reports whether the packet is none of IP's.
func (p *packet) isARP() bool { return p.proto == protoARP }

// icmp is a message's type and code.
type icmp struct{ typ, code uint8 }

// Numbers of ICMP and ICMPv6 messages.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	neighbourSolicit         = 135
	neighbourAdvert          = 136
	routerAdvert             = 134
)

// isICMP reports whether the packet has types and no ports.
func (p *packet) isICMP() bool { return p.proto == nft.ProtoICMP || p.proto == nft.ProtoICMPv6 }

// is6 reports whether it is IPv6.
func (p *packet) is6() bool { return p.dst.Addr().Is6() }

// tuple is how connection tracking sees the packet.
func (p *packet) tuple() nft.Tuple { return nft.Tuple{Src: p.src, Dst: p.dst} }

// message is the type and code of an ICMP packet.
func (p *packet) message() icmp {
	types := [...]uint8{echoRequest4, echoReply4}
	if p.proto == nft.ProtoICMPv6 {
		types = [...]uint8{echoRequest6, echoReply6}
	}
	switch p.kind {
	case first:
		return icmp{types[0], 0}
	case answer:
		return icmp{types[1], 0}
	case solicit:
		return icmp{neighbourSolicit, 0}
	case advertise:
		return icmp{neighbourAdvert, 0}
	default:
		return p.icmp
	}
}

// flow is the packet as the api tells of it.
func (p *packet) flow() api.Flow {
	f := api.Flow{Proto: protoName(p.proto), Src: p.src.Addr(), Dst: p.dst.Addr()}
	if p.isARP() {
		return f
	}
	if p.isICMP() {
		m := p.message()
		f.ICMPType, f.ICMPCode = m.typ, m.code
		return f
	}
	f.Sport, f.Dport = p.src.Port(), p.dst.Port()
	return f
}

// text is "172.20.0.2:41352 > 198.51.100.7:443".
func (p *packet) text() string { return p.sender() + " > " + p.receiver() }

func (p *packet) sender() string { return p.endText(p.src) }

func (p *packet) receiver() string { return p.endText(p.dst) }

func (p *packet) endText(a netip.AddrPort) string {
	if p.isICMP() || p.isARP() {
		return a.Addr().String()
	}
	return a.String()
}

// protoSCTP is the number that package nft has no name for.
const protoSCTP uint8 = 132

func protoName(n uint8) string {
	switch n {
	case nft.ProtoTCP:
		return "tcp"
	case nft.ProtoUDP:
		return "udp"
	case protoSCTP:
		return "sctp"
	case protoARP:
		return "arp"
	case nft.ProtoICMP:
		return "icmp"
	default:
		return "icmpv6"
	}
}

// protoNumber reads a protocol for packets to dst; "icmp" is that of its family.
func protoNumber(name string, dst netip.Addr) (uint8, bool) {
	switch name {
	case "tcp":
		return nft.ProtoTCP, true
	case "udp":
		return nft.ProtoUDP, true
	case "sctp":
		return protoSCTP, true
	case "icmp", "icmpv6":
		if dst.Is6() {
			return nft.ProtoICMPv6, true
		}
		return nft.ProtoICMP, true
	}
	return 0, false
}

// transport is the packet's transport header.
func (p *packet) transport() []byte {
	switch {
	case p.isICMP():
		m := p.message()
		h := make([]byte, 8, 24)
		h[0], h[1] = m.typ, m.code
		if p.kind == solicit || p.kind == advertise {
			target := p.quoted.Dst.Addr().As16()
			return append(h, target[:]...)
		}
		binary.BigEndian.PutUint16(h[4:], p.src.Port())
		return h
	case p.proto == nft.ProtoTCP:
		h := make([]byte, 20)
		h[12] = 5 << 4
		h[13] = map[kind]byte{first: 0x02, answer: 0x12, reset: 0x14}[p.kind]
		return h
	case p.proto == nft.ProtoUDP:
		return []byte{0, 0, 0, 0, 0, 8, 0, 0}
	}
	return make([]byte, 12)
}

// Offsets of the time to live.
const ttlAt4, ttlAt6 = 8, 7

// nft is the packet as the packet filter of s sees it.
func (p *packet) nft(s *space, in, out string) *nft.Packet {
	if p.isARP() {
		return &nft.Packet{IIf: s.device(in), OIf: s.device(out), Mark: p.mark, Protocol: nft.EtherTypeARP, Network: p.arp()}
	}
	q := nft.NewPacket(p.proto, p.src, p.dst, p.transport())
	q.IIf, q.OIf, q.Mark, q.FIB = s.device(in), s.device(out), p.mark, s.fib(p, in, out)
	ttl := ttlAt4
	if p.is6() {
		ttl = ttlAt6
	}
	q.Network[ttl] = byte(p.ttl)
	if p.crossing != nil {
		q.PortIn, q.PortOut = p.crossing.port.Name, p.port
	}
	switch {
	case p.state == 0:
		q.CT = nil
	case p.track == nil:
		q.CT = &nft.Conntrack{State: p.state, Protocol: p.proto}
	default:
		q.CT = &nft.Conntrack{
			State: p.state, Status: p.track.status, Mark: p.track.mark, Reply: p.reverse,
			Protocol: p.proto, Original: p.track.original, Answer: p.track.answer,
		}
	}
	return q
}

// arp is the message (RFC 826): for Ethernet and IPv4, who asks or tells, and of whom.
func (p *packet) arp() []byte {
	h := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	if p.kind == advertise {
		h[7] = 2
	}
	from, _ := machine.ParseMAC(p.from)
	src, dst := p.src.Addr().As4(), p.dst.Addr().As4()
	h = append(append(h, from[:]...), src[:]...)
	to := [6]byte{}
	if p.kind == advertise {
		to, _ = machine.ParseMAC(p.to)
	}
	return append(append(h, to[:]...), dst[:]...)
}

// link is the Ethernet header; zeros stand for an address that is not known.
func (p *packet) link() []byte {
	from, _ := machine.ParseMAC(p.from)
	to, _ := machine.ParseMAC(p.to)
	typ := nft.EtherTypeIPv4
	switch {
	case p.isARP():
		typ = nft.EtherTypeARP
	case p.is6():
		typ = nft.EtherTypeIPv6
	}
	return binary.BigEndian.AppendUint16(append(to[:], from[:]...), typ)
}

// absorb takes over what rules wrote into the packet.
func (p *packet) absorb(q *nft.Packet) {
	p.mark = q.Mark
	if p.isARP() {
		return
	}
	h, from, to, ttl, size := q.Network, 12, 16, ttlAt4, 4
	if p.is6() {
		from, to, ttl, size = 8, 24, ttlAt6, 16
	}
	src, _ := netip.AddrFromSlice(h[from : from+size])
	dst, _ := netip.AddrFromSlice(h[to : to+size])
	sport, dport := p.src.Port(), p.dst.Port()
	if !p.isICMP() {
		transport := h[to+size:]
		sport, dport = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
	}
	p.ttl, p.src, p.dst = int(h[ttl]), netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	if q.CT != nil && p.track != nil {
		p.track.mark = q.CT.Mark
	}
	if q.CT != nil && p.state == 0 {
		p.state = q.CT.State // notrack
	}
}
