package nft

import (
	"fmt"
	"strconv"
	"strings"
)

// term is something a rule can load: its text, its expression without a
// register, its type and the header it needs.
type term struct {
	text  string
	load  Expr
	typ   dataType
	proto string
}

// into gives the load with a destination register.
func (t term) into(r Reg) Expr {
	switch e := t.load.(type) {
	case Meta:
		e.DReg = r
		return e
	case Payload:
		e.DReg = r
		return e
	case CT:
		e.DReg = r
		return e
	case FIB:
		e.DReg = r
		return e
	}
	return t.load
}

// loadReg gives the destination of a load and the load without it; false if
// the expression loads nothing.
func loadReg(e Expr) (Expr, Reg, bool) {
	var r Reg
	switch l := e.(type) {
	case Meta:
		r, l.DReg = l.DReg, 0
		return l, r, r != 0
	case Payload:
		r, l.DReg = l.DReg, 0
		return l, r, r != 0
	case CT:
		r, l.DReg = l.DReg, 0
		return l, r, r != 0
	case FIB:
		r, l.DReg = l.DReg, 0
		return l, r, r != 0
	}
	return nil, 0, false
}

// describe gives the text and type of a load; false if nft has no words for it.
func describe(load Expr, c headers) (term, bool) {
	switch e := load.(type) {
	case Meta:
		return describeMeta(e)
	case CT:
		return describeCT(e)
	case FIB:
		return describeFIB(e)
	case Payload:
		return describePayload(e, c), true
	}
	return term{}, false
}

func describeMeta(e Meta) (term, bool) {
	for _, k := range metaKeys {
		if k.key == e.Key {
			return k.term(), true
		}
	}
	return term{}, false
}

func (k metaKey) term() term {
	text := k.name
	if !k.bare {
		text = "meta " + text
	}
	return term{text: text, load: Meta{Key: k.key}, typ: k.typ}
}

func describeCT(e CT) (term, bool) {
	for _, k := range ctKeys {
		if k.key != e.Key || k.directed && !e.HasDirection {
			continue
		}
		dir := ""
		if e.HasDirection {
			dir = []string{"original ", "reply "}[e.Direction&1]
		}
		return term{text: "ct " + dir + k.name, load: e, typ: k.typ}, true
	}
	return term{}, false
}

// fibFlagNames are in the order nft prints them.
var fibFlagNames = []symbol{{"saddr", 1}, {"daddr", 2}, {"mark", 4}, {"iif", 8}, {"oif", 16}}

// fibResults are the results of FIB; "type" is asked of an address alone.
var fibResults = []struct {
	name   string
	result FIBResult
	typ    dataType
}{
	{"oif", FIBResultOIf, mustType("iface_index")},
	{"oifname", FIBResultOIfName, mustType("ifname")},
	{"type", FIBResultType, mustType("fib_addrtype")},
}

func describeFIB(e FIB) (term, bool) {
	var parts []string
	for _, f := range fibFlagNames {
		if uint64(e.Flags)&f.value != 0 {
			parts = append(parts, f.name)
		}
	}
	for _, r := range fibResults {
		if r.result != e.Result {
			continue
		}
		t := term{text: "fib " + strings.Join(parts, " . ") + " " + r.name, load: e, typ: r.typ}
		if e.Flags&FIBPresent != 0 {
			t.typ = mustType("boolean")
			t.typ.size = 4 // as the result it replaces
		}
		return t, true
	}
	return term{}, false
}

// baseNames are the words of a raw load.
var baseNames = []symbol{{"ll", uint64(BaseLink)}, {"nh", uint64(BaseNetwork)}, {"th", uint64(BaseTransport)}}

// describePayload names the field, or gives the raw form, which nft writes in
// bits.
func describePayload(e Payload, c headers) term {
	load := Payload{Base: e.Base, Offset: e.Offset, Len: e.Len}
	if f, ok := c.fieldOf(e); ok && int(e.Len) == f.typ.size {
		return term{text: f.proto + " " + f.name, load: load, typ: f.typ, proto: f.proto}
	}
	name, ok := symbolName(baseNames, uint64(e.Base))
	if !ok {
		name = strconv.Itoa(int(e.Base))
	}
	text := fmt.Sprintf("@%s,%d,%d", name, 8*e.Offset, 8*e.Len)
	return term{text: text, load: load, typ: integer(int(e.Len), false, styleHex)}
}

// fieldTerm gives the term of a named header field.
func fieldTerm(proto, name string) (term, bool) {
	// nft has the name "taddr" from 1.0.8 on, and 1.0.6 prints it raw.
	if proto == "icmpv6" && name == "taddr" {
		load := Payload{Base: BaseTransport, Offset: 8, Len: 16}
		return term{text: "@th,64,128", load: load, typ: mustType("ipv6_addr"), proto: proto}, true
	}
	f, ok := fieldByName(proto, name)
	if !ok {
		return term{}, false
	}
	load := Payload{Base: f.base, Offset: f.offset, Len: uint32(f.typ.size)}
	return term{text: proto + " " + name, load: load, typ: f.typ, proto: proto}, true
}

// rawTerm reads "@nh,96,32".
func rawTerm(word string) (term, error) {
	parts := strings.Split(strings.TrimPrefix(word, "@"), ",")
	if len(parts) != 3 {
		return term{}, fmt.Errorf("parse %q: not @base,offset,length", word)
	}
	base, ok := symbolValue(baseNames, parts[0])
	offset, err1 := strconv.ParseUint(parts[1], 10, 16)
	length, err2 := strconv.ParseUint(parts[2], 10, 16)
	if !ok || err1 != nil || err2 != nil || offset%8 != 0 || length%8 != 0 || length == 0 || length > 128 {
		return term{}, fmt.Errorf("parse %q: not whole bytes of ll, nh or th, at most 16", word)
	}
	load := Payload{Base: PayloadBase(base), Offset: uint32(offset / 8), Len: uint32(length / 8)}
	return term{text: word, load: load, typ: integer(int(length/8), false, styleHex)}, nil
}
