package nft

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// corpusRule is a line of testdata/rules.txt.
type corpusRule struct {
	family Family
	text   string
	listed string
	sets   []Set
}

// corpus reads testdata/rules.txt.
func corpus(t testing.TB) []corpusRule {
	t.Helper()
	b, err := os.ReadFile("testdata/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []corpusRule
	var family Family
	var sets []Set
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		switch line[0] {
		case ';':
		case '#':
			if family, err = ParseFamily(strings.Fields(line)[1]); err != nil {
				t.Fatal(err)
			}
			sets = nil
		case '%':
			def, err := ParseTable("table inet x {" + line[1:] + "}")
			if err != nil {
				t.Fatal(err)
			}
			sets = append(sets, def.Sets[0].Set)
		default:
			text, listed, differs := strings.Cut(line, " => ")
			if !differs {
				listed = text
			}
			out = append(out, corpusRule{family, text, listed, sets})
		}
	}
	return out
}

// The corpus was listed by nft 1.0.6; the text must be the same here, and must
// read back as the same expressions.
func TestRuleTextIsWhatNftLists(t *testing.T) {
	rules := corpus(t)
	if len(rules) < 200 {
		t.Fatalf("corpus has %d rules only", len(rules))
	}
	for _, c := range rules {
		r, err := ParseRule(c.family, c.text, c.sets...)
		if err != nil {
			t.Errorf("%s: %v", c.family, err)
			continue
		}
		if got := r.String(); got != c.listed {
			t.Errorf("%s: %s\n got %s\nwant %s", c.family, c.text, got, c.listed)
		}
		again, err := ParseRule(c.family, r.String(), c.sets...)
		if err != nil {
			t.Errorf("%s: read back: %v", c.family, err)
		} else if !reflect.DeepEqual(again, r) {
			t.Errorf("%s: %s reads back as other expressions\n got %+v\nwant %+v", c.family, c.listed, again.Exprs, r.Exprs)
		}
	}
}

func TestTableTextRoundTrip(t *testing.T) {
	for _, file := range []string{"testdata/towpath.nft", "testdata/guard.nft"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		def, err := ParseTable(string(b))
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if got := def.String(); got != string(b) {
			t.Errorf("%s: written as\n%s", file, got)
		}
	}
}

func TestTableOnFewLines(t *testing.T) {
	def, err := ParseTable(`# comment
table inet t { flags owner,persist
	set a { type ifname } set b { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.1, } }
	chain c { counter drop comment "x; y" } chain d { type filter hook input priority filter - 5; policy drop; jump c; accept
		tcp dport {
			80,
			443 } accept } }`)
	if err != nil {
		t.Fatal(err)
	}
	want := `table inet t {
	flags owner,persist
	set a {
		type ifname
	}

	set b {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8, 192.0.2.1 }
	}

	chain c {
		counter drop comment "x; y"
	}

	chain d {
		type filter hook input priority filter - 5; policy drop;
		jump c
		accept
		tcp dport { 80, 443 } accept
	}
}
`
	if got := def.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestParseTableErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "text has 0 tables",
		"table foo x { }":                        `parse family "foo"`,
		"table ip x {":                           "not the end",
		"table ip x { set s { } }":               "has no type",
		"table ip x { set s { type blah } }":     "want a type",
		"table ip x {\n chain c {\n bogus\n}\n}": "line 3",
		"table ip x { chain c { dnat to ip daddr map @nowhere } }": "not declared",
		"table ip x { \"": "string without end",
	} {
		if _, err := ParseTable(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}

func TestParseRuleErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "rule is empty",
		"ip saddr":                       "parse address",
		"ip saddr fd00::1":               "not of type ipv4_addr",
		"ip saddr 10.0.0.1/8":            "not a network",
		"ip saddr 1.2.3.4 ip6 saddr ::1": "the packet has another one",
		"tcp dport 65536":                "does not fit",
		"tcp dport 90-80":                "ends before it begins",
		"tcp dport < { 1, 2 }":           "== and != only",
		"tcp blah 1":                     `no field "blah"`,
		"iifname . oifname \"a\"":        "want a set",
		"jump":                           "want a chain name",
		"log prefix x":                   "want a string",
		"iifname \"seventeen-bytes-x\"":  "not 1 to 15 bytes",
		"dnat to 1.2.3.4":                "ip or ip6 must be said",
		"accept comment \"a\" drop":      "want the end after the comment",
		"ip ttl set 5":                   "not whole 16-bit words",
		"limit rate 5/fortnight":         "no unit of time",
		"reject with magic":              "want tcp, icmp, icmpv6 or icmpx",
		"@nh,3,8 1":                      "not whole bytes",
		"ct original state new":          "no connection key",
		"comment \"" + strings.Repeat("x", 129) + "\"": "at most 128",
	} {
		if _, err := ParseRule(FamilyInet, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}

// Rules of other programs use registers and loads that nft does not; they must
// still be readable, and nothing of them may vanish.
func TestForeignExpressionsArePrinted(t *testing.T) {
	for _, c := range []struct {
		exprs []Expr
		want  string
	}{
		{[]Expr{Unknown{"match", []byte{1, 2}}, Counter{}, Verdict{Code: Accept}}, "[ match 0x0102 ] counter accept"},
		{[]Expr{ConntrackMatch("related", "established").Expr(), Counter{}, Verdict{Code: Accept}}, `xt match "conntrack" { related, established } counter accept`},
		{[]Expr{Counter{}, XT{Target: true, Name: "REJECT"}.Expr()}, `counter xt target "REJECT"`},
		{[]Expr{Meta{DReg: 1, Key: 99}, Cmp{SReg: 1, Data: []byte{1}}}, "[ meta DReg:1 Key:99 SReg:0 ] [ cmp SReg:1 Op:0 Data:[1] ]"},
		// iptables compares the end of a whole name, and none of what a name begins with.
		{[]Expr{Meta{DReg: 1, Key: MetaOIfName}, Cmp{SReg: 1, Data: []byte("podman1\x00")}}, `oifname "podman1"`},
		{[]Expr{Meta{DReg: 1, Key: MetaOIfName}, Cmp{SReg: 1, Data: []byte("podman")}}, `oifname "podman*"`},
		{[]Expr{Cmp{SReg: 7, Data: []byte{1}}}, "[ cmp SReg:7 Op:0 Data:[1] ]"},
		{[]Expr{Immediate{DReg: 1, Data: []byte{1}}}, "[ immediate DReg:1 Data:[1] ]"},
		{
			[]Expr{Meta{DReg: 9, Key: MetaL4Proto}, Cmp{SReg: 9, Data: []byte{6}}, Payload{DReg: 2, Base: BaseTransport, Offset: 2, Len: 2}, Cmp{SReg: 2, Data: []byte{0, 80}}},
			"meta l4proto tcp tcp dport 80",
		},
		{
			[]Expr{
				Meta{DReg: 1, Key: MetaL4Proto},
				Cmp{SReg: 1, Data: []byte{17}},
				Payload{DReg: 1, Base: BaseTransport, Len: 4},
				Cmp{SReg: 1, Data: []byte{0, 1, 0, 2}},
			},
			"udp sport 1 udp dport 2",
		},
		{
			[]Expr{Meta{DReg: 1, Key: MetaIIfName}, Meta{DReg: 2, Key: MetaOIfName}, Cmp{SReg: 2, Data: []byte("a\x00")}},
			"[ meta DReg:1 Key:6 SReg:0 ] [ meta DReg:2 Key:7 SReg:0 ] [ cmp SReg:2 Op:0 Data:[97 0] ]",
		},
	} {
		if got := (Rule{Family: FamilyInet, Exprs: c.exprs}).String(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	for _, c := range corpus(f) {
		f.Add(uint8(c.family), c.text)
	}
	f.Add(uint8(FamilyInet), `dnat ip to ip daddr map @plain`)
	set := Set{Name: "plain", Map: true, KeyType: "ipv4_addr", DataType: "ipv4_addr"}
	f.Fuzz(func(t *testing.T, family uint8, text string) {
		r, err := ParseRule(Family(family), text, set)
		if err != nil {
			return
		}
		for i, e := range r.Exprs {
			if _, ok := e.(Counter); ok {
				r.Exprs[i] = Counter{} // the values have no text
			}
		}
		again, err := ParseRule(Family(family), r.String(), set)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", text, r.String(), err)
		}
		// A raw load may be that of several fields, which are then named.
		raw := strings.Contains(text, "@ll,") || strings.Contains(text, "@nh,") || strings.Contains(text, "@th,")
		if !raw && !reflect.DeepEqual(again, r) {
			t.Fatalf("%q is written as %q: reads back as\n%+v\nnot\n%+v", text, r.String(), again.Exprs, r.Exprs)
		}
	})
}

func FuzzParseTable(f *testing.F) {
	for _, file := range []string{"testdata/towpath.nft", "testdata/guard.nft"} {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("table ip t { set s { type ifname . mark; flags interval,timeout; timeout 1h; elements = { \"a\" . 1-2 timeout 5s comment \"x\" } } }")
	f.Add("table netdev t { flags dormant; chain c { type filter hook ingress devices = { a, b } priority filter - 5; policy drop; jump d\n } chain d { } }")
	f.Fuzz(func(t *testing.T, text string) {
		def, err := ParseTable(text)
		if err != nil {
			return
		}
		again, err := ParseTable(def.String())
		if err != nil {
			t.Fatalf("written as\n%s\n%v", def, err)
		}
		if again.String() != def.String() {
			t.Fatalf("written as\n%s\nthen as\n%s", def, again)
		}
	})
}
