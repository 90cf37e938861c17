package nft

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// String writes the rule as `nft -s list` 1.0.6 does, without its handle. What
// has no words in nft's language is written as "[ name ... ]".
func (r Rule) String() string {
	p := printer{known: newHeaders(r.Family)}
	for _, e := range r.Exprs {
		p.expr(e)
	}
	p.flush()
	out := p.elide(newHeaders(r.Family))
	if r.Comment != "" {
		out = append(out, "comment "+quote(r.Comment))
	}
	return strings.Join(out, " ")
}

// item is one statement or match of the text.
type item struct {
	text  string
	exprs []Expr
	needs []string // headers it reads, in order
	// load and data are set for a comparison for equality that says which
	// header the packet has. Such an item is left out where the next one
	// implies it.
	load Expr
	data []byte
}

// printer runs a rule over symbols instead of bytes and collects its items.
type printer struct {
	known   headers
	items   []item
	slots   [slotCount]cell
	pending []Expr // loads that no statement has used yet
}

// cell is what a 4-byte register holds: a part of a value.
type cell struct {
	val   *value
	index int // which 4 bytes of val
}

// value is the symbolic content of consecutive registers.
type value struct {
	term
	imm     []byte // constant; then term is empty
	mask    []byte // nil, or value = (term & mask) ^ xor
	xor     []byte
	swapped bool     // in network order, by a byteorder expression
	mapped  *Lookup  // value of a map, its key is mapKey
	mapKey  []*value // the parts of the key
	size    int      // bytes
}

// put stores a value from a register on.
func (p *printer) put(r Reg, v *value) {
	slot := regSlot(r)
	for i := 0; i < max(1, pad4(v.size)/4) && slot >= 0 && slot+i < slotCount; i++ {
		p.slots[slot+i] = cell{v, i}
	}
}

// get gives the value that begins at a register.
func (p *printer) get(r Reg) (*value, bool) {
	slot := regSlot(r)
	if r == 0 || slot < 0 || slot >= slotCount || p.slots[slot].val == nil || p.slots[slot].index != 0 {
		return nil, false
	}
	return p.slots[slot].val, true
}

// emit ends an item made of the pending loads and the expressions.
func (p *printer) emit(it item, exprs ...Expr) {
	it.exprs = append(p.pending, exprs...)
	p.pending = nil
	p.items = append(p.items, it)
	for _, proto := range it.needs {
		p.known.require(proto)
	}
	if it.load != nil {
		p.known.learn(it.load, it.data)
	}
}

// flush writes pending loads that nothing used.
func (p *printer) flush() {
	loads := p.pending
	p.pending = nil
	for _, e := range loads {
		p.emit(item{text: debug(e)}, e)
	}
}

// raw writes an expression that has no words, and the loads before it.
func (p *printer) raw(e Expr) {
	p.flush()
	p.emit(item{text: debug(e)}, e)
}

// debug writes an expression as "[ name ... ]", one of iptables by its name.
func debug(e Expr) string {
	switch u := e.(type) {
	case Unknown:
		if x, ok := u.XT(); ok {
			return x.String()
		}
		return fmt.Sprintf("[ %s 0x%s ]", u.Name, hex.EncodeToString(u.Raw))
	case Lookup:
		if u.Anon != nil {
			u.Set, u.Anon = "{ "+formatAnonymous(u.Anon)+" }", nil
		}
		e = u
	}
	return fmt.Sprintf("[ %s %s ]", e.ExprName(), strings.Trim(fmt.Sprintf("%+v", e), "{}"))
}

// expr runs one expression.
func (p *printer) expr(e Expr) {
	if load, reg, ok := loadReg(e); ok {
		p.load(load, reg, e)
		return
	}
	ok := false
	switch x := e.(type) {
	case Immediate:
		p.put(x.DReg, &value{imm: x.Data, size: len(x.Data)})
		p.pending = append(p.pending, e)
		return
	case Bitwise:
		ok = p.bitwise(x)
	case Byteorder:
		ok = p.byteorder(x)
	case Cmp:
		ok = p.cmp(x)
	case Range:
		ok = p.rangeMatch(x)
	case Lookup:
		ok = p.lookup(x)
	case Meta:
		ok = p.store(term{load: Meta{Key: x.Key}}, x.SReg, e)
	case CT:
		ok = p.store(term{load: CT{Key: x.Key, Direction: x.Direction, HasDirection: x.HasDirection}}, x.SReg, e)
	case Payload:
		ok = p.store(term{load: Payload{Base: x.Base, Offset: x.Offset, Len: x.Len}}, x.SReg, e)
	case NAT:
		ok = p.nat(x)
	case Masq:
		ok = p.ports("masquerade", x.ProtoMin, x.ProtoMax, x.Flags, e)
	case Redir:
		ok = p.ports("redirect", x.ProtoMin, x.ProtoMax, x.Flags, e)
	default:
		ok = p.simple(e)
	}
	if !ok {
		p.raw(e)
	}
}

// load puts a term into registers.
func (p *printer) load(load Expr, reg Reg, e Expr) {
	p.pending = append(p.pending, e)
	t, ok := describe(load, p.known)
	if !ok {
		p.flush()
		return
	}
	size := t.typ.size
	if pl, isPayload := load.(Payload); isPayload {
		size = int(pl.Len)
	}
	p.put(reg, &value{term: t, size: size})
}

// bitwise notes the operation on the value.
func (p *printer) bitwise(e Bitwise) bool {
	v, ok := p.get(e.SReg)
	if !ok || e.Op != 0 || e.SReg2 != 0 || v.load == nil || v.mask != nil || v.swapped ||
		len(e.Mask) != v.size || len(e.Xor) != v.size {
		return false
	}
	w := *v
	w.mask, w.xor = e.Mask, e.Xor
	p.put(e.DReg, &w)
	p.pending = append(p.pending, e)
	return true
}

// byteorder notes that the value is in network order now.
func (p *printer) byteorder(e Byteorder) bool {
	v, ok := p.get(e.SReg)
	if !ok || v.load == nil || v.mask != nil || v.swapped {
		return false
	}
	w := *v
	// nft also asks to swap single bytes, which changes nothing.
	w.swapped = e.Len > 1
	p.put(e.DReg, &w)
	p.pending = append(p.pending, e)
	return true
}

// valueType is the type for constants compared with the value.
func (v *value) valueType() dataType {
	t := v.typ
	if v.swapped {
		t.host = false
	}
	return t
}

// simple writes statements without registers.
func (p *printer) simple(e Expr) bool {
	text := ""
	var needs []string
	switch x := e.(type) {
	case Verdict:
		text = x.String()
	case Counter:
		text = "counter"
	case Notrack:
		text = "notrack"
	case Log:
		text = formatLog(x)
	case Limit:
		text = formatLimit(x)
	case Reject:
		text, needs = formatReject(x, p.known)
	default:
		return false
	}
	p.flush()
	p.emit(item{text: text, needs: needs}, e)
	return true
}

// elide joins the items, leaving out matches that the parser adds by itself
// because of the item that follows them.
func (p *printer) elide(known headers) []string {
	var out []string
	for i := 0; i < len(p.items); {
		j := p.implied(i, known)
		it := p.items[j]
		for _, proto := range it.needs {
			known.require(proto)
		}
		if it.load != nil {
			known.learn(it.load, it.data)
		}
		out = append(out, it.text)
		i = j + 1
	}
	return out
}

// implied gives the last item j such that items i to j-1 are exactly what the
// parser adds before j; i itself if there is none.
func (p *printer) implied(i int, known headers) int {
	var before []Expr
	best := i
	for j := i; j < len(p.items); j++ {
		if added := added(known, p.items[j].needs); len(before) > 0 && equalExprs(added, before) {
			best = j
		}
		if p.items[j].load == nil {
			break
		}
		before = append(before, p.items[j].exprs...)
	}
	return best
}

// added gives the matches that make headers known, as expressions.
func added(known headers, needs []string) []Expr {
	var out []Expr
	for _, proto := range needs {
		matches, ok := known.require(proto)
		if !ok {
			return nil
		}
		for _, m := range matches {
			out = append(out, m.exprs()...)
		}
	}
	return out
}

// equalExprs compares loads and comparisons, the only expressions of matches
// that can be implied.
func equalExprs(a, b []Expr) bool {
	return slices.EqualFunc(a, b, func(x, y Expr) bool {
		cx, isCmp := x.(Cmp)
		cy, isCmp2 := y.(Cmp)
		if isCmp && isCmp2 {
			return cx.SReg == cy.SReg && cx.Op == cy.Op && string(cx.Data) == string(cy.Data)
		}
		load, r1, ok := loadReg(x)
		load2, r2, ok2 := loadReg(y)
		return ok && ok2 && r1 == r2 && load == load2
	})
}
