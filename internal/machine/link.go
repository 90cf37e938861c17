package machine

import "net/netip"

// Link is a network interface.
type Link struct {
	Index    int // 0: not known
	Name     string
	AltNames []string
	Alias    string // ifalias
	// Type is "loopback", "" for hardware, or the kernel's kind: "bridge",
	// "veth", "vxlan", "vlan", "macvlan", "ipvlan", "bond", "vrf", ...
	Type  string
	MAC   string // "": not known
	MTU   int    // bytes; 0: not known
	Group uint32
	// Up: an administrator has set it up (IFF_UP).
	Up bool
	// OperState is what RFC 2863 calls so, as ip(8) prints it, in lower case:
	// "up", "down", "lowerlayerdown", "unknown"; "": not known.
	OperState string
	// NoCarrier: it is up, and the other end is not there. Unlike the operational
	// state this is so at once, not after a while.
	NoCarrier bool
	Promisc   bool
	Master    string // bridge, bond or VRF it belongs to

	// PeerNS and Peer are the other end of a veth pair.
	PeerNS, Peer string
	// ParentNS and Parent are the link below a vlan, macvlan, ipvlan or vxlan.
	ParentNS, Parent string
	// Elsewhere: the other end or the link below is in a namespace that is not
	// known.
	Elsewhere bool

	// Mode is that of a macvlan ("private", "vepa", "bridge", "passthru",
	// "source") or ipvlan ("l2", "l3", "l3s").
	Mode  string
	VLAN  uint16 // tag of a vlan
	Table uint32 // routing table of a VRF
	VXLAN *VXLAN // of a vxlan

	// Hairpin, Isolated, Locked, Learning and NeighSuppress are those of a
	// bridge port.
	Hairpin, Isolated, Locked, Learning, NeighSuppress bool
	// NFCall4 and NFCall6 hand frames within this bridge to the hooks of IP,
	// whatever the sysctl of the namespace says (IFLA_BR_NF_CALL_IPTABLES).
	NFCall4, NFCall6 bool
	// VLANFiltering, STP and McastSnooping are those of a bridge.
	VLANFiltering, STP, McastSnooping bool

	Stats Stats
}

// VXLAN is how a vxlan link encapsulates.
type VXLAN struct {
	VNI    uint32
	Local  netip.Addr
	Remote netip.Addr // the far end, or group, of what has no entry; not valid: none
	Port   uint16
	// Learning: it learns far ends from what comes.
	Learning bool
}

// Stats are the counters of a link (struct rtnl_link_stats64).
type Stats struct {
	RxPackets, TxPackets uint64
	RxBytes, TxBytes     uint64
	RxErrors, TxErrors   uint64
	RxDropped, TxDropped uint64
	// RxNoHandler are packets for which nobody was there.
	RxNoHandler uint64
}

// Address is an address of a link.
type Address struct {
	Dev    string
	Prefix netip.Prefix
	// Peer is the other end of a point-to-point address; not valid: none.
	Peer netip.Addr
	// Tentative, DADFailed and Deprecated are states of IPv6 (RFC 4862): only an
	// address that is neither of the first two can be used.
	Tentative, DADFailed, Deprecated bool
}

// Neighbour is an entry of the neighbour table.
type Neighbour struct {
	Dev   string
	IP    netip.Addr
	MAC   string
	State NeighbourState // 0: in use
	Proxy bool           // the namespace answers for the address on this link
}

// NeighbourState is one of the NUD_* states.
type NeighbourState uint16

// States of neighbours (linux/neighbour.h).
const (
	NeighbourIncomplete NeighbourState = 0x01
	NeighbourReachable  NeighbourState = 0x02
	NeighbourStale      NeighbourState = 0x04
	NeighbourDelay      NeighbourState = 0x08
	NeighbourProbe      NeighbourState = 0x10
	NeighbourFailed     NeighbourState = 0x20
	NeighbourNoARP      NeighbourState = 0x40
	NeighbourPermanent  NeighbourState = 0x80
)

// Usable reports whether packets go to the MAC that stands there: so it is as
// long as it was heard of and not given up (NUD_VALID).
func (n Neighbour) Usable() bool {
	return !n.Proxy && n.MAC != "" && n.State != NeighbourIncomplete && n.State != NeighbourFailed
}

// ForwardingEntry is an entry of the forwarding database of a bridge, about one
// of its ports, or of a vxlan.
type ForwardingEntry struct {
	Dev string // bridge port, or the vxlan
	MAC string
	// Bridge is the bridge whose port Dev is; "": the entry is the vxlan's own.
	Bridge string
	VLAN   uint16
	// Local: the MAC is the link's own, frames go up to the namespace.
	Local bool
	// Static: somebody has set it, it does not age; else it was learned.
	Static bool
	// ExternLearned: a program keeps it (NTF_EXT_LEARNED).
	ExternLearned bool
	// Far, VNI and Port are where a vxlan sends to.
	Far  netip.Addr
	VNI  uint32
	Port uint16
}
