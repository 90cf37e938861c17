package nft

import (
	"encoding/binary"
	"strings"
)

// Attributes of a match and a target of iptables inside a rule
// (NFTA_MATCH_*, NFTA_TARGET_*: the same numbers).
const (
	xtAttrName = 1
	xtAttrRev  = 2
	xtAttrInfo = 3
)

// LegacyTable is what names of tables of the kernel's old ip_tables begin with,
// where they are told as if they were of nftables, whose names have no colon.
const LegacyTable = "legacy:"

// XT is a match or target of iptables, as iptables-nft puts it into a rule when
// nftables has no expression for it.
type XT struct {
	Target bool
	Name   string // "conntrack", "REJECT"
	Rev    uint32
	Info   []byte // the struct of include/uapi/linux/netfilter/xt_*.h, in host order
}

// XT reads an expression that holds a match or target of iptables.
func (u Unknown) XT() (XT, bool) {
	x := XT{Target: u.Name == "target"}
	if u.Name != "match" && !x.Target {
		return x, false
	}
	for b := u.Raw; len(b) >= 4; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return x, false
		}
		value := b[4:n]
		switch binary.NativeEndian.Uint16(b[2:]) & 0x3fff { // less NLA_F_NESTED, NLA_F_NET_BYTEORDER
		case xtAttrName:
			x.Name = strings.TrimRight(string(value), "\x00")
		case xtAttrRev:
			if len(value) != 4 {
				return x, false
			}
			x.Rev = binary.BigEndian.Uint32(value)
		case xtAttrInfo:
			x.Info = value
		}
		b = b[min(len(b), pad4(n)):]
	}
	return x, x.Name != ""
}

// Expr is the expression that XT reads.
func (x XT) Expr() Unknown {
	attr := func(b []byte, typ uint16, value []byte) []byte {
		b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
		b = binary.NativeEndian.AppendUint16(b, typ)
		b = append(b, value...)
		return append(b, make([]byte, pad4(len(b))-len(b))...)
	}
	raw := attr(nil, xtAttrName, append([]byte(x.Name), 0))
	raw = attr(raw, xtAttrRev, binary.BigEndian.AppendUint32(nil, x.Rev))
	raw = attr(raw, xtAttrInfo, x.Info)
	if x.Target {
		return Unknown{Name: "target", Raw: raw}
	}
	return Unknown{Name: "match", Raw: raw}
}

// String is how nft writes what it cannot translate, xt match "set", with the
// states of a match on connections.
func (x XT) String() string {
	if x.Target {
		return `xt target "` + x.Name + `"`
	}
	text := `xt match "` + x.Name + `"`
	if states, ok := x.ConntrackStates(); ok {
		text += " { " + strings.Join(states, ", ") + " }"
	}
	return text
}

// AnyComment is the comment of a rule, in whichever of the two ways iptables
// stores one: as user data, or as a match that always does.
func (r Rule) AnyComment() string {
	for _, e := range r.Exprs {
		u, isUnknown := e.(Unknown)
		if x, ok := u.XT(); isUnknown && ok && x.Name == "comment" && !x.Target {
			text, _, _ := strings.Cut(string(x.Info), "\x00")
			return text
		}
	}
	return r.Comment
}

// Bits of xt_conntrack.h.
const (
	xtConntrackState      = 1 << 0
	xtConntrackDirection  = 1 << 12
	xtConntrackStateAlias = 1 << 13

	xtStateInvalid     = 1 << 0
	xtStateEstablished = 1 << 1
	xtStateRelated     = 1 << 2
	xtStateNew         = 1 << 3
	xtStateSNAT        = 1 << 6
	xtStateDNAT        = 1 << 7
	xtStateUntracked   = 1 << 8
)

// Sizes of struct xt_conntrack_mtinfo3 and where its masks are: after eight
// addresses, two numbers and five ports come match_flags, invert_flags,
// state_mask, status_mask (one byte each in revision 1).
const (
	xtConntrackSize    = 164
	xtConntrackFlagsAt = 8*16 + 2*4 + 5*2
)

// ConntrackMatch is `-m conntrack --ctstate` with one or more states: those of
// nftables by name, and "snat" and "dnat" for what is translated.
func ConntrackMatch(states ...string) XT {
	info := make([]byte, xtConntrackSize)
	mask := uint16(0)
	for _, s := range xtStates() {
		for _, asked := range states {
			if s.name == asked {
				mask |= uint16(s.value)
			}
		}
	}
	binary.NativeEndian.PutUint16(info[xtConntrackFlagsAt:], xtConntrackState)
	binary.NativeEndian.PutUint16(info[xtConntrackFlagsAt+4:], mask)
	return XT{Name: "conntrack", Rev: 3, Info: info}
}

func xtStates() []symbol {
	return []symbol{
		{"invalid", xtStateInvalid},
		{"new", xtStateNew},
		{"related", xtStateRelated},
		{"established", xtStateEstablished},
		{"untracked", xtStateUntracked},
		{"snat", xtStateSNAT},
		{"dnat", xtStateDNAT},
	}
}

// conntrack gives the flags and the mask of states of a match on connections.
func (x XT) conntrack() (flags, invert, states uint16, ok bool) {
	at := xtConntrackFlagsAt
	if x.Name != "conntrack" || x.Target || x.Rev < 1 || x.Rev > 3 || len(x.Info) < at+6 {
		return 0, 0, 0, false
	}
	flags, invert = binary.NativeEndian.Uint16(x.Info[at:]), binary.NativeEndian.Uint16(x.Info[at+2:])
	states = binary.NativeEndian.Uint16(x.Info[at+4:])
	if x.Rev == 1 {
		states = uint16(x.Info[at+4])
	}
	return flags &^ xtConntrackStateAlias, invert &^ xtConntrackStateAlias, states, true
}

// ConntrackStates is the inverse of ConntrackMatch; false for a match on
// anything else.
func (x XT) ConntrackStates() ([]string, bool) {
	flags, invert, mask, ok := x.conntrack()
	if !ok || flags != xtConntrackState || invert != 0 {
		return nil, false
	}
	var out []string
	for _, s := range xtStates() {
		if mask&uint16(s.value) != 0 {
			out = append(out, s.name)
		}
	}
	return out, true
}
