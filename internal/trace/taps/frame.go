//go:build linux

package taps

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Wire is who hands a frame over to whom on a link, by their MAC addresses.
type Wire struct{ From, To [6]byte }

// Frame is the packet from Source, as it would come over the wire.
func (o Shot) Frame(w Wire) []byte {
	switch o.Proto {
	case "tcp":
		return o.frame(w, unix.IPPROTO_TCP, syn(o.Source, o))
	case "udp":
		b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, uint16(o.Mark)), o.Dst.Port())
		b = append(binary.BigEndian.AppendUint16(b, uint16(8+len(o.filling()))), 0, 0)
		b = append(b, o.filling()...)
		sum := o.checksum(unix.IPPROTO_UDP, b)
		if sum == 0 { // which would say that there is none (RFC 768)
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(b[6:], sum)
		return o.frame(w, unix.IPPROTO_UDP, b)
	}
	if o.v6() {
		b := echo(128, o)
		binary.BigEndian.PutUint16(b[2:], o.checksum(unix.IPPROTO_ICMPV6, b))
		return o.frame(w, unix.IPPROTO_ICMPV6, b)
	}
	b := echo(8, o)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return o.frame(w, unix.IPPROTO_ICMP, b)
}

// Reset is a frame of TCP that ends what the SYN has begun, whoever has answered
// it: its number is the one that comes next.
func (o Shot) Reset(w Wire) []byte {
	b := make([]byte, 20)
	o.segment(b, 1, 5, 0x04)
	binary.BigEndian.PutUint16(b[16:], o.checksum(unix.IPPROTO_TCP, b))
	return o.frame(w, unix.IPPROTO_TCP, b)
}

// segment fills in the header of a segment, but for its checksum: so much behind
// the number of the SYN, and so many words long.
func (o Shot) segment(b []byte, behind uint32, words, flags byte) {
	binary.BigEndian.PutUint16(b, uint16(o.Mark))
	binary.BigEndian.PutUint16(b[2:], o.Dst.Port())
	binary.BigEndian.PutUint32(b[4:], (uint32(o.Mark)<<16|uint32(o.Dst.Port()))+behind)
	b[12], b[13] = words<<4, flags
}

// checksum is that of a transport header and what it carries, with the pseudo
// header before it (RFC 9293, 3.1; RFC 8200, 8.1).
func (o Shot) checksum(proto byte, b []byte) uint16 {
	pseudo := append(o.Source.AsSlice(), o.Dst.Addr().AsSlice()...)
	pseudo = binary.BigEndian.AppendUint16(append(pseudo, 0, proto), uint16(len(b)))
	return checksum(append(pseudo, b...))
}

// frame puts the headers of IP and Ethernet before a transport header. It may not
// be cut up, as what the kernel sends may not.
func (o Shot) frame(w Wire, proto byte, transport []byte) []byte {
	out := append(w.To[:], w.From[:]...)
	ttl := byte(o.TTL)
	if ttl == 0 {
		ttl = 64
	}
	if o.v6() {
		out = append(binary.BigEndian.AppendUint16(out, unix.ETH_P_IPV6), 0x60, 0, 0, 0)
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(transport))), proto, ttl)
		out = append(append(out, o.Source.AsSlice()...), o.Dst.Addr().AsSlice()...)
		return append(out, transport...)
	}
	const header, mayNotBeCutUp = 20, 0x40
	ip := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(header+len(transport)))
	ip = append(binary.BigEndian.AppendUint16(ip, uint16(o.Mark)), mayNotBeCutUp, 0, ttl, proto, 0, 0)
	ip = append(append(ip, o.Source.AsSlice()...), o.Dst.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return append(append(binary.BigEndian.AppendUint16(out, unix.ETH_P_IP), ip...), transport...)
}
