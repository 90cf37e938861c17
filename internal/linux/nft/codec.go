//go:build linux

package nft

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	rules "github.com/towpath/towpath/internal/nft"
)

// tag is a parsed `nla` tag of an expression's field.
type tag struct {
	typ      uint16
	kind     string
	omitZero bool
	ifField  string
	unless   string
}

// fieldTag reads the tag of a field; false if the field is not an attribute.
func fieldTag(f reflect.StructField) (tag, bool) {
	number, rest, whole := strings.Cut(f.Tag.Get("nla"), ",")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || !whole {
		return tag{}, false
	}
	t := tag{typ: uint16(n)}
	t.kind, rest, _ = strings.Cut(rest, ",")
	for option := range strings.SplitSeq(rest, ",") { // each field of each rule passes here
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "omitzero":
			t.omitZero = true
		case "if":
			t.ifField = value
		case "unless":
			t.unless = value
		}
	}
	return t, true
}

// sent reports whether the attribute of a field of s is written.
func (t tag) sent(s, v reflect.Value) bool {
	switch {
	case t.omitZero && v.IsZero():
		return false
	case t.kind == "data" && v.Len() == 0:
		return false
	case t.ifField != "":
		return s.FieldByName(t.ifField).Bool()
	case t.unless != "":
		return !s.FieldByName(t.unless).Bool()
	}
	return true
}

// marshalFields writes the tagged fields of an expression.
func marshalFields(ae *netlink.AttributeEncoder, e rules.Expr) {
	s := reflect.ValueOf(e)
	for i := range s.NumField() {
		t, ok := fieldTag(s.Type().Field(i))
		if v := s.Field(i); ok && t.sent(s, v) {
			t.marshal(ae, v)
		}
	}
}

func (t tag) marshal(ae *netlink.AttributeEncoder, v reflect.Value) {
	switch t.kind {
	case "string":
		ae.String(t.typ, v.String())
	case "data":
		marshalData(ae, t.typ, v.Bytes())
	case "u8":
		ae.Uint8(t.typ, uint8(v.Uint()))
	case "be16":
		ae.Uint16(t.typ, uint16(v.Uint()))
	case "be32":
		ae.Uint32(t.typ, uint32(number(v)))
	case "be64":
		ae.Uint64(t.typ, v.Uint())
	}
}

// number gives an integer or a bool as a number.
func number(v reflect.Value) uint64 {
	if v.Kind() == reflect.Bool {
		if v.Bool() {
			return 1
		}
		return 0
	}
	return v.Uint()
}

// marshalData writes bytes inside NFTA_DATA_VALUE.
func marshalData(ae *netlink.AttributeEncoder, typ uint16, b []byte) {
	ae.Nested(typ, func(n *netlink.AttributeEncoder) error {
		n.Bytes(attrDataValue, b)
		return nil
	})
}

// marshalVerdict writes a verdict inside NFTA_DATA_VERDICT.
func marshalVerdict(ae *netlink.AttributeEncoder, typ uint16, v rules.Verdict) {
	ae.Nested(typ, func(n *netlink.AttributeEncoder) error {
		n.ByteOrder = binary.BigEndian
		n.Nested(attrDataVerdict, func(vn *netlink.AttributeEncoder) error {
			vn.ByteOrder = binary.BigEndian
			vn.Uint32(attrVerdictCode, uint32(v.Code))
			if v.Chain != "" {
				vn.String(attrVerdictChain, v.Chain)
			}
			return nil
		})
		return nil
	})
}

// marshalExpr writes the content of one element of NFTA_RULE_EXPRESSIONS.
// setID is the number of the anonymous set in this transaction, for lookups.
func marshalExpr(ae *netlink.AttributeEncoder, e rules.Expr, setID uint32) {
	ae.String(attrExprName, e.ExprName())
	if u, ok := e.(rules.Unknown); ok {
		if len(u.Raw) > 0 {
			ae.Bytes(netlink.Nested|attrExprData, u.Raw)
		}
		return
	}
	ae.Nested(attrExprData, func(n *netlink.AttributeEncoder) error {
		n.ByteOrder = binary.BigEndian
		if v, ok := e.(rules.Verdict); ok {
			n.Uint32(attrImmediateDReg, 0)
			marshalVerdict(n, attrImmediateData, v)
			return nil
		}
		marshalFields(n, e)
		if setID != 0 {
			n.Uint32(attrLookupSetID, setID)
		}
		return nil
	})
}

// prototype gives an empty expression of the kernel's name; nil if there is no
// struct for it.
func prototype(name string) rules.Expr {
	for _, e := range []rules.Expr{
		rules.Meta{},
		rules.Payload{},
		rules.Cmp{},
		rules.Bitwise{},
		rules.Byteorder{},
		rules.Range{},
		rules.Lookup{},
		rules.Immediate{},
		rules.Counter{},
		rules.FIB{},
		rules.CT{},
		rules.NAT{},
		rules.Masq{},
		rules.Redir{},
		rules.Notrack{},
		rules.Reject{},
		rules.Log{},
		rules.Limit{},
	} {
		if e.ExprName() == name {
			return e
		}
	}
	return nil
}

// unmarshalExpr reads an expression from its name and NFTA_EXPR_DATA.
func unmarshalExpr(name string, data []byte) (rules.Expr, error) {
	proto := prototype(name)
	if proto == nil {
		return rules.Unknown{Name: name, Raw: data}, nil
	}
	ad, err := decoder(data)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", name, err)
	}
	s := reflect.New(reflect.TypeOf(proto)).Elem()
	var verdict *rules.Verdict
	for ad.Next() {
		if name == "immediate" && ad.Type() == attrImmediateData {
			if v, ok := unmarshalVerdict(ad.Bytes()); ok {
				verdict = &v
				continue
			}
		}
		unmarshalField(s, ad)
	}
	if err := ad.Err(); err != nil {
		return nil, fmt.Errorf("decode %s: %w", name, err)
	}
	if verdict != nil {
		return *verdict, nil
	}
	return normal(s.Interface().(rules.Expr)), nil
}

// decoder reads attributes in network order, as all of nf_tables is.
func decoder(b []byte) (*netlink.AttributeDecoder, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return nil, err
	}
	ad.ByteOrder = binary.BigEndian
	return ad, nil
}

// unmarshalField stores the attribute in the field of s that has its number.
func unmarshalField(s reflect.Value, ad *netlink.AttributeDecoder) {
	for i := range s.NumField() {
		t, ok := fieldTag(s.Type().Field(i))
		if !ok || t.typ != ad.Type() {
			continue
		}
		if t.ifField != "" {
			s.FieldByName(t.ifField).SetBool(true)
		}
		v := s.Field(i)
		switch t.kind {
		case "string":
			v.SetString(ad.String())
		case "data":
			v.SetBytes(unmarshalData(ad.Bytes()))
		case "u8":
			v.SetUint(uint64(ad.Uint8()))
		case "be16":
			v.SetUint(uint64(ad.Uint16()))
		case "be32":
			n := ad.Uint32()
			if v.Kind() == reflect.Bool {
				v.SetBool(n != 0)
			} else {
				v.SetUint(uint64(n))
			}
		case "be64":
			v.SetUint(ad.Uint64())
		}
	}
}

// unmarshalData reads NFTA_DATA_VALUE.
func unmarshalData(b []byte) []byte {
	ad, err := decoder(b)
	if err != nil {
		return nil
	}
	for ad.Next() {
		if ad.Type() == attrDataValue {
			return ad.Bytes()
		}
	}
	return nil
}

// unmarshalVerdict reads NFTA_DATA_VERDICT, if there is one.
func unmarshalVerdict(b []byte) (rules.Verdict, bool) {
	var v rules.Verdict
	found := false
	ad, err := decoder(b)
	if err != nil {
		return v, false
	}
	for ad.Next() {
		if ad.Type() != attrDataVerdict {
			continue
		}
		found = true
		ad.Nested(func(n *netlink.AttributeDecoder) error {
			n.ByteOrder = binary.BigEndian
			for n.Next() {
				switch n.Type() {
				case attrVerdictCode:
					v.Code = rules.VerdictCode(int32(n.Uint32()))
				case attrVerdictChain:
					v.Chain = n.String()
				}
			}
			return nil
		})
	}
	return v, found && ad.Err() == nil
}

// normal undoes what the kernel adds to translations: it fills in the upper
// registers and the bits that follow from the registers.
func normal(e rules.Expr) rules.Expr {
	switch x := e.(type) {
	case rules.NAT:
		x.AddrMax = unless(x.AddrMax, x.AddrMin)
		x.ProtoMax = unless(x.ProtoMax, x.ProtoMin)
		x.Flags &^= rules.NATImplied
		return x
	case rules.Masq:
		x.ProtoMax = unless(x.ProtoMax, x.ProtoMin)
		x.Flags &^= rules.NATImplied
		return x
	case rules.Redir:
		x.ProtoMax = unless(x.ProtoMax, x.ProtoMin)
		x.Flags &^= rules.NATImplied
		return x
	}
	return e
}

// unless gives 0 for a register that repeats another.
func unless(r, other rules.Reg) rules.Reg {
	if r == other {
		return 0
	}
	return r
}
