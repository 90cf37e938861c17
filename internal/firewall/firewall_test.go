package firewall_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/internal/firewall"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/nft"
)

// load reads rulesets from testdata, one file after the other.
func load(t *testing.T, files ...string) kernel.Foreign {
	t.Helper()
	var f kernel.Foreign
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join("testdata", file+".nft"))
		if err != nil {
			t.Fatal(err)
		}
		for text := range strings.SplitAfterSeq(string(b), "\n}\n") {
			if strings.TrimSpace(text) == "" {
				continue
			}
			def, err := nft.ParseTable(text)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			f.Tables = append(f.Tables, def)
		}
	}
	return f
}

// front is a dual-stack network on a host with one way out.
func front() firewall.Network {
	return firewall.Network{Name: "front", Device: "tp-front", V4: true, V6: true, Ways: []string{"eth0"}}
}

func published(proto uint8) firewall.Publication {
	return firewall.Publication{Name: "8080/tcp", Proto: proto, HostPort: 8080, Port: 80, Network: front(), V4: true, V6: true}
}

// lines are findings without the fix, as told.
func lines(all []firewall.Finding) []string {
	var out []string
	for _, f := range all {
		out = append(out, f.String())
	}
	return out
}

// TestByAddress: chains are asked about addresses that the network has; what is
// against one container is not against the network, but against its port.
func TestByAddress(t *testing.T) {
	n := front()
	n.Subnets = []netip.Prefix{netip.MustParsePrefix("172.30.0.1/24"), netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("fd30::/64")}
	p := published(nft.ProtoTCP)
	p.Network, p.To = n, []netip.Addr{netip.MustParseAddr("172.30.0.7"), netip.MustParseAddr("fd30::7")}
	for rule, want := range map[string][]string{
		`ip saddr 172.30.0.0/24 oifname "eth0" drop`: {"what leaves network front is dropped", "answers from published port 8080/tcp are dropped"},
		`ip6 daddr fd30::/64 iifname "eth0" drop`:    {"answers to network front are dropped", "what comes in to published port 8080/tcp is dropped"},
		`ip saddr 172.30.0.2 drop`:                   nil,
		`ip daddr 172.30.0.7 tcp dport 80 drop`:      {"what comes in to published port 8080/tcp is dropped"},
		`ip6 saddr fd00::/64 drop`:                   nil,
	} {
		def, err := nft.ParseTable("table inet mine {\n\tchain c {\n\t\ttype filter hook forward priority 10; policy accept;\n\t\t" + rule + "\n\t}\n}\n")
		if err != nil {
			t.Fatal(err)
		}
		c := firewall.New(kernel.Foreign{Tables: []nft.TableDef{def}}, nil)
		got := lines(append(c.Network(n), c.Publication(p)...))
		if len(got) != len(want) {
			t.Errorf("%s: %q", rule, got)
		}
		for _, w := range want {
			if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, w) }) {
				t.Errorf("%s: no %q in %q", rule, w, got)
			}
		}
	}
}

func TestRulesetsOfOthers(t *testing.T) {
	const (
		out     = "what leaves network front"
		answers = "answers to network front"
		within  = "traffic within network front"
		in      = "what comes in to published port 8080/tcp"
		docker4 = " is dropped by the policy of chain ip filter FORWARD (docker)"
		docker6 = " is dropped by the policy of chain ip6 filter FORWARD (docker)"
		ufw4    = " is dropped by the policy of chain ip filter FORWARD (ufw)"
		ufw6    = " is dropped by the policy of chain ip6 filter FORWARD (ufw)"
		zone    = ` is rejected by rule "reject with icmpx admin-prohibited" of chain inet firewalld filter_FWD_public (firewalld)`
		policy  = " is dropped by the policy of chain inet filter forward (user)"
		guard   = ` is dropped by rule "ip protocol tcp tcp dport 80 drop comment \"no web between ports\"" of chain bridge guard forward (user)`
	)
	tests := []struct {
		file          string
		network, port []string
	}{
		{"docker-iptables", []string{out + docker4, out + docker6}, []string{in + docker4, in + docker6}},
		{"docker-nftables", nil, nil},
		{"ufw", []string{out + ufw4, out + ufw6}, []string{in + ufw4, in + ufw6}},
		{"firewalld", []string{out + zone}, nil}, // it lets through what was translated
		{"libvirt", nil, nil},
		{"libvirt-iptables", nil, nil},
		{"kube-proxy", nil, nil},
		{"user", []string{out + policy, within + guard}, []string{in + policy}},
	}
	for _, tt := range tests {
		c := firewall.New(load(t, tt.file), nil)
		if diff := cmp.Diff(tt.network, lines(c.Network(front()))); diff != "" {
			t.Errorf("%s, network (-want +got):\n%s", tt.file, diff)
		}
		if diff := cmp.Diff(tt.port, lines(c.Publication(published(nft.ProtoTCP)))); diff != "" {
			t.Errorf("%s, publication (-want +got):\n%s", tt.file, diff)
		}
	}
}

// TestThroughTheDoors: with what we add the rulesets let everything through.
func TestThroughTheDoors(t *testing.T) {
	tests := []struct{ file, chain, zone string }{
		{file: "docker-iptables", chain: "DOCKER-USER"},
		{file: "ufw", chain: "ufw-user-forward"},
		{file: "firewalld", zone: "filter_FORWARD_ZONES"},
	}
	rules := []string{
		`iifname "tp-front" oifname "eth0" counter accept`,
		`oifname "tp-front" ct state established,related counter accept`,
		`oifname "tp-front" ct status dnat counter accept`,
	}
	for _, tt := range tests {
		f := load(t, tt.file)
		for i := range f.Tables {
			def := &f.Tables[i]
			add := rules
			ch := def.Chain(strings.Replace(tt.chain, "ufw-", map[bool]string{true: "ufw6-", false: "ufw-"}[def.Family == nft.FamilyIP6], 1))
			if tt.zone != "" {
				ch, add = def.Chain(tt.zone), []string{`iifname "tp-front" goto filter_FWD_trusted`}
			}
			for _, text := range add {
				r, err := nft.ParseRule(def.Family, text)
				if err != nil {
					t.Fatal(err)
				}
				ch.Rules = slices.Insert(ch.Rules, 0, r)
			}
		}
		c := firewall.New(f, nil)
		if got := append(c.Network(front()), c.Publication(published(nft.ProtoUDP))...); len(got) > 0 {
			t.Errorf("%s: %v", tt.file, lines(got))
		}
	}
}

// TestOnlyWhatConcernsTheNetwork: families the network has not, and ways it
// does not take, are no reason to speak.
func TestOnlyWhatConcernsTheNetwork(t *testing.T) {
	f := load(t, "docker-iptables", "ufw", "firewalld")
	internal, v6, bridged := front(), front(), front()
	internal.Internal = true
	v6.V4 = false
	bridged.Internal, bridged.Bridged4, bridged.Bridged6 = true, true, true
	c := firewall.New(f, nil)
	if got := c.Network(internal); len(got) > 0 {
		t.Errorf("an internal network: %v", lines(got))
	}
	for _, got := range c.Network(v6) {
		if got.Rule.Family == nft.FamilyIP {
			t.Errorf("a network of IPv6 only: %v", got)
		}
	}
	if got := lines(c.Network(bridged)); len(got) == 0 || !strings.HasPrefix(got[0], "traffic within network front is dropped") {
		t.Errorf("an internal network with br_netfilter: %v", got)
	}
	dormant := load(t, "user")
	for i := range dormant.Tables {
		dormant.Tables[i].Flags |= nft.TableDormant
	}
	if got := firewall.New(dormant, nil).Network(front()); len(got) > 0 {
		t.Errorf("a table that sleeps: %v", lines(got))
	}
}

// inFORWARD is the ruleset of iptables-nft with some rules in chain FORWARD.
func inFORWARD(policy string, rules ...[]nft.Expr) kernel.Foreign {
	ch := nft.ChainDef{Chain: nft.Chain{Family: nft.FamilyIP, Table: "filter", Name: "FORWARD", Type: "filter", Hook: "forward", Policy: policy}}
	for i, exprs := range rules {
		ch.Rules = append(ch.Rules, nft.Rule{Family: nft.FamilyIP, Exprs: exprs, Handle: uint64(10 + i)})
	}
	return kernel.Foreign{Tables: []nft.TableDef{{Table: nft.Table{Family: nft.FamilyIP, Name: "filter"}, Chains: []nft.ChainDef{ch}}}}
}

// TestWhatCannotBeEvaluated is undecided when it matters, and nothing when not.
func TestWhatCannotBeEvaluated(t *testing.T) {
	set := nft.XT{Name: "set", Rev: 4, Info: make([]byte, 16)}.Expr()
	tarpit := nft.XT{Target: true, Name: "TARPIT"}.Expr()
	accept, drop := nft.Verdict{Code: nft.Accept}, nft.Verdict{Code: nft.Drop}
	const undecided = "what leaves network front: undecided whether "
	tests := []struct {
		name string
		f    kernel.Foreign
		want string // begins the finding
	}{
		{"an accept that may save it", inFORWARD("drop", []nft.Expr{set, accept}), undecided + `rule "xt match \"set\" accept", handle 10 of chain ip filter FORWARD (user) lets it through: xt match "set" of iptables is not known`},
		{"a drop that may hit it", inFORWARD("accept", []nft.Expr{set, drop}), undecided},
		{"an accept before an accept", inFORWARD("accept", []nft.Expr{set, accept}), ""},
		{"a drop before a drop", inFORWARD("drop", []nft.Expr{set, drop}), "what leaves network front is dropped by the policy"},
		{"a target that may do anything", inFORWARD("drop", []nft.Expr{tarpit}), undecided},
		{"a program", inFORWARD("drop", []nft.Expr{nft.Verdict{Code: nft.Queue}}), undecided},
		{
			"more than can be tried",
			inFORWARD("drop", []nft.Expr{set, drop}, []nft.Expr{set, drop}, []nft.Expr{set, drop}, []nft.Expr{set, drop}, []nft.Expr{set, drop}, []nft.Expr{set, drop}, []nft.Expr{set, drop}),
			undecided,
		},
	}
	for _, tt := range tests {
		got := strings.Join(lines(firewall.New(tt.f, nil).Network(front())), "\n")
		if (got == "") != (tt.want == "") || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestFixes: what to do depends on whose chain it is and on the doors there are.
func TestFixes(t *testing.T) {
	doors := kernel.DoorChains()
	tests := []struct {
		name, file string
		doors      []kernel.Door
		want       string
	}{
		{"Docker with its door", "docker-iptables", doors[1:2], "start towpathd with --cooperate=auto, or by hand: iptables -I DOCKER-USER -i tp-front -j ACCEPT; iptables -I DOCKER-USER -o tp-front -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"},
		{"Docker without", "docker-iptables", nil, "by hand: iptables -I FORWARD -i tp-front -j ACCEPT; iptables -I FORWARD -o tp-front -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"},
		{"ufw", "ufw", doors[:1], "start towpathd with --cooperate=auto, or by hand: ufw route allow in on tp-front; ufw route allow out on tp-front"},
		{"firewalld", "firewalld", []kernel.Door{{Program: kernel.DoorFirewalld}}, "start towpathd with --cooperate=auto, or by hand: firewall-cmd --zone=trusted --add-interface=tp-front"},
		{"firewalld without D-Bus", "firewalld", nil, "by hand: firewall-cmd --zone=trusted --add-interface=tp-front"},
		{"somebody's own", "user", nil, `by hand: nft insert rule inet filter forward iifname "tp-front" accept; nft insert rule inet filter forward oifname "tp-front" ct state established,related accept; nft insert rule inet filter forward oifname "tp-front" ct status dnat accept`},
	}
	for _, tt := range tests {
		got := firewall.Warnings(firewall.New(load(t, tt.file), tt.doors).Network(front()))
		if len(got) == 0 || !strings.HasSuffix(got[0], "; "+tt.want) {
			t.Errorf("%s: %q, want the fix %q", tt.name, got, tt.want)
		}
	}
}

// TestLegacy: rules that nftables does not show are asked like others, and the
// tool that shows them is named.
func TestLegacy(t *testing.T) {
	tests := []struct{ table, want string }{
		{"table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy accept;\n }\n}", ""},
		{
			"table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy drop;\n }\n}",
			"what leaves network front is dropped by the policy of chain ip legacy:filter FORWARD (user); by hand: iptables-legacy -t filter -I FORWARD -i tp-front -j ACCEPT; iptables-legacy -t filter -I FORWARD -o",
		},
		{
			"table ip6 filter {\n chain FORWARD {\n type filter hook forward priority filter; policy accept;\n iifname \"tp-front\" drop\n }\n}",
			"what leaves network front is dropped by rule \"iifname \\\"tp-front\\\" drop\" of chain ip6 legacy:filter FORWARD (user); by hand: ip6tables-legacy -t filter -I FORWARD -i tp-front",
		},
		{"table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy drop;\n accept\n }\n}", ""},
	}
	for _, tt := range tests {
		table, err := nft.ParseTable(tt.table)
		if err != nil {
			t.Fatal(err)
		}
		table.Name = nft.LegacyTable + table.Name
		got := firewall.Warnings(firewall.New(kernel.Foreign{Legacy: []nft.TableDef{table}}, nil).Network(front()))
		if strings.Join(got, "\n") != tt.want && (tt.want == "" || !strings.HasPrefix(strings.Join(got, "\n"), tt.want)) {
			t.Errorf("%s: %q, want %q", tt.table, got, tt.want)
		}
	}
}
