//go:build linux

package testnet

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Ethernet is a frame.
func Ethernet(dst, src [6]byte, etherType uint16, payload []byte) []byte {
	b := append(append([]byte{}, dst[:]...), src[:]...)
	return append(binary.BigEndian.AppendUint16(b, etherType), payload...)
}

// ARPReply tells somebody that a MAC address has an IPv4 address (RFC 826).
func ARPReply(mac [6]byte, has netip.Addr, toMAC [6]byte, to netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 2}
	b = append(append(b, mac[:]...), has.AsSlice()...)
	return append(append(b, toMAC[:]...), to.AsSlice()...)
}

// ARPProbe asks whether somebody has an IPv4 address already (RFC 5227).
func ARPProbe(mac [6]byte, about netip.Addr) []byte {
	b := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac[:]...)
	return append(append(b, make([]byte, 4+6)...), about.AsSlice()...)
}

// NeighbourAdvert is the ICMPv6 message, to override what is known, that a MAC
// address has an IPv6 address (RFC 4861, 4.4).
func NeighbourAdvert(mac [6]byte, has netip.Addr) []byte {
	b := append([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, has.AsSlice()...)
	return append(append(b, 2, 1), mac[:]...)
}

// NeighbourSolicit is the ICMPv6 message that asks for an IPv6 address, without
// saying who asks.
func NeighbourSolicit(about netip.Addr) []byte {
	return append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, about.AsSlice()...)
}

// SolicitedNode is where one asks for an IPv6 address (RFC 4291, 2.7.1).
func SolicitedNode(about netip.Addr) netip.Addr {
	a := about.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
}

// UDP is a datagram. Its checksum is filled in by IPv4 or IPv6.
func UDP(sport, dport uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	return append(append(b, 0, 0), data...)
}

// IPv4 is a packet around a transport header, whose checksum is filled in.
func IPv4(proto byte, src, dst netip.Addr, l4 []byte) []byte {
	h := make([]byte, 20, 20+len(l4))
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], fold(sum16(0, h)))
	return append(h, checksummed(proto, src, dst, l4)...)
}

// IPv6 is the same.
func IPv6(proto, hops byte, src, dst netip.Addr, l4 []byte) []byte {
	h := make([]byte, 40, 40+len(l4))
	h[0], h[6], h[7] = 0x60, proto, hops
	binary.BigEndian.PutUint16(h[4:], uint16(len(l4)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, checksummed(proto, src, dst, l4)...)
}

// checksummed fills in the checksum of a transport header.
func checksummed(proto byte, src, dst netip.Addr, l4 []byte) []byte {
	at, known := map[byte]int{unix.IPPROTO_UDP: 6, unix.IPPROTO_TCP: 16, unix.IPPROTO_ICMP: 2, unix.IPPROTO_ICMPV6: 2}[proto]
	if !known {
		return l4
	}
	sum := sum16(0, l4)
	if proto != unix.IPPROTO_ICMP { // which has no pseudo-header
		sum = sum16(sum16(sum, src.AsSlice()), dst.AsSlice()) + uint32(proto) + uint32(len(l4))
	}
	binary.BigEndian.PutUint16(l4[at:], fold(sum))
	return l4
}

// sum16 adds up 16-bit words, of an odd number of bytes with a zero behind.
func sum16(sum uint32, b []byte) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// Packets opens a socket for whole frames on a link: what is written goes out by
// it, what is read has come in or gone out. It is closed at the end of the test.
func (n *NS) Packets(t testing.TB, dev string) *os.File {
	t.Helper()
	l, err := n.Conn(t).LinkByName(t.Context(), dev)
	if err != nil {
		t.Fatal(err)
	}
	var f *os.File
	n.Do(t, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		f = os.NewFile(uintptr(fd), n.Name+" "+dev)
		const all = uint16(unix.ETH_P_ALL) // in network order
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all>>8 | all<<8, Ifindex: l.Index}))
	})
	t.Cleanup(func() { f.Close() })
	return f
}
