package explain

import (
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace"
	"github.com/towpath/towpath/internal/trace/probe"
)

// allLevels are the ways in which packets are watched.
func allLevels() []api.PathLevel {
	return []api.PathLevel{api.LevelTaps, api.LevelTracepoints, api.LevelFull}
}

// requireLevel skips where packets cannot be watched in that way.
func requireLevel(t *testing.T, level api.PathLevel) {
	t.Helper()
	switch level {
	case api.LevelFull:
		testnet.Require(t, "bpf-hooks")
	case api.LevelTracepoints:
		testnet.Require(t, "bpf-types")
	}
}

// TestLevels: with programs in the kernel the same is seen of each scenario as was
// explained, and all of it by them.
func TestLevels(t *testing.T) {
	for _, level := range []api.PathLevel{api.LevelTracepoints, api.LevelFull} {
		for _, s := range scenarios() {
			t.Run(string(level)+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				requireLevel(t, level)
				if s.from != "outside" {
					s.probeAlike(t, level)
				}
			})
		}
	}
}

func (s scenario) probeAlike(t *testing.T, level api.PathLevel) {
	t.Helper()
	w := newWorld(t)
	if s.change != nil {
		s.change(w)
	}
	p, err := probe.Run(w.Context(), probe.Config{Machine: w.machine(), Again: w.look, Open: w.looking().Open}, api.ProbeQuery{PathQuery: s.query(), Level: level})
	if err != nil {
		t.Fatal(err)
	}
	both := text(t, p.Expected) + "\n" + text(t, p.Actual)
	if p.FirstDifference != nil || p.Expected.Verdict != api.Undecided && !trace.Agree(p.Expected, p.Actual) {
		t.Errorf("difference %v\n%s", p.FirstDifference, both)
	}
	if p.Actual.Level != level || !p.Actual.Complete {
		t.Errorf("level %s, want %s, complete %v", p.Actual.Level, level, p.Actual.Complete)
	}
	for _, h := range p.Actual.Hops {
		if h.Sources[0] != "bpf" && h.Sources[0] != "nftrace" {
			t.Errorf("hop %d is known from %v\n%s", h.Index, h.Sources, both)
		}
	}
}
