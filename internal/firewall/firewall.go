// Package firewall decides what the forward chains of other programs do to the
// traffic of our networks. A packet passes a hook only when every base chain
// there lets it, so that our accept cannot undo a foreign drop; what can be done
// is to say so, with the rule and its author, and to use the doors that those
// programs made. The package is pure: chains and networks in, findings out.
package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/nft"
)

// Chains are the foreign base chains at hook forward, ready to be asked.
type Chains struct {
	chains []chain
	doors  []kernel.Door
}

// chain is one base chain with its table, in which no other chain is hooked:
// each chain is asked by itself, so that all that drop are named.
type chain struct {
	table *nft.TableDef
	base  nft.Chain
	rules *nft.Ruleset
}

// New prepares what was read of the host. Our own table may be among the
// tables; it is left out.
func New(f kernel.Foreign, doors []kernel.Door) *Chains {
	c := &Chains{doors: doors}
	tables := slices.Concat(f.Tables, f.Legacy)
	for i := range tables {
		t := &tables[i]
		if author.Of(author.Rule{Table: t.Name}) == author.Towpath || t.Flags&nft.TableDormant != 0 {
			continue
		}
		for j, ch := range t.Chains {
			if ch.Hook == "forward" && ch.Type == "filter" {
				c.chains = append(c.chains, chain{table: t, base: ch.Chain, rules: alone(*t, j)})
			}
		}
	}
	return c
}

// alone is the table with one chain hooked only.
func alone(t nft.TableDef, keep int) *nft.Ruleset {
	t.Chains = slices.Clone(t.Chains)
	for i := range t.Chains {
		if i != keep {
			t.Chains[i].Hook = ""
		}
	}
	rs := nft.NewRuleset(t)
	rs.Leave(func(r *nft.Rule) bool { return elsewhere(t.Family, r) })
	return rs
}

// Outcome is what becomes of traffic.
type Outcome string

// The outcomes that are told.
const (
	Dropped   Outcome = "dropped"
	Rejected  Outcome = "rejected"
	Undecided Outcome = "undecided"
)

// Finding is a foreign chain that our traffic does not get through, or none can
// say whether it does.
type Finding struct {
	Traffic string // "what leaves network front"
	Outcome Outcome
	Rule    nft.Ref // Index -1: the policy of the chain
	Author  string
	Reason  string // why Outcome is Undecided
	Fix     string
}

// String is the finding in one line, without the fix.
func (f Finding) String() string {
	where := fmt.Sprintf("chain %s %s %s", f.Rule.Family, f.Rule.Table, f.Rule.Chain)
	by := "the policy of " + where
	if f.Rule.Index >= 0 {
		by = fmt.Sprintf("rule %q of %s", f.Rule.Text, where)
		if f.Rule.Handle != 0 {
			by = fmt.Sprintf("rule %q, handle %d of %s", f.Rule.Text, f.Rule.Handle, where)
		}
	}
	if f.Outcome == Undecided {
		return fmt.Sprintf("%s: undecided whether %s (%s) lets it through: %s", f.Traffic, by, f.Author, f.Reason)
	}
	is := "is"
	if strings.HasPrefix(f.Traffic, "answers ") {
		is = "are"
	}
	return fmt.Sprintf("%s %s %s by %s (%s)", f.Traffic, is, f.Outcome, by, f.Author)
}

// Warning is the finding with the fix.
func (f Finding) Warning() string {
	if f.Fix == "" {
		return f.String()
	}
	return f.String() + "; " + f.Fix
}

// Warnings are the findings as lines.
func Warnings(findings []Finding) []string {
	var out []string
	for _, f := range findings {
		if w := f.Warning(); !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

// Network is what the chains see of one of our networks.
type Network struct {
	Name, Device string
	// V4 and V6: it has subnets of the family.
	V4, V6 bool
	// Subnets are where its containers have their addresses.
	Subnets []netip.Prefix
	// Internal networks do not leave the host.
	Internal bool
	// Bridged4 and Bridged6: frames of the family between its ports pass the hooks
	// of IP (br_netfilter).
	Bridged4, Bridged6 bool
	// Ways are the links of the host that lead out.
	Ways []string
}

// Publication is what the chains see of a published port.
type Publication struct {
	Name     string // "8080/tcp"
	Proto    uint8
	HostPort uint16
	Port     uint16
	Network  Network // that it leads to
	V4, V6   bool    // the families it leads to
	To       []netip.Addr
}

// Network tells which chains do not let a network's traffic through.
func (c *Chains) Network(n Network) []Finding {
	var all []Finding
	for _, s := range families(n.V4, n.V6) {
		s = s.of(n)
		one := c.network(n, s)
		if len(one) == 0 {
			continue
		}
		s.container, s.other = s.other, s.container
		other := c.network(n, s)
		for _, f := range one {
			// What is against one container alone is not against the network.
			if slices.ContainsFunc(other, func(o Finding) bool { return o.String() == f.String() }) {
				all = append(all, f)
			}
		}
	}
	return distinct(all)
}

func (c *Chains) network(n Network, s sample) []Finding {
	return slices.Concat(
		c.ask(n, "what leaves network "+n.Name, s.out(n)),
		c.ask(n, "answers to network "+n.Name, s.answers(n)),
		c.ask(n, "traffic within network "+n.Name, s.within(n)),
	)
}

// Publication tells which chains do not let a published port be reached.
func (c *Chains) Publication(p Publication) []Finding {
	var all []Finding
	for _, s := range families(p.V4, p.V6) {
		s = s.at(p)
		all = append(all, c.ask(p.Network, "what comes in to published port "+p.Name, s.in(p))...)
		all = append(all, c.ask(p.Network, "answers from published port "+p.Name, s.inAnswers(p))...)
	}
	return distinct(all)
}

// ask sends packets through all chains. One finding a chain is enough, and of
// traffic that does not get out the answers are not worth a word.
func (c *Chains) ask(n Network, traffic string, packets []*nft.Packet) []Finding {
	var found []Finding
	for i := range c.chains {
		ch := &c.chains[i]
		for _, p := range packets {
			f, ok := ch.ask(p)
			if !ok {
				continue
			}
			f.Traffic, f.Fix = traffic, c.fix(f, n)
			found = append(found, f)
			break
		}
	}
	return found
}

// most is how many rules that cannot be evaluated are assumed either way; with
// each the number of ways doubles.
const most = 6

// ask sends one packet through the chain; false: it passes.
func (c *chain) ask(p *nft.Packet) (Finding, bool) {
	f := c.try(p, map[nft.Ref]bool{})
	return f, f.Outcome != ""
}

// try decides with what is assumed of rules. A rule that cannot be evaluated
// does not matter when the packet fares the same whether it matches or not.
func (c *chain) try(p *nft.Packet, assumed map[nft.Ref]bool) Finding {
	p.Assume = func(r nft.Ref) (passes, ok bool) {
		passes, ok = assumed[place(r)]
		return passes, ok
	}
	o := c.rules.Hook("forward", p)
	switch {
	case o.Verdict == nft.Accept:
		return Finding{}
	case o.Verdict == nft.Drop && o.Reject != nil:
		return c.finding(o, Rejected)
	case o.Verdict == nft.Drop:
		return c.finding(o, Dropped)
	case o.Verdict == nft.Queue:
		o.Reason = "a program decides (queue)"
	}
	undecided := c.finding(o, Undecided)
	at := place(o.By)
	if _, again := assumed[at]; again || len(assumed) >= most || o.Verdict != nft.Undecided {
		return undecided
	}
	var ways [2]Finding
	for i, passes := range []bool{false, true} {
		assumed[at] = passes
		ways[i] = c.try(p, assumed)
		delete(assumed, at)
	}
	if ways[0].Outcome == ways[1].Outcome && ways[0].Outcome != Undecided {
		return ways[0]
	}
	return undecided
}

// place is what tells a rule from others, without what is only for reading.
func place(r nft.Ref) nft.Ref {
	return nft.Ref{Family: r.Family, Table: r.Table, Chain: r.Chain, Index: r.Index}
}

func (c *chain) finding(o nft.Outcome, what Outcome) Finding {
	f := Finding{Outcome: what, Rule: o.By, Reason: o.Reason}
	r := author.Rule{Table: f.Rule.Table, Chain: f.Rule.Chain, Comment: f.Rule.Comment, Policy: f.Rule.Index < 0}
	for _, ch := range c.table.Chains {
		r.Chains = append(r.Chains, ch.Name)
		if ch.Name == f.Rule.Chain && f.Rule.Index >= 0 {
			r.Comment, r.Text = ch.Rules[f.Rule.Index].AnyComment(), ch.Rules[f.Rule.Index].String()
		}
	}
	f.Author = author.Of(r)
	return f
}

// distinct leaves out what is said already. Answers that fail where the
// question does already are left out, and of both families one is enough.
func distinct(all []Finding) []Finding {
	var out []Finding
	for _, f := range all {
		same := func(o Finding) bool {
			answer := strings.HasPrefix(f.Traffic, "answers ") && !strings.HasPrefix(o.Traffic, "traffic within ")
			return place(o.Rule) == place(f.Rule) && (o.Traffic == f.Traffic || answer)
		}
		if !slices.ContainsFunc(out, same) {
			out = append(out, f)
		}
	}
	return out
}
