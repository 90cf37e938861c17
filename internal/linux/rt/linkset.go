//go:build linux

package rt

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// LinkChange says what to change of a link. Nil fields stay as they are.
type LinkChange struct {
	Up          *bool
	Name        *string
	Alias       *string // at most 255 bytes; empty removes it
	MAC         *MAC
	MTU         *int // bytes
	Group       *uint32
	Master      *int // 0: none
	AddrGenNone *bool
	Port        *PortChange // of a bridge port
	NSFD        *int        // move to this open namespace
}

// PortChange says what to change of a bridge port. Nil fields stay as they are.
type PortChange struct {
	Isolated, Hairpin, Locked, Learning, NeighSuppress *bool
}

// BridgeChange says what to change of a bridge. Nil fields stay as they are.
type BridgeChange struct {
	McastSnooping *bool
	// NFCallIPTables and NFCallIP6Tables give the frames of this bridge to
	// netfilter, whatever the sysctls say. They need br_netfilter.
	NFCallIPTables, NFCallIP6Tables *bool
}

// SetLink changes a link. It is one message, or two where the kernel
// would take the parts of one in the wrong order: it sets port flags before the
// master, and sets a link up before the address generation mode, by which time
// the link-local address is there. Then an error can leave the first part done.
func (c *Conn) SetLink(ctx context.Context, index int, ch LinkChange) error {
	for _, part := range ch.inOrder() {
		if err := c.setLink(ctx, index, part); err != nil {
			return fmt.Errorf("set link %d: %w", index, err)
		}
	}
	return nil
}

// inOrder splits a change into messages: address generation and master before
// the rest, where the rest depends on them.
func (ch LinkChange) inOrder() []LinkChange {
	first, rest := LinkChange{}, ch
	if ch.Up != nil && ch.AddrGenNone != nil {
		first.AddrGenNone, rest.AddrGenNone = ch.AddrGenNone, nil
	}
	if ch.Port != nil && ch.Master != nil {
		first.Master, rest.Master = ch.Master, nil
	}
	if first == (LinkChange{}) {
		return []LinkChange{rest}
	}
	return []LinkChange{first, rest}
}

// setLink sends one RTM_NEWLINK for a link that must exist.
func (c *Conn) setLink(ctx context.Context, index int, ch LinkChange) error {
	if index <= 0 {
		// The kernel would take 0 for "by name or by group".
		return fmt.Errorf("interface index %d: %w", index, unix.EINVAL)
	}
	var flags, change uint32
	if ch.Up != nil {
		change = unix.IFF_UP
		if *ch.Up {
			flags = unix.IFF_UP
		}
	}
	body, err := attributes(ifInfo(unix.AF_UNSPEC, index, flags, change), ch.encode)
	if err != nil {
		return err
	}
	return c.do(ctx, request{typ: unix.RTM_NEWLINK, body: body}, nil)
}

// encode writes the attributes of a change.
func (ch LinkChange) encode(ae *netlink.AttributeEncoder) {
	if ch.Name != nil {
		ae.String(unix.IFLA_IFNAME, *ch.Name)
	}
	if ch.Alias != nil {
		ae.String(unix.IFLA_IFALIAS, *ch.Alias)
	}
	if ch.MAC != nil {
		ae.Bytes(unix.IFLA_ADDRESS, ch.MAC[:])
	}
	if ch.MTU != nil {
		ae.Uint32(unix.IFLA_MTU, uint32(*ch.MTU))
	}
	if ch.Group != nil {
		ae.Uint32(unix.IFLA_GROUP, *ch.Group)
	}
	if ch.Master != nil {
		ae.Uint32(unix.IFLA_MASTER, uint32(*ch.Master))
	}
	if ch.AddrGenNone != nil {
		putAddrGen(ae, *ch.AddrGenNone)
	}
	if ch.NSFD != nil {
		ae.Uint32(unix.IFLA_NET_NS_FD, uint32(*ch.NSFD))
	}
	if ch.Port != nil {
		nested(ae, unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) {
			info.String(unix.IFLA_INFO_SLAVE_KIND, "bridge")
			nested(info, unix.IFLA_INFO_SLAVE_DATA, ch.Port.encode)
		})
	}
}

// encode writes the port's attributes, the same that a RTM_SETLINK of family
// AF_BRIDGE has in IFLA_PROTINFO.
func (p *PortChange) encode(ae *netlink.AttributeEncoder) {
	optional(ae, unix.IFLA_BRPORT_ISOLATED, p.Isolated)
	optional(ae, unix.IFLA_BRPORT_MODE, p.Hairpin)
	optional(ae, unix.IFLA_BRPORT_LOCKED, p.Locked)
	optional(ae, unix.IFLA_BRPORT_LEARNING, p.Learning)
	optional(ae, unix.IFLA_BRPORT_NEIGH_SUPPRESS, p.NeighSuppress)
}

// putAddrGen says whether IPv6 makes a link-local address: none, or from the MAC
// address (EUI-64).
func putAddrGen(ae *netlink.AttributeEncoder, none bool) {
	nested(ae, unix.IFLA_AF_SPEC, func(spec *netlink.AttributeEncoder) {
		nested(spec, unix.AF_INET6, func(in *netlink.AttributeEncoder) {
			putBool(in, unix.IFLA_INET6_ADDR_GEN_MODE, none)
		})
	})
}

// SetBridge changes a bridge.
func (c *Conn) SetBridge(ctx context.Context, index int, ch BridgeChange) error {
	body, err := attributes(ifInfo(unix.AF_UNSPEC, index, 0, 0), func(ae *netlink.AttributeEncoder) {
		nested(ae, unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) {
			info.String(unix.IFLA_INFO_KIND, "bridge")
			nested(info, unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) {
				optional(data, unix.IFLA_BR_MCAST_SNOOPING, ch.McastSnooping)
				optional(data, unix.IFLA_BR_NF_CALL_IPTABLES, ch.NFCallIPTables)
				optional(data, ifBrNFCallIP6Tables, ch.NFCallIP6Tables)
			})
		})
	})
	if err == nil {
		err = c.do(ctx, request{typ: unix.RTM_NEWLINK, body: body}, nil)
	}
	if err != nil {
		return fmt.Errorf("set bridge %d: %w", index, err)
	}
	return nil
}

// DelLink deletes a link; a veth takes its peer with it. There being none is an
// unix.ENODEV.
func (c *Conn) DelLink(ctx context.Context, index int) error {
	err := c.do(ctx, request{
		typ:  unix.RTM_DELLINK,
		body: ifInfo(unix.AF_UNSPEC, index, 0, 0),
	}, nil)
	if err != nil {
		return fmt.Errorf("delete link %d: %w", index, err)
	}
	return nil
}

// DelGroup deletes all links of a group in one message, which costs a fraction
// of deleting them one by one. Group 0, in which every link is born, is refused.
// There being no link in the group is an unix.ENODEV; one link in it that cannot
// be deleted keeps all of them, unix.EOPNOTSUPP.
func (c *Conn) DelGroup(ctx context.Context, group uint32) error {
	if group == 0 {
		return fmt.Errorf("delete links of group 0: %w", errors.New("every link belongs to it by default"))
	}
	body, err := attributes(ifInfo(unix.AF_UNSPEC, 0, 0, 0), func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.IFLA_GROUP, group)
	})
	if err == nil {
		err = c.do(ctx, request{typ: unix.RTM_DELLINK, body: body}, nil)
	}
	if err != nil {
		return fmt.Errorf("delete links of group %d: %w", group, err)
	}
	return nil
}
