package nft

import (
	"bytes"
	"fmt"
	"iter"
	"net/netip"
	"slices"
)

// Undecided is the verdict of a packet that met an expression the package does
// not know; the kernel has no such number.
const Undecided VerdictCode = 1 << 20

// maxJumps is NFT_JUMP_STACK_SIZE, the kernel's limit of nested jumps.
const maxJumps = 16

// Ruleset is a set of tables ready for evaluation.
type Ruleset struct {
	tables []*tableIndex
}

// tableIndex is a table with its sets indexed.
type tableIndex struct {
	*TableDef
	sets map[string]*setIndex
	// some are the rules that are asked of chains of which not all are.
	some map[string][]int
}

// NewRuleset prepares tables for evaluation. They must not change afterwards.
func NewRuleset(tables ...TableDef) *Ruleset {
	rs := &Ruleset{}
	for i := range tables {
		t := &tableIndex{TableDef: &tables[i], sets: map[string]*setIndex{}}
		for _, s := range tables[i].Sets {
			t.sets[s.Name] = newSetIndex(s.Set, s.Elements)
		}
		rs.tables = append(rs.tables, t)
	}
	return rs
}

// Leave leaves rules out that match none of the packets there will be. Refs stay
// the same.
func (rs *Ruleset) Leave(out func(*Rule) bool) {
	for _, t := range rs.tables {
		t.some = map[string][]int{}
		for i := range t.Chains {
			c := &t.Chains[i]
			kept := []int{}
			for j := range c.Rules {
				if !out(&c.Rules[j]) {
					kept = append(kept, j)
				}
			}
			if len(kept) < len(c.Rules) {
				t.some[c.Name] = kept
			}
		}
	}
}

// rules are the indices of the rules of a chain that are asked.
func (t *tableIndex) rules(c *ChainDef) iter.Seq[int] {
	if some, ok := t.some[c.Name]; ok {
		return slices.Values(some)
	}
	return func(yield func(int) bool) {
		for i := range c.Rules {
			if !yield(i) {
				return
			}
		}
	}
}

// Ref names a rule, or with Index -1 the policy of a chain.
type Ref struct {
	Family  Family
	Table   string
	Chain   string
	Index   int // in the chain, from 0
	Handle  uint64
	Comment string
	Text    string
}

// Step is a rule whose expressions all matched, and what it did.
type Step struct {
	Ref
	Action string // a verdict, "snat", "reject", "policy accept"; "" if it went on
}

// Translation is a NAT statement that was reached. Zero fields are unset.
type Translation struct {
	By         Ref
	Type       NATType
	Masquerade bool // the address is that of the outgoing interface
	Redirect   bool // the address is the host's own
	Addr       netip.Addr
	AddrMax    netip.Addr // end of a range
	Port       uint16
	PortMax    uint16 // end of a range
	Flags      NATFlags
}

// Outcome is what the chains of a hook did to a packet.
type Outcome struct {
	Verdict VerdictCode // Accept, Drop, Queue or Undecided
	By      Ref         // what decided; zero if no chain did
	Reason  string      // why Verdict is Undecided
	NAT     []Translation
	Reject  *Reject // the sender is told
	Steps   []Step
	After   *Packet // with what rules wrote; translations are not applied
}

// Hook runs the packet through all base chains of the hook in the order of
// their priorities: those of family bridge for a bridged packet, netdev and
// inet with the device on ingress and egress, arp for ARP, else inet and the
// family of the packet. Chains of type nat run for the first packet of a
// connection only. Limits count as not reached; checksums are not repaired.
func (rs *Ruleset) Hook(hook string, p *Packet) Outcome {
	out := Outcome{Verdict: Accept, After: p.clone()}
	for _, b := range rs.bases(hook, p) {
		if b.chain.Type == "nat" && !natRuns(out) {
			continue
		}
		r := run{rs: rs, table: b.table, base: b.chain, p: out.After, out: &out}
		r.start()
		if out.Verdict != Accept {
			return out
		}
	}
	return out
}

// natRuns reports whether nat chains see the packet: the kernel looks at a
// connection once, and the first translation of a hook settles it.
func natRuns(out Outcome) bool {
	ct := out.After.CT
	return ct != nil && ct.State&(StateNew|StateRelated) != 0 && len(out.NAT) == 0
}

// baseChain is a base chain and its table.
type baseChain struct {
	table *tableIndex
	chain *ChainDef
}

// bases lists the base chains the packet meets on the hook, in order.
func (rs *Ruleset) bases(hook string, p *Packet) []baseChain {
	var out []baseChain
	for _, t := range rs.tables {
		if t.Flags&TableDormant != 0 {
			continue
		}
		for i := range t.Chains {
			if c := &t.Chains[i]; c.Hook == hook && p.meets(c.Chain) {
				out = append(out, baseChain{t, c})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b baseChain) int { return a.chain.Priority - b.chain.Priority })
	return out
}

// meets reports whether the packet passes chains of that family and device.
func (p *Packet) meets(c Chain) bool {
	switch {
	case c.Hook == "ingress":
		return c.Family != FamilyBridge && p.IIf != nil && slices.Contains(c.Devices, p.IIf.Name)
	case c.Hook == "egress":
		return p.OIf != nil && slices.Contains(c.Devices, p.OIf.Name)
	case p.Bridged || c.Family == FamilyBridge:
		return p.Bridged && c.Family == FamilyBridge
	}
	switch p.Protocol {
	case EtherTypeARP:
		return c.Family == FamilyARP
	case EtherTypeIPv4:
		return c.Family == FamilyInet || c.Family == FamilyIP
	case EtherTypeIPv6:
		return c.Family == FamilyInet || c.Family == FamilyIP6
	}
	return false
}

// run is the walk through one base chain.
type run struct {
	rs    *Ruleset
	table *tableIndex
	base  *ChainDef
	p     *Packet
	out   *Outcome
	regs  [4 * slotCount]byte
}

// start runs the base chain and its policy.
func (r *run) start() {
	v := r.chain(r.base, 0)
	if v != Continue {
		r.out.Verdict = v
		return
	}
	ref := Ref{Family: r.table.Family, Table: r.table.Name, Chain: r.base.Name, Index: -1}
	r.out.Steps = append(r.out.Steps, Step{Ref: ref, Action: "policy " + r.base.Policy})
	r.out.By = ref
	if r.base.Policy == "drop" {
		r.out.Verdict = Drop
	}
}

// chain runs the rules of a chain; Continue means that none decided.
func (r *run) chain(c *ChainDef, depth int) VerdictCode {
	for i := range r.table.rules(c) {
		v, ref, matched := r.rule(c, i)
		if !matched {
			continue
		}
		switch v.Code {
		case Continue, Break:
		case Return:
			return Continue
		case Jump, Goto:
			code := r.jump(v.Chain, depth, ref)
			if code != Continue || v.Code == Goto {
				return code
			}
		default:
			r.out.By = ref
			return v.Code
		}
	}
	return Continue
}

// jump runs another chain of the table.
func (r *run) jump(name string, depth int, ref Ref) VerdictCode {
	target := r.table.Chain(name)
	switch {
	case target == nil:
		return r.undecided(ref, fmt.Sprintf("chain %q is not there", name))
	case depth+1 >= maxJumps:
		return r.undecided(ref, "more than 16 nested jumps")
	}
	return r.chain(target, depth+1)
}

// undecided notes why the walk ends here.
func (r *run) undecided(ref Ref, reason string) VerdictCode {
	r.out.By, r.out.Reason = ref, reason
	return Undecided
}

// ref names a rule of a chain.
func (r *run) ref(c *ChainDef, i int) Ref {
	rule := &c.Rules[i]
	return Ref{
		Family: r.table.Family, Table: r.table.Name, Chain: c.Name, Index: i,
		Handle: rule.Handle, Comment: rule.AnyComment(),
	}
}

// rule runs the expressions of a rule. matched is false if one did not match;
// most rules do not, so that a rule is named only when there is something to say.
func (r *run) rule(c *ChainDef, i int) (v Verdict, ref Ref, matched bool) {
	rule := &c.Rules[i]
	r.regs = [len(r.regs)]byte{}
	v = Verdict{Code: Continue}
	action := ""
	for _, e := range rule.Exprs {
		s := r.exec(e)
		if s.reason != "" && r.p.Assume != nil && e.ExprName() != "target" {
			if passes, ok := r.p.Assume(r.ref(c, i)); ok {
				s = status{ok: passes}
			}
		}
		switch {
		case s.reason != "":
			ref = r.ref(c, i)
			ref.Text = rule.String()
			return Verdict{Code: r.undecided(ref, s.reason)}, ref, true
		case !s.ok:
			return v, ref, false
		case s.nat != nil:
			s.nat.By = r.ref(c, i)
			s.nat.By.Text = rule.String()
			r.out.NAT = append(r.out.NAT, *s.nat)
		}
		if s.action != "" {
			action = s.action
		}
		if s.verdict != nil {
			v = *s.verdict
			break
		}
	}
	ref = r.ref(c, i)
	ref.Text = rule.String()
	r.out.Steps = append(r.out.Steps, Step{Ref: ref, Action: action})
	return v, ref, true
}

// setIndex is a set made ready for lookups.
type setIndex struct {
	set      Set
	length   int   // bytes of a key
	parts    []int // bytes of its parts, padded
	exact    map[string]*Element
	ranges   []*Element
	catchAll *Element
}

func newSetIndex(s Set, elements []Element) *setIndex {
	x := &setIndex{set: s, exact: make(map[string]*Element, len(elements))}
	types := s.keyTypes()
	for _, t := range types {
		n := t.size
		if len(types) > 1 {
			n = pad4(n)
		}
		x.parts = append(x.parts, n)
		x.length += n
	}
	for i := range elements {
		e := &elements[i]
		switch {
		case e.CatchAll:
			x.catchAll = e
		case e.KeyEnd != nil:
			x.ranges = append(x.ranges, e)
		default:
			x.exact[string(e.Key)] = e
		}
	}
	return x
}

// find gives the element of a key; nil if there is none.
func (x *setIndex) find(key []byte) *Element {
	if e := x.exact[string(key)]; e != nil {
		return e
	}
	for _, e := range x.ranges {
		if x.within(key, e) {
			return e
		}
	}
	return x.catchAll
}

// within reports whether each part of the key is in the range of its part.
func (x *setIndex) within(key []byte, e *Element) bool {
	at := 0
	for _, n := range x.parts {
		end := at + n
		if end > len(e.Key) || end > len(e.KeyEnd) ||
			bytes.Compare(key[at:end], e.Key[at:end]) < 0 || bytes.Compare(key[at:end], e.KeyEnd[at:end]) > 0 {
			return false
		}
		at = end
	}
	return true
}
