package topology

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/towpath/towpath/internal/nft"
)

// field is a part of the packet that a rule has loaded.
type field int

const (
	proto field = iota + 1
	port
	address
)

// scan reads a rule for what it asks of the destination and where it leads it.
// Conditions of other kinds only narrow that down, and are passed over.
type scan struct {
	table  *nft.TableDef
	fields [16]field  // by register of 4 bytes
	widths [16]int    // in bytes, of what was loaded there
	values [16][]byte // constants, likewise
	// The destination asked for; no address and port 0 are any.
	protos []string
	ports  [][2]uint16
	addrs  []netip.Addr
	// Of a map: what is asked for, and where it leads.
	elements []nft.Element
	set      nft.Set
	key      int // its first register
	data     int
	found    []Published
}

// slot is the place of a register in units of 4 bytes.
func slot(r nft.Reg) int {
	if r >= 8 {
		return int(r-8) % 16
	}
	return int(r-1) * 4 % 16
}

// step takes an expression; done ends the rule.
func (s *scan) step(e nft.Expr) (done bool) {
	switch e := e.(type) {
	case nft.Meta:
		if e.DReg != 0 {
			s.fields[slot(e.DReg)] = 0
		}
		if e.DReg != 0 && e.Key == nft.MetaL4Proto {
			s.fields[slot(e.DReg)], s.widths[slot(e.DReg)] = proto, 1
		}
	case nft.Payload:
		s.load(e)
	case nft.Immediate:
		s.fields[slot(e.DReg)], s.values[slot(e.DReg)] = 0, e.Data
	case nft.Cmp:
		s.compare(s.fields[slot(e.SReg)], e)
	case nft.Range:
		if e.Op == nft.CmpEq {
			s.ask(s.fields[slot(e.SReg)], [][2][]byte{{e.From, e.To}})
		}
	case nft.Lookup:
		s.lookup(e)
	case nft.NAT:
		if e.Type == nft.DNAT {
			s.translate(e)
		}
		return true
	case nft.Unknown:
		return s.xt(e)
	}
	return false
}

// compare asks for one value, or for one end of a range: nft writes 1-9 as two
// comparisons.
func (s *scan) compare(f field, e nft.Cmp) {
	switch {
	case e.Op == nft.CmpEq:
		s.ask(f, [][2][]byte{{e.Data, e.Data}})
	case f != port || len(e.Data) != 2 || len(s.ports) != 1:
	case e.Op == nft.CmpGte:
		s.ports = [][2]uint16{{binary.BigEndian.Uint16(e.Data), 0xffff}}
	case e.Op == nft.CmpLte:
		s.ports = [][2]uint16{{s.ports[0][0], binary.BigEndian.Uint16(e.Data)}}
	}
}

// load notes which part of the packet is in a register.
func (s *scan) load(e nft.Payload) {
	f := field(0)
	switch {
	case e.Base == nft.BaseNetwork && e.Len == 1 && (e.Offset == 9 || e.Offset == 6):
		f = proto
	case e.Base == nft.BaseNetwork && (e.Offset == 16 && e.Len == 4 || e.Offset == 24 && e.Len == 16):
		f = address
	case e.Base == nft.BaseTransport && e.Offset == 2 && e.Len == 2:
		f = port
	}
	if e.DReg != 0 {
		s.fields[slot(e.DReg)], s.widths[slot(e.DReg)] = f, int(e.Len)
	}
}

// ask narrows the destination down to some ranges of values of a field.
func (s *scan) ask(f field, ranges [][2][]byte) {
	switch f {
	case proto:
		s.protos = nil
		for _, r := range ranges {
			if len(r[0]) > 0 {
				s.protos = append(s.protos, protoName(r[0][0]))
			}
		}
	case port:
		s.ports = nil
		for _, r := range ranges {
			if len(r[0]) == 2 && len(r[1]) == 2 {
				s.ports = append(s.ports, [2]uint16{binary.BigEndian.Uint16(r[0]), binary.BigEndian.Uint16(r[1])})
			}
		}
	case address:
		s.addrs = nil
		for _, r := range ranges {
			if a, ok := netip.AddrFromSlice(r[0]); ok {
				s.addrs = append(s.addrs, a)
			}
		}
	}
}

func protoName(n byte) string {
	switch n {
	case nft.ProtoTCP:
		return "tcp"
	case nft.ProtoUDP:
		return "udp"
	case 132:
		return "sctp"
	}
	return "other"
}

// lookup takes a set as values of a field, a map as where each of them leads.
func (s *scan) lookup(e nft.Lookup) {
	if e.Invert {
		return
	}
	var set nft.Set
	var elements []nft.Element
	switch named := s.table.Set(e.Set); {
	case e.Anon != nil:
		set, elements = e.Anon.Set(), e.Anon.Elements
	case named != nil:
		set, elements = named.Set, named.Elements
	}
	if e.IsMap {
		if e.DReg != 0 {
			s.set, s.elements, s.key, s.data = set, elements, slot(e.SReg), slot(e.DReg)
		}
		return
	}
	var ranges [][2][]byte
	for _, x := range elements {
		last := x.KeyEnd
		if last == nil {
			last = x.Key
		}
		ranges = append(ranges, [2][]byte{x.Key, last})
	}
	s.ask(s.fields[slot(e.SReg)], ranges)
}

// translate notes where the rule leads what it asked for.
func (s *scan) translate(e nft.NAT) {
	if e.AddrMin == 0 {
		return
	}
	at, toPort := slot(e.AddrMin), -1
	if e.ProtoMin != 0 {
		toPort = slot(e.ProtoMin)
	}
	if s.elements == nil {
		s.add(netip.AddrPortFrom(s.addr(s.values[at]), s.number(toPort)))
		return
	}
	for _, x := range s.elements {
		one := *s
		one.found = nil
		one.element(x)
		size := addrLen(s.set.DataType)
		if len(x.Data) < size {
			continue
		}
		to := netip.AddrPortFrom(s.addr(x.Data[:size]), 0)
		if len(x.Data) >= size+2 {
			to = netip.AddrPortFrom(to.Addr(), binary.BigEndian.Uint16(x.Data[size:]))
		}
		one.add(to)
		s.found = append(s.found, one.found...)
	}
}

func addrLen(dataType string) int {
	if len(dataType) >= 9 && dataType[:9] == "ipv6_addr" {
		return 16
	}
	return 4
}

func (s *scan) addr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (s *scan) number(at int) uint16 {
	if at < 0 || len(s.values[at]) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(s.values[at])
}

// element asks for what the key of an element of a map says: its parts lie in
// registers one after the other.
func (s *scan) element(x nft.Element) {
	for at, off := s.key, 0; at < len(s.fields) && off < len(x.Key); {
		size := s.widths[at]
		step := max(4, (size+3)&^3)
		if off+size > len(x.Key) {
			return
		}
		last := x.KeyEnd
		if len(last) != len(x.Key) {
			last = x.Key
		}
		// A key that covers every address asks for none.
		if whole := s.fields[at] == address && !slices.Equal(x.Key[off:off+size], last[off:off+size]); !whole {
			s.ask(s.fields[at], [][2][]byte{{x.Key[off : off+size], last[off : off+size]}})
		}
		at, off = at+step/4, off+step
	}
}

// add notes each combination of what is asked for.
func (s *scan) add(to netip.AddrPort) {
	if !to.Addr().IsValid() {
		return
	}
	for _, pr := range s.protos {
		for _, po := range s.ports {
			for _, a := range s.addrs {
				s.found = append(s.found, Published{Proto: pr, Addr: a, First: po[0], Last: po[1], To: to})
			}
		}
	}
}

// xt takes matches and targets of iptables: ports, and DNAT.
func (s *scan) xt(e nft.Unknown) (done bool) {
	x, ok := e.XT()
	switch {
	case !ok:
		return false
	case !x.Target && (x.Name == "tcp" || x.Name == "udp") && len(x.Info) >= 8:
		// struct xt_tcp and xt_udp begin with the ports: two of the source, two of the destination.
		s.protos = []string{x.Name}
		s.ports = [][2]uint16{{binary.NativeEndian.Uint16(x.Info[4:]), binary.NativeEndian.Uint16(x.Info[6:])}}
	case x.Target && x.Name == "DNAT":
		s.dnat(x)
	}
	return x.Target
}

// dnat reads the target: struct nf_nat_ipv4_multi_range_compat in revision 0,
// struct nf_nat_range from 1 on, of addresses of 16 bytes.
func (s *scan) dnat(x nft.XT) {
	switch {
	case x.Rev == 0 && len(x.Info) >= 20:
		a, _ := netip.AddrFromSlice(x.Info[8:12])
		s.add(netip.AddrPortFrom(a, binary.BigEndian.Uint16(x.Info[16:])))
	case x.Rev > 0 && len(x.Info) >= 38:
		size := 4
		if s.table.Family == nft.FamilyIP6 {
			size = 16
		}
		a, _ := netip.AddrFromSlice(x.Info[4 : 4+size])
		s.add(netip.AddrPortFrom(a, binary.BigEndian.Uint16(x.Info[36:])))
	}
}
