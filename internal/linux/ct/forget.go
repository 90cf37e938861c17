//go:build linux

package ct

import (
	"context"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of a tuple of ICMP; those of ICMPv6 are three more.
const (
	ctaProtoICMPID   = 4 // CTA_PROTO_ICMP_ID
	ctaProtoICMPType = 5 // CTA_PROTO_ICMP_TYPE
	ctaProtoICMPCode = 6 // CTA_PROTO_ICMP_CODE
	ctaProtoICMPv6   = 3 // CTA_PROTO_ICMPV6_ID less CTA_PROTO_ICMP_ID
)

// Forget deletes the entry whose first packet was that one, in the default zone;
// of an echo request the identifier stands for the port of the source. It costs
// the same however many entries there are. That there is none is no error.
func (c *Conn) Forget(ctx context.Context, proto uint8, first Tuple) error {
	n := name{family: unix.AF_INET}
	if first.Src.Addr().Is6() {
		n.family = unix.AF_INET6
	}
	var err error
	if n.tuple, err = attributes(first.content(proto)); err != nil {
		return err
	}
	err = c.with(ctx, func(sock *netlink.Conn) error {
		_, err := remove(sock, []name{n})
		return err
	})
	if err != nil {
		return fmt.Errorf("delete connection %s to %s: %w", first.Src, first.Dst, err)
	}
	return nil
}

// content writes what is in of CTA_TUPLE_*.
func (t Tuple) content(proto uint8) func(*netlink.AttributeEncoder) {
	src, dst := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if t.Src.Addr().Is6() {
		src, dst = ctaIPv6Src, ctaIPv6Dst
	}
	return func(ae *netlink.AttributeEncoder) {
		nested(ae, ctaTupleIP, func(ip *netlink.AttributeEncoder) {
			ip.Bytes(src, t.Src.Addr().AsSlice())
			ip.Bytes(dst, t.Dst.Addr().AsSlice())
		})
		nested(ae, ctaTupleProto, func(p *netlink.AttributeEncoder) {
			p.Uint8(ctaProtoNum, proto)
			switch proto {
			case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
				behind, request := uint16(0), uint8(8)
				if proto == unix.IPPROTO_ICMPV6 {
					behind, request = ctaProtoICMPv6, 128
				}
				p.Uint16(ctaProtoICMPID+behind, t.Src.Port())
				p.Uint8(ctaProtoICMPType+behind, request)
				p.Uint8(ctaProtoICMPCode+behind, 0)
			default:
				p.Uint16(ctaProtoSrcPort, t.Src.Port())
				p.Uint16(ctaProtoDstPort, t.Dst.Port())
			}
		})
	}
}
