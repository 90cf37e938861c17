package nft

import (
	"bytes"
	"errors"
	"fmt"
)

// cmpOps are the comparison signs; the words are nft's older names.
var cmpOps = []symbol{
	{"==", uint64(CmpEq)},
	{"!=", uint64(CmpNeq)},
	{"<", uint64(CmpLt)},
	{"<=", uint64(CmpLte)},
	{">", uint64(CmpGt)},
	{">=", uint64(CmpGte)},
	{"eq", uint64(CmpEq)},
	{"ne", uint64(CmpNeq)},
}

// expression reads what begins with a term: a match, a verdict map or a write.
func (c *compiler) expression() error {
	key, err := c.key()
	if err != nil {
		return err
	}
	if len(key) == 1 && c.accept("set") {
		return c.write(key[0])
	}
	if c.accept("vmap") {
		return c.mapLookup(key, 1, typeVerdict)
	}
	if t := c.peek(); len(key) == 1 && (t.is("&") || t.is("|") || t.is("^") || t.is("and") || t.is("or")) {
		return c.maskedMatch(key[0])
	}
	op, explicit := CmpEq, false
	if v, ok := symbolValue(cmpOps, c.peek().text); ok && !c.peek().quoted {
		c.pos++
		op, explicit = CmpOp(v), true
	}
	switch {
	case c.peek().is("{"), len(c.peek().text) > 1 && c.peek().text[0] == '@' && !c.peek().quoted:
		return c.setLookup(key, op)
	case len(key) > 1:
		return c.unexpected("a set")
	}
	return c.valueMatch(key[0], op, explicit)
}

// setLookup reads "@name" or "{ ... }" and emits the lookup.
func (c *compiler) setLookup(key []term, op CmpOp) error {
	if op != CmpEq && op != CmpNeq {
		return errors.New("a set can be compared with == and != only")
	}
	e := Lookup{SReg: 1, Invert: op == CmpNeq}
	flags, err := c.setOperand(&e, key, "")
	if err != nil {
		return err
	}
	// nft turns a set of one plain value into a comparison.
	if e.Anon != nil && len(key) == 1 && len(e.Anon.Elements) == 1 && e.Anon.Elements[0].Comment == "" {
		el := e.Anon.Elements[0]
		plain := Set{KeyType: e.Anon.KeyType, KeyLen: e.Anon.KeyLen, Flags: e.Anon.Flags}.keyTypes()[0]
		return c.compare(key[0], op, key[0].typ.ordered(plain, el.Key), key[0].typ.ordered(plain, el.KeyEnd))
	}
	if err := c.loadKey(key, 1, flags&SetInterval != 0); err != nil {
		return err
	}
	c.emit(e)
	return nil
}

// ordered gives a value of type from in t's byte order.
func (t dataType) ordered(from dataType, b []byte) []byte {
	if b == nil || t.host == from.host {
		return b
	}
	return dataType{host: true}.bigEndian(b)
}

// mapLookup reads the map and emits the key's loads and the lookup. The value
// goes to the registers of the key, a verdict to register 0.
func (c *compiler) mapLookup(key []term, reg Reg, dataType string) error {
	e := Lookup{SReg: reg, IsMap: true}
	if dataType != typeVerdict {
		e.DReg = reg
	}
	flags, err := c.setOperand(&e, key, dataType)
	if err != nil {
		return err
	}
	if err := c.loadKey(key, reg, flags&SetInterval != 0); err != nil {
		return err
	}
	c.emit(e)
	return nil
}

// setOperand reads the set of a lookup and gives its flags.
func (c *compiler) setOperand(e *Lookup, key []term, dataType string) (SetFlags, error) {
	t := c.peek()
	if !t.quoted && len(t.text) > 1 && t.text[0] == '@' {
		c.pos++
		e.Set = t.text[1:]
		if !isName(e.Set) {
			return 0, fmt.Errorf("%q is not the name of a set", e.Set)
		}
		s, _ := c.set(e.Set)
		return s.Flags, nil
	}
	anon := &AnonymousSet{DataType: dataType}
	anon.KeyType, anon.KeyLen = keyType(key)
	if err := c.anonymous(anon); err != nil {
		return 0, err
	}
	e.Anon = anon
	return anon.Flags, nil
}

// valueMatch reads the value a term is compared with.
func (c *compiler) valueMatch(t term, op CmpOp, explicit bool) error {
	if t.typ.style == styleFlags {
		return c.flagsMatch(t, op, explicit)
	}
	tok := c.next()
	if t.typ.style == styleIfname && len(tok.text) > 1 && tok.text[len(tok.text)-1] == '*' {
		return c.compareBytes(t, op, []byte(tok.text[:len(tok.text)-1]))
	}
	first, last, err := t.typ.parseSpan(tok)
	if err != nil {
		return err
	}
	return c.compare(t, op, first, last)
}

// compare emits the comparison with a value, a prefix or a range.
func (c *compiler) compare(t term, op CmpOp, first, last []byte) error {
	if last == nil || bytes.Equal(first, last) {
		return c.compareValue(t, op, first)
	}
	if op != CmpEq && op != CmpNeq {
		return errors.New("a range can be compared with == and != only")
	}
	if n, ok := spanPrefix(first, last); ok && (t.typ.style == styleIPv4 || t.typ.style == styleIPv6) {
		return c.comparePrefix(t, op, first, n)
	}
	if err := c.loadKey([]term{t}, 1, true); err != nil {
		return err
	}
	first, last = t.typ.bigEndian(first), t.typ.bigEndian(last)
	if op == CmpNeq {
		c.emit(Range{SReg: 1, Op: CmpNeq, From: first, To: last})
		return nil
	}
	c.emit(Cmp{SReg: 1, Op: CmpGte, Data: first}, Cmp{SReg: 1, Op: CmpLte, Data: last})
	return nil
}

// compareValue emits the comparison with one value; order is compared in
// network byte order.
func (c *compiler) compareValue(t term, op CmpOp, v []byte) error {
	ordered := op != CmpEq && op != CmpNeq
	if err := c.loadKey([]term{t}, 1, ordered); err != nil {
		return err
	}
	if ordered {
		v = t.typ.bigEndian(v)
	}
	c.emit(Cmp{SReg: 1, Op: op, Data: v})
	if op == CmpEq {
		c.known.learn(t.load, v)
	}
	return nil
}

// compareBytes emits the comparison with the beginning of a name.
func (c *compiler) compareBytes(t term, op CmpOp, v []byte) error {
	if len(v) >= t.typ.size || op != CmpEq && op != CmpNeq {
		return fmt.Errorf("prefix %q: too long, or not compared with == or !=", v)
	}
	return c.compareLoaded(t, op, v)
}

// comparePrefix emits the comparison with a prefix: of the leading bytes where
// it ends on a byte, under a mask elsewhere.
func (c *compiler) comparePrefix(t term, op CmpOp, addr []byte, n int) error {
	p, isPayload := t.load.(Payload)
	if n%8 != 0 || n == 0 || !isPayload {
		return c.compareMasked(t, op, prefixMask(n, t.typ.size), make([]byte, t.typ.size), addr)
	}
	p.Len = uint32(n / 8)
	t.load, t.typ = p, integer(n/8, false, styleHex)
	return c.compareLoaded(t, op, addr[:n/8])
}

// compareLoaded emits the load and a comparison of as many bytes as v has.
func (c *compiler) compareLoaded(t term, op CmpOp, v []byte) error {
	if err := c.loadKey([]term{t}, 1, false); err != nil {
		return err
	}
	c.emit(Cmp{SReg: 1, Op: op, Data: v})
	return nil
}

// compareMasked emits (t & mask) ^ xor compared with v.
func (c *compiler) compareMasked(t term, op CmpOp, mask, xor, v []byte) error {
	if err := c.loadKey([]term{t}, 1, false); err != nil {
		return err
	}
	c.emit(Bitwise{SReg: 1, DReg: 1, Len: uint32(t.typ.size), Mask: mask, Xor: xor})
	c.emit(Cmp{SReg: 1, Op: op, Data: v})
	return nil
}

// flagsMatch reads names of bits: bare they mean "any of them is set", after
// an operator exactly these, before "/ mask" exactly these among the mask's.
func (c *compiler) flagsMatch(t term, op CmpOp, explicit bool) error {
	v, err := c.flags(t.typ)
	if err != nil {
		return err
	}
	if c.accept("/") {
		mask, err := c.flags(t.typ)
		if err != nil {
			return err
		}
		return c.compareMasked(t, op, mask, make([]byte, t.typ.size), v)
	}
	if explicit {
		return c.compareValue(t, op, v)
	}
	zero := make([]byte, t.typ.size)
	return c.compareMasked(t, CmpNeq, v, zero, bytes.Clone(zero))
}

// flags reads names of bits joined by commas or bars, perhaps in brackets.
func (c *compiler) flags(typ dataType) ([]byte, error) {
	bracket := c.accept("(")
	sum := make([]byte, typ.size)
	for {
		v, err := typ.parse(c.next())
		if err != nil {
			return nil, err
		}
		for i := range sum {
			sum[i] |= v[i]
		}
		if !c.accept(",", "|") {
			break
		}
	}
	if bracket {
		return sum, c.expect(")")
	}
	return sum, nil
}

// maskedMatch reads "term & mask == value".
func (c *compiler) maskedMatch(t term) error {
	mask, xor, err := c.binary(t.typ)
	if err != nil {
		return err
	}
	op, ok := symbolValue(cmpOps, c.peek().text)
	if !ok || op > uint64(CmpNeq) {
		return c.unexpected("== or !=")
	}
	c.pos++
	v, err := c.flags(t.typ)
	if err != nil {
		return err
	}
	return c.compareMasked(t, CmpOp(op), mask, xor, v)
}

// binary reads "& a", "| b", "^ c" in any number and folds them into one mask
// and one exclusive or.
func (c *compiler) binary(typ dataType) (mask, xor []byte, err error) {
	mask, xor = bytes.Repeat([]byte{0xff}, typ.size), make([]byte, typ.size)
	for {
		op := c.peek().text
		if !c.accept("&", "|", "^", "and", "or", "xor") {
			return mask, xor, nil
		}
		v, err := c.flags1(typ)
		if err != nil {
			return nil, nil, err
		}
		for i := range mask {
			switch op {
			case "&", "and":
				mask[i], xor[i] = mask[i]&v[i], xor[i]&v[i]
			case "|", "or":
				mask[i], xor[i] = mask[i]&^v[i], xor[i]&^v[i]|v[i]
			default:
				xor[i] ^= v[i]
			}
		}
	}
}

// flags1 reads one value, or several in brackets.
func (c *compiler) flags1(typ dataType) ([]byte, error) {
	if c.peek().is("(") {
		return c.flags(typ)
	}
	return typ.parse(c.next())
}
