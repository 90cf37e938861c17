package kernel

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawState makes a consistent state: bridges b0.., sandboxes s0.. with pairs
// into some of the bridges, one nftables table; every attribute varies.
func drawState(t *rapid.T, label string) State {
	s := State{}
	add := func(objs ...Object) {
		if err := s.Add(objs...); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(what string) bool { return rapid.Bool().Draw(t, label+what) }
	pick := func(what string, options ...string) string {
		return rapid.SampledFrom(options).Draw(t, label+what)
	}
	mtu := func() int { return rapid.SampledFrom([]int{1400, 1500}).Draw(t, label+"mtu") }
	var bridges []string
	for i := range rapid.IntRange(0, 3).Draw(t, label+"bridges") {
		b := fmt.Sprintf("b%d", i)
		bridges = append(bridges, b)
		add(Link{NS: Host, Name: b, Type: "bridge", MAC: fmt.Sprintf("02:00:00:00:00:%02x", i), MTU: mtu(), Mark: "towpath " + b})
		add(Sysctl{NS: Host, Name: "net/ipv6/conf/" + b + "/accept_ra", Value: "0", Dev: b})
		if flip("addr") {
			add(Address{NS: Host, Dev: b, Prefix: netip.MustParsePrefix(pick("addr", "10.0.0.1/24", "fd00::1/64"))})
		}
		if flip("door") {
			add(Entry{NS: Host, Family: pick("family", "ip", "ip6"), Table: "filter", Chain: "DOCKER-USER", In: b, Out: pick("out", "", "eth0"), States: pick("states", "", "related,established,dnat")})
			add(Zone{NS: Host, Dev: b, Zone: pick("zone", "trusted", "public")})
		}
		if flip("up") {
			add(Up{NS: Host, Dev: b})
			add(Route{NS: Host, Dev: b, Dst: netip.MustParsePrefix("::1/128"), Table: 255, Metric: 1, Local: flip("local")})
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(t, label+"sandboxes") {
		ns := fmt.Sprintf("s%d", i)
		if flip("flows") {
			add(Flows{NS: Host, Addr: netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i+2))})
		}
		add(Namespace{Name: ns, Cookie: uint64(rapid.IntRange(0, 1).Draw(t, label+"cookie"))}, Up{NS: ns, Dev: "lo"})
		if len(bridges) == 0 || flip("unplugged") {
			continue
		}
		host := "v-" + ns
		m, master := mtu(), pick("master", bridges...)
		add(Link{NS: Host, Name: host, Type: "veth", MTU: m, Master: master, PeerNS: ns, Peer: "eth0", Hairpin: flip("hairpin"), Isolated: flip("isolated"), Locked: flip("locked"), Mark: "towpath endpoint"})
		add(Link{NS: ns, Name: "eth0", Type: "veth", MAC: "02:00:00:00:01:01", MTU: m, PeerOf: host}, Up{NS: Host, Dev: host}, Up{NS: ns, Dev: "eth0"})
		add(Route{NS: ns, Dev: "eth0", Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr(pick("via", "10.0.0.1", "10.0.1.1"))})
		if flip("rule") {
			add(Rule{NS: ns, From: netip.MustParsePrefix("10.0.0.2/32"), Table: 1001, Priority: uint32(rapid.IntRange(1001, 1002).Draw(t, label+"priority"))})
		}
		if flip("neigh") {
			add(Neighbour{NS: ns, Dev: "eth0", IP: netip.MustParseAddr("10.0.0.9"), MAC: "02:00:00:00:00:09"}, Neighbour{NS: Host, Dev: host, MAC: "02:00:00:00:01:01", Master: master})
		}
		if flip("guard") {
			drawGuard(t, label, ns, host, add)
		}
		if flip("socket") {
			add(Socket{NS: ns, Proto: "udp", Addr: netip.MustParseAddrPort("127.0.0.11:40053")})
		}
	}
	if flip("table") {
		drawTable(t, label, bridges, add)
	}
	return s
}

// drawGuard makes a table in a sandbox, whose loopback is hooked, and one in the
// host's namespace that hooks the host's end of its pair. Text does not tell
// whether hooks go by name.
func drawGuard(t *rapid.T, label, ns, dev string, add func(...Object)) {
	base := "type filter hook ingress priority filter; policy accept;"
	pick := func(what string, options ...string) string {
		return rapid.SampledFrom(options).Draw(t, label+what)
	}
	add(
		Table{NS: ns, Family: "netdev", Name: "towpath"},
		Set{NS: ns, Family: "netdev", Table: "towpath", Name: "ports", Type: pick("ports", "inet_service", "inet_proto . inet_service")},
		Chain{NS: ns, Family: "netdev", Table: "towpath", Name: "resolver", Base: base, Rules: pick("resolver", "udp dport 53 udp dport set 40053\n", "counter\n")},
		Hook{NS: ns, Family: "netdev", Table: "towpath", Chain: "resolver", Dev: "lo"},
		Table{NS: Host, Family: "netdev", Name: "towpath"},
		Chain{NS: Host, Family: "netdev", Table: "towpath", Name: "guard", Base: base, Rules: "counter drop\n"},
		Hook{NS: Host, Family: "netdev", Table: "towpath", Chain: "guard", Dev: dev, ByName: label != "" && rapid.Bool().Draw(t, label+"by name")},
	)
}

func drawTable(t *rapid.T, label string, bridges []string, add func(...Object)) {
	pick := func(what string, options ...string) string {
		return rapid.SampledFrom(options).Draw(t, label+what)
	}
	tab := Table{NS: Host, Family: "inet", Name: "towpath", Flags: pick("flags", "", "persist", "owner,persist")}
	add(tab, Set{NS: Host, Family: "inet", Table: "towpath", Name: "same", Type: pick("type", "ifname . ifname : verdict", "ifname : verdict")})
	add(Chain{NS: Host, Family: "inet", Table: "towpath", Name: "icc_off", Rules: "counter drop comment \"icc off\"\n"})
	add(Chain{NS: Host, Family: "inet", Table: "towpath", Name: "forward", Base: pick("base", "type filter hook forward priority filter; policy accept;", "type filter hook forward priority 10; policy accept;"), Rules: pick("rules", "", "accept\n", "iifname \"x\" drop\naccept\n")})
	for _, b := range bridges {
		add(Element{NS: Host, Family: "inet", Table: "towpath", Set: "same", Elem: fmt.Sprintf("%q", b), Value: pick("verdict", "accept", "jump icc_off")})
	}
	if rapid.Bool().Draw(t, label+"host socket") {
		s := Socket{NS: Host, Proto: "tcp", Addr: netip.MustParseAddrPort("[::]:8080"), Count: uint16(rapid.SampledFrom([]int{0, 3}).Draw(t, label+"ports"))}
		if to := pick("to", "", "10.0.0.2:80", "10.0.0.3:80"); to != "" {
			s.To, s.From = netip.MustParseAddrPort(to), pick("from", "", "2001:db8::/32,fd00::/8")
		}
		add(s)
	}
	if rapid.Bool().Draw(t, label+"misled") {
		add(Misled{NS: Host, Proto: "udp", At: netip.MustParseAddrPort("[2001:db8::1]:53"), To: netip.MustParseAddrPort("[fd00::2]:5300")})
	}
	if rapid.Bool().Draw(t, label+"range") {
		add(Set{NS: Host, Family: "inet", Table: "towpath", Name: "published", Type: "inet_proto . inet_service : ipv4_addr . inet_service"})
		add(Element{NS: Host, Family: "inet", Table: "towpath", Set: "published", Elem: "tcp . 98", Value: pick("target", "10.0.0.2 . 8080", "10.0.0.3 . 8080"), Count: 5})
	}
	add(Sysctl{NS: Host, Name: "net/ipv4/ip_forward", Value: pick("forward", "0", "1")})
}

// withoutLeftovers drops from got the sysctls that want does not speak of.
func withoutLeftovers(got, want State) State {
	out := got.Clone()
	for k := range out {
		if _, ok := want[k]; !ok && k.Kind == KindSysctl {
			delete(out, k)
		}
	}
	return out
}

func TestDiffReachesTarget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawState(t, "have "), drawState(t, "want ")
		ops := Diff(have, want)
		got := have.Clone()
		if err := got.Apply(ops...); err != nil {
			t.Fatalf("a step is not legal: %v\nops:\n%s", err, opLines(ops))
		}
		if diff := cmp.Diff(want.String(), withoutLeftovers(got, want).String()); diff != "" {
			t.Fatalf("the ops do not reach the target (-want +got):\n%s\nops:\n%s", diff, opLines(ops))
		}
		if again := Diff(got, want); len(again) != 0 {
			t.Fatalf("a second diff is not empty:\n%s", opLines(again))
		}
	})
}

func TestDiffOfEqualsIsEmpty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t, "")
		if ops := Diff(s, s.Clone()); len(ops) != 0 {
			t.Fatalf("diff of equals:\n%s", opLines(ops))
		}
	})
}

func TestParseReadsString(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t, "")
		got, err := Parse(s.String())
		if err != nil {
			t.Fatalf("%v\n%s", err, s)
		}
		for k, o := range flat(s) {
			if got[k] != o {
				t.Fatalf("read %v, want %v", got[k], o)
			}
		}
		if len(got) != len(flat(s)) {
			t.Fatalf("read %d objects of %d", len(got), len(flat(s)))
		}
	})
}

// flat is a state with an object for each element of a range: the page does not
// tell a range from its elements.
func flat(s State) State {
	out := State{}
	for k, o := range s {
		e, isElement := o.(Element)
		if !isElement {
			out[k] = o
			continue
		}
		for one := range e.Each() {
			out[one.Key()] = one
		}
	}
	return out
}

// TestRange: what is missing of a range is told by its elements, and so is what
// is there.
func TestRange(t *testing.T) {
	whole := Element{NS: Host, Family: "inet", Table: "towpath", Set: "published", Elem: "tcp . 9998", Value: "10.0.0.2 . 80", Count: 4}
	if got, want := whole.String(), "element inet towpath published { tcp . 9998-10001 : 10.0.0.2 . 80-83 }"; got != want {
		t.Errorf("a range is written %s, want %s", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		there := rapid.SliceOfN(rapid.Bool(), 4, 4).Draw(t, "there")
		part := whole.Present(there)
		if part.Key() != whole.Key() || (part == whole) != !slices.Contains(there, false) {
			t.Fatalf("%v is %v", there, part)
		}
		var present, missing []string
		for i, is := range there {
			one := fmt.Sprintf("tcp . %d : 10.0.0.2 . %d", 9998+i, 80+i)
			if is {
				present = append(present, one)
			} else {
				missing = append(missing, one)
			}
		}
		var gotPresent, gotMissing []string
		for e := range part.Each() {
			gotPresent = append(gotPresent, e.text())
		}
		for i := range part.Missing() {
			gotMissing = append(gotMissing, part.At(i).text())
		}
		if !slices.Equal(present, gotPresent) || !slices.Equal(missing, gotMissing) {
			t.Fatalf("%v: there %q, missing %q; want %q and %q", there, gotPresent, gotMissing, present, missing)
		}
	})
}

func TestDiffOrder(t *testing.T) {
	page := `netns host:
	netns web
	sysctl net.ipv4.ip_forward = 1
	link tp-a type bridge address 02:00:00:00:00:01 mtu 1500 alias "towpath network/a"
	link v-web-eth0 type veth mtu 1500 master tp-a peer eth0 netns web alias "towpath endpoint/web/eth0"
	up tp-a
	up v-web-eth0
	addr 172.20.0.1/24 dev tp-a
	table inet towpath {
		map same {
			type ifname . ifname : verdict
			elements = { "tp-a" . "tp-a" : accept }
		}

		chain forward {
			type filter hook forward priority filter; policy accept;
			iifname . oifname vmap @same
		}
	}
	table netdev towpath {
		chain guard {
			type filter hook ingress device "v-web-eth0" priority -500; policy accept;
			counter drop
		}
	}
netns web:
	link eth0 type veth address 02:00:00:00:01:01 mtu 1500 peer-of v-web-eth0
	up eth0
	addr 172.20.0.2/24 dev eth0
	route default via 172.20.0.1 dev eth0
	table netdev towpath {
		chain resolver {
			type filter hook ingress device "lo" priority filter; policy accept;
			ip daddr 127.0.0.11 udp dport 53 udp dport set 40053
		}
	}
`
	want, err := Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(page, want.String()); diff != "" {
		t.Fatalf("the page is not printed as it was read (-want +got):\n%s", diff)
	}
	up := `+ host: table inet towpath
+ host: table netdev towpath
+ host: map inet towpath same
+ host: chain inet towpath forward
+ host: chain netdev towpath guard
+ host: element inet towpath same
+ host: sysctl net.ipv4.ip_forward
+ host: netns web
+ host: link tp-a
+ host: link v-web-eth0
+ web: link eth0
+ host: addr 172.20.0.1/24
+ web: addr 172.20.0.2/24
+ host: hook netdev towpath guard
+ web: table netdev towpath
+ web: chain netdev towpath resolver
+ web: hook netdev towpath resolver
+ host: up tp-a
+ host: up v-web-eth0
+ web: up eth0
+ web: route default
`
	down := `- host: link v-web-eth0
- host: link tp-a
- host: netns web
- host: table inet towpath
- host: table netdev towpath
`
	if diff := cmp.Diff(up, short(Diff(State{}, want))); diff != "" {
		t.Errorf("building (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(down, short(Diff(want, State{}))); diff != "" {
		t.Errorf("removing (-want +got):\n%s", diff)
	}
}

// short cuts op lines behind the object's name.
func short(ops []Op) string {
	var b strings.Builder
	for _, op := range ops {
		f := strings.Fields(op.String())
		n := 4
		if op.Object.Key().Kind.IsNFT() {
			n = 6
			if op.Object.Key().Kind == KindTable {
				n = 5
			}
		}
		b.WriteString(strings.Join(f[:min(n, len(f))], " ") + "\n")
	}
	return b.String()
}

func opLines(ops []Op) string {
	var b strings.Builder
	for _, op := range ops {
		b.WriteString(op.String() + "\n")
	}
	return b.String()
}

func TestApplyRefusesWhatTheKernelWould(t *testing.T) {
	ns := Namespace{Name: "web"}
	eth := Up{NS: "web", Dev: "lo"}
	sock := Socket{NS: "web", Proto: "udp", Addr: netip.MustParseAddrPort("127.0.0.11:53")}
	for _, tc := range []struct {
		name string
		have State
		op   Op
		want string
	}{
		{"create twice", NewState(ns), Op{Verb: Create, Object: ns}, "exists"},
		{"delete what is not there", State{}, Op{Verb: Delete, Object: ns}, "does not exist"},
		{"change what is not there", State{}, Op{Verb: Change, Object: ns}, "does not exist"},
		{"without parent", State{}, Op{Verb: Create, Object: eth}, "needs host: netns web"},
		{"with an open socket", NewState(ns, sock), Op{Verb: Delete, Object: ns}, "in use by web: socket"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.have.Apply(tc.op)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("netns host:\n\tlink a type bridge mtu 1500\n\tup a\n")
	f.Add("netns host:\n\ttable inet t {\n\t\tset s {\n\t\t\ttype ifname\n\t\t\telements = { \"a\",\n\"b\" }\n\t\t}\n\t}\n")
	f.Add("netns host:\n\ttable netdev t {\n\t\tchain c {\n\t\t\ttype filter hook ingress devices = { a, b } priority 5; policy drop;\n\t\t}\n\t}\n")
	f.Add("netns web:\n\troute default via 10.0.0.1 dev eth0 table 7 metric 5\n\tneigh ::1 lladdr 02:00:00:00:00:00 dev x nud permanent\n")
	f.Fuzz(func(t *testing.T, page string) {
		s, err := Parse(page)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		if err != nil {
			t.Fatalf("cannot read what String prints: %v\n%s", err, s)
		}
		if !slices.Equal(s.Keys(), again.Keys()) {
			t.Fatalf("keys differ:\n%s\n%s", s, again)
		}
	})
}
