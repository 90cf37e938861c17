package trace

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// Table is what the names of the tables begin with that make rules tell of packets.
const Table = "towpath_trace"

// newJoin is a path of which nothing is told yet.
func newJoin(w Watch) *join {
	j := &join{Watch: w, path: api.Path{
		Schema: api.PathSchema, Kind: api.Actual, Level: cmp.Or(w.Level, api.LevelTaps), Complete: !w.Lost, Start: w.Start, Flow: w.Flow,
		From: api.Party{Name: w.From, NS: w.From, Addr: w.Flow.Src}, To: api.Party{Addr: w.Flow.Dst}, Hops: []api.Hop{},
	}}
	if w.Entry != nil {
		j.path.From = api.Party{Name: "outside", Addr: w.Flow.Src}
	}
	return j
}

// decision is what one base chain made of a packet.
type decision struct {
	at              time.Duration
	space, hook     string
	device          string
	direction       api.Direction
	flow            api.Flow
	action          string
	rule            *api.Rule
	nat, masquerade bool
	redirect        bool
	done            bool
}

// decisions puts together the messages of each base chain: the last word counts.
func (j *join) decisions() []decision {
	var out []decision
	type key struct {
		space string
		id    uint32
		table string
	}
	open := map[key]*nft.ChainDef{}
	first := map[key]Ruling{}
	for _, r := range j.Rulings {
		t := j.table(r)
		if t == nil || strings.HasPrefix(r.Table, Table) {
			continue
		}
		k := key{r.Space, r.ID, r.Table}
		if c := t.Chain(r.Chain); c != nil && c.Base() {
			open[k] = c
		}
		if r.Packet != nil {
			first[k] = r
		}
		base, p := open[k], first[k].Packet
		if base == nil || p == nil || r.Verdict != "accept" && r.Verdict != "drop" {
			continue
		}
		d, ok := j.Direction(*p)
		if !ok {
			continue
		}
		rule, known := describe(t, r)
		out = append(out, decision{
			at: r.At, space: r.Space, hook: base.Hook, device: j.device(first[k]), direction: d, flow: p.Flow, action: actionOf(r.Verdict, known), rule: rule,
			nat: base.Type == "nat" && r.Handle != 0 && translates(known), masquerade: has[nft.Masq](known) || hasTarget(known, "MASQUERADE"),
			redirect: has[nft.Redir](known) || hasTarget(known, "REDIRECT"),
		})
	}
	return out
}

// device is the link that a packet came in by or, of one made here, leaves by.
func (j *join) device(r Ruling) string {
	s := j.Machine.Space(r.Space)
	at := r.In
	if at == 0 {
		at = r.Out
	}
	if s == nil || at == 0 {
		return ""
	}
	i := slices.IndexFunc(s.Links, func(l machine.Link) bool { return l.Index == at })
	if i < 0 {
		return ""
	}
	return s.Links[i].Name
}

func (j *join) table(r Ruling) *nft.TableDef {
	s := j.Machine.Space(r.Space)
	if s == nil {
		return nil
	}
	i := slices.IndexFunc(s.Tables, func(t nft.TableDef) bool { return t.Name == r.Table && t.Family == r.Family })
	if i < 0 {
		return nil
	}
	return &s.Tables[i]
}

// describe names the rule, with its comment and text where it is known.
func describe(t *nft.TableDef, r Ruling) (*api.Rule, *nft.Rule) {
	out := &api.Rule{Family: r.Family.String(), Table: r.Table, Chain: r.Chain, Handle: r.Handle}
	c := t.Chain(r.Chain)
	if c == nil || r.Handle == 0 {
		return out, nil
	}
	for i := range c.Rules {
		if rule := &c.Rules[i]; rule.Handle == r.Handle {
			out.Comment, out.Text = rule.AnyComment(), rule.String()
			return out, rule
		}
	}
	return out, nil
}

func actionOf(verdict string, r *nft.Rule) string {
	if verdict == "drop" && (has[nft.Reject](r) || hasTarget(r, "REJECT")) {
		return "reject"
	}
	return verdict
}

// has reports whether a rule has an expression of a kind.
func has[T nft.Expr](r *nft.Rule) bool {
	return r != nil && slices.ContainsFunc(r.Exprs, func(e nft.Expr) bool { _, is := e.(T); return is })
}

// hasTarget reports whether a rule has a target of iptables.
func hasTarget(r *nft.Rule, names ...string) bool {
	return r != nil && slices.ContainsFunc(r.Exprs, func(e nft.Expr) bool {
		u, is := e.(nft.Unknown)
		if !is {
			return false
		}
		x, ok := u.XT()
		return ok && x.Target && slices.Contains(names, x.Name)
	})
}

func translates(r *nft.Rule) bool {
	return has[nft.NAT](r) || has[nft.Masq](r) || has[nft.Redir](r) || hasTarget(r, "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP")
}

// decide says what became of the packet.
func (j *join) decide() {
	p := &j.path
	back := j.back()
	// What goes over the loopback is seen before it comes back.
	answered := back != nil && back.Quoted == nil && back.TCP&flagRST == 0 && j.Got && (j.stopped(true) == nil || !j.local(back))
	var drop *Drop
	if drop = j.final(); drop != nil && !answered {
		j.dropped(drop)
	}
	stopped, answer := j.stopped(false), j.stopped(true)
	switch {
	case j.Refusal != "" && stopped == nil:
		p.Verdict, p.Reason = api.Dropped, "the sender's own kernel does not send it: "+j.Refusal
		if drop != nil {
			p.Reason += ", for " + drop.words()
		}
	case back != nil && j.unasked(back):
		p.Verdict, p.Reason = api.Dropped, fmt.Sprintf("its answer does not come back: it leaves by %s of %s as %s, which was not asked", back.Link, back.Space, flowText(back.Flow))
	case back != nil && back.Quoted != nil:
		j.failed(*back, stopped, drop)
	case back != nil && back.TCP&flagRST != 0 && stopped != nil && stopped.Action == "reject":
		p.Verdict, p.Reason, p.Culprit = api.Rejected, stopped.Detail+" rejects it", stopped.Rule
	case back != nil && back.TCP&flagRST != 0:
		p.Verdict, p.Reason = api.Refused, fmt.Sprintf("%s answers with a reset: nothing listens on port %d", back.Flow.Src, back.Flow.Sport)
	case answered:
		p.Verdict = api.Answered
	case stopped != nil:
		p.Verdict, p.Reason, p.Culprit = api.Dropped, stopped.Detail+" drops it", stopped.Rule
	case answer != nil:
		p.Verdict, p.Reason, p.Culprit = api.Dropped, "its answer does not come back: "+ends(answer), answer.Rule
	case drop != nil:
		j.gone(drop)
	default:
		j.vanished()
	}
	if answer != nil {
		j.unheard(answer)
	}
	j.arrival()
}

// unheard: what was seen to come back was then stopped by a rule.
func (j *join) unheard(h *api.Hop) {
	p := &j.path
	switch p.Verdict {
	case api.Refused:
		p.Reason, p.Culprit = p.Reason+"; its answer does not come back: "+ends(h), h.Rule
	case api.Rejected:
		p.Verdict, p.Reason = api.Dropped, p.Reason+"; the error does not come back: "+ends(h)
		if p.Culprit == nil {
			p.Culprit = h.Rule
		}
	}
}

// ends says what a rule did to end a packet.
func ends(h *api.Hop) string {
	if h.Action == "reject" {
		return h.Detail + " rejects it"
	}
	return h.Detail + " drops it"
}

// stopped is the hop at which a rule ended the packet or, with back, what came
// back; nil: none did.
func (j *join) stopped(back bool) *api.Hop {
	i := slices.IndexFunc(j.path.Hops, func(h api.Hop) bool {
		return h.Rule != nil && (h.Action == "drop" || h.Action == "reject") && back == (h.Direction != api.Request)
	})
	if i < 0 {
		return nil
	}
	return &j.path.Hops[i]
}

// back is the answer or error as the sender got it; nil: it got none.
func (j *join) back() *Sighting {
	for _, d := range []api.Direction{api.Reply, api.ErrorBack} {
		for i := range j.seen[d] {
			s := &j.seen[d][i]
			if e := j.Entry; e != nil && (s.Stopped || s.Space == e.Space && s.Link == e.Link && s.Out) || e == nil && s.Space == j.From && (!s.Out || j.local(s)) {
				return s
			}
		}
	}
	return nil
}

// unasked reports whether an answer was stopped that is none to who sent the
// packet: it leaves with another address than was asked.
func (j *join) unasked(s *Sighting) bool {
	f, q := s.Flow, j.Flow
	return s.Stopped && s.Quoted == nil && (f.Src != q.Dst || f.Dst != q.Src || f.Sport != q.Dport || f.Dport != q.Sport)
}

// local reports whether the packet goes over the loopback of the sender.
func (j *join) local(s *Sighting) bool {
	l := j.link(s.Space, s.Link)
	return l != nil && l.Type == "loopback"
}

// failed: an ICMP error came back.
func (j *join) failed(back Sighting, stopped *api.Hop, drop *Drop) {
	p, f := &j.path, back.Flow
	port := f.Proto == "icmp" && f.ICMPType == 3 && f.ICMPCode == 3 || f.Proto == "icmpv6" && f.ICMPType == 1 && f.ICMPCode == 4
	switch {
	case stopped != nil && stopped.Action == "reject":
		p.Verdict, p.Reason, p.Culprit = api.Rejected, stopped.Detail+" rejects it", stopped.Rule
	case port:
		p.Verdict, p.Reason = api.Refused, fmt.Sprintf("%s answers that nothing listens on port %d", f.Src, back.Quoted.Flow.Dport)
	case j.Entry == nil && back.Space == j.From && j.local(&back) && (f.Src == back.Quoted.Flow.Src || unreachable(f)):
		// Its own kernel gives it up after it took it: nobody answered for the next
		// hop, or the link is down (ip_error, ndisc's error report). Where the
		// destination was translated, the error comes from what it was before.
		why := "nobody answers for the next hop"
		if drop != nil {
			why = drop.words()
		}
		p.Verdict, p.Reason = api.Dropped, "the sender's own kernel gives it up: "+f.ICMPError()+" (EHOSTUNREACH), for "+why
	default:
		p.Verdict, p.Reason = api.Rejected, fmt.Sprintf("%s answers: %s", f.Src, f.ICMPError())
	}
}

// unreachable reports whether an error says that nobody answers for an address.
func unreachable(f api.Flow) bool {
	return f.Proto == "icmp" && f.ICMPType == 3 && f.ICMPCode == 1 || f.Proto == "icmpv6" && f.ICMPType == 1 && f.ICMPCode == 3
}

// vanished: it is gone without a word. Counters that rose where it was seen last
// may say why.
func (j *join) vanished() {
	p := &j.path
	p.Verdict, p.Reason = api.Lost, "it was seen nowhere"
	var last *Sighting
	var way api.Direction
	for _, d := range []api.Direction{api.Request, api.Reply, api.ErrorBack} {
		if list := j.seen[d]; len(list) > 0 {
			last, way = &list[len(list)-1], d
			p.Reason = fmt.Sprintf("it was seen last at %s of %s", last.Link, last.Space)
			if last.Stopped {
				p.Reason = fmt.Sprintf("it would leave the machine by %s of %s, and was stopped there", last.Link, last.Space)
			}
			if d != api.Request {
				p.Reason = fmt.Sprintf("its answer was seen last at %s of %s", last.Link, last.Space)
			}
		}
	}
	if last != nil && j.unrouted(way, *last) {
		return
	}
	where := j.From
	if last != nil {
		where = last.Space
	}
	if at := j.lastHook(); last == nil && at != nil {
		p.Reason = fmt.Sprintf("it was seen last behind hook %s of %s, and at no link", at.Hook, at.Space)
	}
	if risen := j.Risen[where]; len(risen) > 0 {
		p.Verdict, p.Reason = api.Dropped, fmt.Sprintf("%s; there %s rose", p.Reason, strings.Join(risen, ", "))
	}
}

// arrival notes where the request was seen last, if that is who has the address.
func (j *join) arrival() {
	list := j.seen[api.Request]
	if len(list) == 0 {
		return
	}
	last := list[len(list)-1]
	s := j.Machine.Space(last.Space)
	if s != nil && slices.ContainsFunc(s.Addresses, func(a machine.Address) bool { return a.Prefix.Addr() == last.Flow.Dst }) {
		j.path.To.Name, j.path.To.NS = last.Space, last.Space
	}
}
