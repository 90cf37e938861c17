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

// Neighbour is an entry of a neighbour table (AF_INET, AF_INET6) or, with the
// family AF_BRIDGE, of the forwarding database of a bridge or a VXLAN.
type Neighbour struct {
	// Family is AF_INET, AF_INET6 or AF_BRIDGE; 0 is written as that of IP.
	Family uint8
	Index  int        // of the link; of the bridge port
	IP     netip.Addr // the neighbour; in a VXLAN's database, the far end
	MAC    MAC
	State  uint16 // NUD_*; 0 is written as NUD_PERMANENT
	// Flags are NTF_*. An AF_BRIDGE entry goes to the bridge with NTF_MASTER,
	// and to the link's own table (a VXLAN's) with NTF_SELF.
	Flags uint8
	// Protocol is RTPROT_*: who set it. Databases of AF_BRIDGE do not keep it.
	Protocol uint8

	VLAN   uint16 // AF_BRIDGE: tag; 0: none
	VNI    uint32 // VXLAN: network of the far end, if not the link's own
	Port   uint16 // VXLAN: UDP port of the far end, if not the link's own
	Master int    // AF_BRIDGE, as read: index of the bridge
}

// NeighbourFilter selects entries.
type NeighbourFilter struct {
	Family uint8 // AF_INET, AF_INET6, AF_BRIDGE; 0: the first two
	// Index is that of the link, filtered in the kernel.
	Index int
	// Master is the index of a bridge, filtered in the kernel: all its ports.
	Master int
}

// Neighbours lists entries, at most limit of them if limit is above zero. More
// are an ErrTooMany beside the first ones: nothing of what is beyond is read.
func (c *Conn) Neighbours(ctx context.Context, f NeighbourFilter, limit int) ([]Neighbour, error) {
	h := make([]byte, unix.SizeofNdMsg)
	h[0] = f.Family
	if f.Family == unix.AF_BRIDGE {
		// The forwarding database has the port in the header, the neighbour
		// table refuses it there.
		binary.NativeEndian.PutUint32(h[4:], uint32(f.Index))
	}
	body, err := attributes(h, func(ae *netlink.AttributeEncoder) {
		if f.Index != 0 && f.Family != unix.AF_BRIDGE {
			ae.Uint32(unix.NDA_IFINDEX, uint32(f.Index))
		}
		if f.Master != 0 {
			ae.Uint32(unix.NDA_MASTER, uint32(f.Master))
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	req := request{typ: unix.RTM_GETNEIGH, body: body}
	out, err := list(ctx, c, req, limit, func(_ uint16, b []byte) (Neighbour, bool, error) {
		n, err := decodeNeighbour(b)
		return n, f.Index == 0 || n.Index == f.Index, err
	})
	if err != nil {
		return out, fmt.Errorf("list neighbours: %w", err)
	}
	return out, nil
}

// AddNeighbour adds an entry. One that is there is an unix.EEXIST.
func (c *Conn) AddNeighbour(ctx context.Context, n Neighbour) error {
	return c.changeNeighbour(ctx, "add", unix.RTM_NEWNEIGH, netlink.Create|netlink.Excl, n)
}

// ReplaceNeighbour adds an entry or changes the one that is there.
func (c *Conn) ReplaceNeighbour(ctx context.Context, n Neighbour) error {
	return c.changeNeighbour(ctx, "replace", unix.RTM_NEWNEIGH, netlink.Create|netlink.Replace, n)
}

// AppendNeighbour adds one more far end to an entry of a VXLAN's database, such
// as that of the zero MAC to which unknown and broadcast frames are copied.
func (c *Conn) AppendNeighbour(ctx context.Context, n Neighbour) error {
	return c.changeNeighbour(ctx, "append", unix.RTM_NEWNEIGH, netlink.Create|netlink.Append, n)
}

// DelNeighbour deletes an entry. There being none is an unix.ENOENT. A
// neighbour's deletion leaves a failed entry for a while, if packets refer to it.
func (c *Conn) DelNeighbour(ctx context.Context, n Neighbour) error {
	return c.changeNeighbour(ctx, "delete", unix.RTM_DELNEIGH, 0, n)
}

func (c *Conn) changeNeighbour(ctx context.Context, verb string, typ uint16, flags netlink.HeaderFlags, n Neighbour) error {
	body, err := n.encode(typ == unix.RTM_DELNEIGH)
	if err == nil {
		err = c.do(ctx, request{typ: typ, flags: flags, body: body}, nil)
	}
	if err != nil {
		return fmt.Errorf("%s neighbour %s on link %d: %w", verb, n.label(), n.Index, err)
	}
	return nil
}

// label names the entry: by its key, with the far end if there is one too.
func (n Neighbour) label() string {
	switch {
	case n.Family != unix.AF_BRIDGE:
		return n.IP.String()
	case n.IP.IsValid():
		return n.MAC.String() + " via " + n.IP.String()
	}
	return n.MAC.String()
}

// encode writes struct ndmsg and its attributes. The MAC address of an AF_BRIDGE
// entry is its key, also when it is zero; that of a neighbour is no part of a
// deletion, and may be absent (NTF_PROXY).
func (n Neighbour) encode(del bool) ([]byte, error) {
	bridge := n.Family == unix.AF_BRIDGE
	h := make([]byte, unix.SizeofNdMsg)
	h[0] = n.Family
	if n.Family == unix.AF_UNSPEC {
		h[0] = family(n.IP)
	}
	state := n.State
	if state == 0 {
		state = unix.NUD_PERMANENT
	}
	binary.NativeEndian.PutUint32(h[4:], uint32(n.Index))
	binary.NativeEndian.PutUint16(h[8:], state)
	h[10] = n.Flags
	return attributes(h, func(ae *netlink.AttributeEncoder) {
		putAddr(ae, unix.NDA_DST, n.IP)
		if bridge || !del && !n.MAC.IsZero() {
			ae.Bytes(unix.NDA_LLADDR, n.MAC[:])
		}
		if n.Protocol != 0 && !bridge && !del {
			ae.Uint8(ndaProtocol, n.Protocol)
		}
		if n.VLAN != 0 {
			ae.Uint16(unix.NDA_VLAN, n.VLAN)
		}
		if n.VNI != 0 {
			ae.Uint32(unix.NDA_VNI, n.VNI)
		}
		if n.Port != 0 {
			ae.Bytes(unix.NDA_PORT, binary.BigEndian.AppendUint16(nil, n.Port))
		}
	})
}

// decodeNeighbour reads struct ndmsg and its attributes.
func decodeNeighbour(b []byte) (Neighbour, error) {
	if len(b) < unix.SizeofNdMsg {
		return Neighbour{}, fmt.Errorf("decode neighbour: %d bytes", len(b))
	}
	n := Neighbour{
		Family: b[0],
		Index:  int(binary.NativeEndian.Uint32(b[4:])),
		State:  binary.NativeEndian.Uint16(b[8:]),
		Flags:  b[10],
	}
	err := decode(b, unix.SizeofNdMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.NDA_DST:
			n.IP = toAddr(ad.Bytes())
		case unix.NDA_LLADDR:
			n.MAC = toMAC(ad.Bytes())
		case ndaProtocol:
			n.Protocol = ad.Uint8()
		case unix.NDA_VLAN:
			n.VLAN = ad.Uint16()
		case unix.NDA_VNI:
			n.VNI = ad.Uint32()
		case unix.NDA_PORT:
			n.Port = binary.BigEndian.Uint16(append(ad.Bytes(), 0, 0))
		case unix.NDA_MASTER:
			n.Master = int(ad.Uint32())
		}
	})
	if err != nil {
		return Neighbour{}, err
	}
	return n, nil
}
