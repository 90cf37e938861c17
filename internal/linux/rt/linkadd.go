//go:build linux

package rt

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Modes of a macvlan, enum macvlan_mode of linux/if_link.h.
const (
	MacvlanPrivate  = 1
	MacvlanVEPA     = 2
	MacvlanBridge   = 4
	MacvlanPassthru = 8
)

// Modes of an ipvlan, enum ipvlan_mode of linux/if_link.h.
const (
	IPvlanL2  = 0
	IPvlanL3  = 1
	IPvlanL3S = 2
)

// LinkSpec is what every new link has. Zero fields are left to the kernel. A new
// link is down. The kernel ignores an alias here (the mark that a link can carry
// from its first moment is its group), and refuses the address generation mode
// (unix.EAFNOSUPPORT): set both by SetLink before the link is up.
type LinkSpec struct {
	Name   string // at most 15 bytes
	MAC    MAC
	MTU    int // bytes
	Master int // index of a bridge in the socket's namespace
	Group  uint32
	// NSFD is an open namespace to make the link in; 0: the socket's. A link
	// made elsewhere can have no Master.
	NSFD int
}

// BridgeSpec is a bridge. It is made without spanning tree and with forward
// delay 0, so that a new port forwards at once. VLAN filtering is off by the
// kernel's default: to say so is refused where it is not built in.
type BridgeSpec struct {
	LinkSpec
	McastSnooping bool
}

// VethSpec is a pair of links: the host end and its peer.
type VethSpec struct {
	LinkSpec
	Peer LinkSpec
}

// MacvlanSpec is a macvlan on the link Parent.
type MacvlanSpec struct {
	LinkSpec
	Parent int
	Mode   uint32 // MacvlanBridge, ...
}

// IPvlanSpec is an ipvlan on the link Parent.
type IPvlanSpec struct {
	LinkSpec
	Parent int
	Mode   uint16 // IPvlanL2, ...
}

// VLANSpec is an 802.1Q subinterface of the link Parent.
type VLANSpec struct {
	LinkSpec
	Parent int
	ID     uint16 // 1 to 4094
}

// VXLANSpec is a VXLAN whose peers are FDB entries. It is made with learning as
// given and with UDP checksums.
type VXLANSpec struct {
	LinkSpec
	VNI      uint32
	Local    netip.Addr // outer source address; also decides the family
	Port     uint16     // outer destination port; 0: the kernel's old default 8472
	Learning bool
	Link     int // device to send through; 0: by route
}

// AddBridge makes a bridge.
func (c *Conn) AddBridge(ctx context.Context, s BridgeSpec) error {
	return c.addLink(ctx, "bridge", s.LinkSpec, nil, func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.IFLA_BR_FORWARD_DELAY, 0)
		ae.Uint32(unix.IFLA_BR_STP_STATE, 0)
		putBool(ae, unix.IFLA_BR_MCAST_SNOOPING, s.McastSnooping)
	})
}

// AddVeth makes both ends in one message, the peer directly in its namespace:
// making and then moving it costs twenty times as much. Each end has one queue:
// the default is one for each processor, and memory for each.
func (c *Conn) AddVeth(ctx context.Context, s VethSpec) error {
	return c.addLink(ctx, "veth", s.LinkSpec, queues, func(ae *netlink.AttributeEncoder) {
		ae.Do(vethInfoPeer|unix.NLA_F_NESTED, func() ([]byte, error) {
			return attributes(ifInfo(unix.AF_UNSPEC, 0, 0, 0), func(peer *netlink.AttributeEncoder) {
				s.Peer.encode(peer)
				queues(peer)
			})
		})
	})
}

// AddMacvlan makes a macvlan.
func (c *Conn) AddMacvlan(ctx context.Context, s MacvlanSpec) error {
	return c.addLink(ctx, "macvlan", s.LinkSpec, parent(s.Parent), func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.IFLA_MACVLAN_MODE, s.Mode)
	})
}

// AddIPvlan makes an ipvlan.
func (c *Conn) AddIPvlan(ctx context.Context, s IPvlanSpec) error {
	return c.addLink(ctx, "ipvlan", s.LinkSpec, parent(s.Parent), func(ae *netlink.AttributeEncoder) {
		ae.Uint16(unix.IFLA_IPVLAN_MODE, s.Mode)
	})
}

// AddVLAN makes a VLAN subinterface.
func (c *Conn) AddVLAN(ctx context.Context, s VLANSpec) error {
	return c.addLink(ctx, "vlan", s.LinkSpec, parent(s.Parent), func(ae *netlink.AttributeEncoder) {
		ae.Uint16(unix.IFLA_VLAN_ID, s.ID)
	})
}

// AddVXLAN makes a VXLAN.
func (c *Conn) AddVXLAN(ctx context.Context, s VXLANSpec) error {
	return c.addLink(ctx, "vxlan", s.LinkSpec, nil, func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.IFLA_VXLAN_ID, s.VNI)
		if family(s.Local) == unix.AF_INET6 {
			putAddr(ae, unix.IFLA_VXLAN_LOCAL6, s.Local)
		} else {
			putAddr(ae, unix.IFLA_VXLAN_LOCAL, s.Local)
		}
		if s.Port != 0 {
			ae.Bytes(unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, s.Port))
		}
		if s.Link != 0 {
			ae.Uint32(unix.IFLA_VXLAN_LINK, uint32(s.Link))
		}
		putBool(ae, unix.IFLA_VXLAN_LEARNING, s.Learning)
		putBool(ae, unix.IFLA_VXLAN_UDP_CSUM, true)
	})
}

// AddLink makes a link of a kind that needs no parameters, such as "dummy". A kind
// that the kernel does not know is an unix.EOPNOTSUPP.
func (c *Conn) AddLink(ctx context.Context, kind string, s LinkSpec) error {
	return c.addLink(ctx, kind, s, nil, nil)
}

// addLink sends RTM_NEWLINK that must make a link. extra adds attributes of the
// link, data those of its kind.
func (c *Conn) addLink(ctx context.Context, kind string, s LinkSpec, extra, data func(*netlink.AttributeEncoder)) error {
	body, err := attributes(ifInfo(unix.AF_UNSPEC, 0, 0, 0), func(ae *netlink.AttributeEncoder) {
		s.encode(ae)
		if extra != nil {
			extra(ae)
		}
		nested(ae, unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) {
			info.String(unix.IFLA_INFO_KIND, kind)
			if data != nil {
				nested(info, unix.IFLA_INFO_DATA, data)
			}
		})
	})
	if err == nil {
		err = c.do(ctx, request{
			typ:   unix.RTM_NEWLINK,
			flags: netlink.Create | netlink.Excl,
			body:  body,
		}, nil)
	}
	if err != nil {
		return fmt.Errorf("add %s %s: %w", kind, s.Name, err)
	}
	return nil
}

// encode writes the attributes common to all kinds.
func (s LinkSpec) encode(ae *netlink.AttributeEncoder) {
	if s.Name != "" {
		ae.String(unix.IFLA_IFNAME, s.Name)
	}
	if !s.MAC.IsZero() {
		ae.Bytes(unix.IFLA_ADDRESS, s.MAC[:])
	}
	if s.MTU != 0 {
		ae.Uint32(unix.IFLA_MTU, uint32(s.MTU))
	}
	if s.Master != 0 {
		ae.Uint32(unix.IFLA_MASTER, uint32(s.Master))
	}
	if s.Group != 0 {
		ae.Uint32(unix.IFLA_GROUP, s.Group)
	}
	if s.NSFD > 0 {
		ae.Uint32(unix.IFLA_NET_NS_FD, uint32(s.NSFD))
	}
}

// queues asks for one transmit and one receive queue.
func queues(ae *netlink.AttributeEncoder) {
	ae.Uint32(unix.IFLA_NUM_TX_QUEUES, 1)
	ae.Uint32(unix.IFLA_NUM_RX_QUEUES, 1)
}

// parent names the link that a link is made on.
func parent(index int) func(*netlink.AttributeEncoder) {
	return func(ae *netlink.AttributeEncoder) { ae.Uint32(unix.IFLA_LINK, uint32(index)) }
}
