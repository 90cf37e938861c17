//go:build linux

package ct

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
)

// Entry is one connection as the kernel keeps it.
type Entry struct {
	Proto uint8 // IPPROTO_*
	// Orig is the first packet of the connection before any translation, Reply
	// what the answer to it looks like after: without translation Reply is Orig
	// with source and destination swapped.
	Orig, Reply Tuple
	// OrigID and ReplyID are the identifiers of echo messages, of ICMP and ICMPv6.
	OrigID, ReplyID uint16
	Status          Status
	Mark            uint32
	// Zone is that of the original direction.
	Zone uint16
	// Timeout is how long the entry has left without a packet.
	Timeout time.Duration
}

// Tuple is what tells a connection from others in one direction. Ports are 0 for
// protocols without.
type Tuple struct {
	Src, Dst netip.AddrPort
}

// Status is a set of IPS_* bits of linux/netfilter/nf_conntrack_common.h.
type Status uint32

// The bits of interest.
const (
	Assured Status = 1 << 2 // an answer was seen: not the first to go when the table is full
	SNAT    Status = 1 << 4 // the source is translated
	DNAT    Status = 1 << 5 // the destination is translated
)

// Attributes of linux/netfilter/nfnetlink_conntrack.h, which golang.org/x/sys/unix
// does not have.
const (
	ctaTupleOrig  = 1  // CTA_TUPLE_ORIG
	ctaTupleReply = 2  // CTA_TUPLE_REPLY
	ctaStatus     = 3  // CTA_STATUS
	ctaTimeout    = 7  // CTA_TIMEOUT
	ctaMark       = 8  // CTA_MARK
	ctaID         = 12 // CTA_ID
	ctaZone       = 18 // CTA_ZONE
	ctaFilter     = 25 // CTA_FILTER

	ctaTupleIP    = 1 // CTA_TUPLE_IP
	ctaTupleProto = 2 // CTA_TUPLE_PROTO
	ctaTupleZone  = 3 // CTA_TUPLE_ZONE

	ctaIPv4Src = 1 // CTA_IP_V4_SRC
	ctaIPv4Dst = 2 // CTA_IP_V4_DST
	ctaIPv6Src = 3 // CTA_IP_V6_SRC
	ctaIPv6Dst = 4 // CTA_IP_V6_DST

	ctaProtoNum     = 1 // CTA_PROTO_NUM
	ctaProtoSrcPort = 2 // CTA_PROTO_SRC_PORT
	ctaProtoDstPort = 3 // CTA_PROTO_DST_PORT
)

// name is what the kernel finds one entry by, in its own encoding: a tuple can
// name more than a Tuple holds, such as the numbers of ICMP. The id tells the
// entry from one that took its place meanwhile.
type name struct {
	family uint8
	tuple  []byte // content of CTA_TUPLE_ORIG
	zone   []byte // content of CTA_ZONE; nil: the default zone
	id     []byte // content of CTA_ID
}

// decodeEntry reads an entry from the body of a message.
func decodeEntry(body []byte) (Entry, name, error) {
	if len(body) < sizeofGenmsg {
		return Entry{}, name{}, fmt.Errorf("decode conntrack entry: %d bytes", len(body))
	}
	ad, err := netlink.NewAttributeDecoder(body[sizeofGenmsg:])
	if err != nil {
		return Entry{}, name{}, fmt.Errorf("decode conntrack entry: %w", err)
	}
	ad.ByteOrder = binary.BigEndian
	e, n := Entry{}, name{family: body[0]}
	var orig, reply direction
	for ad.Next() {
		switch ad.Type() {
		case ctaTupleOrig:
			n.tuple = ad.Bytes()
			ad.Nested(orig.decode)
		case ctaTupleReply:
			ad.Nested(reply.decode)
		case ctaStatus:
			e.Status = Status(ad.Uint32())
		case ctaTimeout:
			e.Timeout = time.Duration(ad.Uint32()) * time.Second
		case ctaMark:
			e.Mark = ad.Uint32()
		case ctaID:
			n.id = ad.Bytes()
		case ctaZone:
			n.zone, e.Zone = ad.Bytes(), ad.Uint16()
		}
	}
	if err := ad.Err(); err != nil {
		return Entry{}, name{}, fmt.Errorf("decode conntrack entry: %w", err)
	}
	e.Proto, e.Orig, e.Reply = orig.proto, orig.tuple(), reply.tuple()
	e.OrigID, e.ReplyID = orig.id, reply.id
	if n.zone == nil {
		e.Zone = orig.zone
	}
	return e, n, nil
}

// direction is what a tuple's attributes say.
type direction struct {
	src, dst         netip.Addr
	srcPort, dstPort uint16
	proto            uint8
	id               uint16
	zone             uint16 // a zone of one direction stands in its tuple
}

func (d *direction) tuple() Tuple {
	return Tuple{Src: netip.AddrPortFrom(d.src, d.srcPort), Dst: netip.AddrPortFrom(d.dst, d.dstPort)}
}

// decode reads CTA_TUPLE_*.
func (d *direction) decode(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case ctaTupleIP:
			ad.Nested(d.decodeIP)
		case ctaTupleProto:
			ad.Nested(d.decodeProto)
		case ctaTupleZone:
			d.zone = ad.Uint16()
		}
	}
	return ad.Err()
}

// decodeIP reads CTA_IP_*; what is not 4 or 16 bytes long is no address.
func (d *direction) decodeIP(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case ctaIPv4Src, ctaIPv6Src:
			d.src, _ = netip.AddrFromSlice(ad.Bytes())
		case ctaIPv4Dst, ctaIPv6Dst:
			d.dst, _ = netip.AddrFromSlice(ad.Bytes())
		}
	}
	return ad.Err()
}

// decodeProto reads CTA_PROTO_*.
func (d *direction) decodeProto(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case ctaProtoNum:
			d.proto = ad.Uint8()
		case ctaProtoSrcPort:
			d.srcPort = ad.Uint16()
		case ctaProtoDstPort:
			d.dstPort = ad.Uint16()
		case ctaProtoICMPID, ctaProtoICMPID + ctaProtoICMPv6:
			d.id = ad.Uint16()
		}
	}
	return ad.Err()
}
