package nft

import (
	"fmt"
	"strings"
)

// store writes what a term is set to.
func (p *printer) store(t term, r Reg, e Expr) bool {
	d, ok := describe(t.load, p.known)
	v, loaded := p.get(r)
	if !ok || !loaded {
		return false
	}
	if p.pendingLoads() != v.loads() {
		return false
	}
	text, needs := "", []string{d.proto}
	switch {
	case v.mapped != nil:
		var key string
		key, needs = keyText(v.mapKey)
		needs = append(needs, d.proto)
		text = key + " map " + operand(*v.mapped)
	case v.load != nil:
		text, needs = v.expression(), []string{v.proto, d.proto}
	default:
		text = d.typ.format(v.imm)
	}
	if v.load == nil && v.mapped == nil && len(v.imm) != d.typ.size && d.typ.size != 0 {
		return false
	}
	p.emit(item{text: d.text + " set " + text, needs: needs}, e)
	return true
}

// loads counts the loads that made the value.
func (v *value) loads() int {
	switch {
	case v.mapped != nil:
		return len(v.mapKey)
	case v.load != nil:
		return 1
	}
	return 0
}

// ports writes a masquerade or redirect with its ports.
func (p *printer) ports(name string, lo, hi Reg, flags NATFlags, e Expr) bool {
	text := name
	if lo != 0 {
		ports, ok := p.immediates(mustType("inet_service"), lo, hi)
		if !ok {
			return false
		}
		text += " to :" + ports
	}
	p.emit(item{text: text + formatNATFlags(flags)}, e)
	return true
}

// immediates writes the constant in a register, or the range in two.
func (p *printer) immediates(t dataType, lo, hi Reg) (string, bool) {
	from, ok := p.get(lo)
	if !ok || len(from.imm) != t.size {
		return "", false
	}
	if hi == 0 || hi == lo {
		return t.format(from.imm), true
	}
	to, ok := p.get(hi)
	if !ok || len(to.imm) != t.size {
		return "", false
	}
	return t.format(from.imm) + "-" + t.format(to.imm), true
}

func formatNATFlags(flags NATFlags) string {
	var out []string
	for _, f := range natFlagSymbols {
		if uint64(flags)&f.value != 0 {
			out = append(out, f.name)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return " " + strings.Join(out, ",")
}

// nat writes a translation.
func (p *printer) nat(e NAT) bool {
	text := "snat"
	if e.Type == DNAT {
		text = "dnat"
	}
	if p.known.family != e.Family {
		text += " " + e.Family.String()
	}
	target, needs, ok := p.natTarget(e)
	if !ok {
		return false
	}
	p.emit(item{text: text + " to " + target + formatNATFlags(e.Flags), needs: needs}, e)
	return true
}

// natTarget writes the address and ports of a translation, or the map they
// come from.
func (p *printer) natTarget(e NAT) (string, []string, bool) {
	if v, ok := p.get(e.AddrMin); ok && v.mapped != nil {
		if e.ProtoMin != 0 && p.slotOf(e.ProtoMin) != v || p.pendingLoads() != v.loads() {
			return "", nil, false
		}
		key, needs := keyText(v.mapKey)
		return key + " map " + operand(*v.mapped), needs, true
	}
	var addr, ports string
	var ok bool
	if e.AddrMin != 0 {
		if addr, ok = p.immediates(natType(e.Family), e.AddrMin, e.AddrMax); !ok {
			return "", nil, false
		}
	}
	if e.ProtoMin == 0 {
		return addr, nil, addr != ""
	}
	if ports, ok = p.immediates(mustType("inet_service"), e.ProtoMin, e.ProtoMax); !ok {
		return "", nil, false
	}
	if e.Family == FamilyIP6 && addr != "" {
		addr = "[" + addr + "]"
	}
	return addr + ":" + ports, nil, true
}

// slotOf gives the value a register is part of.
func (p *printer) slotOf(r Reg) *value {
	if slot := regSlot(r); slot >= 0 && slot < slotCount {
		return p.slots[slot].val
	}
	return nil
}

func formatLog(e Log) string {
	text := "log"
	if e.Prefix != "" {
		text += " prefix " + quote(e.Prefix)
	}
	if e.HasGroup {
		text += fmt.Sprintf(" group %d", e.Group)
	}
	if e.SnapLen != 0 {
		text += fmt.Sprintf(" snaplen %d", e.SnapLen)
	}
	if e.QThreshold != 0 {
		text += fmt.Sprintf(" queue-threshold %d", e.QThreshold)
	}
	if !e.HasGroup && e.Level != logLevelDefault {
		name, ok := symbolName(logLevelSymbols, uint64(e.Level))
		if !ok {
			name = fmt.Sprint(e.Level)
		}
		text += " level " + name
	}
	return text + formatLogFlags(uint64(e.Flags))
}

func formatLogFlags(flags uint64) string {
	all, _ := symbolValue(logFlagSymbols, "all")
	if flags&all == all {
		return " flags all"
	}
	text, proto := "", ""
	for _, f := range logFlagSymbols {
		if f.value == all || flags&f.value == 0 {
			continue
		}
		first, second, two := strings.Cut(f.name, " ")
		if two && proto == first {
			text += "," + second
		} else {
			text += " flags " + f.name
		}
		proto = first
	}
	return text
}

func formatLimit(e Limit) string {
	text := "limit rate "
	if e.Flags&1 != 0 {
		text += "over "
	}
	unit, ok := symbolName(timeUnits, e.Unit)
	if !ok {
		unit = fmt.Sprintf("%ds", e.Unit)
	}
	if e.Type == 0 {
		text += fmt.Sprintf("%d/%s", e.Rate, unit)
		if e.Burst != 0 && e.Burst != burstDefault {
			text += fmt.Sprintf(" burst %d packets", e.Burst)
		}
		return text
	}
	text += formatBytes(e.Rate) + "/" + unit
	if e.Burst != 0 {
		text += " burst " + formatBytes(uint64(e.Burst))
	}
	return text
}

// formatBytes writes an amount in the largest unit that divides it.
func formatBytes(n uint64) string {
	for _, u := range dataUnits {
		if n%u.value == 0 && n != 0 {
			return fmt.Sprintf("%d %s", n/u.value, u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// formatReject writes a reject, and the header that its form implies.
func formatReject(e Reject, known headers) (string, []string) {
	if e == defaultReject(known) && (known.family == FamilyIP || known.family == FamilyIP6 || e.Type == RejectICMPX) {
		return "reject", nil
	}
	code := []byte{e.Code}
	switch e.Type {
	case RejectTCP:
		// nft leaves the protocol match out in the ip families only.
		if known.family == FamilyIP || known.family == FamilyIP6 {
			return "reject with tcp reset", []string{"tcp"}
		}
		return "reject with tcp reset", nil
	case RejectICMPX:
		return "reject with icmpx " + mustType("icmpx_code").format(code), nil
	}
	if known.l3 == "ip6" {
		return "reject with icmpv6 " + mustType("icmpv6_code").format(code), []string{"ip6"}
	}
	return "reject with icmp " + mustType("icmp_code").format(code), []string{"ip"}
}
