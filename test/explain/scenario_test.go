package explain

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/draw"
	"github.com/towpath/towpath/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// patience is how long a packet gets that is to arrive, grace how long one that
// is not.
const patience, grace = 10 * time.Second, 300 * time.Millisecond

// scenario is a packet, what was done to the networks before, what the
// explanation must say, and what less a level of tracing can know.
type scenario struct {
	name      string
	from, to  string
	size, ttl int
	source    string
	change    func(*world)
	verdict   api.Verdict
	// where is "NS LAYER" of the hop that ends the packet or, if it arrives, of
	// one it must pass; reason, rule and fix are parts of what must be said.
	where, reason, rule, fix string
	// nat is the translation of the request: "dnat A -> B".
	nat string
	// unsent: the kernel is not asked by an ordinary socket, which cannot send
	// such a packet.
	unsent bool
	// taps and bpf are what is known without programs in the kernel and with them;
	// onlyFull is what level tracepoints lacks beside that.
	taps, bpf knows
	onlyFull  string
}

// knows is what a level can know of the end of a packet. The zero value: as much
// as the explanation.
type knows struct {
	verdict api.Verdict // "": as explained
	says    string      // part of the reason; "": names the chain
	// lacks is what cannot be known, and so must not be said: "place" (the hop at
	// which it ends, or that it must pass), "hook" (of the place), "rule", "translation".
	lacks string
}

func (k knows) not(what string) bool { return strings.Contains(k.lacks, what) }

func scenarios() []scenario {
	return slices.Concat(arriving(), fromOutside(), isolated(), filtered(), tracked(), unrouted(), unfit(), broken())
}

// TestScenarios explains each, probes it at each level, and has the kernel try it.
func TestScenarios(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if s.change != nil {
				s.change(w)
			}
			p, err := w.machine().Explain(s.query())
			if err != nil {
				t.Fatal(err)
			}
			s.check(w, p)
			for _, level := range allLevels() {
				t.Run(string(level), func(t *testing.T) {
					requireLevel(t, level)
					at := *w
					at.T = t
					s.probe(&at, level)
				})
			}
			if !s.unsent {
				// A reset in the way of a connection is told as a refusal.
				want, got := expected(p), w.try(s.from, p)
				if got != want && (want != "error" || got != "refused") {
					t.Errorf("the explanation means %s, and the kernel says %s:\n%s", want, got, text(t, p))
				}
			}
		})
	}
}

// query is the question for the packet.
func (s scenario) query() api.PathQuery {
	q := api.PathQuery{From: s.from, To: s.to, Size: s.size, TTL: s.ttl}
	if s.source != "" {
		q.Source = netip.MustParseAddr(s.source)
	}
	return q
}

func text(t *testing.T, p api.Path) string {
	t.Helper()
	var b strings.Builder
	if err := draw.PathText(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (s scenario) check(w *world, p api.Path) {
	w.Helper()
	arrives := p.Verdict == api.Delivered && p.Reason == ""
	if p.Verdict != s.verdict || !strings.Contains(p.Reason, s.reason) || !strings.Contains(p.Fix, s.fix) || (p.Fix == "") != arrives {
		w.Errorf("verdict %s, reason %q, fix %q:\n%s", p.Verdict, p.Reason, p.Fix, text(w.T, p))
	}
	if s.nat != "" && !slices.ContainsFunc(p.Hops, func(h api.Hop) bool { return h.Direction == api.Request && h.Action+" "+h.Detail == s.nat }) {
		w.Errorf("no translation %s:\n%s", s.nat, text(w.T, p))
	}
	if arrives {
		if !slices.ContainsFunc(p.Hops, s.place) {
			w.Errorf("does not pass %s:\n%s", s.where, text(w.T, p))
		}
	} else if h := last(p); h == nil || !s.place(*h) {
		w.Errorf("does not end at %s:\n%s", s.where, text(w.T, p))
	}
	if s.rule != "" && !strings.Contains(text(w.T, p), s.rule) {
		w.Errorf("no rule %s:\n%s", s.rule, text(w.T, p))
	}
}

// place reports whether a hop is where the scenario says.
func (s scenario) place(h api.Hop) bool {
	return strings.HasPrefix(h.NS+" "+string(h.Layer), s.where)
}

// last is the hop at which a packet, or its answer, ended; nil: none did.
func last(p api.Path) *api.Hop {
	i := slices.IndexFunc(p.Hops, func(h api.Hop) bool {
		return slices.Contains([]string{"drop", "reject", "refuses", "undecided"}, h.Action)
	})
	if i < 0 {
		return nil
	}
	return &p.Hops[i]
}

// expected is what the sender sees of a path.
func expected(p api.Path) string {
	last := p.Hops[len(p.Hops)-1]
	switch {
	case p.Verdict == api.Delivered && p.Reason == "":
		return "answered"
	case p.Verdict == api.Refused:
		return "refused"
	case p.Verdict == api.Rejected, p.Verdict == api.Dropped && strings.Contains(last.Detail, ": E"):
		return "error"
	}
	return "nothing"
}

// try sends the packet.
func (w *world) try(from string, p api.Path) string {
	w.Helper()
	ns := w.spaces[from]
	if ns == nil {
		ns = w.spaces["outside"]
	}
	wait := grace
	if expected(p) != "nothing" {
		wait = patience
	}
	if p.Flow.Dport == 0 {
		if ns.Echo(p.Flow.Dst, wait) == nil {
			return "answered"
		}
		return "nothing"
	}
	return w.dial(ns, netip.AddrPortFrom(p.Flow.Dst, p.Flow.Dport), wait)
}
