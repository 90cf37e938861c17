package explain

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
)

var update = flag.Bool("update-scenarios", false, "write the table of scenarios")

const page = "../../docs/scenarios.md"

// TestPage compares the table on the page with that which is tested.
func TestPage(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, _, found := strings.Cut(string(b), "| scenario |")
	if !found {
		t.Fatal("the page has no table")
	}
	want := before + table()
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil { //nolint:gosec // a page is for everybody
			t.Fatal(err)
		}
		return
	}
	if want != string(b) {
		t.Errorf("%s is not the table that is tested: run with -update-scenarios if that is meant", page)
	}
}

// table writes all scenarios, a row each.
func table() string {
	var b strings.Builder
	heads := []string{"scenario", "packet", "verdict", "where", "why"}
	for _, l := range allLevels() {
		heads = append(heads, "`"+string(l)+"`")
	}
	fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(heads, " | "), strings.Repeat("---|", len(heads)))
	for _, s := range scenarios() {
		cells := []string{s.name, "`" + s.packet() + "`", "`" + string(s.verdict) + "`", s.where, s.why()}
		for _, l := range allLevels() {
			cells = append(cells, s.at(l).String())
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	return b.String()
}

// packet is the scenario's, as the command line has it.
func (s scenario) packet() string {
	out := s.from + " " + s.to
	for _, o := range []struct {
		flag string
		n    int
	}{{"size", s.size}, {"ttl", s.ttl}} {
		if o.n != 0 {
			out += fmt.Sprintf(" --%s %d", o.flag, o.n)
		}
	}
	if s.source != "" {
		out += " --source " + s.source
	}
	return out
}

// why is what must be said: the rule, the reason, the translation.
func (s scenario) why() string {
	var out []string
	if s.rule != "" {
		out = append(out, "rule `"+strings.Trim(s.rule, `"`)+"`")
	}
	if s.reason != "" {
		out = append(out, s.reason)
	}
	if s.nat != "" {
		out = append(out, "`"+s.nat+"`")
	}
	return strings.Join(out, "; ")
}

// String is a level's cell: "all", or what else is said, and what is not.
func (k knows) String() string {
	var out []string
	if k.verdict != "" {
		out = append(out, "`"+string(k.verdict)+"`")
	}
	if k.says != "" {
		out = append(out, k.says)
	}
	if k.lacks != "" {
		out = append(out, "not the "+strings.ReplaceAll(k.lacks, ", ", ", not the "))
	}
	return cmp.Or(strings.Join(out, "; "), "all")
}

// TestEveryFamily: what happens to IPv4 is tried with IPv6 too, where it can happen there.
func TestEveryFamily(t *testing.T) {
	only4 := map[string]bool{}
	for _, name := range []string{"rp_filter", "rp_filter, neighbour known"} { // IPv6 has none
		only4[name] = true
	}
	names := map[string]bool{}
	for _, s := range scenarios() {
		if names[s.name] {
			t.Errorf("%q is there twice", s.name)
		}
		names[s.name] = true
		if s.verdict == api.Undecided && s.fix == "" {
			t.Errorf("%q is undecided, and nothing is to be done", s.name)
		}
	}
	for _, name := range []string{
		"masquerade", "published, from the host", "hairpin", "same bridge", "isolated networks", "foreign drop", "legacy iptables drop", "no route on the host",
		"blackhole", "rp_filter", "neighbour failed", "MTU of the host's link", "time to live, given", "closed port", "closed udp port",
		"published, from outside", "conntrack invalid", "conntrack table full", "wrong source", "iptables-nft drop", "port of the bridge down",
	} {
		if v6 := name + " v6"; !names[name] || !names[v6] && !only4[name] {
			t.Errorf("no scenario %q, or none %q", name, v6)
		}
	}
}
