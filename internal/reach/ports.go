package reach

import (
	"encoding/binary"
	"strings"

	"github.com/towpath/towpath/internal/nft"
)

// ports notes the destination ports that a table's filters name: in rules, and as
// the last part of keys that have ports. One too many only makes more classes.
func ports(t *nft.TableDef, into map[uint16]bool) {
	n := named{into: into}
	for _, s := range t.Sets {
		n.elements(s.Set, s.Elements)
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			n.rule(r)
		}
	}
}

// named gathers ports.
type named struct{ into map[uint16]bool }

func (n named) add(b []byte) {
	if len(b) == 2 {
		n.into[binary.BigEndian.Uint16(b)] = true
	}
}

func (n named) elements(s nft.Set, all []nft.Element) {
	if !strings.HasSuffix(s.KeyType, "inet_service") || s.Map && !s.Verdicts() {
		return
	}
	for _, e := range all {
		at := (len(e.Key) - 1) / 4 * 4 // parts begin at 4 bytes
		if len(e.Key) >= at+2 && at >= 0 {
			n.add(e.Key[at : at+2])
		}
		if len(e.KeyEnd) >= at+2 && at >= 0 {
			n.add(e.KeyEnd[at : at+2])
		}
	}
}

// rule notes what is compared with a register that may hold the port.
func (n named) rule(r nft.Rule) {
	other := map[nft.Reg]bool{} // registers that hold something else
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case nft.Payload:
			other[e.DReg] = !holdsPort(e)
		case nft.Meta:
			other[e.DReg] = true
		case nft.Cmp:
			if !other[e.SReg] {
				n.add(e.Data)
			}
		case nft.Range:
			if !other[e.SReg] {
				n.add(e.From)
				n.add(e.To)
			}
		case nft.Lookup:
			if e.Anon != nil {
				n.elements(e.Anon.Set(), e.Anon.Elements)
			}
		case nft.Unknown:
			n.match(e)
		}
	}
}

// holdsPort reports whether what is loaded has something of the destination port
// in it, as far as that can be told.
func holdsPort(e nft.Payload) bool {
	switch e.Base {
	case nft.BaseLink, nft.BaseNetwork:
		return false
	case nft.BaseTransport:
		return e.Offset < 4 && e.Offset+e.Len > 2
	}
	return true
}

// match notes the ports of matches tcp and udp of iptables: struct xt_tcp and
// xt_udp begin with two of the source and two of the destination.
func (n named) match(e nft.Unknown) {
	x, ok := e.XT()
	if !ok || x.Name != "tcp" && x.Name != "udp" || len(x.Info) < 8 {
		return
	}
	for off := 4; off < 8; off += 2 {
		n.into[binary.NativeEndian.Uint16(x.Info[off:])] = true
	}
}
