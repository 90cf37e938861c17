package walk

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/nft"
)

// Priorities of what the kernel itself does at the hooks
// (include/uapi/linux/netfilter_ipv4.h). All nat chains of a hook run at one of
// the last two, in the order of their own.
const (
	priorityConntrack = -200
	priorityDNAT      = -100
	prioritySNAT      = 100
)

// stage is one thing that happens at a hook: connection tracking looks, the
// chains of nat decide, or one chain filters.
type stage struct {
	priority int
	tracks   bool
	nat      bool
	chains   []*nft.Ruleset // with one base chain each
}

// kernels reports whether the stage is none of one chain's own.
func (s stage) kernels() bool { return s.tracks || s.nat }

// Hooks of family bridge are known by a name of their own.
const bridged = "bridge "

// newStages sorts the base chains of tables by hook and priority.
func newStages(tables []nft.TableDef) map[string][]stage {
	out := map[string][]stage{
		"prerouting":  {{priority: priorityConntrack, tracks: true}, {priority: priorityDNAT, nat: true}},
		"output":      {{priority: priorityConntrack, tracks: true}, {priority: priorityDNAT, nat: true}},
		"input":       {{priority: prioritySNAT, nat: true}},
		"postrouting": {{priority: prioritySNAT, nat: true}},
	}
	nat := map[string][]stage{}
	for _, t := range tables {
		for i, c := range t.Chains {
			if !c.Base() {
				continue
			}
			s := stage{priority: c.Priority, chains: []*nft.Ruleset{alone(t, i)}}
			switch {
			case c.Type == "nat":
				nat[c.Hook] = append(nat[c.Hook], s)
			case t.Family == nft.FamilyBridge:
				out[bridged+c.Hook] = append(out[bridged+c.Hook], s)
			default:
				out[c.Hook] = append(out[c.Hook], s)
			}
		}
	}
	for hook, list := range nat {
		sortStages(list)
		i := slices.IndexFunc(out[hook], func(s stage) bool { return s.nat })
		for _, s := range list {
			if i >= 0 {
				out[hook][i].chains = append(out[hook][i].chains, s.chains...)
			}
		}
	}
	for _, list := range out {
		sortStages(list)
	}
	return out
}

// sortStages puts the stages in the order in which the kernel runs them: by
// priority, and of equal ones that first which was hooked last
// (nf_hook_entries_grow). Tables and their chains are listed in the order in which
// they were made. What the kernel itself does is taken to come before.
func sortStages(list []stage) {
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b stage) int {
		if byPriority := cmp.Compare(a.priority, b.priority); byPriority != 0 || a.kernels() == b.kernels() {
			return byPriority
		}
		if a.kernels() {
			return -1
		}
		return 1
	})
}

// alone is a table in which only one chain is hooked, so that translation
// happens between chains and not after them.
func alone(t nft.TableDef, keep int) *nft.Ruleset {
	t.Chains = slices.Clone(t.Chains)
	for i := range t.Chains {
		if i != keep {
			t.Chains[i].Hook = ""
		}
	}
	return nft.NewRuleset(t)
}

// hook takes the packet through a hook; nil: it has passed.
func (r *run) hook(at *space, name string, p *packet, in, out string) *fate {
	for _, st := range at.stages[name] {
		var f *fate
		switch {
		case st.tracks:
			f = r.follow(at, name, p, deviceAt(name, in, out))
		case st.nat:
			f = r.nat(at, name, st, p, in, out)
		default:
			f = r.filter(at, name, st.chains[0], p, p.nft(at, in, out))
		}
		if f != nil {
			return f
		}
	}
	if name == "input" || name == "postrouting" {
		p.confirm()
	}
	return nil
}

// linkHook takes a frame through a hook of family netdev, inet ingress or bridge.
func (r *run) linkHook(at *space, name, stages string, p *packet, in, out string) *fate {
	for _, st := range at.stages[stages] {
		q := p.nft(at, in, out)
		q.Link, q.Bridged = p.link(), stages != name
		if f := r.filter(at, name, st.chains[0], p, q); f != nil {
			return f
		}
	}
	return nil
}

// filter runs one chain.
func (r *run) filter(at *space, name string, chain *nft.Ruleset, p *packet, q *nft.Packet) *fate {
	before := p.flow()
	o := chain.Hook(name, q)
	p.absorb(o.After)
	if p.flow() != before {
		r.hop(at, hopOf(q, name), api.Hop{
			Layer: api.Layer(name), Action: "rewrites", Detail: p.text(), Rule: lastRule(o), Before: &before, After: new(p.flow()),
		})
	}
	return r.verdict(at, name, p, q, o)
}

// lastRule is the last that matched.
func lastRule(o nft.Outcome) *api.Rule {
	for _, s := range slices.Backward(o.Steps) {
		if s.Index >= 0 {
			return rule(s.Ref)
		}
	}
	return nil
}

// verdict notes what a chain decided; nil: the packet goes on.
func (r *run) verdict(at *space, name string, p *packet, q *nft.Packet, o nft.Outcome) *fate {
	h := api.Hop{Layer: api.Layer(name), Rule: rule(o.By), Before: new(p.flow())}
	by := describe(o.By)
	switch {
	case o.Verdict == nft.Accept && o.By.Index < 0 || o.Verdict == nft.Accept && o.By.Table == "":
		return nil
	case o.Verdict == nft.Accept:
		h.Action, h.Detail = "accept", by
		r.hop(at, hopOf(q, name), h)
		return nil
	case o.Verdict == nft.Drop && o.Reject != nil:
		h.Action, h.Detail = "reject", by
		r.hop(at, hopOf(q, name), h)
		f := &fate{verdict: api.Rejected, reason: by + " rejects it", rule: h.Rule, at: at, packet: p, back: rejection(at, p, *o.Reject)}
		if f.back != nil && f.back.kind == reset {
			f.direct = p.crossing
		}
		return f
	case o.Verdict == nft.Drop:
		h.Action, h.Detail = "drop", by
		r.hop(at, hopOf(q, name), h)
		f := &fate{verdict: api.Dropped, reason: by + " drops it", rule: h.Rule, at: at, packet: p}
		if name == "output" { // the sender is told
			f.reason += ": EPERM"
		}
		return f
	}
	reason := o.Reason
	if o.Verdict == nft.Queue {
		reason = "a program decides"
	}
	h.Action, h.Detail = "undecided", by+": "+reason
	r.hop(at, hopOf(q, name), h)
	return &fate{verdict: api.Undecided, reason: fmt.Sprintf("%s cannot be evaluated: %s", by, reason), rule: h.Rule, at: at, packet: p}
}

// hopOf is the link that a hop at a hook is told of.
func hopOf(q *nft.Packet, name string) string {
	var in, out string
	if q.IIf != nil {
		in = q.IIf.Name
	}
	if q.OIf != nil {
		out = q.OIf.Name
	}
	return deviceAt(name, in, out)
}

// deviceAt is the link a packet comes in by, or at the last hooks leaves by.
func deviceAt(name, in, out string) string {
	if name == "output" || name == "postrouting" || name == "egress" {
		return out
	}
	return in
}

// describe names a rule for a reader.
func describe(ref nft.Ref) string {
	where := fmt.Sprintf("%s %s %s", ref.Family, ref.Table, ref.Chain)
	switch {
	case ref.Index < 0:
		return "the policy of chain " + where
	case ref.Comment != "":
		return fmt.Sprintf("rule %q of chain %s", ref.Comment, where)
	}
	return fmt.Sprintf("rule %#q of chain %s", ref.Text, where)
}

func rule(ref nft.Ref) *api.Rule {
	if ref.Table == "" {
		return nil
	}
	return &api.Rule{Family: ref.Family.String(), Table: ref.Table, Chain: ref.Chain, Handle: ref.Handle, Comment: ref.Comment, Text: ref.Text}
}

// nat asks the chains about the first packet of a connection, once for the
// destination (prerouting, output) and once for the source, and translates.
func (r *run) nat(at *space, name string, st stage, p *packet, in, out string) *fate {
	c, toDst := p.track, st.priority == priorityDNAT
	if c == nil {
		return nil
	}
	before := p.flow()
	done := &c.srcDone
	if toDst {
		done = &c.dstDone
	}
	var by *nft.Translation
	if p.state == nft.StateNew && !*done {
		*done = true
		for _, chain := range st.chains {
			q := p.nft(at, in, out)
			o := chain.Hook(name, q)
			p.absorb(o.After)
			if len(o.NAT) == 0 {
				if f := r.verdict(at, name, p, q, o); f != nil {
					return f
				}
				continue
			}
			by = &o.NAT[0]
			if f := r.settle(at, p, *by, in, out); f != nil {
				return f
			}
			break
		}
	}
	p.translate(toDst)
	if p.flow() != before {
		r.translated(at, name, p, before, by, deviceAt(name, in, out))
	}
	return nil
}

// translated notes a translation, by a rule or of a connection that has one.
func (r *run) translated(at *space, name string, p *packet, before api.Flow, by *nft.Translation, dev string) {
	h := api.Hop{Layer: api.Layer(name), Before: &before, After: new(p.flow())}
	old := &packet{proto: p.proto, src: netip.AddrPortFrom(before.Src, before.Sport), dst: netip.AddrPortFrom(before.Dst, before.Dport)}
	h.Action, h.Detail = "snat", old.sender()+" -> "+p.sender()
	if before.Dst != h.After.Dst || before.Dport != h.After.Dport {
		h.Action, h.Detail = "dnat", old.receiver()+" -> "+p.receiver()
	}
	if by != nil {
		h.Rule = rule(by.By)
		switch {
		case by.Masquerade:
			h.Action = "masquerade"
		case by.Redirect:
			h.Action = "redirect"
		}
	} else if p.reverse { // what the first packet got is taken back
		h.Action = map[string]string{"snat": "un-dnat", "dnat": "un-snat"}[h.Action]
	}
	r.hop(at, dev, h)
}

// settle lays down in the connection what a rule wants (nf_nat_setup_info).
func (r *run) settle(at *space, p *packet, t nft.Translation, in, out string) *fate {
	c := p.track
	was := p.dst
	if t.Type == nft.SNAT {
		was = p.src
	}
	addr := t.Addr
	switch {
	case t.Redirect:
		addr = at.redirectTo(p, in)
	case t.Masquerade:
		addr = at.masqueradeAs(p, out)
	case !addr.IsValid():
		addr = was.Addr()
	}
	if !addr.IsValid() {
		return &fate{verdict: api.Dropped, reason: describe(t.By) + " finds no address to translate to", rule: rule(t.By), at: at, packet: p}
	}
	to := netip.AddrPortFrom(addr, translatedPort(t, was.Port(), p.isICMP()))
	if t.AddrMax.IsValid() && t.AddrMax != t.Addr || t.Flags&(nft.NATRandom|nft.NATFullyRandom) != 0 || to.Port() != was.Port() && t.PortMax > t.Port {
		r.uncertain = true
	}
	switch {
	case to == was:
	case t.Type == nft.DNAT:
		c.status, c.answer.Src = c.status|nft.StatusDNAT, to
	default:
		c.status, c.answer.Dst = c.status|nft.StatusSNAT, to
	}
	return nil
}

// translatedPort keeps the port where the rule lets it (nf_nat_l4proto_unique_tuple).
func translatedPort(t nft.Translation, port uint16, icmp bool) uint16 {
	last := max(t.Port, t.PortMax)
	if t.Port == 0 || icmp || port >= t.Port && port <= last {
		return port
	}
	return t.Port
}

// redirectTo is the namespace's own address: that of the link the packet came
// in by, the loopback's for what is sent here (nf_nat_redirect).
func (s *space) redirectTo(p *packet, in string) netip.Addr {
	switch {
	case in == "" && p.is6():
		return netip.IPv6Loopback()
	case in == "":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case p.is6():
		return s.first6(in, p.dst.Addr())
	}
	return s.first4(in)
}

// first4 is the first IPv4 address of a link: a redirection looks at no other
// link, and without an address there the packet is dropped (nf_nat_redirect_ipv4).
func (s *space) first4(dev string) netip.Addr {
	for _, a := range s.Addresses {
		if a.Dev == dev && a.Prefix.Addr().Is4() {
			return a.Prefix.Addr()
		}
	}
	return netip.Addr{}
}

// first6 is the first address of a link with the scope of another address.
func (s *space) first6(dev string, like netip.Addr) netip.Addr {
	for _, a := range s.Addresses {
		if addr := a.Prefix.Addr(); a.Dev == dev && addr.Is6() && scope6(addr) == scope6(like) {
			return addr
		}
	}
	return netip.Addr{}
}

// masqueradeAs is the address of the link the packet leaves by
// (nf_nat_masquerade_ipv4: nearest to the next hop).
func (s *space) masqueradeAs(p *packet, out string) netip.Addr {
	if p.is6() {
		return s.source6(out, p.dst.Addr())
	}
	next := p.dst.Addr()
	if p.via.IsValid() {
		next = p.via
	}
	return s.source4(out, next)
}
