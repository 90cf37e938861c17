package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// status is what one expression did.
type status struct {
	ok      bool // the rule goes on
	verdict *Verdict
	action  string // for the step
	nat     *Translation
	reason  string // why the walk cannot go on
}

// goOn, mismatch and unknown are the plain ends of an expression.
func goOn() status { return status{ok: true} }

func mismatch() status { return status{} }

func unknown(format string, args ...any) status {
	return status{reason: fmt.Sprintf(format, args...)}
}

// decide ends the rule with a verdict.
func decide(v Verdict, action string) status { return status{ok: true, verdict: &v, action: action} }

// slice gives n bytes of the registers from r on; false if they are not there.
func (r *run) slice(reg Reg, n int) ([]byte, bool) {
	at := 4 * regSlot(reg)
	if reg == 0 || at < 0 || at+n > len(r.regs) {
		return nil, false
	}
	return r.regs[at : at+n], true
}

// put writes a value, padding the last register with zeros as the kernel does.
func (r *run) put(reg Reg, v []byte) status {
	dst, ok := r.slice(reg, pad4(len(v)))
	if !ok {
		return unknown("register %d out of range", reg)
	}
	copy(dst, make([]byte, len(dst)))
	copy(dst, v)
	return goOn()
}

// exec runs one expression.
func (r *run) exec(e Expr) status {
	switch x := e.(type) {
	case Meta:
		return r.meta(x)
	case Payload:
		return r.payload(x)
	case CT:
		return r.ct(x)
	case FIB:
		return r.fib(x)
	case Immediate:
		return r.put(x.DReg, x.Data)
	case Cmp:
		return r.cmp(x)
	case Range:
		return r.inRange(x)
	case Bitwise:
		return r.bitwise(x)
	case Byteorder:
		return r.byteorder(x)
	case Lookup:
		return r.lookup(x)
	case Verdict:
		return decide(x, x.String())
	case NAT:
		return r.nat(x)
	case Masq:
		return r.sourceNAT(x)
	case Redir:
		return r.redirect(x)
	case Reject:
		r.out.Reject = &x
		return decide(Verdict{Code: Drop}, "reject")
	case Notrack:
		if r.p.CT == nil {
			r.p.CT = &Conntrack{State: StateUntracked}
		}
		return goOn()
	case Counter, Log:
		return goOn()
	case Limit:
		return status{ok: x.Flags&1 == 0}
	case Unknown:
		return r.xt(x)
	}
	return unknown("unknown expression %q", e.ExprName())
}

func (r *run) cmp(e Cmp) status {
	v, ok := r.slice(e.SReg, len(e.Data))
	if !ok {
		return unknown("register %d out of range", e.SReg)
	}
	c := bytes.Compare(v, e.Data)
	switch e.Op {
	case CmpEq:
		return status{ok: c == 0}
	case CmpNeq:
		return status{ok: c != 0}
	case CmpLt:
		return status{ok: c < 0}
	case CmpLte:
		return status{ok: c <= 0}
	case CmpGt:
		return status{ok: c > 0}
	case CmpGte:
		return status{ok: c >= 0}
	}
	return unknown("unknown comparison %d", e.Op)
}

func (r *run) inRange(e Range) status {
	v, ok := r.slice(e.SReg, len(e.From))
	if !ok || len(e.From) != len(e.To) {
		return unknown("register %d out of range", e.SReg)
	}
	inside := bytes.Compare(v, e.From) >= 0 && bytes.Compare(v, e.To) <= 0
	return status{ok: inside == (e.Op == CmpEq)}
}

func (r *run) bitwise(e Bitwise) status {
	v, ok := r.slice(e.SReg, int(e.Len))
	if !ok || e.Op != 0 || e.SReg2 != 0 || len(e.Mask) != int(e.Len) || len(e.Xor) != int(e.Len) {
		return unknown("bitwise operation %d is not understood", e.Op)
	}
	out := make([]byte, len(v))
	for i := range out {
		out[i] = v[i]&e.Mask[i] ^ e.Xor[i]
	}
	return r.put(e.DReg, out)
}

func (r *run) byteorder(e Byteorder) status {
	v, ok := r.slice(e.SReg, int(e.Len))
	if !ok || e.Size == 0 {
		return unknown("byte order of register %d", e.SReg)
	}
	out := bytes.Clone(v)
	for at := 0; littleHost() && at+int(e.Size) <= len(out); at += int(e.Size) {
		reverse(out[at : at+int(e.Size)])
	}
	return r.put(e.DReg, out)
}

func (r *run) lookup(e Lookup) status {
	set := r.table.sets[e.Set]
	if e.Anon != nil {
		set = newSetIndex(e.Anon.Set(), e.Anon.Elements)
	}
	if set == nil || set.length == 0 {
		return unknown("set %q is not there or has no known type", e.Set)
	}
	key, ok := r.slice(e.SReg, set.length)
	if !ok {
		return unknown("register %d out of range", e.SReg)
	}
	found := set.find(key)
	switch {
	case (found != nil) == e.Invert:
		return mismatch()
	case !e.IsMap:
		return goOn()
	case e.DReg == 0:
		return decide(found.Verdict, found.Verdict.String())
	}
	return r.put(e.DReg, found.Data)
}

// nat records a translation. One for another family than the packet's does
// nothing, and the rule goes on (nft_nat_inet_eval).
func (r *run) nat(e NAT) status {
	if e.Family != r.ipFamily() {
		return goOn()
	}
	t := Translation{Type: e.Type, Flags: e.Flags}
	if e.AddrMin != 0 {
		n := natType(e.Family).size
		lo, ok := r.slice(e.AddrMin, n)
		hi, ok2 := lo, true
		if e.AddrMax != 0 {
			hi, ok2 = r.slice(e.AddrMax, n)
		}
		if !ok || !ok2 {
			return unknown("register of the address out of range")
		}
		t.Addr, _ = netip.AddrFromSlice(lo)
		if e.AddrMax != 0 {
			t.AddrMax, _ = netip.AddrFromSlice(hi)
		}
	}
	action := "snat"
	if e.Type == DNAT {
		action = "dnat"
	}
	return r.translated(t, e.ProtoMin, e.ProtoMax, action)
}

func (r *run) sourceNAT(e Masq) status {
	return r.translated(Translation{Type: SNAT, Masquerade: true, Flags: e.Flags}, e.ProtoMin, e.ProtoMax, "masquerade")
}

func (r *run) redirect(e Redir) status {
	return r.translated(Translation{Type: DNAT, Redirect: true, Flags: e.Flags}, e.ProtoMin, e.ProtoMax, "redirect")
}

// translated adds the ports and accepts, as the kernel does after NAT.
func (r *run) translated(t Translation, lo, hi Reg, action string) status {
	for _, p := range []struct {
		reg Reg
		dst *uint16
	}{{lo, &t.Port}, {hi, &t.PortMax}} {
		if p.reg == 0 {
			continue
		}
		v, ok := r.slice(p.reg, 2)
		if !ok {
			return unknown("register %d out of range", p.reg)
		}
		*p.dst = binary.BigEndian.Uint16(v)
	}
	s := decide(Verdict{Code: Accept}, action)
	s.nat = &t
	return s
}

// ipFamily gives the family of an IP packet, 0 for any other.
func (r *run) ipFamily() Family {
	switch r.p.Protocol {
	case EtherTypeIPv4:
		return FamilyIP
	case EtherTypeIPv6:
		return FamilyIP6
	}
	return 0
}
