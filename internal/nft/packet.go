package nft

import (
	"encoding/binary"
	"net/netip"
)

// Device is a network interface as rules see it.
type Device struct {
	Index int
	Name  string
	Type  uint16 // ARPHRD_*; 1 is Ethernet, 772 loopback
	Group uint32
}

// Bits of Conntrack.State, as "ct state" compares them.
const (
	StateInvalid     uint32 = 1
	StateEstablished uint32 = 2
	StateRelated     uint32 = 4
	StateNew         uint32 = 8
	StateUntracked   uint32 = 64
)

// Bits of Conntrack.Status (IPS_* of nf_conntrack_common.h).
const (
	StatusConfirmed uint32 = 8
	StatusSNAT      uint32 = 16
	StatusDNAT      uint32 = 32
)

// Conntrack is what connection tracking knows about a packet.
type Conntrack struct {
	State    uint32 // one of the State bits
	Status   uint32
	Mark     uint32
	Zone     uint16
	Reply    bool // the packet goes in the reply direction
	Protocol uint8
	Original Tuple // as the first packet was before any translation
	Answer   Tuple // as the answers come
}

// Tuple is one direction of a connection.
type Tuple struct{ Src, Dst netip.AddrPort }

// FIBAnswer is a route as a FIB expression asks for it.
type FIBAnswer struct {
	OIf  Device // zero: no route
	Type uint32 // RTN_*: 1 unicast, 2 local, 3 broadcast, 5 multicast, ...
}

// Packet is a packet at one hook.
type Packet struct {
	IIf, OIf *Device // nil where the hook has none
	Bridged  bool    // the hook is the bridge's: chains of family bridge run
	// PortIn and PortOut are the bridge ports of a packet that a bridge hands to
	// the hooks of IP; "" where there is none.
	PortIn, PortOut string
	Link            []byte // Ethernet header; nil if there is none
	Network         []byte // from the network header on, with all that follows
	Protocol        uint16 // ethertype of Network
	Mark            uint32
	Priority        uint32
	PktType         uint8 // PACKET_HOST 0, BROADCAST 1, MULTICAST 2, OTHERHOST 3
	UID, GID        *uint32
	// CT is nil for a packet that is not tracked yet: "ct state" is then
	// invalid, and nat chains do not run.
	CT *Conntrack
	// FIB answers for an address of the packet; ok is false if it cannot tell.
	// Without it rules that ask the FIB are undecided.
	FIB func(addr netip.Addr, flags FIBFlags) (answer FIBAnswer, ok bool)
	// Assume answers whether the packet passes what a rule asks and the package
	// cannot tell; ok is false to leave it undecided. It may be nil, and is not
	// asked about targets of iptables, which may do anything.
	Assume func(Ref) (passes, ok bool)
}

// Ethertypes of Packet.Protocol.
const (
	EtherTypeIPv4 uint16 = 0x0800
	EtherTypeARP  uint16 = 0x0806
	EtherTypeIPv6 uint16 = 0x86dd
)

// IP protocol numbers.
const (
	ProtoICMP   uint8 = 1
	ProtoTCP    uint8 = 6
	ProtoUDP    uint8 = 17
	ProtoICMPv6 uint8 = 58
	ProtoSCTP   uint8 = 132
)

// NewPacket makes an IP packet with the transport header given, in a new
// connection. Ports are put into the first four bytes of a TCP, UDP or SCTP
// header, which must be long enough; a nil transport means a plain header.
func NewPacket(proto uint8, src, dst netip.AddrPort, transport []byte) *Packet {
	if transport == nil {
		transport = plainHeader(proto)
	}
	if proto != ProtoICMP && proto != ProtoICMPv6 && len(transport) >= 4 {
		binary.BigEndian.PutUint16(transport, src.Port())
		binary.BigEndian.PutUint16(transport[2:], dst.Port())
	}
	p := &Packet{
		Network:  ipHeader(proto, src.Addr(), dst.Addr(), len(transport)),
		Protocol: EtherTypeIPv4,
		CT:       &Conntrack{State: StateNew, Protocol: proto, Original: Tuple{src, dst}, Answer: Tuple{dst, src}},
	}
	if src.Addr().Is6() {
		p.Protocol = EtherTypeIPv6
	}
	p.Network = append(p.Network, transport...)
	return p
}

// plainHeader gives the header of a SYN, an empty datagram or an echo request.
func plainHeader(proto uint8) []byte {
	switch proto {
	case ProtoTCP:
		h := make([]byte, 20)
		h[12], h[13] = 5<<4, 2
		return h
	case ProtoUDP:
		return []byte{0, 0, 0, 0, 0, 8, 0, 0}
	case ProtoICMP:
		return []byte{8, 0, 0, 0, 0, 0, 0, 0}
	case ProtoICMPv6:
		return []byte{128, 0, 0, 0, 0, 0, 0, 0}
	}
	return make([]byte, 12)
}

// ipHeader gives an IP header without options or checksum.
func ipHeader(proto uint8, src, dst netip.Addr, payload int) []byte {
	if src.Is6() {
		h := make([]byte, 40)
		h[0], h[6], h[7] = 6<<4, proto, 64
		binary.BigEndian.PutUint16(h[4:], uint16(payload))
		copy(h[8:], src.AsSlice())
		copy(h[24:], dst.AsSlice())
		return h
	}
	h := make([]byte, 20)
	h[0], h[8], h[9] = 4<<4|5, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+payload))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	return h
}

// clone copies the packet with what rules can write.
func (p *Packet) clone() *Packet {
	q := *p
	q.Link = append([]byte(nil), p.Link...)
	q.Network = append([]byte(nil), p.Network...)
	if p.CT != nil {
		ct := *p.CT
		q.CT = &ct
	}
	return &q
}

// source gives the source address of an IP packet.
func (p *Packet) source() netip.Addr { return p.address(12, 8) }

// destination gives the destination address of an IP packet.
func (p *Packet) destination() netip.Addr { return p.address(16, 24) }

func (p *Packet) address(at4, at6 int) netip.Addr {
	switch {
	case p.Protocol == EtherTypeIPv4 && len(p.Network) >= 20:
		a, _ := netip.AddrFromSlice(p.Network[at4 : at4+4])
		return a
	case p.Protocol == EtherTypeIPv6 && len(p.Network) >= 40:
		a, _ := netip.AddrFromSlice(p.Network[at6 : at6+16])
		return a
	}
	return netip.Addr{}
}

// transport finds the transport header: its offset in Network, its protocol,
// whether there is one, and whether the packet is a later fragment, which has
// a protocol but no header.
func (p *Packet) transport() (offset int, proto uint8, ok, fragment bool) {
	switch {
	case p.Protocol == EtherTypeIPv4 && len(p.Network) >= 20:
		h := p.Network
		return int(h[0]&15) * 4, h[9], true, binary.BigEndian.Uint16(h[6:])&0x1fff != 0
	case p.Protocol == EtherTypeIPv6 && len(p.Network) >= 40:
		return p.transport6()
	}
	return 0, 0, false, false
}

// transport6 walks over the extension headers (RFC 8200, section 4).
func (p *Packet) transport6() (offset int, proto uint8, ok, fragment bool) {
	offset, proto = 40, p.Network[6]
	for {
		h := p.Network[min(offset, len(p.Network)):]
		switch proto {
		case 0, 43, 60, 51, 44: // hop-by-hop, routing, destination, AH, fragment
			if len(h) < 8 {
				return 0, 0, false, false
			}
		default:
			return offset, proto, true, false
		}
		length := 8 * (int(h[1]) + 1)
		switch proto {
		case 51: // RFC 4302 counts in words of 4 bytes, less two
			length = 4 * (int(h[1]) + 2)
		case 44:
			length = 8
			if binary.BigEndian.Uint16(h[2:])&^7 != 0 {
				return offset + 8, h[0], true, true
			}
		}
		offset, proto = offset+length, h[0]
	}
}
