package machine

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/towpath/towpath/internal/nft"
)

// RouteType is an RTN_* number.
type RouteType uint8

// Types of routes.
const (
	Unicast     RouteType = 1
	Local       RouteType = 2
	Broadcast   RouteType = 3
	Anycast     RouteType = 4
	Multicast   RouteType = 5
	Blackhole   RouteType = 6
	Unreachable RouteType = 7
	Prohibit    RouteType = 8
	Throw       RouteType = 9
)

// Numbers of the routing tables that every namespace has.
const (
	TableDefault uint32 = 253
	TableMain    uint32 = 254
	TableLocal   uint32 = 255
)

// Route is an entry of a routing table.
type Route struct {
	Table  uint32
	Type   RouteType
	Dst    netip.Prefix
	Dev    string
	Via    netip.Addr
	Src    netip.Addr // preferred source
	Metric uint32
	// Protocol is who made it (RTPROT_*); 0: not known.
	Protocol uint8
	MTU      int // 0: that of the link
	// Hops are the ways of a route with several; Dev and Via are then those of
	// the first.
	Hops []NextHop
	// Dead: it cannot be used (RTNH_F_DEAD).
	Dead bool
}

// Way says where a packet to dst goes by the route: "198.51.100.7 via 192.0.2.1
// dev eth0", and by which table, if that is one of one's own.
func (r Route) Way(dst netip.Addr) string {
	s := dst.String()
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	s += " dev " + r.Dev
	if r.Table != TableMain && r.Table != TableLocal {
		s += fmt.Sprintf(" table %d", r.Table)
	}
	return s
}

// NextHop is one way of a route with several.
type NextHop struct {
	Dev    string
	Via    netip.Addr
	Weight int
}

// Rule chooses a routing table. Zero fields match everything.
type Rule struct {
	Priority uint32
	IPv6     bool
	From, To netip.Prefix
	// IIf is "lo" for what the namespace itself sends.
	IIf, OIf   string
	Mark, Mask uint32
	// IPProto and the ranges of ports, first and last.
	IPProto            uint8
	SrcPorts, DstPorts [2]uint16
	Not                bool // the rule is for what does not match
	// Action is that of the rule: Unicast looks Table up, others are the answer.
	Action RouteType
	Table  uint32
	// SuppressPrefix leaves out routes of prefixes this long or shorter
	// (suppress_prefixlength); negative: none.
	SuppressPrefix int
	// Unknown names conditions that are not among the fields; "": none.
	Unknown string
}

// Listener is a socket that takes packets.
type Listener struct {
	Proto string     // "tcp", "udp" or "sctp"
	Addr  netip.Addr // unspecified: every address; :: is IPv4's too, unless V6Only
	Port  uint16
	// V6Only: an IPv6 socket that takes no IPv4.
	V6Only bool
	// Dev is the link the socket is bound to; "": all.
	Dev string
	// Passes, of a socket that holds a port, are those it lets in all the same,
	// for their program to pass on; nil: nobody.
	Passes *Passing
	// PID and Command are of a process that has it open; 0: not known.
	PID     int
	Command string
}

// Passing says who is passed on by hand.
type Passing struct {
	IPv6 bool           // clients of IPv6, else of IPv4
	From []netip.Prefix // none: from everywhere
}

// Lets reports whether a client is passed on.
func (p *Passing) Lets(client netip.Addr) bool {
	return p != nil && p.IPv6 == client.Is6() &&
		(len(p.From) == 0 || slices.ContainsFunc(p.From, func(f netip.Prefix) bool { return f.Contains(client) }))
}

// Connection is an entry of connection tracking.
type Connection struct {
	Proto string
	// Original is the first packet before any translation, Answer what its
	// answers look like.
	Original, Answer nft.Tuple
	Status           uint32 // bits of enum ip_conntrack_status, as nft.StatusSNAT
	Mark             uint32
	Zone             uint16
	// Packets and Bytes count both directions, where accounting is on.
	Packets, Bytes uint64
}
