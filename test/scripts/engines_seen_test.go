package scripts

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/draw"
)

func said(t *testing.T, p api.Path) string {
	t.Helper()
	var b strings.Builder
	if err := draw.PathText(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// at is what a level can know of the case.
func (f foreign) at(level api.PathLevel) knows {
	switch level {
	case api.LevelTaps:
		return f.taps
	case api.LevelTracepoints:
		k := f.bpf
		k.lacks += ", " + f.onlyFull
		return k
	}
	return f.bpf
}

func (k knows) not(what string) bool { return strings.Contains(k.lacks, what) }

// isAt reports whether a hop is where the case says, with the rule that it says.
func (f foreign) isAt(h api.Hop) bool {
	switch {
	case h.NS+" "+string(h.Layer) != f.where:
		return false
	case f.author == "":
		return h.Rule == nil
	}
	return h.Rule != nil && h.Rule.Author == f.author && strings.Contains(h.Rule.Text+h.Rule.Comment, f.rule)
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

// translations are those of the request, in their order, as the addresses changed.
func translations(p api.Path) string {
	var out []string
	for _, h := range p.Hops {
		if h.After != nil && h.Before != nil && h.Direction == api.Request {
			out = append(out, h.Action+" "+h.Detail)
		}
	}
	return strings.Join(out, ", ")
}

// owners compares whose the namespaces are.
func (f foreign) owners(t *testing.T, e engine, p api.Path) {
	t.Helper()
	for _, h := range p.Hops {
		if owner := fmt.Sprintf("container %s (%s)", h.NS, e.name()); h.NS != "host" && h.NS != "outside" && h.Owner != owner {
			t.Errorf("a hop in %s is of %q, want %q:\n%s", h.NS, h.Owner, owner, said(t, p))
		}
	}
}

// explained compares the explanation with what must be said.
func (f foreign) explained(t *testing.T, p api.Path) {
	t.Helper()
	text := said(t, p)
	arrives := f.verdict == api.Delivered && f.reason == ""
	if p.Verdict != f.verdict || !strings.Contains(p.Reason, f.reason) || !strings.Contains(p.Fix, f.fix) || (p.Reason == "") != arrives || (p.Fix == "") != arrives {
		t.Errorf("verdict %s, reason %q, fix %q:\n%s", p.Verdict, p.Reason, p.Fix, text)
	}
	h := last(p)
	switch {
	case arrives && (h != nil || p.Culprit != nil):
		t.Errorf("it ends:\n%s", text)
	case arrives && f.ends == "" && f.where != "" && !slices.ContainsFunc(p.Hops, f.isAt):
		t.Errorf("it does not pass %s with a rule of %q that has %q:\n%s", f.where, f.author, f.rule, text)
	case !arrives && (h == nil || !f.isAt(*h)):
		t.Errorf("it does not end at %s by a rule of %q that has %q:\n%s", f.where, f.author, f.rule, text)
	case !arrives && (p.Culprit != nil) != (f.author != ""):
		t.Errorf("it ends by %+v:\n%s", p.Culprit, text)
	}
	if got := translations(p); got != f.nat {
		t.Errorf("translations %q, want %q:\n%s", got, f.nat, text)
	}
	if p.From.Name != f.from || f.whose != "" && p.To.Name != f.whose {
		t.Errorf("it goes from %q to %q, want %q and %q:\n%s", p.From.Name, p.To.Name, f.from, f.whose, text)
	}
}

// sight is what a level has seen of a case.
type sight struct {
	*testing.T
	foreign
	k         knows
	want, got api.Path
	told      string
}

// seen compares what a level has seen with the case, and with what was explained:
// all that it can know must be said, and no more.
func (f foreign) seen(t *testing.T, level api.PathLevel, p api.Probe) {
	t.Helper()
	s := sight{T: t, foreign: f, k: f.at(level), want: p.Expected, got: p.Actual, told: said(t, p.Expected) + "\n" + said(t, p.Actual)}
	if p.Actual.Level != level || !p.Actual.Complete || p.Actual.Kind != api.Actual {
		t.Errorf("level %s, want %s; complete %v, %s", p.Actual.Level, level, p.Actual.Complete, p.Actual.Kind)
	}
	by := []string{"bpf", "nftrace", "route"}
	if level == api.LevelTaps {
		by[0] = "tap"
	}
	for _, h := range p.Actual.Hops {
		for _, from := range h.Sources {
			if !slices.Contains(by, from) {
				t.Errorf("level %s: hop %d is known from %s", level, h.Index, from)
			}
		}
	}
	s.told = string(level) + ":\n" + s.told
	s.end()
	s.rule()
	s.place()
	s.names()
	s.translated()
}

// end compares the verdict, and why.
func (s sight) end() {
	s.Helper()
	verdict := cmp.Or(s.k.verdict, s.ends)
	switch {
	case verdict != "":
	case s.verdict == api.Delivered && s.reason != "":
		verdict = api.Dropped // the answer
	case s.verdict == api.Delivered:
		verdict = api.Answered
	default:
		verdict = s.verdict
	}
	says := cmp.Or(s.k.says, s.says)
	if says == "" && s.want.Culprit != nil {
		says = s.want.Culprit.Chain
	}
	answered := verdict == api.Answered
	if s.k.or != "" && s.got.Verdict == s.k.or && strings.HasSuffix(s.got.Reason, " rose") {
		verdict = s.k.or
	}
	if s.got.Verdict != verdict || (s.got.Reason == "") != answered || !answered && (says == "" || !strings.Contains(s.got.Reason, says)) {
		s.Errorf("verdict %s, want %s; reason %q, want %q\n%s", s.got.Verdict, verdict, s.got.Reason, says, s.told)
	}
}

// rule compares the rule that ended the packet.
func (s sight) rule() {
	s.Helper()
	h, got := last(s.got), s.got.Culprit
	want := s.want.Culprit
	if s.ends != "" || s.k.not("rule") {
		want = nil
	}
	switch {
	case want == nil && (got != nil || h != nil && h.Rule != nil):
		s.Errorf("rule %+v cannot be known\n%s", got, s.told)
	case want != nil && (got == nil || *got != *want || h == nil || h.Rule == nil || *h.Rule != *want):
		s.Errorf("rule %+v, want %+v\n%s", got, want, s.told)
	}
}

// place compares where the packet ended, or that it passed.
func (s sight) place() {
	s.Helper()
	want, got := last(s.want), last(s.got)
	if s.ends != "" {
		// Whether the explanation came to the same was by chance.
		want = nil
		if ns, layer, ok := strings.Cut(s.where, " "); ok && s.ends == api.Rejected {
			want = &api.Hop{NS: ns, Layer: api.Layer(layer), Action: "reject", Direction: api.Request}
		}
	}
	switch {
	case want == nil && got != nil:
		s.Errorf("it ends\n%s", s.told)
	case want == nil && s.ends == "":
		if passes := slices.ContainsFunc(s.got.Hops, s.isAt); passes == s.k.not("place") {
			s.Errorf("%v that it passes %s\n%s", passes, s.where, s.told)
		}
	case want == nil:
	case s.k.not("place"):
		if got != nil && (s.got.Level == api.LevelTaps || ends(*got, *want)) {
			s.Errorf("the place cannot be known\n%s", s.told)
		}
	default:
		at := *want
		if s.k.not("hook") {
			at.Layer = ""
		}
		if got == nil || !ends(*got, at) {
			s.Errorf("place %+v, want %+v\n%s", got, at, s.told)
		}
	}
}

// ends reports whether a packet ends at one hop as at the other. That the kernel
// drops it and tells the sender is one thing to the explanation.
func ends(got, want api.Hop) bool {
	action := got.Action == want.Action || got.Action == "drop" && want.Action == "reject" && want.Rule == nil
	return got.NS == want.NS && got.Layer == want.Layer && got.Direction == want.Direction && action
}

// names compares what things are called.
func (s sight) names() {
	s.Helper()
	if s.got.From.Name != s.want.From.Name || s.got.From.NS != s.want.From.NS || s.got.To.Name != s.want.To.Name {
		s.Errorf("from %+v to %+v, want %+v and %+v\n%s", s.got.From, s.got.To, s.want.From, s.want.To, s.told)
	}
	if s.want.Verdict == api.Refused && s.got.To.NS != s.want.To.NS {
		s.Errorf("to %+v, want %+v\n%s", s.got.To, s.want.To, s.told)
	}
	if s.ends == "" && s.want.Verdict == api.Delivered && (s.got.To.NS != s.want.To.NS || s.got.Summary != s.want.Summary) {
		s.Errorf("to %+v, want %+v; summary %q, want %q\n%s", s.got.To, s.want.To, s.got.Summary, s.want.Summary, s.told)
	}
}

// translated compares the translations of the request.
func (s sight) translated() {
	s.Helper()
	want, got := translations(s.want), translations(s.got)
	if s.k.not("translation") {
		want = ""
	}
	if got != want && s.want.Verdict != api.Undecided {
		s.Errorf("translations %q, want %q\n%s", got, want, s.told)
	}
}
