//go:build linux

package ct

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Messages of linux/netfilter/nfnetlink_conntrack.h.
const (
	msgGet    = 1 // IPCTNL_MSG_CT_GET
	msgDelete = 2 // IPCTNL_MSG_CT_DELETE
	// IPCTNL_MSG_CT_GET_STATS_CPU. The smaller GET_STATS marks its only answer as
	// one of several, and the others never come.
	msgGetStats = 4
)

// sizeofGenmsg is the size of struct nfgenmsg, which starts every message.
const sizeofGenmsg = 4

// message is a request about connections, without its headers.
type message struct {
	typ    uint8
	family uint8
	attrs  []byte
}

// netlink puts the headers before the message.
func (m message) netlink(subsystem int, flags netlink.HeaderFlags) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(subsystem<<8 | int(m.typ)), Flags: netlink.Request | flags},
		Data:   append([]byte{m.family, 0, 0, 0}, m.attrs...),
	}
}

// request is the message for the subsystem of connections.
func (m message) request(flags netlink.HeaderFlags) netlink.Message {
	return m.netlink(unix.NFNL_SUBSYS_CTNETLINK, flags)
}

// attributes encodes attributes in network order.
func attributes(fill func(*netlink.AttributeEncoder)) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	fill(ae)
	b, err := ae.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode conntrack message: %w", err)
	}
	return b, nil
}

// nested writes an attribute that holds attributes.
func nested(ae *netlink.AttributeEncoder, typ uint16, fill func(*netlink.AttributeEncoder)) {
	ae.Nested(typ, func(in *netlink.AttributeEncoder) error {
		fill(in)
		return nil
	})
}

// deletion deletes one entry.
func (n name) deletion() (message, error) {
	attrs, err := attributes(func(ae *netlink.AttributeEncoder) {
		ae.Bytes(ctaTupleOrig|netlink.Nested, n.tuple)
		if n.zone != nil {
			ae.Bytes(ctaZone, n.zone)
		}
		if n.id != nil {
			ae.Bytes(ctaID, n.id)
		}
	})
	return message{typ: msgDelete, family: n.family, attrs: attrs}, err
}

// Bits of CTA_FILTER_ORIG_FLAGS: what of the tuple the kernel compares.
const (
	matchProto   = 1 << 3
	matchDstPort = 1 << 5
)

// filter says which entries of a family the kernel shall tell of: those whose
// first packet agrees where the flags say so.
//
// Not all that the kernel can compare can be used. In Linux 6.18 a flag for an
// address of AF_INET6 selects what does not agree with it; and ports are compared
// for TCP and UDP only, for SCTP a port agrees with any.
type filter struct {
	family uint8
	flags  uint32
	proto  uint8
	port   uint16
}

// listing asks for what the filter selects. A kernel before 5.8 does not look at
// it and tells all.
func (f filter) listing() (message, error) {
	attrs, err := attributes(func(ae *netlink.AttributeEncoder) {
		nested(ae, ctaTupleOrig, func(tuple *netlink.AttributeEncoder) {
			nested(tuple, ctaTupleProto, f.encode)
		})
		nested(ae, ctaFilter, func(in *netlink.AttributeEncoder) {
			in.ByteOrder = binary.NativeEndian // unlike all else here
			// CTA_FILTER_ORIG_FLAGS has the number of the tuple. The flags of the
			// other direction are absent, which is 0.
			in.Uint32(ctaTupleOrig, f.flags)
		})
	})
	return message{typ: msgGet, family: f.family, attrs: attrs}, err
}

// encode writes what the flags select.
func (f filter) encode(proto *netlink.AttributeEncoder) {
	if f.flags&matchProto != 0 {
		proto.Uint8(ctaProtoNum, f.proto)
	}
	if f.flags&matchDstPort != 0 {
		proto.Uint16(ctaProtoDstPort, f.port)
	}
}
