package nft

import "bytes"

// headers is what the rule so far says about the headers of the packet, as
// nft tracks it: a field of a header may be read only once the header is known,
// and nft adds the match that makes it known.
type headers struct {
	family Family
	ll     string // "" or "ether"
	l3     string // "", "ip", "ip6" or "arp"
	l4     string // "" or a name of l4Numbers
}

// newHeaders gives what a family by itself says.
func newHeaders(f Family) headers {
	c := headers{family: f}
	switch f {
	case FamilyIP:
		c.l3 = "ip"
	case FamilyIP6:
		c.l3 = "ip6"
	case FamilyARP:
		c.l3 = "arp"
	case FamilyBridge:
		c.ll = "ether"
	}
	return c
}

// match is a comparison for equality that makes a header known.
type match struct {
	load Expr // with DReg 1
	data []byte
}

// exprs gives the expressions of the match.
func (m match) exprs() []Expr { return []Expr{m.load, Cmp{SReg: 1, Op: CmpEq, Data: m.data}} }

// metaMatch compares metadata.
func metaMatch(key MetaKey, data ...byte) match { return match{Meta{DReg: 1, Key: key}, data} }

// etherTypeMatch compares the ethertype field of the frame.
func etherTypeMatch(v uint64) match {
	return match{Payload{DReg: 1, Base: BaseLink, Offset: 12, Len: 2}, []byte{byte(v >> 8), byte(v)}}
}

// require makes a header known, adding what matches that takes; false if the
// header cannot occur.
func (c *headers) require(proto string) ([]match, bool) {
	switch proto {
	case "", protoTH:
		return nil, true
	case "ether":
		return c.requireEther()
	case "ip", "ip6", "arp":
		return c.requireNetwork(proto, false)
	}
	return c.requireTransport(proto)
}

// requireEther asks for an Ethernet header by the type of the interface.
func (c *headers) requireEther() ([]match, bool) {
	if c.ll != "" {
		return nil, true
	}
	c.ll = "ether"
	ether, _ := mustType("iface_type").bytes(1)
	return []match{metaMatch(MetaIIfType, ether...)}, true
}

// requireNetwork asks for a network header. forTransport: on behalf of a
// transport header, which nft treats differently in the bridge family.
func (c *headers) requireNetwork(proto string, forTransport bool) ([]match, bool) {
	if c.l3 == proto {
		return nil, true
	}
	if c.l3 != "" {
		return nil, false
	}
	v, _ := symbolValue(l3EtherTypes, proto)
	etherType := []byte{byte(v >> 8), byte(v)}
	switch {
	case c.family == FamilyInet:
		n, ok := symbolValue(l3NFProtos, proto)
		if !ok {
			return nil, false
		}
		c.l3 = proto
		return []match{metaMatch(MetaNFProto, byte(n))}, true
	case c.family == FamilyNetdev && c.ll == "ether",
		c.family == FamilyBridge && (forTransport || proto == "arp"):
		c.l3 = proto
		return []match{etherTypeMatch(v)}, true
	}
	c.l3 = proto
	return []match{metaMatch(MetaProtocol, etherType...)}, true
}

// requireTransport asks for a transport header by the last protocol number.
func (c *headers) requireTransport(proto string) ([]match, bool) {
	if c.l4 == proto {
		return nil, true
	}
	n, ok := symbolValue(l4Numbers, proto)
	if !ok || c.l4 != "" {
		return nil, false
	}
	var out []match
	if l3, bound := symbolValue([]symbol{{"icmp", 0}, {"icmpv6", 1}}, proto); bound {
		if out, ok = c.requireNetwork([]string{"ip", "ip6"}[l3], true); !ok {
			return nil, false
		}
	}
	c.l4 = proto
	return append(out, metaMatch(MetaL4Proto, byte(n))), true
}

// learn notes what a comparison for equality says about the headers; false if
// it says nothing.
func (c *headers) learn(load Expr, data []byte) bool {
	switch e := load.(type) {
	case Meta:
		return c.learnMeta(e.Key, data)
	case Payload:
		f, ok := c.fieldOf(e)
		if !ok || int(e.Len) != f.typ.size {
			return false
		}
		switch f.proto + " " + f.name {
		case "ether type":
			return c.learnNetwork(l3EtherTypes, f.typ.number(data))
		case "ip protocol", "ip6 nexthdr":
			return c.learnTransport(uint64(data[0]))
		}
	}
	return false
}

// learnMeta is learn for metadata.
func (c *headers) learnMeta(key MetaKey, data []byte) bool {
	if len(data) == 0 {
		return false
	}
	switch key {
	case MetaNFProto:
		return c.learnNetwork(l3NFProtos, uint64(data[0]))
	case MetaL4Proto:
		return c.learnTransport(uint64(data[0]))
	case MetaProtocol:
		// In the inet family nft keeps asking for nfproto.
		if c.family == FamilyInet || len(data) != 2 {
			return false
		}
		return c.learnNetwork(l3EtherTypes, uint64(data[0])<<8|uint64(data[1]))
	case MetaIIfType:
		ether, _ := mustType("iface_type").bytes(1)
		if bytes.Equal(data, ether) {
			c.ll = "ether"
			return true
		}
	}
	return false
}

func (c *headers) learnNetwork(table []symbol, v uint64) bool {
	name, ok := symbolName(table, v)
	if ok && c.l3 == "" {
		c.l3 = name
	}
	return ok
}

func (c *headers) learnTransport(v uint64) bool {
	name, ok := symbolName(l4Numbers, v)
	if ok && c.l4 == "" {
		c.l4 = name
	}
	return ok
}

// fieldOf finds the header field a load begins at, among the headers known.
func (c headers) fieldOf(p Payload) (field, bool) {
	var protos []string
	switch p.Base {
	case BaseLink:
		protos = []string{c.ll}
	case BaseNetwork:
		protos = []string{c.l3}
	case BaseTransport:
		protos = []string{c.l4, protoTH}
	}
	for _, proto := range protos {
		if f, ok := fieldAt(proto, p.Base, p.Offset); ok && proto != "" {
			return f, true
		}
	}
	return field{}, false
}
