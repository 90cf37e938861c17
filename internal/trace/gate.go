package trace

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/towpath/towpath/api"
)

const (
	// mostKinds is how many kinds of paths may begin in a second before they are no
	// longer told from each other by where they lead and why they end.
	mostKinds = 20
	// apart is how long after one path the next that is like it is told, if there
	// was one; it doubles each time, up to farApart.
	apart    = 10 * time.Second
	farApart = 80 * time.Second
	// flood is how many it takes to be told of ten times as soon.
	flood = 100
)

// Gate lets paths through that are not like one before, and of those that are the
// last, at growing intervals, with how many there were.
type Gate struct {
	kinds  map[kind]*alike
	second time.Duration
	begun  int // kinds in that second
}

// kind is what paths have in common that are alike.
type kind struct {
	from, where, proto string
	verdict            api.Verdict
	to                 netip.Addr
	dport              uint16
	reason             string
}

// alike is what came of a kind since it was told of last.
type alike struct {
	last  api.Path
	count uint64
	told  time.Duration
	apart time.Duration
}

// Add takes a path that was heard of at a time, and reports whether it is one to
// be told now.
func (g *Gate) Add(p api.Path, at time.Duration) bool {
	if g.kinds == nil {
		g.kinds = map[kind]*alike{}
	}
	if s := at / time.Second; s != g.second {
		g.second, g.begun = s, 0
	}
	k := kindOf(p)
	r := g.kinds[k]
	if r == nil && g.begun >= mostKinds {
		k.to, k.dport, k.reason = netip.Addr{}, 0, ""
		r = g.kinds[k]
	}
	if r == nil {
		g.begun++
		g.kinds[k] = &alike{told: at, apart: apart}
		return true
	}
	r.last = p
	r.count++
	return false
}

// Due are those that by now are to be told of again. A kind of which nothing came
// for long is new when it comes again.
func (g *Gate) Due(now time.Duration) []api.Path {
	var out []api.Path
	for k, r := range g.kinds {
		since := now - r.told
		switch {
		case r.count == 0 && since >= r.apart:
			delete(g.kinds, k)
		case r.count > 0 && (since >= r.apart || r.count >= flood && since >= r.apart/10):
			r.last.Alike = r.count - 1
			out = append(out, r.last)
			*r = alike{told: now, apart: min(2*r.apart, farApart)}
		}
	}
	slices.SortFunc(out, func(a, b api.Path) int { return a.Start.Compare(b.Start) })
	return out
}

// kindOf is that of a path: who sent what to whom, and where and why it ended.
func kindOf(p api.Path) kind {
	k := kind{from: cmp.Or(p.From.NS, p.From.Addr.String()), proto: p.Flow.Proto, verdict: p.Verdict, to: p.Flow.Dst, dport: p.Flow.Dport, reason: p.Reason}
	for _, h := range p.Hops {
		if h.Action == "drop" || h.Action == "reject" || h.Action == "refuses" {
			k.where = h.NS + " " + h.Device
		}
	}
	return k
}
