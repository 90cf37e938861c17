//go:build linux

package rt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Rule is a rule of policy routing. The zero prefix, name or number matches any.
type Rule struct {
	Family   uint8 // AF_INET or AF_INET6
	Priority uint32
	Invert   bool // matches what the rest does not match
	Src, Dst netip.Prefix
	IIF, OIF string // names; they may be those of links to come
	Mark     uint32
	Mask     uint32 // of Mark; the kernel takes 0 with a Mark for all bits
	IPProto  uint8
	SrcPorts [2]uint16 // first and last
	DstPorts [2]uint16
	TOS      uint8

	Action   uint8  // FR_ACT_*; 0 is written as FR_ACT_TO_TBL
	Table    uint32 // RT_TABLE_*
	Goto     uint32 // priority, for FR_ACT_GOTO
	L3MDev   bool   // look up in the table of the VRF
	Protocol uint8  // RTPROT_*: who set it
	// MinPrefixLen ignores a result with a shorter prefix: 1 ignores default
	// routes. It is one more than the kernel's suppress_prefixlength.
	MinPrefixLen int
	// Opaque says, of a rule as read, that it also matches on something that is
	// not described here (user ids, tunnel ids, ...).
	Opaque bool
}

// Rules lists the rules of a family, 0: of both. More than the Conn's limit are
// an ErrTooMany beside the first ones.
func (c *Conn) Rules(ctx context.Context, fam uint8) ([]Rule, error) {
	families := []uint8{fam}
	if fam == unix.AF_UNSPEC {
		// Not one dump of AF_UNSPEC: that has the rules of multicast too.
		families = []uint8{unix.AF_INET, unix.AF_INET6}
	}
	var out []Rule
	for _, fam := range families {
		h := make([]byte, unix.SizeofRtMsg)
		h[0] = fam
		req := request{typ: unix.RTM_GETRULE, body: h}
		rules, err := list(ctx, c, req, 0, func(_ uint16, b []byte) (Rule, bool, error) {
			r, err := decodeRule(b)
			return r, true, err
		})
		out = append(out, rules...)
		if err != nil {
			return out, fmt.Errorf("list rules: %w", err)
		}
	}
	return out, nil
}

// AddRule adds a rule. One that is there is an unix.EEXIST.
func (c *Conn) AddRule(ctx context.Context, r Rule) error {
	if r.Action == 0 {
		r.Action = unix.FR_ACT_TO_TBL
	}
	return c.changeRule(ctx, "add", unix.RTM_NEWRULE, netlink.Create|netlink.Excl, r)
}

// DelRule deletes the first rule that is equal in all that r says. There being
// none is an unix.ENOENT. A rule that says no more than its family is refused:
// the kernel would delete the first of all.
func (c *Conn) DelRule(ctx context.Context, r Rule) error {
	if (r == Rule{Family: r.Family}) {
		return fmt.Errorf("delete rule: %w", errors.New("nothing says which"))
	}
	return c.changeRule(ctx, "delete", unix.RTM_DELRULE, 0, r)
}

func (c *Conn) changeRule(ctx context.Context, verb string, typ uint16, flags netlink.HeaderFlags, r Rule) error {
	body, err := r.encode()
	if err == nil {
		err = c.do(ctx, request{typ: typ, flags: flags, body: body}, nil)
	}
	if err != nil {
		return fmt.Errorf("%s rule %d: %w", verb, r.Priority, err)
	}
	return nil
}

// encode writes struct fib_rule_hdr, which has the layout of struct rtmsg, and
// its attributes. Words that are zero are not written: any.
func (r Rule) encode() ([]byte, error) {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[3], h[7] = r.Family, r.TOS, r.Action
	if r.Dst.IsValid() {
		h[1] = uint8(r.Dst.Bits())
	}
	if r.Src.IsValid() {
		h[2] = uint8(r.Src.Bits())
	}
	if r.Invert {
		binary.NativeEndian.PutUint32(h[8:], unix.FIB_RULE_INVERT)
	}
	return attributes(h, func(ae *netlink.AttributeEncoder) {
		for _, word := range []struct {
			typ   uint16
			value uint32
		}{
			{unix.FRA_PRIORITY, r.Priority},
			{unix.FRA_TABLE, r.Table},
			{unix.FRA_FWMARK, r.Mark},
			{unix.FRA_FWMASK, r.Mask},
			{unix.FRA_GOTO, r.Goto},
		} {
			if word.value != 0 {
				ae.Uint32(word.typ, word.value)
			}
		}
		r.encodeMatches(ae)
	})
}

// encodeMatches writes the attributes that are not words.
func (r Rule) encodeMatches(ae *netlink.AttributeEncoder) {
	if r.Dst.IsValid() && r.Dst.Bits() > 0 {
		putAddr(ae, unix.FRA_DST, r.Dst.Masked().Addr())
	}
	if r.Src.IsValid() && r.Src.Bits() > 0 {
		putAddr(ae, unix.FRA_SRC, r.Src.Masked().Addr())
	}
	if r.IIF != "" {
		ae.String(unix.FRA_IIFNAME, r.IIF)
	}
	if r.OIF != "" {
		ae.String(unix.FRA_OIFNAME, r.OIF)
	}
	if r.Protocol != 0 {
		ae.Uint8(unix.FRA_PROTOCOL, r.Protocol)
	}
	if r.IPProto != 0 {
		ae.Uint8(unix.FRA_IP_PROTO, r.IPProto)
	}
	putPorts(ae, unix.FRA_SPORT_RANGE, r.SrcPorts)
	putPorts(ae, unix.FRA_DPORT_RANGE, r.DstPorts)
	if r.L3MDev {
		ae.Uint8(unix.FRA_L3MDEV, 1)
	}
	if r.MinPrefixLen > 0 {
		ae.Uint32(unix.FRA_SUPPRESS_PREFIXLEN, uint32(r.MinPrefixLen-1))
	}
}

// putPorts writes struct fib_rule_port_range, in host byte order.
func putPorts(ae *netlink.AttributeEncoder, typ uint16, ports [2]uint16) {
	if ports == [2]uint16{} {
		return
	}
	b := binary.NativeEndian.AppendUint16(nil, ports[0])
	ae.Bytes(typ, binary.NativeEndian.AppendUint16(b, ports[1]))
}

// toPorts reads struct fib_rule_port_range.
func toPorts(b []byte) [2]uint16 {
	if len(b) != 4 {
		return [2]uint16{}
	}
	return [2]uint16{binary.NativeEndian.Uint16(b), binary.NativeEndian.Uint16(b[2:])}
}
