//go:build linux

package rt

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// MAC is an Ethernet address. The zero MAC stands for none.
type MAC [6]byte

// String writes the address as aa:bb:cc:dd:ee:ff.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsZero tells whether m stands for none.
func (m MAC) IsZero() bool { return m == MAC{} }

// ParseMAC reads an Ethernet address in any form that net.ParseMAC takes.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, fmt.Errorf("parse MAC address: %w", err)
	}
	if len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("parse MAC address %s: %d bytes, not 6", s, len(hw))
	}
	return MAC(hw), nil
}

// toMAC reads 6 bytes; anything else is the zero MAC.
func toMAC(b []byte) MAC {
	if len(b) != len(MAC{}) {
		return MAC{}
	}
	return MAC(b)
}

// Link is an interface.
type Link struct {
	Index int
	Name  string
	Kind  string // "bridge", "veth", ...; empty for hardware and lo
	MAC   MAC    // zero where the hardware address has not 6 bytes
	MTU   int    // bytes

	Master int    // index of the bridge, bond or VRF it belongs to; 0: none
	Group  uint32 // IFLA_GROUP
	Alias  string // ifalias
	// AltNames are other names it is known by.
	AltNames []string

	Flags uint32 // IFF_*
	Up    bool   // set up by an administrator (IFF_UP)
	// Running is IFF_RUNNING. For a moment after a link was set up it is true
	// without carrier; OperState UP is what tells that packets pass.
	Running   bool
	OperState OperState

	// PeerIndex is the other end of a veth or the parent of a macvlan, ipvlan
	// or vlan; 0: none. It is an index of the namespace PeerNSID, which is
	// NoNSID when that is the link's own, or one to which no id was given.
	PeerIndex int
	PeerNSID  int

	AddrGenNone bool // IPv6 makes no link-local address of its own
	IPv6        *IPv6Conf

	Port   *Port   // of a bridge port
	Bridge *Bridge // of a bridge
	VXLAN  *VXLAN  // of a VXLAN
	VLAN   uint16  // tag of a vlan
	Table  uint32  // routing table of a vrf
	Mode   uint32  // of a macvlan (MacvlanBridge, ...) or ipvlan (IPvlanL2, ...)

	Stats *Stats // where LinkFilter.Stats asks for them
}

// Stats are the counters of a link (struct rtnl_link_stats64).
type Stats struct {
	RxPackets, TxPackets, RxBytes, TxBytes   uint64
	RxErrors, TxErrors, RxDropped, TxDropped uint64
	RxNoHandler                              uint64
}

// decodeStats reads IFLA_STATS64; nil if it is not all there.
func decodeStats(b []byte) *Stats {
	const noHandler = 23 // rx_nohandler's place, from 0
	if len(b) < 8*(noHandler+1) {
		return nil
	}
	at := func(i int) uint64 { return binary.NativeEndian.Uint64(b[8*i:]) }
	return &Stats{
		RxPackets: at(0), TxPackets: at(1), RxBytes: at(2), TxBytes: at(3),
		RxErrors: at(4), TxErrors: at(5), RxDropped: at(6), TxDropped: at(7), RxNoHandler: at(noHandler),
	}
}

// OperState is what RFC 2863 calls the operational state. Links that never tell,
// as lo, are OperUnknown.
type OperState uint8

// States of linux/if.h.
const (
	OperUnknown        OperState = 0
	OperDown           OperState = 2
	OperLowerLayerDown OperState = 3
	OperUp             OperState = 6
)

// Port is what a bridge keeps for one of its ports.
type Port struct {
	Isolated, Hairpin, Locked, Learning, NeighSuppress bool
}

// Bridge is what is told about a bridge.
type Bridge struct {
	STP, McastSnooping, VLANFiltering bool
	NFCallIPTables, NFCallIP6Tables   bool
	ForwardDelay                      uint32 // hundredths of a second
}

// VXLAN is what is told about a VXLAN.
type VXLAN struct {
	VNI      uint32
	Local    netip.Addr
	Remote   netip.Addr // far end or group of what has no entry; zero: none
	Port     uint16
	Learning bool
	Link     int // index of the device it sends through; 0: by route
}

// LinkFilter selects links. The zero filter selects all.
type LinkFilter struct {
	Master int    // its ports only; filtered in the kernel
	Kind   string // filtered in the kernel
	Group  uint32 // 0: any. Filtered here: the kernel has no such filter
	Stats  bool   // read the counters too, which the kernel must sum up for each link
}

// Links lists links.
func (c *Conn) Links(ctx context.Context, f LinkFilter) ([]Link, error) {
	body, err := attributes(ifInfo(unix.AF_UNSPEC, 0, 0, 0), func(ae *netlink.AttributeEncoder) {
		if !f.Stats {
			ae.Uint32(unix.IFLA_EXT_MASK, extFilterSkipStats)
		}
		if f.Master != 0 {
			ae.Uint32(unix.IFLA_MASTER, uint32(f.Master))
		}
		if f.Kind != "" {
			nested(ae, unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) {
				info.String(unix.IFLA_INFO_KIND, f.Kind)
			})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	req := request{typ: unix.RTM_GETLINK, body: body}
	out, err := list(ctx, c, req, 0, func(_ uint16, b []byte) (Link, bool, error) {
		l, err := decodeLink(b)
		return l, f.match(l), err
	})
	if err != nil {
		return out, fmt.Errorf("list links: %w", err)
	}
	return out, nil
}

// match says the filter again: a kernel that has no links of the kind's module
// ignores the kind, and lists everything.
func (f LinkFilter) match(l Link) bool {
	return (f.Master == 0 || f.Master == l.Master) &&
		(f.Kind == "" || f.Kind == l.Kind) &&
		(f.Group == 0 || f.Group == l.Group)
}

// LinkByName reads one link. There being none is an unix.ENODEV.
func (c *Conn) LinkByName(ctx context.Context, name string) (Link, error) {
	l, err := c.link(ctx, 0, name)
	if err != nil {
		return Link{}, fmt.Errorf("get link %s: %w", name, err)
	}
	return l, nil
}

// LinkByIndex reads one link. There being none is an unix.ENODEV.
func (c *Conn) LinkByIndex(ctx context.Context, index int) (Link, error) {
	l, err := c.link(ctx, index, "")
	if err != nil {
		return Link{}, fmt.Errorf("get link %d: %w", index, err)
	}
	return l, nil
}

// link asks for one link by index, or by name when the index is 0.
func (c *Conn) link(ctx context.Context, index int, name string) (Link, error) {
	body, err := attributes(ifInfo(unix.AF_UNSPEC, index, 0, 0), func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.IFLA_EXT_MASK, extFilterSkipStats)
		if index == 0 {
			ae.String(unix.IFLA_IFNAME, name)
		}
	})
	if err != nil {
		return Link{}, err
	}
	var out Link
	err = c.do(ctx, request{typ: unix.RTM_GETLINK, body: body}, func(_ uint16, b []byte) error {
		var err error
		out, err = decodeLink(b)
		return err
	})
	return out, err
}

// decodeLink reads struct ifinfomsg and its attributes.
func decodeLink(b []byte) (Link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return Link{}, fmt.Errorf("decode link: %d bytes", len(b))
	}
	l := Link{PeerNSID: NoNSID}
	l.Index = int(binary.NativeEndian.Uint32(b[4:]))
	l.Flags = binary.NativeEndian.Uint32(b[8:])
	l.Up = l.Flags&unix.IFF_UP != 0
	l.Running = l.Flags&unix.IFF_RUNNING != 0
	err := decode(b, unix.SizeofIfInfomsg, func(ad *netlink.AttributeDecoder) { l.attribute(b[0], ad) })
	if err != nil {
		return Link{}, err
	}
	return l, nil
}

// attribute takes one attribute of a link message of a family: AF_BRIDGE is a
// bridge's notification about a port.
func (l *Link) attribute(fam uint8, ad *netlink.AttributeDecoder) {
	switch ad.Type() {
	case unix.IFLA_IFNAME:
		l.Name = ad.String()
	case unix.IFLA_ADDRESS:
		l.MAC = toMAC(ad.Bytes())
	case unix.IFLA_MTU:
		l.MTU = int(ad.Uint32())
	case unix.IFLA_MASTER:
		l.Master = int(ad.Uint32())
	case unix.IFLA_OPERSTATE:
		l.OperState = OperState(ad.Uint8())
	case unix.IFLA_GROUP:
		l.Group = ad.Uint32()
	case unix.IFLA_IFALIAS:
		l.Alias = ad.String()
	case unix.IFLA_LINK:
		l.PeerIndex = int(ad.Uint32())
	case unix.IFLA_LINK_NETNSID:
		l.PeerNSID = int(ad.Int32())
	case unix.IFLA_PROP_LIST:
		inside(ad, func(in *netlink.AttributeDecoder) {
			if in.Type() == unix.IFLA_ALT_IFNAME {
				l.AltNames = append(l.AltNames, in.String())
			}
		})
	case unix.IFLA_STATS64:
		l.Stats = decodeStats(ad.Bytes())
	case unix.IFLA_LINKINFO:
		l.linkInfo(ad.Bytes())
	case unix.IFLA_AF_SPEC:
		if fam != unix.AF_BRIDGE { // a bridge puts its VLANs there
			l.afSpec(ad)
		}
	case unix.IFLA_PROTINFO:
		if fam == unix.AF_BRIDGE {
			l.Port = &Port{}
			inside(ad, l.Port.attribute)
		}
	}
}

// linkInfo reads IFLA_LINKINFO. The kind comes before the data that it explains;
// data that does not parse belongs to a kind not known here, and is left out.
func (l *Link) linkInfo(b []byte) {
	var portKind string
	_ = decode(b, 0, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFLA_INFO_KIND:
			l.Kind = ad.String()
		case unix.IFLA_INFO_SLAVE_KIND:
			portKind = ad.String()
		case unix.IFLA_INFO_DATA:
			l.kindData(ad)
		case unix.IFLA_INFO_SLAVE_DATA:
			if portKind == "bridge" {
				l.Port = &Port{}
				inside(ad, l.Port.attribute)
			}
		}
	})
}

// kindData reads IFLA_INFO_DATA of the kinds that are described.
func (l *Link) kindData(ad *netlink.AttributeDecoder) {
	switch l.Kind {
	case "bridge":
		l.Bridge = &Bridge{}
		inside(ad, l.Bridge.attribute)
	case "vxlan":
		l.VXLAN = &VXLAN{}
		inside(ad, l.VXLAN.attribute)
	case "vlan":
		inside(ad, func(in *netlink.AttributeDecoder) {
			if in.Type() == unix.IFLA_VLAN_ID {
				l.VLAN = in.Uint16()
			}
		})
	case "vrf":
		inside(ad, func(in *netlink.AttributeDecoder) {
			if in.Type() == unix.IFLA_VRF_TABLE {
				l.Table = in.Uint32()
			}
		})
	case "macvlan":
		inside(ad, func(in *netlink.AttributeDecoder) {
			if in.Type() == unix.IFLA_MACVLAN_MODE {
				l.Mode = in.Uint32()
			}
		})
	case "ipvlan":
		inside(ad, func(in *netlink.AttributeDecoder) {
			if in.Type() == unix.IFLA_IPVLAN_MODE {
				l.Mode = uint32(in.Uint16())
			}
		})
	}
}

// afSpec reads the address generation mode of IPv6, and parameters of the link.
func (l *Link) afSpec(ad *netlink.AttributeDecoder) {
	inside(ad, func(fam *netlink.AttributeDecoder) {
		if fam.Type() != unix.AF_INET6 {
			return
		}
		inside(fam, func(in *netlink.AttributeDecoder) {
			switch in.Type() {
			case unix.IFLA_INET6_ADDR_GEN_MODE:
				l.AddrGenNone = in.Uint8() == addrGenNone
			case unix.IFLA_INET6_CONF:
				l.IPv6 = toIPv6Conf(in.Bytes())
			}
		})
	})
}

func (p *Port) attribute(ad *netlink.AttributeDecoder) {
	switch ad.Type() {
	case unix.IFLA_BRPORT_ISOLATED:
		p.Isolated = ad.Uint8() != 0
	case unix.IFLA_BRPORT_MODE:
		p.Hairpin = ad.Uint8() != 0
	case unix.IFLA_BRPORT_LOCKED:
		p.Locked = ad.Uint8() != 0
	case unix.IFLA_BRPORT_LEARNING:
		p.Learning = ad.Uint8() != 0
	case unix.IFLA_BRPORT_NEIGH_SUPPRESS:
		p.NeighSuppress = ad.Uint8() != 0
	}
}

func (br *Bridge) attribute(ad *netlink.AttributeDecoder) {
	switch ad.Type() {
	case unix.IFLA_BR_STP_STATE:
		br.STP = ad.Uint32() != 0
	case unix.IFLA_BR_FORWARD_DELAY:
		br.ForwardDelay = ad.Uint32()
	case unix.IFLA_BR_MCAST_SNOOPING:
		br.McastSnooping = ad.Uint8() != 0
	case unix.IFLA_BR_VLAN_FILTERING:
		br.VLANFiltering = ad.Uint8() != 0
	case unix.IFLA_BR_NF_CALL_IPTABLES:
		br.NFCallIPTables = ad.Uint8() != 0
	case ifBrNFCallIP6Tables:
		br.NFCallIP6Tables = ad.Uint8() != 0
	}
}
