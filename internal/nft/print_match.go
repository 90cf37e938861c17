package nft

import (
	"bytes"
	"slices"
	"strings"
)

// cmp writes a comparison, joining the two of a range.
func (p *printer) cmp(e Cmp) bool {
	v, ok := p.get(e.SReg)
	if !ok || v.load == nil || v.mapped != nil {
		return false
	}
	if len(p.pending) == 0 {
		return p.closeRange(e)
	}
	if len(e.Data) > v.size || p.pendingLoads() != 1 {
		return false
	}
	if p.splitLoad(v, e) {
		return true
	}
	text, ok := v.compared(e)
	if !ok {
		return false
	}
	it := item{text: text, needs: []string{v.proto}}
	known := p.known
	if e.Op == CmpEq && v.mask == nil && known.learn(v.load, e.Data) {
		it.load, it.data = v.load, e.Data
	}
	p.emit(it, e)
	return true
}

// closeRange joins "<= b" to the ">= a" just written on the same register.
func (p *printer) closeRange(e Cmp) bool {
	v, ok := p.get(e.SReg)
	if !ok || len(p.items) == 0 || e.Op != CmpLte || len(p.pending) != 0 {
		return false
	}
	it := &p.items[len(p.items)-1]
	from, isCmp := it.exprs[len(it.exprs)-1].(Cmp)
	if !isCmp || from.Op != CmpGte || from.SReg != e.SReg || len(from.Data) != len(e.Data) {
		return false
	}
	it.text = v.text + " " + v.rangeText(from.Data, e.Data)
	it.exprs = append(it.exprs, e)
	return true
}

// rangeText writes a range, also one that could be written as a prefix.
func (v *value) rangeText(from, to []byte) string {
	t := v.valueType()
	return t.format(from) + "-" + t.format(to)
}

// compared writes a comparison of the value with constant bytes.
func (v *value) compared(e Cmp) (string, bool) {
	t := v.valueType()
	if v.mask != nil {
		return v.maskedText(e)
	}
	op := ""
	if e.Op != CmpEq {
		sign, _ := symbolName(cmpOps, uint64(e.Op))
		op = sign + " "
	}
	switch {
	case len(e.Data) < v.size && t.style != styleIfname:
		return "", false
	case len(e.Data) < t.size && t.style == styleIfname && !strings.HasSuffix(string(e.Data), "\x00"): // iptables compares a whole name with its end
		return v.text + " " + op + quote(string(e.Data)+"*"), true
	case t.style == styleFlags && e.Op == CmpEq:
		op = "== "
	}
	return v.text + " " + op + t.format(e.Data), true
}

// maskedText writes a comparison under a mask: as bits, as a prefix, or with
// the mask.
func (v *value) maskedText(e Cmp) (string, bool) {
	t := v.typ
	if e.Op != CmpEq && e.Op != CmpNeq || len(e.Data) != v.size {
		return "", false
	}
	plain := allZero(v.xor)
	op := ""
	if e.Op == CmpNeq {
		op = "!= "
	}
	n, isPrefix := maskPrefix(v.mask)
	switch {
	case plain && t.style == styleFlags && e.Op == CmpNeq && allZero(e.Data) && !allZero(v.mask):
		return v.text + " " + t.format(v.mask), true
	case plain && t.style == styleFlags && !allZero(e.Data) && !allZero(v.mask):
		return v.text + " " + op + t.format(e.Data) + " / " + t.format(v.mask), true
	case plain && isPrefix && (t.style == styleIPv4 || t.style == styleIPv6):
		return v.text + " " + op + t.formatSpan(e.Data, orNot(e.Data, prefixMask(n, v.size))), true
	}
	if op == "" {
		op = "== "
	}
	return v.expression() + " " + op + t.format(e.Data), true
}

// expression writes the value with its mask, as nft folds it back.
func (v *value) expression() string {
	if v.mask == nil {
		return v.text
	}
	t := v.valueType()
	kept, set, flipped := make([]byte, v.size), make([]byte, v.size), make([]byte, v.size)
	for i := range kept {
		set[i] = v.xor[i] &^ v.mask[i]
		flipped[i] = v.xor[i] & v.mask[i]
		kept[i] = v.mask[i] | set[i]
	}
	out := v.text
	if !allOnes(kept) {
		out += " & " + t.format(kept)
	}
	if !allZero(set) {
		out += " | " + t.format(set)
	}
	if !allZero(flipped) {
		out += " ^ " + t.format(flipped)
	}
	return out
}

func allZero(b []byte) bool { return all(b, 0) }

func allOnes(b []byte) bool { return all(b, 0xff) }

// all reports whether every byte is v.
func all(b []byte, v byte) bool {
	return !slices.ContainsFunc(b, func(x byte) bool { return x != v })
}

// splitLoad takes apart a load that is not one field: the leading bytes of an
// address are a prefix, and nft merges comparisons of adjacent fields.
func (p *printer) splitLoad(v *value, e Cmp) bool {
	load, ok := v.load.(Payload)
	if !ok || v.mask != nil || v.typ.style != styleHex || len(e.Data) != v.size || e.Op > CmpNeq {
		return false
	}
	if f, ok := p.known.fieldOf(load); ok && v.size < f.typ.size && (f.typ.style == styleIPv4 || f.typ.style == styleIPv6) {
		p.emitPrefix(f, v, e)
		return true
	}
	if e.Op != CmpEq {
		return false
	}
	return p.splitFields(load, e)
}

// emitPrefix writes the comparison of the leading bytes of an address.
func (p *printer) emitPrefix(f field, v *value, e Cmp) {
	addr := append(bytes.Clone(e.Data), make([]byte, f.typ.size-v.size)...)
	op := ""
	if e.Op == CmpNeq {
		op = "!= "
	}
	last := orNot(addr, prefixMask(8*v.size, f.typ.size))
	text := f.proto + " " + f.name + " " + op + f.typ.formatSpan(addr, last)
	p.emit(item{text: text, needs: []string{f.proto}}, e)
}

// splitFields writes one comparison per field that the load covers exactly.
func (p *printer) splitFields(load Payload, e Cmp) bool {
	var parts []item
	known := p.known
	data := e.Data
	for at := load.Offset; len(data) > 0; {
		f, ok := known.fieldOf(Payload{Base: load.Base, Offset: at})
		if !ok || f.typ.size > len(data) {
			return false
		}
		value := data[:f.typ.size]
		part := Payload{DReg: 1, Base: load.Base, Offset: at, Len: uint32(f.typ.size)}
		it := item{text: f.proto + " " + f.name + " " + f.typ.format(value), needs: []string{f.proto}}
		it.exprs = match{part, value}.exprs()
		if known.learn(part, value) {
			it.load, it.data = part, value
		}
		parts = append(parts, it)
		data, at = data[f.typ.size:], at+uint32(f.typ.size)
	}
	p.known, p.pending = known, nil
	p.items = append(p.items, parts...)
	return true
}

// rangeMatch writes a range expression.
func (p *printer) rangeMatch(e Range) bool {
	v, ok := p.get(e.SReg)
	if !ok || v.load == nil || v.mask != nil || v.mapped != nil || p.pendingLoads() != 1 || len(e.From) != v.size || len(e.To) != v.size {
		return false
	}
	op := ""
	if e.Op == CmpNeq {
		op = "!= "
	}
	p.emit(item{text: v.text + " " + op + v.rangeText(e.From, e.To), needs: []string{v.proto}}, e)
	return true
}

// key gathers the values in consecutive registers from r on, as many as were
// loaded for this statement or as a set of known length needs.
func (p *printer) key(r Reg, length int) ([]*value, bool) {
	var out []*value
	slot, total := regSlot(r), 0
	for slot >= 0 && slot < slotCount && (length == 0 || total < length) {
		c := p.slots[slot]
		if c.val == nil || c.index != 0 || c.val.load == nil || c.val.mapped != nil || !p.isPending(c.val) {
			break
		}
		out = append(out, c.val)
		slot += max(1, pad4(c.val.size)/4)
		total += pad4(c.val.size)
	}
	return out, len(out) > 0
}

// isPending reports whether the value was loaded since the last statement.
func (p *printer) isPending(v *value) bool {
	for _, e := range p.pending {
		if load, _, ok := loadReg(e); ok && load == v.load {
			return true
		}
	}
	return false
}

// pendingLoads counts the loads that no statement has used yet: a statement
// may be written only if it uses them all.
func (p *printer) pendingLoads() int {
	n := 0
	for _, e := range p.pending {
		if _, _, ok := loadReg(e); ok {
			n++
		}
	}
	return n
}

// keyText joins the parts of a key and lists the headers it needs.
func keyText(key []*value) (string, []string) {
	texts, needs := make([]string, len(key)), make([]string, len(key))
	for i, v := range key {
		texts[i], needs[i] = v.expression(), v.proto
	}
	return strings.Join(texts, " . "), needs
}

// lookup writes a set match or a verdict map, or notes a mapped value.
func (p *printer) lookup(e Lookup) bool {
	length := 0
	if e.Anon != nil {
		length, _ = TypeLen(e.Anon.KeyType)
	}
	key, ok := p.key(e.SReg, length)
	if !ok || p.pendingLoads() != len(key) {
		return false
	}
	if e.IsMap && e.DReg != 0 {
		size := 16
		if e.Anon != nil {
			size, _ = TypeLen(e.Anon.DataType)
		}
		p.put(e.DReg, &value{mapped: &e, mapKey: key, size: max(size, 20)})
		p.pending = append(p.pending, e)
		return true
	}
	text, needs := keyText(key)
	switch {
	case e.IsMap:
		text += " vmap"
	case e.Invert:
		text += " !="
	}
	p.emit(item{text: text + " " + operand(e), needs: needs}, e)
	return true
}

// operand writes the set of a lookup.
func operand(e Lookup) string {
	if e.Anon == nil {
		return "@" + e.Set
	}
	return "{ " + formatAnonymous(e.Anon) + " }"
}

func formatAnonymous(a *AnonymousSet) string {
	out := make([]string, len(a.Elements))
	for i, e := range a.Elements {
		out[i] = FormatElement(a.Set(), e)
	}
	return strings.Join(out, ", ")
}
