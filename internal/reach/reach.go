// Package reach tells who can reach whom on an observed machine: it follows one
// packet of each class from each namespace to each other, and gathers those
// that fare the same. Nothing is sent.
package reach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/owner"
	"github.com/towpath/towpath/internal/topology"
	"github.com/towpath/towpath/internal/walk"
)

// Ask is which part of the table is wanted.
type Ask struct {
	From, To string // as a map names them; "": all
	Port     uint16 // 0: all
}

// maxWalks bounds a table: beyond it the question has to be narrower.
const maxWalks = 50000

// outside stands for machines beyond the uplinks.
const outside = "outside"

// Table follows the packets. Names that are not there are refused.
func Table(ctx context.Context, h *machine.Host, names *owner.Names, ask Ask) (api.Reach, error) {
	t := &table{h: h, ids: topology.IDs(h, names), ask: ask, out: api.Reach{Schema: api.ReachSchema, Rows: []api.ReachRow{}, Notes: []string{}}}
	for _, name := range []string{ask.From, ask.To} {
		if err := t.known(name); err != nil {
			return api.Reach{}, err
		}
	}
	var err error
	if t.walker, err = walk.New(*h); err != nil {
		return api.Reach{}, fmt.Errorf("prepare walk: %w", err)
	}
	t.called = called(t.ids)
	t.namePorts()
	questions := t.questions()
	walks := 0
	for _, q := range questions {
		walks += len(q.classes)
	}
	if walks > maxWalks {
		return api.Reach{}, api.Errorf(api.Invalid, "%d packets would have to be followed, and %d is the limit", walks, maxWalks).
			WithFix("ask for less, with --from NAME or --to NAME")
	}
	t.out.Walks = walks
	rows, err := t.answers(ctx, questions)
	if err != nil {
		return api.Reach{}, err
	}
	t.out.Rows = append(t.out.Rows, rows...)
	return t.out, nil
}

// answers follows the packets of all questions, on all processors.
func (t *table) answers(ctx context.Context, questions []question) ([]api.ReachRow, error) {
	rows, errs := make([][]api.ReachRow, len(questions)), make([]error, runtime.GOMAXPROCS(0))
	var next atomic.Int64
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			for errs[i] == nil {
				at := int(next.Add(1)) - 1
				if errs[i] = ctx.Err(); at >= len(questions) || errs[i] != nil {
					return
				}
				rows[at], errs[i] = t.answer(questions[at])
			}
		})
	}
	all.Wait()
	return slices.Concat(rows...), errors.Join(errs...)
}

// table is one table in the making.
type table struct {
	h      *machine.Host
	ids    map[string]string
	ask    Ask
	called *strings.Replacer // in what a walk says the names of namespaces
	walker *walk.Walker
	named  map[uint16]bool // ports that rules name; nil: too many
	out    api.Reach
}

// called puts the names of the table for those of the machine, which are numbers
// where a namespace has no name.
func called(ids map[string]string) *strings.Replacer {
	var pairs []string
	for name, id := range ids {
		if strings.HasPrefix(name, "net:[") {
			pairs = append(pairs, name, id)
		}
	}
	return strings.NewReplacer(pairs...)
}

func (t *table) known(name string) error {
	if name == "" || name == outside {
		return nil
	}
	var all []string
	for _, id := range t.ids {
		if id == name {
			return nil
		}
		all = append(all, id)
	}
	slices.Sort(all)
	return api.Errorf(api.NotFound, "there is no namespace %q", name).WithFix("%s", "one of "+strings.Join(all, ", ")+", outside")
}

// question is a pair, and the classes of packets from one to the other.
type question struct {
	from    string // the namespace in the machine
	link    string // the uplink, for packets from outside
	src     netip.Addr
	row     api.ReachRow // without an answer
	classes []class
}

// class is a set of packets that no rule tells apart: of a protocol, and ports
// from First to Last. The first stands for all.
type class struct {
	proto       string
	first, last uint16
}

// questions are all that are asked.
func (t *table) questions() []question {
	var out []question
	for _, from := range t.senders() {
		if t.ask.From != "" && from.row.From != t.ask.From {
			continue
		}
		for i := range t.h.Spaces {
			out = append(out, t.toSpace(from, &t.h.Spaces[i])...)
		}
		out = append(out, t.toPublished(from)...)
		out = append(out, t.toOutside(from)...)
	}
	return out
}

// senders are the namespaces that have an address, and who is outside.
func (t *table) senders() []question {
	var out []question
	for i := range t.h.Spaces {
		s := &t.h.Spaces[i]
		if len(addresses(s)) > 0 {
			out = append(out, question{from: s.Name, row: api.ReachRow{From: t.ids[s.Name]}})
		}
	}
	if host := t.h.Space(machine.HostName); host != nil {
		for _, v6 := range []bool{false, true} {
			if up, _ := host.Uplink(v6); up != "" && t.stranger(v6).IsValid() && !t.beyond(host, up) {
				out = append(out, question{from: host.Name, link: up, src: t.stranger(v6), row: api.ReachRow{From: outside}})
			}
		}
	}
	return out
}

// stranger is the address of somebody outside; not valid: none is left.
func (t *table) stranger(v6 bool) netip.Addr {
	a := t.h.Space(machine.HostName).Stranger(v6)
	const note = "the host has routes to all addresses that stand for anybody: nothing is said of who is outside"
	if !a.IsValid() && !slices.Contains(t.out.Notes, note) {
		t.out.Notes = append(t.out.Notes, note)
	}
	return a
}

// beyond reports whether what is behind an uplink is a namespace of the table:
// who is outside of it cannot be told by a walk that knows only that one.
func (t *table) beyond(host *machine.Space, up string) bool {
	l := host.Link(up)
	if l == nil || l.Peer == "" || t.h.Space(l.PeerNS) == nil {
		return false
	}
	note := fmt.Sprintf("the way out by %s leads to %s: nothing is said of who is beyond it", up, t.ids[l.PeerNS])
	if !slices.Contains(t.out.Notes, note) {
		t.out.Notes = append(t.out.Notes, note)
	}
	return true
}

// addresses are those by which others know a namespace.
func addresses(s *machine.Space) []netip.Addr {
	var out []netip.Addr
	for _, a := range s.Addresses {
		if addr := a.Prefix.Addr(); !addr.IsLoopback() && !addr.IsLinkLocalUnicast() && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// same reports whether a sender can send to an address by its family.
func (q question) same(a netip.Addr) bool { return !q.src.IsValid() || q.src.Is4() == a.Is4() }

// toSpace asks for each address of a namespace.
func (t *table) toSpace(from question, to *machine.Space) []question {
	if t.ask.To != "" && t.ids[to.Name] != t.ask.To || from.link == "" && to.Name == from.from {
		return nil
	}
	sender := t.h.Space(from.from)
	var out []question
	for _, a := range t.asked(from, sender, to) {
		q := from
		q.row.To, q.row.Addr = t.ids[to.Name], a
		if !q.same(a) || from.link == "" && !slices.ContainsFunc(addresses(sender), func(own netip.Addr) bool { return own.Is4() == a.Is4() }) {
			continue
		}
		q.classes = t.classes(to)
		out = append(out, q)
	}
	return out
}

// asked are the addresses of a namespace that a sender is asked about: all, but
// of the host those on a link with it, or else those of its uplinks.
func (t *table) asked(from question, sender, to *machine.Space) []netip.Addr {
	if to.Name != machine.HostName {
		return addresses(to)
	}
	var near, up []netip.Addr
	for _, a := range addresses(to) {
		if from.link == "" && slices.ContainsFunc(sender.Addresses, func(own machine.Address) bool { return own.Prefix.Contains(a) }) {
			near = append(near, a)
		}
	}
	for _, v6 := range []bool{false, true} {
		if a := t.hostAddress(from, v6); a.IsValid() {
			up = append(up, a)
		}
	}
	if len(near) > 0 {
		return near
	}
	return up
}

// toPublished asks for the ports that the host publishes, at one of its addresses.
func (t *table) toPublished(from question) []question {
	host := t.h.Space(machine.HostName)
	if host == nil {
		return nil
	}
	var out []question
	for _, p := range topology.PublishedIn(host) {
		to := t.holder(p.To.Addr())
		if p.First == 0 || t.ask.To != "" && to != t.ask.To || t.ask.Port != 0 && p.First != t.ask.Port && p.To.Port() != t.ask.Port {
			continue
		}
		at := p.Addr
		if !at.IsValid() {
			at = t.hostAddress(from, p.To.Addr().Is6())
		}
		if !at.IsValid() || !from.same(at) || at.IsLoopback() && (from.link != "" || from.from != host.Name) {
			continue
		}
		q := from
		q.row.To, q.row.Addr, q.row.Port = to, at, p.First
		q.classes = []class{{cmp.Or(p.Proto, "tcp"), p.First, p.Last}}
		out = append(out, q)
	}
	return out
}

// holder names who has an address.
func (t *table) holder(a netip.Addr) string {
	for i := range t.h.Spaces {
		if slices.Contains(addresses(&t.h.Spaces[i]), a) {
			return t.ids[t.h.Spaces[i].Name]
		}
	}
	return a.String()
}

// hostAddress is the host's at its uplink.
func (t *table) hostAddress(from question, v6 bool) netip.Addr {
	host := t.h.Space(machine.HostName)
	up, _ := host.Uplink(v6)
	dev := cmp.Or(from.link, up)
	for _, a := range host.Addresses {
		if a.Dev == dev && a.Prefix.Addr().Is6() == v6 && !a.Prefix.Addr().IsLinkLocalUnicast() {
			return a.Prefix.Addr()
		}
	}
	return netip.Addr{}
}

// toOutside asks for what is beyond the uplinks.
func (t *table) toOutside(from question) []question {
	if t.ask.To != "" && t.ask.To != outside || from.link != "" {
		return nil
	}
	var out []question
	for _, v6 := range []bool{false, true} {
		sender := t.h.Space(from.from)
		if !slices.ContainsFunc(addresses(sender), func(a netip.Addr) bool { return a.Is6() == v6 }) {
			continue
		}
		host := t.h.Space(machine.HostName)
		if up, _ := host.Uplink(v6); host != nil && t.beyond(host, up) || !t.stranger(v6).IsValid() {
			continue
		}
		q := from
		q.row.To, q.row.Addr = outside, t.stranger(v6)
		q.classes = t.classes(nil)
		out = append(out, q)
	}
	return out
}

// answer follows the packets of a question: a row for each fate.
func (t *table) answer(q question) ([]api.ReachRow, error) {
	type fate struct {
		verdict api.Verdict
		reason  string
		rule    api.Rule
	}
	rows := map[fate]*api.ReachRow{}
	var order []fate
	packets := map[fate][]class{}
	for _, c := range q.classes {
		ask := walk.Question{From: q.from, Link: q.link, Dst: netip.AddrPortFrom(q.row.Addr, c.first), Proto: c.proto}
		if q.src.IsValid() {
			ask.Src = netip.AddrPortFrom(q.src, 40000)
		}
		p, err := t.walker.Walk(ask)
		if err != nil {
			return nil, err
		}
		if p.Verdict == api.Refused {
			p.Reason = "nothing listens" // the walk names the port, which is another in each class
		}
		f := fate{verdict: p.Verdict, reason: p.Reason}
		if p.Culprit != nil {
			f.rule = *p.Culprit
		}
		if rows[f] == nil {
			row := q.row
			row.Verdict, row.Reason, row.Rule = p.Verdict, t.called.Replace(p.Reason), t.credited(p)
			row.Reaches = (p.Verdict == api.Delivered || p.Verdict == api.Refused) && !strings.Contains(p.Reason, "does not come back")
			rows[f], order = &row, append(order, f)
		}
		packets[f] = append(packets[f], c)
	}
	var out []api.ReachRow
	for _, f := range order {
		rows[f].Packets = words(packets[f])
		out = append(out, *rows[f])
	}
	return out, nil
}

// credited is the rule that decided, with who wrote it.
func (t *table) credited(p api.Path) *api.Rule {
	if p.Culprit == nil {
		return nil
	}
	r := *p.Culprit
	for _, h := range slices.Backward(p.Hops) {
		if h.Rule != nil && *h.Rule == *p.Culprit {
			r.Author = walk.Author(t.h.Space(h.NS), &r)
			break
		}
	}
	return &r
}
