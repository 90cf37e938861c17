package explain

import (
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/trace"
	"github.com/towpath/towpath/internal/trace/probe"
)

// probe sends the packet of a scenario from inside the machine.
func (w *world) probe(q api.ProbeQuery) (api.Probe, error) {
	w.Helper()
	return probe.Run(w.Context(), probe.Config{
		Machine: w.machine(),
		Again:   w.look,
		Open:    w.looking().Open,
	}, q)
}

// TestProbes sends the packet of each scenario, and compares what was seen with
// what was explained.
func TestProbes(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if s.from == "outside" || s.size != 0 {
				t.Skip("no probe")
			}
			w := newWorld(t)
			if s.change != nil {
				s.change(w)
			}
			p, err := w.probe(api.ProbeQuery{PathQuery: api.PathQuery{From: s.from, To: s.to}})
			if err != nil {
				t.Fatal(err)
			}
			s.checkProbe(w, p)
		})
	}
}

// checkProbe compares what was seen with the scenario, as far as taps and rules
// that tell of packets can know: a packet that nobody can evaluate beforehand is
// seen to go somewhere, and one that vanishes without a word is lost.
func (s scenario) checkProbe(w *world, p api.Probe) {
	w.Helper()
	both := text(w.T, p.Expected) + "\n" + text(w.T, p.Actual)
	if p.Expected.Verdict == api.Undecided {
		if p.FirstDifference != nil || p.Verdict == api.Undecided {
			w.Errorf("difference at %v\n%s", p.FirstDifference, both)
		}
		return
	}
	if !trace.Agree(p.Expected, p.Actual) || p.FirstDifference != nil {
		w.Errorf("do not agree, difference %v\n%s", p.FirstDifference, both)
	}
	if s.rule != "" && !strings.Contains(text(w.T, p.Actual), s.rule) && !strings.Contains(p.Expected.Reason, "neighbour discovery") {
		w.Errorf("no rule %s:\n%s", s.rule, text(w.T, p.Actual))
	}
	if want := expected(p.Expected) == "answered"; p.Answered != want {
		w.Errorf("answered %v, want %v:\n%s", p.Answered, want, both)
	}
}
