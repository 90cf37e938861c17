// Package trace tells the path that a packet took from what was seen of it: by
// taps on links, and by rules of the packet filter that told of it. It joins
// plain data; what sees is in the packages below it.
package trace

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/towpath/towpath/api"
)

// Packet is what the headers of a packet say.
type Packet struct {
	Flow api.Flow
	TTL  uint8
	// ID is that of IPv4's header, and of an echo message.
	ID, Echo uint16
	// TCP are the flags of TCP.
	TCP uint8
	// Quoted is the packet that an ICMP error is about.
	Quoted *Packet
	// Renamed is how a translation changes the source port of the packet's flow, on
	// its way there or before that; nil: none does.
	Renamed *Renamed
}

// Renamed is a flow whose source port, or the identifier of whose echo requests, a
// translation has changed, since somebody else had it, or both of whose addresses, as
// connection tracking tells.
type Renamed struct {
	Was, Is         api.Flow
	WasEcho, IsEcho uint16
}

// echoing reports whether the packet is an echo request or the answer to one.
func (p Packet) echoing() bool {
	f := p.Flow
	return f.Proto == "icmp" && (f.ICMPType == 8 || f.ICMPType == 0) || f.Proto == "icmpv6" && (f.ICMPType == 128 || f.ICMPType == 129)
}

// echo is the identifier of an echo message, as its flow is known by it.
func (p Packet) echo() uint16 {
	if r := p.Renamed; r != nil && p.Echo == r.IsEcho && (p.Flow.Src == r.Is.Src || p.Flow.Dst == r.Is.Src) {
		return r.WasEcho
	}
	return p.Echo
}

// reversed is a flow as its answers are.
func reversed(f api.Flow) api.Flow {
	f.Src, f.Dst, f.Sport, f.Dport = f.Dst, f.Src, f.Dport, f.Sport
	return f
}

// ports are those of the packet, and the one by which its flow is known in its
// place where a translation has changed it.
func (p Packet) ports() (src, dst uint16) {
	src, dst = p.Flow.Sport, p.Flow.Dport
	switch {
	case p.Renamed == nil:
	case p.Flow == p.Renamed.Is:
		src = p.Renamed.Was.Sport
	case p.Flow == reversed(p.Renamed.Is):
		dst = p.Renamed.Was.Sport
	}
	return src, dst
}

// Flags of TCP (RFC 9293, 3.1).
const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// Numbers of protocols.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// ParsePacket reads the headers of an IP packet, as far as they are there. What
// is no IPv4 or IPv6, or a fragment that is not the first, is not ok.
func ParsePacket(b []byte) (p Packet, ok bool) { return parse(b, true) }

func parse(b []byte, outer bool) (p Packet, ok bool) {
	if len(b) < 20 {
		return p, false
	}
	var proto uint8
	var rest []byte
	switch b[0] >> 4 {
	case 4:
		n := int(b[0]&0xf) * 4
		if n < 20 || n > len(b) || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return p, false
		}
		proto, rest = b[9], b[n:]
		p.TTL, p.ID = b[8], binary.BigEndian.Uint16(b[4:])
		p.Flow.Src, p.Flow.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	case 6:
		if len(b) < 40 {
			return p, false
		}
		proto, rest = b[6], b[40:]
		p.TTL = b[7]
		p.Flow.Src, p.Flow.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	default:
		return p, false
	}
	return p, p.transport(proto, rest, outer)
}

// transport reads what is behind the IP header.
func (p *Packet) transport(proto uint8, b []byte, outer bool) bool {
	if len(b) < 8 {
		return false
	}
	switch proto {
	case protoTCP, protoUDP, protoSCTP:
		p.Flow.Proto = map[uint8]string{protoTCP: "tcp", protoUDP: "udp", protoSCTP: "sctp"}[proto]
		p.Flow.Sport, p.Flow.Dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		if proto == protoTCP && len(b) >= 14 {
			p.TCP = b[13]
		}
		return true
	case protoICMP, protoICMPv6:
		p.Flow.Proto = map[uint8]string{protoICMP: "icmp", protoICMPv6: "icmpv6"}[proto]
		p.Flow.ICMPType, p.Flow.ICMPCode = b[0], b[1]
		p.Echo = binary.BigEndian.Uint16(b[4:])
		if isError(p.Flow) && outer {
			if q, ok := parse(b[8:], false); ok {
				p.Quoted = &q
			}
		}
		return true
	}
	return false
}

// quoted is the packet that an error is about. It may be cut off behind the ports
// (RFC 792), and so is taken to be the first of its flow.
func (p *Packet) quoted() Packet {
	q := *p.Quoted
	if q.Flow.Proto == "tcp" && q.TCP == 0 {
		q.TCP = flagSYN
	}
	return q
}

// Error reports whether the packet is an ICMP error.
func (p Packet) Error() bool { return isError(p.Flow) }

// Accepts reports whether the packet is a listener's answer to a SYN.
func (p Packet) Accepts() bool { return p.TCP&(flagSYN|flagACK) == flagSYN|flagACK }

// isError reports whether a message is about another packet: destination
// unreachable, time exceeded, and what does not fit.
func isError(f api.Flow) bool {
	if f.Proto == "icmpv6" {
		return f.ICMPType < 128
	}
	return f.Proto == "icmp" && (f.ICMPType == 3 || f.ICMPType == 11 || f.ICMPType == 12)
}

// Mark is what a packet that was sent to be watched is known by: its source port
// or, of an echo request, its identifier. Translation keeps it as a rule.
type Mark uint16

// Packet is all that is known of a packet by its mark alone.
func (m Mark) Packet() *Packet {
	return &Packet{Flow: api.Flow{Sport: uint16(m)}}
}

// Has reports whether a packet is the one with the mark, answers it, or is about it.
func (m Mark) Has(p Packet) bool {
	_, ok := m.direction(p, Ends{})
	return ok
}

// direction is what a packet is to the one with the mark; not ok: nothing. Where both
// ports are the mark, the addresses that the flow has had tell which way it goes.
func (m Mark) direction(p Packet, e Ends) (d api.Direction, ok bool) {
	n := uint16(m)
	src, dst := p.ports()
	switch {
	case p.Quoted != nil:
		if m.Has(p.quoted()) {
			return api.ErrorBack, true
		}
		return "", false
	case p.Flow.Proto == "icmp" || p.Flow.Proto == "icmpv6":
		request := p.Flow.ICMPType == 8 || p.Flow.ICMPType == 128
		reply := p.Flow.Proto == "icmp" && p.Flow.ICMPType == 0 || p.Flow.ICMPType == 129
		switch {
		case p.echo() != n:
		case request:
			return api.Request, true
		case reply:
			return api.Reply, true
		}
		return "", false
	case src == n && (dst != n || !e.back(p.Flow)):
		// Of a connection the first packet is what is told of, not what the
		// sender says to the answer.
		return api.Request, p.Flow.Proto != "tcp" || p.TCP&flagSYN != 0
	case dst == n:
		return api.Reply, true
	}
	return "", false
}

// Ends are the addresses that a flow has had on its way, those that it was sent from
// and those that it was sent to.
type Ends struct{ src, dst []netip.Addr }

// learn notes those of a packet of the flow, there or back.
func (e *Ends) learn(f api.Flow) {
	if e.back(f) {
		f = reversed(f)
	}
	if !slices.Contains(e.src, f.Src) {
		e.src = append(e.src, f.Src)
	}
	if !slices.Contains(e.dst, f.Dst) {
		e.dst = append(e.dst, f.Dst)
	}
}

// has reports whether an address is one of them.
func (e Ends) has(a netip.Addr) bool { return slices.Contains(e.src, a) || slices.Contains(e.dst, a) }

// back reports whether a packet of the flow goes back: translation changes one of its
// ends at a time, and so the other is known.
func (e Ends) back(f api.Flow) bool {
	fits := func(src, dst netip.Addr) (n int) {
		if slices.Contains(e.src, src) {
			n++
		}
		if slices.Contains(e.dst, dst) {
			n++
		}
		return n
	}
	return fits(f.Dst, f.Src) > fits(f.Src, f.Dst)
}
