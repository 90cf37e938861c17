package differential

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/draw"
	"github.com/towpath/towpath/internal/explain"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/look"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace"
	"github.com/towpath/towpath/internal/trace/probe"
)

const (
	// probed worlds, and the probes in each: 1 008; fewWorlds with -short.
	probedWorlds, probesPerWorld, fewWorlds = 42, 24, 5
	// worldsAtOnce and atOnce are how many worlds, and probes in each, there are at
	// the same time: most of a run is waiting for packets that do not come.
	worldsAtOnce, atOnce = 6, 12
	// mostUncertain is how many of a hundred packets may hang on luck, or on a rule
	// that cannot be evaluated.
	mostUncertain = 5
)

var (
	firstWorld = flag.Int("first-world", 1, "number of the first world that is drawn: others are others")
	probeLevel = flag.String("probe-level", string(api.LevelTaps), "level at which random packets are probed")
)

// TestExplainAgreesWithProbe sends random packets in random worlds by probe, and
// compares what was seen on the way with what was explained.
func TestExplainAgreesWithProbe(t *testing.T) {
	n := probedWorlds
	if testing.Short() {
		n = fewWorlds
	}
	agreeing(t, api.PathLevel(*probeLevel), *firstWorld, n)
}

// TestExplainAgreesWithPrograms does so with programs in the kernel, in other worlds.
func TestExplainAgreesWithPrograms(t *testing.T) {
	t.Run(string(api.LevelFull), func(t *testing.T) {
		testnet.Require(t, "bpf-hooks")
		agreeing(t, api.LevelFull, *firstWorld+probedWorlds, fewWorlds)
	})
	t.Run(string(api.LevelTracepoints), func(t *testing.T) {
		testnet.Require(t, "bpf-types")
		agreeing(t, api.LevelTracepoints, *firstWorld+probedWorlds+fewWorlds, fewWorlds)
	})
}

// agreeing probes in n worlds at a level.
func agreeing(t *testing.T, level api.PathLevel, first, n int) {
	testnet.Require(t, "netns")
	worlds := rapid.Custom(drawSpec)
	count := &tally{counts: map[string]int{}}
	slots := make(chan struct{}, worldsAtOnce)
	var wg sync.WaitGroup
	for seed := range n {
		s := worlds.Example(first + seed)
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			t.Run(fmt.Sprintf("world %d", seed), func(t *testing.T) {
				w := newWorld(t, s)
				r := newRecord()
				for _, ns := range w.spaces {
					w.listen(r, ns)
				}
				for _, d := range w.probes(level, count) {
					t.Error(d)
				}
			})
		})
	}
	wg.Wait()
	for _, line := range count.lines() {
		t.Log(line)
	}
	if count.uncertain*100 > count.all*mostUncertain || count.all < n*probesPerWorld*9/10 {
		t.Errorf("of %d packets %d are uncertain", count.all, count.uncertain)
	}
}

// tally counts what became of packets.
type tally struct {
	mu             sync.Mutex
	counts         map[string]int
	all, uncertain int
}

func (c *tally) add(what string, uncertain bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
	c.all++
	if uncertain {
		c.uncertain++
	}
}

// lines are the counts, one a line.
func (c *tally) lines() []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(c.counts)) {
		out = append(out, fmt.Sprintf("%5d %s", c.counts[k], k))
	}
	return out
}

// doubt says why an explanation may be wrong: a rule that cannot be evaluated, or
// the first hop that hangs on luck; "": it may not.
func doubt(p api.Path) string {
	if p.Verdict == api.Undecided {
		return "undecided: " + p.Reason
	}
	for _, h := range p.Hops {
		if !h.Certain {
			return fmt.Sprintf("not certain from %s %s %s on", h.NS, h.Layer, h.Action)
		}
	}
	return ""
}

// probes sends some of the world's packets at a level, and gives the differences.
func (w *world) probes(level api.PathLevel, count *tally) []string {
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
			for again := range 4 { // errors have a limit in time (ip_rt_error_cost, one a second), and a loaded machine loses packets
				<-time.After(time.Duration(again) * 2 * time.Second)
				p, err = probe.Run(w.Context(), probe.Config{Machine: &explain.Machine{Host: h}, Open: c.Open}, api.ProbeQuery{PathQuery: asked(s), Level: level})
				if err != nil || agrees(p) {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				out = append(out, fmt.Sprintf("%s: %v", s, err))
			case doubt(p.Expected) != "":
				count.add(doubt(p.Expected), true)
			case !agrees(p) && !p.Actual.Complete && trace.Agree(p.Expected, p.Actual):
				count.add("incomplete: more was seen than could be kept", true)
			case !agrees(p):
				count.add("disagreement", false)
				out = append(out, disagreement(s, p))
			default:
				count.add(string(p.Verdict), false)
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
