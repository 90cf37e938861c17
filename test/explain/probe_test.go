package explain

import (
	"slices"
	"strings"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace"
)

// at is what a level can know of the scenario.
func (s scenario) at(level api.PathLevel) knows {
	switch level {
	case api.LevelTaps:
		return s.taps
	case api.LevelTracepoints:
		k := s.bpf
		if s.onlyFull != "" {
			k.lacks = strings.TrimPrefix(k.lacks+", "+s.onlyFull, ", ")
		}
		return k
	}
	return s.bpf
}

// sources are who may have seen what a level tells.
func sources(level api.PathLevel) []string {
	if level == api.LevelTaps {
		return []string{"tap", "nftrace", "route"}
	}
	return []string{"bpf", "nftrace", "route"}
}

// probe sends the packet, and compares what was seen with the scenario: all that
// the level can know must be said, and nothing else.
func (s scenario) probe(w *world, level api.PathLevel) {
	w.Helper()
	if s.outside() {
		testnet.Require(w, "root", "bpf")
		defer w.listen().nothing(wireTime)
	}
	p, err := w.send(api.ProbeQuery{PathQuery: s.query(), Level: level})
	if err != nil {
		w.Fatal(err)
	}
	c := comparison{world: w, s: s, k: s.at(level), want: p.Expected, got: p.Actual, told: text(w.T, p.Expected) + "\n" + text(w.T, p.Actual)}
	if p.FirstDifference != nil {
		w.Errorf("difference at hop %d\n%s", *p.FirstDifference, c.told)
	}
	if p.Actual.Level != level || !p.Actual.Complete || p.Actual.Kind != api.Actual {
		w.Errorf("level %s, want %s, complete %v", p.Actual.Level, level, p.Actual.Complete)
	}
	for _, h := range p.Actual.Hops {
		for _, from := range h.Sources {
			if !slices.Contains(sources(level), from) {
				w.Errorf("level %s: hop %d is known from %s", level, h.Index, from)
			}
		}
	}
	if p.Answered != (p.Verdict == api.Answered) || p.Verdict != p.Actual.Verdict {
		w.Errorf("verdict %s, answered %v\n%s", p.Verdict, p.Answered, c.told)
	}
	c.end()
	c.rule()
	c.place()
	c.names()
	c.translations()
	c.routes()
	c.word()
}

// routes compares what the kernel says of the routes that were taken.
func (c *comparison) routes() {
	c.Helper()
	for _, h := range c.got.Hops {
		if h.Action != "routes" || c.want.Verdict == api.Undecided {
			continue
		}
		if !slices.Contains(h.Sources, "route") {
			c.Errorf("hop %d: the kernel was not asked for the route: %v\n%s", h.Index, h.Sources, c.told)
		}
		if !slices.ContainsFunc(c.want.Hops, func(x api.Hop) bool { return x.Action == h.Action && x.NS == h.NS && x.Detail == h.Detail }) {
			c.Errorf("hop %d: route %q is not expected\n%s", h.Index, h.Detail, c.told)
		}
	}
}

// wireTime is how long it is listened on the wire after a probe.
const wireTime = 100 * time.Millisecond

// comparison is one of a path that was seen with what was explained.
type comparison struct {
	*world
	s         scenario
	k         knows
	want, got api.Path
	told      string
}

// end compares the verdict, and why.
func (c *comparison) end() {
	c.Helper()
	want := c.k.verdict
	switch {
	case want != "":
	case c.want.Verdict == api.Delivered && c.want.Reason != "":
		want = api.Dropped // the answer
	case c.want.Verdict == api.Delivered && c.want.Flow.Proto != "udp":
		want = api.Answered
	default:
		want = c.want.Verdict
	}
	says := c.k.says
	if c.want.Culprit != nil && says == "" && want != api.Answered {
		says = c.want.Culprit.Chain
	}
	if c.got.Verdict != want || !strings.Contains(c.got.Reason, says) || (c.got.Reason == "") != (want == api.Answered || want == api.Delivered) {
		c.Errorf("verdict %s, want %s; reason %q, want %q\n%s", c.got.Verdict, want, c.got.Reason, says, c.told)
	}
}

// rule compares the rule that ended the packet, or that it passed.
func (c *comparison) rule() {
	c.Helper()
	h := last(c.want)
	switch {
	case h != nil && h.Action == "undecided": // what happens is seen all the same
	case h == nil || h.Rule == nil || c.k.not("rule"):
		if c.got.Culprit != nil || last(c.got) != nil && last(c.got).Rule != nil {
			c.Errorf("rule %+v cannot be known\n%s", c.got.Culprit, c.told)
		}
	case c.got.Culprit == nil || *c.got.Culprit != *c.want.Culprit:
		c.Errorf("rule %+v, want %+v\n%s", c.got.Culprit, c.want.Culprit, c.told)
	}
	if h == nil && c.s.rule != "" && !strings.Contains(text(c.T, c.got), c.s.rule) {
		c.Errorf("no rule %s\n%s", c.s.rule, c.told)
	}
}

// place compares where the packet ended, or that it passed.
func (c *comparison) place() {
	c.Helper()
	want, got := last(c.want), last(c.got)
	passes := slices.ContainsFunc(c.got.Hops, c.s.place)
	switch {
	case want != nil && want.Action == "undecided":
		return
	case c.k.not("place"):
		if got != nil && (c.got.Level == api.LevelTaps || ends(*got, *want)) || want == nil && passes {
			c.Errorf("the place cannot be known\n%s", c.told)
		}
		return
	case want == nil:
		if !passes {
			c.Errorf("does not pass %s\n%s", c.s.where, c.told)
		}
		return
	}
	if c.k.not("hook") && got != nil && got.Layer == "" {
		at := *want
		at.Layer, want = "", &at
	}
	if got == nil || !ends(*got, *want) {
		c.Errorf("place %+v, want %+v\n%s", got, want, c.told)
	}
}

// ends reports whether a packet ends at one hop as at the other. That the kernel
// drops it and tells the sender is one thing to the explanation.
func ends(got, want api.Hop) bool {
	action := got.Action == want.Action || got.Action == "drop" && want.Action == "reject" && want.Rule == nil
	return got.NS == want.NS && got.Layer == want.Layer && got.Direction == want.Direction && action
}

// names compares what things are called.
func (c *comparison) names() {
	c.Helper()
	if c.got.From != c.want.From {
		c.Errorf("from %+v, want %+v\n%s", c.got.From, c.want.From, c.told)
	}
	arrived := c.want.Verdict == api.Delivered || c.want.Verdict == api.Refused
	if arrived && c.got.To.NS != c.want.To.NS {
		c.Errorf("to %+v, want %+v\n%s", c.got.To, c.want.To, c.told)
	}
	if c.got.To.Name != c.want.To.Name {
		c.Errorf("to %q, want %q\n%s", c.got.To.Name, c.want.To.Name, c.told)
	}
	if c.want.Verdict == api.Delivered && c.want.Summary != c.got.Summary {
		c.Errorf("summary %q, want %q\n%s", c.got.Summary, c.want.Summary, c.told)
	}
}

// translations compares those of the request, in their order.
func (c *comparison) translations() {
	c.Helper()
	if c.want.Verdict == api.Undecided {
		return
	}
	of := func(p api.Path) []string {
		var out []string
		for _, h := range p.Hops {
			if h.After != nil && h.Before != nil && h.Direction == api.Request {
				out = append(out, strings.Join([]string{h.NS, string(h.Layer), h.Action, h.Detail}, " "))
			}
		}
		return out
	}
	want, got := of(c.want), of(c.got)
	if c.k.not("translation") {
		want = nil
	}
	if !slices.Equal(want, got) {
		c.Errorf("translations\n%s\nwant\n%s\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), c.told)
	}
	if !trace.Agree(c.want, c.got) {
		c.Errorf("explanation and packet do not agree\n%s", c.told)
	}
}
