//go:build linux

package rt

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// decodeRule reads struct fib_rule_hdr and its attributes.
func decodeRule(b []byte) (Rule, error) {
	if len(b) < unix.SizeofRtMsg {
		return Rule{}, fmt.Errorf("decode rule: %d bytes", len(b))
	}
	r := Rule{Family: b[0], TOS: b[3], Table: uint32(b[4]), Action: b[7]}
	r.Invert = binary.NativeEndian.Uint32(b[8:])&unix.FIB_RULE_INVERT != 0
	err := decode(b, unix.SizeofRtMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.FRA_DST:
			r.Dst = prefix(r.Family, ad.Bytes(), int(b[1]))
		case unix.FRA_SRC:
			r.Src = prefix(r.Family, ad.Bytes(), int(b[2]))
		default:
			r.attribute(ad)
		}
	})
	if err != nil {
		return Rule{}, err
	}
	return r, nil
}

// attribute takes one attribute of a rule message that is no prefix.
func (r *Rule) attribute(ad *netlink.AttributeDecoder) {
	switch ad.Type() {
	case unix.FRA_PRIORITY:
		r.Priority = ad.Uint32()
	case unix.FRA_TABLE:
		r.Table = ad.Uint32()
	case unix.FRA_FWMARK:
		r.Mark = ad.Uint32()
	case unix.FRA_FWMASK:
		r.Mask = ad.Uint32()
	case unix.FRA_GOTO:
		r.Goto = ad.Uint32()
	case unix.FRA_IIFNAME:
		r.IIF = ad.String()
	case unix.FRA_OIFNAME:
		r.OIF = ad.String()
	case unix.FRA_PROTOCOL:
		r.Protocol = ad.Uint8()
	case unix.FRA_IP_PROTO:
		r.IPProto = ad.Uint8()
	case unix.FRA_SPORT_RANGE:
		r.SrcPorts = toPorts(ad.Bytes())
	case unix.FRA_DPORT_RANGE:
		r.DstPorts = toPorts(ad.Bytes())
	case unix.FRA_L3MDEV:
		r.L3MDev = ad.Uint8() != 0
	case unix.FRA_SUPPRESS_PREFIXLEN:
		// All ones is "none": the sum is 0.
		r.MinPrefixLen = int(ad.Int32()) + 1
	case unix.FRA_SUPPRESS_IFGROUP:
		// All ones is "none", and always sent.
		r.Opaque = r.Opaque || ad.Int32() != -1
	case fraSportMask, fraDportMask:
		// All ones comes with every range of ports, and says no more.
		r.Opaque = r.Opaque || ad.Uint16() != 0xffff
	case unix.FRA_PAD, unix.FRA_FLOW:
		// Neither matches: alignment, and realms for the accounting.
	default:
		r.Opaque = true
	}
}
