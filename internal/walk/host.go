package walk

import (
	"net/netip"

	"github.com/towpath/towpath/internal/nft"
)

// Host is a machine: all its network namespaces that are known.
type Host struct{ Spaces []Space }

// Space is a network namespace.
type Space struct {
	Name  string
	Inode uint64 // 0: not known
	// Links are in no order; the loopback is among them.
	Links     []Link
	Addresses []Address
	// Routes are those of all tables, the local one among them, each table in
	// the kernel's order.
	Routes     []Route
	Rules      []Rule
	Neighbours []Neighbour
	// Sysctls by their path under /proc/sys. One that is absent has the value
	// the kernel starts with.
	Sysctls map[string]string
	Tables  []nft.TableDef
	// Listeners are the sockets that wait for packets; nil: not known, and taken
	// to be there.
	Listeners []Listener
	// Held are sockets that only keep others from a port: what comes to them is
	// gone without a word.
	Held []Listener
	// Connections are those that are tracked already.
	Connections []Connection
}

// Link is a network interface. Its other end is known for a veth pair only.
type Link struct {
	Index  int // 0: not known
	Name   string
	Type   string // "loopback", "bridge", "veth" or any other
	MAC    string // "": not known
	Group  uint32
	Up     bool
	Master string // bridge it is a port of
	// PeerNS and Peer are the other end of a veth pair.
	PeerNS, Peer string
	// Hairpin and Isolated are those of a bridge port.
	Hairpin, Isolated bool
	// NFCall4 and NFCall6 hand frames within this bridge to the hooks of IP,
	// whatever the sysctl of the namespace says (IFLA_BR_NF_CALL_IPTABLES).
	NFCall4, NFCall6 bool
}

// Address is an address of a link.
type Address struct {
	Dev    string
	Prefix netip.Prefix
}

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
}

// Rule chooses a routing table. Zero fields match everything.
type Rule struct {
	Priority uint32
	IPv6     bool
	From, To netip.Prefix
	// IIf is "lo" for what the namespace itself sends.
	IIf, OIf   string
	Mark, Mask uint32
	Not        bool // the rule is for what does not match
	// Action is that of the rule: Unicast looks Table up, others are the answer.
	Action RouteType
	Table  uint32
	// SuppressPrefix leaves out routes of prefixes this long or shorter
	// (suppress_prefixlength); negative: none.
	SuppressPrefix int
}

// Neighbour is an entry of the neighbour table that is in use, permanent or
// learned, so that nobody is asked; or, with no IP, a static one of the
// forwarding database of the bridge that Dev is a port of.
type Neighbour struct {
	Dev string
	IP  netip.Addr
	MAC string
}

// Listener is a socket that takes packets.
type Listener struct {
	Proto string     // "tcp", "udp" or "sctp"
	Addr  netip.Addr // unspecified: every address; :: is IPv4's too
	Port  uint16
}

// Connection is an entry of connection tracking.
type Connection struct {
	Proto string
	// Original is the first packet before any translation, Answer what its
	// answers look like.
	Original, Answer nft.Tuple
	Status           uint32 // bits nft.StatusSNAT and nft.StatusDNAT
	Mark             uint32
}
