package nft

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

func loadTable(t *testing.T, file string) TableDef {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	def, err := ParseTable(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return def
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// local answers that the host's own address is 192.0.2.1 and 2001:db8::1.
func local(addr netip.Addr, _ FIBFlags) (FIBAnswer, bool) {
	if s := addr.String(); s == "192.0.2.1" || s == "2001:db8::1" || addr.IsLoopback() {
		return FIBAnswer{Type: 2}, true
	}
	return FIBAnswer{Type: 1}, true
}

// verdictText writes an outcome in one line for tables of tests.
func verdictText(o Outcome) string {
	text := Verdict{Code: o.Verdict}.String()
	if o.Verdict == Undecided {
		text = "undecided: " + o.Reason
	}
	if o.By.Comment != "" {
		text += " by " + o.By.Comment
	} else if o.By.Index == -1 {
		text += " by policy of " + o.By.Chain
	}
	for _, n := range o.NAT {
		text += " nat " + n.Addr.String()
		if n.Masquerade {
			text += " masquerade"
		}
		if n.Port != 0 {
			text += " port " + netip.AddrPortFrom(n.Addr, n.Port).String()
		}
	}
	return text
}

func TestRulesetOfTheHost(t *testing.T) {
	rs := NewRuleset(loadTable(t, "testdata/towpath.nft"))
	dev := func(name string) *Device { return &Device{Index: 7, Name: name} }
	for _, c := range []struct {
		name     string
		hook     string
		proto    uint8
		src, dst string
		iif, oif string
		state    uint32
		status   uint32
		want     string
	}{
		{"published any address", "prerouting", ProtoTCP, "198.51.100.9:4000", "192.0.2.1:8080", "eth0", "", StateNew, 0, "nat 172.20.0.2 port 172.20.0.2:80"},
		{"published one address", "prerouting", ProtoTCP, "198.51.100.9:4000", "192.0.2.1:8443", "eth0", "", StateNew, 0, "nat 172.20.0.2 port 172.20.0.2:443"},
		{"published to one source", "output", ProtoTCP, "10.1.2.3:4000", "192.0.2.1:9005", "", "eth0", StateNew, 0, "nat 172.20.0.3 port 172.20.0.3:90"},
		{"not that source", "prerouting", ProtoTCP, "11.1.2.3:4000", "192.0.2.1:9005", "eth0", "", StateNew, 0, "accept by policy of prerouting"},
		{"udp is not published", "prerouting", ProtoUDP, "198.51.100.9:4000", "192.0.2.1:8080", "eth0", "", StateNew, 0, "accept by policy of prerouting"},
		{"not to the host", "prerouting", ProtoTCP, "198.51.100.9:4000", "203.0.113.1:8080", "eth0", "", StateNew, 0, "accept by policy of prerouting"},
		{"published IPv6", "prerouting", ProtoTCP, "[2001:db8::9]:4000", "[2001:db8::1]:8080", "eth0", "", StateNew, 0, "nat fd00::2 port [fd00::2]:80"},
		{"later packets skip nat", "prerouting", ProtoTCP, "198.51.100.9:4000", "192.0.2.1:8080", "eth0", "", StateEstablished, 0, "accept by policy of martian"},
		{"martian", "prerouting", ProtoTCP, "172.20.0.2:4000", "127.0.0.1:8080", "tp-a", "", StateNew, 0, "drop by martian: loopback destination from a link"},
		{"not ours", "forward", ProtoTCP, "1.1.1.1:1", "2.2.2.2:2", "eth0", "eth1", StateNew, 0, "accept by not ours"},
		{"inside a network", "forward", ProtoTCP, "172.20.0.2:1", "172.20.0.3:2", "tp-a", "tp-a", StateNew, 0, "accept"},
		{"inside without icc", "forward", ProtoTCP, "172.20.0.2:1", "172.20.0.3:2", "tp-b", "tp-b", StateNew, 0, "drop by icc off"},
		{"published inside without icc", "forward", ProtoTCP, "172.20.0.2:1", "172.20.0.3:2", "tp-b", "tp-b", StateNew, StatusDNAT, "accept by published"},
		{"between networks", "forward", ProtoTCP, "172.20.0.2:1", "172.21.0.3:2", "tp-a", "tp-b", StateNew, 0, "drop by isolation"},
		{"answers between networks", "forward", ProtoTCP, "172.20.0.2:1", "172.21.0.3:2", "tp-a", "tp-b", StateEstablished, 0, "accept by established"},
		{"invalid", "forward", ProtoTCP, "172.20.0.2:1", "172.21.0.3:2", "tp-a", "tp-a", StateInvalid, 0, "drop by invalid"},
		{"out", "forward", ProtoTCP, "172.20.0.2:1", "198.51.100.9:80", "tp-a", "eth0", StateNew, 0, "accept"},
		{"out of an internal network", "forward", ProtoTCP, "172.20.0.2:1", "198.51.100.9:80", "tp-b", "eth0", StateNew, 0, "drop"},
		{"directly in", "forward", ProtoTCP, "198.51.100.9:1", "172.20.0.2:80", "eth0", "tp-a", StateNew, 0, "drop by direct access from outside"},
		{"published in", "forward", ProtoTCP, "198.51.100.9:1", "172.20.0.2:80", "eth0", "tp-a", StateNew, StatusDNAT, "accept by published"},
		{"masquerade out", "postrouting", ProtoTCP, "172.20.0.2:1", "198.51.100.9:80", "tp-a", "eth0", StateNew, 0, "accept by out nat invalid IP masquerade"},
		{"hairpin", "postrouting", ProtoTCP, "172.20.0.2:1", "172.20.0.2:80", "tp-a", "tp-a", StateNew, StatusDNAT, "accept by hairpin nat invalid IP masquerade"},
		{"no hairpin without translation", "postrouting", ProtoTCP, "172.20.0.2:1", "172.20.0.2:80", "tp-a", "tp-a", StateNew, 0, "accept by policy of postrouting"},
		{"hairpin of IPv6", "postrouting", ProtoTCP, "[fd00::2]:1", "[fd00::2]:80", "tp-a", "tp-a", StateNew, StatusDNAT, "accept by hairpin nat invalid IP masquerade"},
		{"loopback", "postrouting", ProtoTCP, "127.0.0.1:1", "172.20.0.2:80", "", "tp-a", StateNew, 0, "accept by loopback nat invalid IP masquerade"},
		{"nothing on input", "input", ProtoTCP, "127.0.0.1:1", "172.20.0.2:80", "lo", "", StateNew, 0, "accept"},
	} {
		p := NewPacket(c.proto, addrPort(c.src), addrPort(c.dst), nil)
		p.CT.State, p.CT.Status, p.FIB = c.state, c.status, local
		if c.iif != "" {
			p.IIf = dev(c.iif)
		}
		if c.oif != "" {
			p.OIf = dev(c.oif)
		}
		if got := verdictText(rs.Hook(c.hook, p)); got != c.want && (!strings.HasPrefix(c.want, "nat") || !strings.HasSuffix(got, c.want)) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestGuardOfAPort(t *testing.T) {
	rs := NewRuleset(loadTable(t, "testdata/guard.nft"))
	ether := func(src byte, typ uint16) []byte {
		return []byte{2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, src, byte(typ >> 8), byte(typ)}
	}
	ip := func(mac byte, proto uint8, src, dst string, transport []byte) *Packet {
		p := NewPacket(proto, addrPort(src), addrPort(dst), transport)
		p.Link = ether(mac, p.Protocol)
		return p
	}
	arp := func(mac byte, sender string) *Packet {
		h := append([]byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, mac}, netip.MustParseAddr(sender).AsSlice()...)
		return &Packet{Link: ether(mac, EtherTypeARP), Network: append(h, make([]byte, 10)...), Protocol: EtherTypeARP}
	}
	advert := func(target string) []byte {
		return append([]byte{136, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr(target).AsSlice()...)
	}
	for name, c := range map[string]struct {
		p    *Packet
		want VerdictCode
	}{
		"own address":            {ip(1, ProtoTCP, "172.20.0.2:1", "1.1.1.1:2", nil), Accept},
		"own address, IPv6":      {ip(1, ProtoTCP, "[fd00::2]:1", "[2001:db8::1]:2", nil), Accept},
		"foreign address":        {ip(1, ProtoTCP, "172.20.0.3:1", "1.1.1.1:2", nil), Drop},
		"foreign address, IPv6":  {ip(1, ProtoTCP, "[fd00::3]:1", "[2001:db8::1]:2", nil), Drop},
		"foreign MAC":            {ip(3, ProtoTCP, "172.20.0.2:1", "1.1.1.1:2", nil), Drop},
		"DHCP server":            {ip(1, ProtoUDP, "172.20.0.2:67", "1.1.1.1:68", nil), Drop},
		"router advertisement":   {ip(1, ProtoICMPv6, "[fd00::2]:0", "[ff02::1]:0", []byte{134, 0, 0, 0, 0, 0, 0, 0}), Drop},
		"own advertisement":      {ip(1, ProtoICMPv6, "[fd00::2]:0", "[ff02::1]:0", advert("fd00::2")), Accept},
		"foreign advertisement":  {ip(1, ProtoICMPv6, "[fd00::2]:0", "[ff02::1]:0", advert("fd00::3")), Drop},
		"address probe, IPv6":    {ip(1, ProtoICMPv6, "[::]:0", "[ff02::1]:0", []byte{135, 0, 0, 0, 0, 0, 0, 0}), Accept},
		"unspecified, not probe": {ip(1, ProtoICMPv6, "[::]:0", "[ff02::1]:0", []byte{128, 0, 0, 0, 0, 0, 0, 0}), Drop},
		"own ARP":                {arp(1, "172.20.0.2"), Accept},
		"foreign ARP":            {arp(1, "172.20.0.1"), Drop},
		"ARP probe":              {arp(1, "0.0.0.0"), Accept},
	} {
		c.p.IIf = &Device{Index: 1, Name: "lo", Type: 1}
		out := rs.Hook("ingress", c.p)
		if out.Verdict != c.want {
			t.Errorf("%s: %s, want %v; steps %+v", name, verdictText(out), c.want, out.Steps)
		}
	}
}

func TestResolverPortIsRewritten(t *testing.T) {
	def := loadTable(t, "testdata/guard.nft")
	def.Chains = def.Chains[1:]
	rs := NewRuleset(def)
	p := NewPacket(ProtoUDP, addrPort("127.0.0.1:4000"), addrPort("127.0.0.11:53"), nil)
	p.IIf = &Device{Index: 1, Name: "lo", Type: 772}
	out := rs.Hook("ingress", p)
	if got := out.After.Network[22:24]; got[0] != 40053>>8 || got[1] != 40053&255 {
		t.Errorf("destination port %v after the chain, want 40053", got)
	}
	if p.Network[22] != 0 || p.Network[23] != 53 {
		t.Error("the packet given was changed")
	}
	if len(out.Steps) != 2 || out.Steps[0].Index != 0 || out.Steps[1].Action != "policy accept" {
		t.Errorf("steps %+v", out.Steps)
	}
}

// evaluate runs one rule before an accept in a filter chain with policy drop.
func evaluate(t *testing.T, rule string, p *Packet) Outcome {
	t.Helper()
	def, err := ParseTable("table inet t {\nset s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.7 } }\n" +
		"map mk { type inet_service : mark; elements = { 80 : 5, * : 6 } }\n" +
		"chain deep {\n jump deeper\n drop comment \"after\"\n}\nchain deeper { return }\nchain loop { jump loop }\n" +
		"chain c {\ntype filter hook input priority 0; policy drop;\n" + rule + " accept comment \"hit\"\n}\n}")
	if err != nil {
		t.Fatal(err)
	}
	return NewRuleset(def).Hook("input", p)
}

func TestExpressions(t *testing.T) {
	p := NewPacket(ProtoTCP, addrPort("192.0.2.7:4000"), addrPort("198.51.100.1:80"), nil)
	p.IIf = &Device{Index: 3, Name: "eth0", Type: 1, Group: 9}
	p.Mark, p.PktType = 0x112, 2
	p.CT.Mark, p.CT.Status = 7, StatusDNAT
	p.FIB = func(netip.Addr, FIBFlags) (FIBAnswer, bool) {
		return FIBAnswer{OIf: Device{Index: 3, Name: "eth0"}, Type: 1}, true
	}
	for rule, want := range map[string]bool{
		"ip saddr 192.0.2.0/25": true, "ip saddr != 192.0.2.0/24": false, "ip saddr 192.0.2.1-192.0.2.9": true,
		"ip saddr != 192.0.2.1-192.0.2.9": false, "ip6 saddr ::1": false, "ip saddr @s": true, "ip saddr != @s": false,
		"ip daddr @s": false, "ip saddr { 192.0.2.7, 1.1.1.1 }": true, "ip protocol tcp": true, "ip ttl > 63": true,
		"iifname \"eth*\"": true, "iifname != \"eth*\"": false, "iifname \"eth0\"": true,
		"iif 3": true, "iifgroup 9": true, "oifname != \"eth0\"": true, "oif 0": true, "oifgroup 0": false,
		"meta mark 0x112": true, "meta mark > 0x111": true, "meta mark < 0x111": false, "meta mark & 0xff == 0x12": true,
		"meta mark 0x100-0x200": true, "meta mark { 0x100-0x200 }": true, "meta mark { 0x1-0x2, 0x5 }": false,
		"meta l4proto { tcp, udp }": true, "meta l4proto != tcp": false, "meta nfproto ipv6": false, "meta protocol ip": true,
		"meta pkttype multicast": true, "meta iiftype ether": true, "meta length 40": true, "meta skuid 0": false,
		"tcp dport 80": true, "udp dport 80": false, "th dport 80": true, "tcp dport { 70-90, 100 }": true, "tcp dport >= 81": false,
		"tcp flags syn": true, "tcp flags syn / syn,ack": true, "tcp flags == ack": false, "tcp flags syn,ack": true,
		"ct state new": true, "ct state established,related": false, "ct state != new": false, "ct status dnat": true,
		"ct direction original": true, "ct mark 7": true, "ct zone 0": true, "ct original ip daddr 198.51.100.1": true,
		"ct reply proto-src 80": true, "ct original protocol tcp": true, "ct original ip6 daddr ::1": false,
		"fib daddr type unicast": true, "fib saddr . iif oif 3": true, "fib saddr . iif oif missing": false, "fib daddr oifname \"eth0\"": true,
		"ip saddr . tcp dport { 192.0.2.7 . 80 }": true, "ip saddr . tcp dport { 192.0.2.0/24 . 70-79 }": false,
		"ip saddr . tcp dport { 192.0.2.0/24 . 70-80, 1.1.1.1 . 5 }": true, "iifname . ct state { \"eth0\" . new }": true,
		"icmp type echo-request": false, "@nh,96,32 0xc0000207": true, "limit rate 5/second": true, "limit rate over 5/second": false,
		"meta mark set 0x5 meta mark 0x5": true, "meta mark set meta mark | 0x1 meta mark 0x113": true, "ct mark set meta mark ct mark 0x112": true,
		"meta mark set tcp dport map @mk meta mark 0x5": true, "meta mark set tcp sport map @mk meta mark 0x6": true,
		"notrack counter log prefix \"x\"": true, "jump deep": false, "ip id 0": true, "@th,800,8 1": false,
	} {
		out := evaluate(t, rule, p)
		if got := out.By.Comment == "hit"; got != want || out.Verdict == Undecided {
			t.Errorf("%s: %s, want match %v", rule, verdictText(out), want)
		}
	}
	for rule, want := range map[string]string{
		"jump deep": "drop by after", "jump loop": "undecided: more than 16 nested jumps",
		"reject": "drop by hit", "goto deeper": "drop by policy of c", "meta cpu 1": "undecided: meta cpu (key 20) is not known of the packet by hit",
		"ct helper \"ftp\"": "undecided: connection key 6 is not known of the packet by hit",
	} {
		if got := verdictText(evaluate(t, rule, p)); got != want {
			t.Errorf("%s: %s, want %s", rule, got, want)
		}
	}
}

func TestUnknownExpressionIsNamed(t *testing.T) {
	def, err := ParseTable("table ip t {\nchain c {\ntype filter hook input priority 0; policy accept;\ncounter\n}\n}")
	if err != nil {
		t.Fatal(err)
	}
	def.Chains[0].Rules[0].Exprs = []Expr{Unknown{Name: "match", Raw: []byte{1}}, Verdict{Code: Drop}}
	def.Chains[0].Rules[0].Handle = 12
	out := NewRuleset(def).Hook("input", NewPacket(ProtoTCP, addrPort("1.1.1.1:1"), addrPort("2.2.2.2:2"), nil))
	if out.Verdict != Undecided || out.By.Handle != 12 || out.By.Text != "[ match 0x01 ] drop" || !strings.Contains(out.Reason, `"match"`) {
		t.Errorf("outcome %+v", out)
	}
}

func TestLaterFragmentsHaveNoPorts(t *testing.T) {
	p := NewPacket(ProtoTCP, addrPort("1.1.1.1:1"), addrPort("2.2.2.2:80"), nil)
	p.Network[7] = 1
	if out := evaluate(t, "tcp dport 80", p); out.By.Comment == "hit" {
		t.Error("a fragment matched its destination port")
	}
	if out := evaluate(t, "meta l4proto tcp", p); out.By.Comment != "hit" {
		t.Error("a fragment did not match its protocol")
	}
}

func TestExtensionHeaders(t *testing.T) {
	tcp := plainHeader(ProtoTCP)
	tcp[3] = 80
	p := NewPacket(0, addrPort("[::1]:0"), addrPort("[::2]:0"), nil)
	p.Network = append(p.Network[:40], ProtoTCP, 0, 0, 0, 0, 0, 0, 0)
	p.Network = append(p.Network, tcp...)
	if out := evaluate(t, "tcp dport 80", p); out.By.Comment != "hit" {
		t.Errorf("behind a hop-by-hop header: %s", verdictText(out))
	}
}
