package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// natFlagSymbols are the words after a translation, in nft's order.
var natFlagSymbols = []symbol{
	{"random", uint64(NATRandom)}, {"fully-random", uint64(NATFullyRandom)}, {"persistent", uint64(NATPersistent)},
}

func (c *compiler) natFlags() NATFlags {
	var sum NATFlags
	for {
		v, ok := symbolValue(natFlagSymbols, c.peek().text)
		if !ok {
			return sum
		}
		c.pos++
		sum |= NATFlags(v)
		if !c.accept(",") {
			return sum
		}
	}
}

func (c *compiler) masquerade() error {
	lo, hi, err := c.portsTo(1)
	if err != nil {
		return err
	}
	c.emit(Masq{ProtoMin: lo, ProtoMax: hi, Flags: c.natFlags()})
	return nil
}

func (c *compiler) redirect() error {
	lo, hi, err := c.portsTo(1)
	if err != nil {
		return err
	}
	c.emit(Redir{ProtoMin: lo, ProtoMax: hi, Flags: c.natFlags()})
	return nil
}

// portsTo reads "to :80-90", if it is there, and emits the ports.
func (c *compiler) portsTo(reg Reg) (lo, hi Reg, err error) {
	if !c.accept("to") {
		return 0, 0, nil
	}
	word, ok := strings.CutPrefix(c.next().text, ":")
	if !ok {
		return 0, 0, errors.New(`want ":port" after "to"`)
	}
	return c.ports(word, reg)
}

// ports emits a port or a range of ports into registers from reg on.
func (c *compiler) ports(word string, reg Reg) (lo, hi Reg, err error) {
	first, last, err := mustType("inet_service").parseSpan(token{text: word})
	if err != nil {
		return 0, 0, err
	}
	c.emit(Immediate{DReg: reg, Data: first})
	if last == nil {
		return reg, 0, nil
	}
	c.emit(Immediate{DReg: reg + 1, Data: last})
	return reg, reg + 1, nil
}

// nat reads "dnat ip to 172.20.0.2:80" and "dnat ip to KEY map @m".
func (c *compiler) nat() error {
	e := NAT{Type: SNAT}
	if c.toks[c.pos-1].text == "dnat" {
		e.Type = DNAT
	}
	var err error
	if e.Family, err = c.natFamily(); err != nil {
		return err
	}
	if err := c.expect("to"); err != nil {
		return err
	}
	if c.atTerm() {
		err = c.natMap(&e)
	} else {
		err = c.natAddress(&e)
	}
	if err != nil {
		return err
	}
	e.Flags = c.natFlags()
	c.emit(e)
	return nil
}

// natFamily reads "ip" or "ip6", which the family or the rule may make
// unneeded.
func (c *compiler) natFamily() (Family, error) {
	name := c.known.l3
	if c.peek().is("ip") || c.peek().is("ip6") {
		name = c.next().text
	}
	switch name {
	case "ip":
		return FamilyIP, nil
	case "ip6":
		return FamilyIP6, nil
	}
	return 0, errors.New("translate: ip or ip6 must be said in this family")
}

// natType is the type of the addresses of a translation.
func natType(f Family) dataType {
	if f == FamilyIP6 {
		return mustType("ipv6_addr")
	}
	return mustType("ipv4_addr")
}

// natAddress reads "address[-address][:port[-port]]" and emits them in
// registers 1 to 4.
func (c *compiler) natAddress(e *NAT) error {
	addr, ports := splitPorts(c.next().text)
	next := Reg(1)
	if addr != "" {
		first, last, err := natType(e.Family).parseSpan(token{text: addr})
		if err != nil {
			return err
		}
		e.AddrMin, next = 1, 2
		c.emit(Immediate{DReg: 1, Data: first})
		if last != nil {
			e.AddrMax, next = 2, 3
			c.emit(Immediate{DReg: 2, Data: last})
		}
	}
	if ports == "" && addr != "" {
		return nil
	}
	var err error
	e.ProtoMin, e.ProtoMax, err = c.ports(ports, next)
	return err
}

// splitPorts divides "1.2.3.4:80", "[fd00::1]:80" and ":80".
func splitPorts(word string) (addr, ports string) {
	if inner, ok := strings.CutPrefix(word, "["); ok {
		addr, ports, _ = strings.Cut(inner, "]")
		return addr, strings.TrimPrefix(ports, ":")
	}
	first, _, _ := strings.Cut(word, "-")
	if a, err := netip.ParseAddr(first); err == nil && a.Is6() {
		return word, ""
	}
	addr, ports, _ = strings.Cut(word, ":")
	return addr, ports
}

// natMap reads "KEY map @m" or "KEY map { ... }".
func (c *compiler) natMap(e *NAT) error {
	key, err := c.key()
	if err != nil {
		return err
	}
	if err := c.expect("map"); err != nil {
		return err
	}
	data, err := c.natMapType(natType(e.Family).name, key)
	if err != nil {
		return err
	}
	if err := c.mapLookup(key, 1, data); err != nil {
		return err
	}
	parts := typeParts(data, 0)
	e.AddrMin = 1
	if len(parts) > 1 {
		e.ProtoMin = slotReg(regSlot(1) + pad4(parts[0].size)/4)
	}
	return nil
}

// natMapType finds out whether the values of the map have a port: from the
// declaration of a named map, by trying for one written out.
func (c *compiler) natMapType(addr string, key []term) (string, error) {
	withPort := addr + " . inet_service"
	name, named := strings.CutPrefix(c.peek().text, "@")
	if !named {
		probe := &AnonymousSet{DataType: withPort}
		probe.KeyType, probe.KeyLen = keyType(key)
		look := *c
		if look.anonymous(probe) == nil {
			return withPort, nil
		}
		return addr, nil
	}
	s, ok := c.set(name)
	if !ok {
		return "", fmt.Errorf("translate by map @%s: the map is not declared", name)
	}
	if s.DataType != withPort && s.DataType != addr {
		return "", fmt.Errorf("translate by map @%s: its values are %s", name, strconv.Quote(s.DataType))
	}
	return s.DataType, nil
}
