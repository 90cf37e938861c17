package nft

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
)

// info packs numbers as a struct in host order.
func info(t *testing.T, parts ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		if err := binary.Write(&b, binary.NativeEndian, p); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// xtRule runs one rule of iptables on a SYN from 10.0.0.2:4000 to 192.0.2.1:80
// in a connection of the state and status.
func xtRule(x XT, state, status uint32) Outcome {
	chain := ChainDef{
		Chain: Chain{Family: FamilyIP, Table: "filter", Name: "FORWARD", Type: "filter", Hook: "forward", Policy: "drop"},
		Rules: []Rule{{Exprs: []Expr{x.Expr(), Counter{}, Verdict{Code: Accept}}, Handle: 7}},
	}
	p := NewPacket(ProtoTCP, addrPort("10.0.0.2:4000"), addrPort("192.0.2.1:80"), nil)
	p.CT.State, p.CT.Status, p.FIB, p.Mark = state, status, local, 0x2001
	return NewRuleset(TableDef{Table: Table{Family: FamilyIP, Name: "filter"}, Chains: []ChainDef{chain}}).Hook("forward", p)
}

func TestMatchesOfIPTables(t *testing.T) {
	multiport := func(flags, count uint8, ports []uint16, ranges []uint8, invert uint8) XT {
		p, f := make([]uint16, 15), make([]uint8, 15)
		copy(p, ports)
		copy(f, ranges)
		return XT{Name: "multiport", Rev: 1, Info: info(t, flags, count, p, f, invert)}
	}
	tcp := func(invert uint8, ports ...uint16) XT {
		return XT{Name: "tcp", Info: info(t, ports, uint8(0), uint8(0x17), uint8(2), invert)}
	}
	for _, c := range []struct {
		name          string
		xt            XT
		state, status uint32
		want          VerdictCode
	}{
		{"a comment", XT{Name: "comment", Info: []byte("hello\x00")}, StateNew, 0, Accept},
		{"established is not new", ConntrackMatch("related", "established"), StateNew, 0, Drop},
		{"established", ConntrackMatch("related", "established"), StateEstablished, 0, Accept},
		{"related", ConntrackMatch("related", "established"), StateRelated, 0, Accept},
		{"translated", ConntrackMatch("dnat"), StateNew, StatusDNAT, Accept},
		{"the source only", ConntrackMatch("dnat"), StateNew, StatusSNAT, Drop},
		{"untracked", ConntrackMatch("untracked"), StateUntracked, 0, Accept},
		{"invalid", ConntrackMatch("invalid"), StateInvalid, 0, Accept},
		{"to another host", XT{Name: "addrtype", Rev: 1, Info: info(t, uint16(0), uint16(1<<2), uint32(0))}, StateNew, 0, Accept}, // local() says it is the host's
		{"not to this host", XT{Name: "addrtype", Rev: 1, Info: info(t, uint16(0), uint16(1<<2), uint32(2))}, StateNew, 0, Drop},
		{"addrtype by interface", XT{Name: "addrtype", Rev: 1, Info: info(t, uint16(0), uint16(4), uint32(4))}, StateNew, 0, Undecided},
		{"a port and flags of TCP", tcp(0, 0, 65535, 80, 80), StateNew, 0, Accept},
		{"another port", tcp(0, 0, 65535, 81, 90), StateNew, 0, Drop},
		{"any but that port", tcp(2, 0, 65535, 80, 80), StateNew, 0, Drop},
		{"other flags", tcp(4, 0, 65535, 80, 80), StateNew, 0, Drop},
		{"one of several ports", multiport(1, 2, []uint16{443, 80}, nil, 0), StateNew, 0, Accept},
		{"a range of ports", multiport(1, 2, []uint16{70, 90}, []uint8{1, 0}, 0), StateNew, 0, Accept},
		{"none of several ports", multiport(1, 2, []uint16{443, 80}, nil, 1), StateNew, 0, Drop},
		{"either side", multiport(2, 1, []uint16{4000}, nil, 0), StateNew, 0, Accept},
		{"the source side", multiport(0, 1, []uint16{80}, nil, 0), StateNew, 0, Drop},
		{"ICMP", XT{Name: "icmp", Info: []byte{255, 0, 255, 0}}, StateNew, 0, Drop},
		{"a mark", XT{Name: "mark", Rev: 1, Info: info(t, uint32(0x2000), uint32(0x2000), uint8(0))}, StateNew, 0, Accept},
		{"no mark", XT{Name: "mark", Rev: 1, Info: info(t, uint32(0x2000), uint32(0x2000), uint8(1))}, StateNew, 0, Drop},
		{"hops", XT{Name: "ttl", Info: []byte{0, 64}}, StateNew, 0, Accept},
		{"fewer hops", XT{Name: "ttl", Info: []byte{2, 64}}, StateNew, 0, Drop},
		{"hops of IPv6", XT{Name: "hl", Info: []byte{0, 64}}, StateNew, 0, Drop},
		{"a routing header", XT{Name: "rt", Info: make([]byte, 320)}, StateNew, 0, Drop},
		{"a set", XT{Name: "set", Rev: 4, Info: make([]byte, 16)}, StateNew, 0, Undecided},
		{"a target that may do anything", XT{Target: true, Name: "TPROXY"}, StateNew, 0, Undecided},
		{"a log", XT{Target: true, Name: "LOG"}, StateNew, 0, Accept},
		{"a reset", XT{Target: true, Name: "REJECT", Info: info(t, uint32(7))}, StateNew, 0, Drop},
		{"too short", XT{Name: "tcp", Info: []byte{1}}, StateNew, 0, Undecided},
	} {
		if got := xtRule(c.xt, c.state, c.status); got.Verdict != c.want {
			t.Errorf("%s: verdict %v (%s), want %v", c.name, got.Verdict, got.Reason, c.want)
		}
	}
}

func TestXTIsReadBack(t *testing.T) {
	for _, x := range []XT{ConntrackMatch("dnat", "established"), {Target: true, Name: "REJECT", Info: []byte{1, 2, 3}}, {Name: "comment", Rev: 2}} {
		got, ok := x.Expr().XT()
		if !ok || got.Name != x.Name || got.Rev != x.Rev || got.Target != x.Target || !bytes.Equal(got.Info, x.Info) {
			t.Errorf("%v: read back %v, %v", x, got, ok)
		}
	}
	states, ok := ConntrackMatch("dnat", "established").ConntrackStates()
	if want := []string{"established", "dnat"}; !ok || !slices.Equal(states, want) {
		t.Errorf("states %v, %v, want %v", states, ok, want)
	}
	r := Rule{Exprs: []Expr{XT{Name: "comment", Info: []byte("by hand\x00\x00")}.Expr()}, Comment: "other"}
	if got := r.AnyComment(); got != "by hand" {
		t.Errorf("comment %q", got)
	}
	if got := (Rule{Comment: "other"}).AnyComment(); got != "other" {
		t.Errorf("comment %q", got)
	}
}

// FuzzXT: what comes from the kernel, or through it from anybody, is read
// without a panic, and evaluation says something.
func FuzzXT(f *testing.F) {
	f.Add("match", ConntrackMatch("new").Expr().Raw)
	f.Add("target", XT{Target: true, Name: "REJECT", Info: []byte{0, 0, 0, 0}}.Expr().Raw)
	f.Add("match", XT{Name: "multiport", Rev: 1, Info: make([]byte, 48)}.Expr().Raw)
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		x, ok := Unknown{Name: name, Raw: raw}.XT()
		if !ok {
			return
		}
		if again, ok := x.Expr().XT(); !ok && x.Name != "" && len(x.Info) < 1<<15 && len(x.Name) < 1<<15 {
			t.Errorf("%v is not read back: %v", x, again)
		}
		if got := xtRule(x, StateNew, 0).Verdict; got != Accept && got != Drop && got != Undecided {
			t.Errorf("%v: verdict %v", x, got)
		}
	})
}

// TestAssume: what cannot be told is asked.
func TestAssume(t *testing.T) {
	set := XT{Name: "set", Rev: 4, Info: make([]byte, 16)}
	for passes, want := range map[bool]VerdictCode{true: Accept, false: Drop} {
		chain := ChainDef{
			Chain: Chain{Family: FamilyIP, Table: "filter", Name: "FORWARD", Type: "filter", Hook: "forward", Policy: "drop"},
			Rules: []Rule{{Exprs: []Expr{set.Expr(), Counter{}, Verdict{Code: Accept}}, Handle: 7}},
		}
		p := NewPacket(ProtoTCP, addrPort("10.0.0.2:4000"), addrPort("192.0.2.1:80"), nil)
		var asked []uint64
		p.Assume = func(r Ref) (bool, bool) { asked = append(asked, r.Handle); return passes, true }
		got := NewRuleset(TableDef{Table: Table{Family: FamilyIP, Name: "filter"}, Chains: []ChainDef{chain}}).Hook("forward", p)
		if got.Verdict != want || !slices.Equal(asked, []uint64{7}) {
			t.Errorf("assumed %v: verdict %v, asked about %v; want %v", passes, got.Verdict, asked, want)
		}
	}
}

// TestTranslationsOfIPTables reads the three forms that ranges have had.
func TestTranslationsOfIPTables(t *testing.T) {
	addr := func(s string) []byte {
		return append(netip.MustParseAddr(s).AsSlice(), make([]byte, 16-netip.MustParseAddr(s).BitLen()/8)...)
	}
	port := func(lo, hi uint16) []byte {
		return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, lo), hi)
	}
	old := func(flags uint32, lo, hi string, ports []byte) []byte {
		return info(t, uint32(1), flags, netip.MustParseAddr(lo).As4(), netip.MustParseAddr(hi).As4(), ports)
	}
	now := func(flags uint32, lo, hi string, ports []byte) []byte {
		return info(t, flags, addr(lo), addr(hi), ports)
	}
	for _, c := range []struct {
		xt   XT
		want Translation
	}{
		{XT{Name: "DNAT", Rev: 2, Info: append(now(3, "172.17.0.2", "172.17.0.2", port(80, 80)), 0, 0, 0, 0)}, Translation{Type: DNAT, Addr: netip.MustParseAddr("172.17.0.2"), Port: 80}},
		{XT{Name: "DNAT", Rev: 0, Info: old(3, "172.17.0.2", "172.17.0.3", port(80, 90))}, Translation{Type: DNAT, Addr: netip.MustParseAddr("172.17.0.2"), AddrMax: netip.MustParseAddr("172.17.0.3"), Port: 80, PortMax: 90}},
		{XT{Name: "DNAT", Rev: 1, Info: now(1, "fd00::2", "fd00::2", port(0, 0))}, Translation{Type: DNAT, Addr: netip.MustParseAddr("fd00::2")}},
		{XT{Name: "SNAT", Rev: 0, Info: old(1, "192.0.2.1", "192.0.2.1", port(0, 0))}, Translation{Type: SNAT, Addr: netip.MustParseAddr("192.0.2.1")}},
		{XT{Name: "SNAT", Rev: 1, Info: now(1|8, "192.0.2.1", "192.0.2.1", port(0, 0))}, Translation{Type: SNAT, Addr: netip.MustParseAddr("192.0.2.1"), Flags: NATPersistent}},
		{XT{Name: "MASQUERADE", Info: old(0, "0.0.0.0", "0.0.0.0", port(0, 0))}, Translation{Type: SNAT, Masquerade: true}},
		{XT{Name: "MASQUERADE", Info: now(2, "::", "::", port(1000, 2000))}, Translation{Type: SNAT, Masquerade: true, Port: 1000, PortMax: 2000}},
		{XT{Name: "REDIRECT", Info: old(2, "0.0.0.0", "0.0.0.0", port(8080, 8080))}, Translation{Type: DNAT, Redirect: true, Port: 8080}},
	} {
		c.xt.Target = true
		got, _, ok := c.xt.xtNAT()
		if !ok || got != c.want {
			t.Errorf("%s revision %d: %+v, %v; want %+v", c.xt.Name, c.xt.Rev, got, ok, c.want)
		}
		c.xt.Info = c.xt.Info[:8]
		if _, _, ok := c.xt.xtNAT(); ok {
			t.Errorf("%s revision %d: read out of 8 bytes", c.xt.Name, c.xt.Rev)
		}
	}
}

// TestPortsAndRangesOfIPTables matches on bridge ports and ranges of addresses.
func TestPortsAndRangesOfIPTables(t *testing.T) {
	name := func(s string) []byte { return append([]byte(s), make([]byte, 16-len(s))...) }
	mask := func(n int) []byte { return append(bytes.Repeat([]byte{0xff}, n), make([]byte, 16-n)...) }
	physdev := func(invert, bits uint8) XT {
		return XT{Name: "physdev", Info: info(t, name("v-we"), mask(4), name("v-db"), mask(5), invert, bits)}
	}
	iprange := func(flags uint8) XT {
		a := func(s string) []byte { return append(netip.MustParseAddr(s).AsSlice(), make([]byte, 12)...) }
		return XT{Name: "iprange", Rev: 1, Info: info(t, a("10.0.0.1"), a("10.0.0.3"), a("192.0.2.2"), a("192.0.2.9"), flags)}
	}
	for _, c := range []struct {
		name    string
		xt      XT
		in, out string
		want    bool
	}{
		{"the port it comes in by", physdev(0, xtPhysdevIn), "v-web", "", true},
		{"another port", physdev(0, xtPhysdevIn), "v-app", "", false},
		{"not that port", physdev(xtPhysdevIn, xtPhysdevIn), "v-web", "", false},
		{"not bridged", physdev(0, xtPhysdevBridged), "v-web", "", false},
		{"bridged", physdev(0, xtPhysdevBridged), "v-web", "v-db", true},
		{"no port at all", physdev(0, xtPhysdevIn), "", "", false},
		{"no port at all, in the negative", physdev(xtPhysdevIsIn, xtPhysdevIsIn), "", "", true},
		{"the port it goes out by", physdev(0, xtPhysdevOut), "v-web", "v-db", true},
		{"source within", iprange(xtIPRangeSrc), "", "", true},
		{"destination not within", iprange(xtIPRangeDst), "", "", false},
		{"destination not within, in the negative", iprange(xtIPRangeDst | xtIPRangeDst<<xtIPRangeInvert), "", "", true},
	} {
		p := NewPacket(ProtoTCP, addrPort("10.0.0.2:4000"), addrPort("192.0.2.1:80"), nil)
		p.PortIn, p.PortOut = c.in, c.out
		r := run{p: p}
		if got := r.xtMatch(c.xt); got.reason != "" || got.ok != c.want {
			t.Errorf("%s: %v %s, want %v", c.name, got.ok, got.reason, c.want)
		}
	}
}
