package differential

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/draw"
	"github.com/towpath/towpath/internal/explain"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/look"
	"github.com/towpath/towpath/internal/trace"
	"github.com/towpath/towpath/internal/trace/probe"
)

const (
	// probed worlds, and the probes in each; atOnce at the same time.
	probedWorlds, probesPerWorld, atOnce = 5, 24, 8
)

// TestExplainAgreesWithProbe sends random packets in random worlds by probe, and
// compares what was seen on the way with what was explained.
func TestExplainAgreesWithProbe(t *testing.T) {
	worlds := rapid.Custom(drawSpec)
	tally := map[api.Verdict]int{}
	for seed := range probedWorlds {
		s := worlds.Example(seed + 1)
		t.Run(fmt.Sprintf("world %d", seed), func(t *testing.T) {
			w := newWorld(t, s)
			r := newRecord()
			for _, ns := range w.spaces {
				w.listen(r, ns)
			}
			for _, d := range w.probes(tally) {
				t.Error(d)
			}
		})
	}
	t.Logf("%v", tally)
}

// probes sends some of the world's packets, and gives the differences.
func (w *world) probes(tally map[api.Verdict]int) []string {
	c := look.Config{
		Self: w.spaces[kernel.Host].F, RunDir: w.run, Limits: look.DefaultLimits(),
		Named: map[string]*os.File{"outside": w.spaces["outside"].F}, Held: w.holder.find,
	}
	h, err := look.Machine(w.Context(), c)
	w.must(err)
	var mu sync.Mutex
	var out []string
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	sent := 0
	for _, s := range w.shots(4 * probesPerWorld) {
		if s.src.IsValid() || sent >= probesPerWorld {
			continue
		}
		sent++
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var p api.Probe
			var err error
			for range 2 { // errors have a limit in time (icmp_ratelimit), and a loaded machine loses packets
				p, err = probe.Run(w.Context(), probe.Config{Machine: &explain.Machine{Host: h}, Open: c.Open}, api.ProbeQuery{PathQuery: asked(s)})
				if err != nil || agrees(p) {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				out = append(out, fmt.Sprintf("%s: %v", s, err))
			case !certain(p.Expected) || p.Expected.Verdict == api.Undecided:
				tally["uncertain"]++
			case !agrees(p) && !p.Actual.Complete && trace.Agree(p.Expected, p.Actual):
				tally["incomplete"]++
			case !agrees(p):
				out = append(out, disagreement(s, p))
			default:
				tally[p.Verdict]++
			}
		})
	}
	wg.Wait()
	return out
}

func agrees(p api.Probe) bool { return trace.Agree(p.Expected, p.Actual) && p.FirstDifference == nil }

// asked is the question for a shot.
func asked(s shot) api.PathQuery {
	to := s.dst.Addr().String()
	if s.proto != "icmp" {
		to = s.dst.String() + "/" + s.proto
	}
	from := s.from
	if from == "outside" { // which is a word for whoever is beyond what is known
		from, _, _ = strings.Cut(outsideLink4, "/")
	}
	return api.PathQuery{From: from, To: to}
}

func disagreement(s shot, p api.Probe) string {
	var b strings.Builder
	_ = draw.ProbeText(&b, p)
	return fmt.Sprintf("%s: expected %s, was %s\n%s\nexpected:\n%s", s, p.Expected.Verdict, p.Verdict, b.String(), text(p.Expected))
}
