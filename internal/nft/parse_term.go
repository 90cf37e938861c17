package nft

import (
	"fmt"
	"slices"
)

// term reads something a rule can load, if one is next.
func (c *compiler) term() (term, error) {
	t := c.next()
	if t.quoted {
		c.pos--
		return term{}, c.unexpected("an expression")
	}
	switch t.text {
	case "meta":
		return c.metaTerm()
	case "ct":
		return c.ctTerm()
	case "fib":
		return c.fibTerm()
	case "arp":
		name := c.next().text
		if name == "saddr" || name == "daddr" {
			name += " " + c.next().text
		}
		return c.knownField(t.text, name)
	case "ether", "ip", "ip6", "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", protoTH:
		return c.knownField(t.text, c.next().text)
	}
	if len(t.text) > 4 && t.text[0] == '@' {
		return rawTerm(t.text)
	}
	for _, k := range metaKeys {
		if k.name == t.text && (k.bare || k.key == MetaMark) {
			return k.term(), nil
		}
	}
	c.pos--
	return term{}, c.unexpected("a statement or expression")
}

func (c *compiler) knownField(proto, name string) (term, error) {
	t, ok := fieldTerm(proto, name)
	if !ok {
		return t, fmt.Errorf("no field %q in header %s", name, proto)
	}
	return t, nil
}

func (c *compiler) metaTerm() (term, error) {
	for _, k := range metaKeys {
		if c.accept(k.name) {
			return k.term(), nil
		}
	}
	return term{}, c.unexpected("a meta key")
}

func (c *compiler) ctTerm() (term, error) {
	e := CT{}
	switch {
	case c.accept("original"):
		e.HasDirection = true
	case c.accept("reply"):
		e.HasDirection, e.Direction = true, 1
	}
	name := c.next().text
	if name == "ip" || name == "ip6" {
		name += " " + c.next().text
	}
	i := slices.IndexFunc(ctKeys, func(k ctKey) bool { return k.name == name })
	if i < 0 || ctKeys[i].directed != e.HasDirection {
		return term{}, fmt.Errorf("no connection key %q with that direction", name)
	}
	e.Key = ctKeys[i].key
	t, _ := describeCT(e)
	return t, nil
}

func (c *compiler) fibTerm() (term, error) {
	var e FIB
	for {
		v, ok := symbolValue(fibFlagNames, c.peek().text)
		if !ok {
			return term{}, c.unexpected("saddr, daddr, mark, iif or oif")
		}
		c.pos++
		e.Flags |= FIBFlags(v)
		if !c.accept(".") {
			break
		}
	}
	for _, r := range fibResults {
		if c.accept(r.name) {
			e.Result = r.result
			if c.peek().is("missing") || c.peek().is("exists") {
				e.Flags |= FIBPresent
			}
			t, _ := describeFIB(e)
			return t, nil
		}
	}
	return term{}, c.unexpected("type, oif or oifname")
}

// key reads terms joined by dots.
func (c *compiler) key() ([]term, error) {
	var out []term
	for {
		t, err := c.term()
		if err != nil {
			return nil, err
		}
		out = append(out, t)
		if !c.accept(".") {
			return out, nil
		}
	}
}

// loadKey emits what loads the key into consecutive registers from reg on.
// inNetworkOrder turns numbers of the host round, as sets of intervals need.
func (c *compiler) loadKey(key []term, reg Reg, inNetworkOrder bool) error {
	for _, t := range key {
		if err := c.require(t.proto); err != nil {
			return err
		}
	}
	slot := regSlot(reg)
	for _, t := range key {
		n := pad4(t.typ.size) / 4
		if slot+n > slotCount {
			return fmt.Errorf("key of more than %d bytes", 4*slotCount)
		}
		r := slotReg(slot)
		c.emit(t.into(r))
		if inNetworkOrder && t.typ.host && t.typ.style != styleIfname && t.typ.size > 1 {
			size := uint32(t.typ.size)
			c.emit(Byteorder{SReg: r, DReg: r, Op: byteorderHTON, Len: size, Size: size})
		}
		slot += n
	}
	return nil
}

// byteorderHTON is NFT_BYTEORDER_HTON.
const byteorderHTON = 1

// keyType gives the type name of a key and, for a lone type without a length
// of its own, the length.
func keyType(key []term) (string, int) {
	name := ""
	for i, t := range key {
		if i > 0 {
			name += " . "
		}
		name += t.typ.name
	}
	if len(key) == 1 && mustType(name).size == 0 {
		return name, key[0].typ.size
	}
	return name, 0
}

// slotCount is the number of 4-byte registers (NFT_REG32_COUNT).
const slotCount = 16

// regSlot gives the index of the first 4-byte register that r covers, from 0.
func regSlot(r Reg) int {
	if r >= 8 {
		return int(r) - 8
	}
	return 4 * (int(r) - 1)
}

// slotReg is the inverse of regSlot, in the kernel's own numbering.
func slotReg(slot int) Reg {
	if slot%4 == 0 {
		return Reg(slot/4 + 1)
	}
	return Reg(slot + 8)
}
