//go:build linux

package ct

import (
	"encoding/binary"
	"fmt"
	"net/netip"

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
	// version is nfgenmsg's. A deletion that names no entry looks at the family
	// from version 1 on, or, in Linux 6.18, when it has a filter; else it empties
	// the tables of both.
	version uint8
	attrs   []byte
}

// netlink puts the headers before the message.
func (m message) netlink(subsystem int, flags netlink.HeaderFlags) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(subsystem<<8 | int(m.typ)), Flags: netlink.Request | flags},
		Data:   append([]byte{m.family, m.version, 0, 0}, m.attrs...),
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
		ae.Bytes(ctaID, n.id)
	})
	return message{typ: msgDelete, family: n.family, attrs: attrs}, err
}

// Bits of CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS: what of a tuple the
// kernel compares.
const (
	matchSrc     = 1 << 0
	matchProto   = 1 << 3
	matchSrcPort = 1 << 4
	matchDstPort = 1 << 5
)

// filter says which entries of a family the kernel shall delete by itself: those
// whose tuple of one direction agrees where the flags say so. Flags must not be
// 0, which is every entry.
//
// Two traps of Linux 6.18 are kept away from by the verbs: with AF_INET6 a flag
// for an address deletes what does not agree with it; and ports are compared for
// TCP and UDP only, for SCTP a port agrees with any.
type filter struct {
	family           uint8
	direction        uint16 // ctaTupleOrig or ctaTupleReply
	flags            uint32
	src              netip.Addr // IPv4
	proto            uint8
	srcPort, dstPort uint16
}

// deletion deletes what the filter selects. A kernel before 6.8 does not know
// filters in deletions: it wants a whole tuple, and answers EINVAL to this one,
// which has never both addresses.
func (f filter) deletion() (message, error) {
	attrs, err := attributes(func(ae *netlink.AttributeEncoder) {
		nested(ae, f.direction, f.encodeTuple)
		nested(ae, ctaFilter, func(in *netlink.AttributeEncoder) {
			in.ByteOrder = binary.NativeEndian // unlike all else here
			// CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS have the numbers
			// of the tuples. What is absent is 0.
			in.Uint32(f.direction, f.flags)
		})
	})
	return message{typ: msgDelete, family: f.family, version: 1, attrs: attrs}, err
}

// encodeTuple writes what the flags select.
func (f filter) encodeTuple(ae *netlink.AttributeEncoder) {
	if f.flags&matchSrc != 0 {
		nested(ae, ctaTupleIP, func(ip *netlink.AttributeEncoder) { ip.Bytes(ctaIPv4Src, f.src.AsSlice()) })
	}
	if f.flags&matchProto == 0 {
		return
	}
	nested(ae, ctaTupleProto, func(proto *netlink.AttributeEncoder) {
		proto.Uint8(ctaProtoNum, f.proto)
		if f.flags&matchSrcPort != 0 {
			proto.Uint16(ctaProtoSrcPort, f.srcPort)
		}
		if f.flags&matchDstPort != 0 {
			proto.Uint16(ctaProtoDstPort, f.dstPort)
		}
	})
}
