package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// creation is one round of making an endpoint each way.
type creation struct{ towpath, bare, naive, commit time.Duration }

// removal is one round of something that is done in two ways; batch is what the
// bare calls take for many at once.
type removal struct{ towpath, bare, batch time.Duration }

// size is what was measured at one population.
type size struct {
	population int
	creations  []creation // one after the other
	removals   []removal  // one after the other
	bursts     []removal  // made by clients at once; per endpoint
	clearings  []removal  // a hundred removed: at once, and link by link
}

// restart is what was measured of a daemon started over its population.
type restart struct {
	population       int
	resident         int64         // bytes, before
	adopted, created time.Duration // start until ready; making all by clients at once
	sent, lost       int           // packets of flows between containers meanwhile
	differ           []string      // what the daemon finds to do afterwards
}

// results is everything.
type results struct {
	sizes   []size
	restart restart
}

// median of a list, of the two in the middle the mean; 0 of none.
func median[T ~int64 | ~float64](list []T) T {
	s := slices.Sorted(slices.Values(list))
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// each takes a number out of each round.
func each[R any, T any](rounds []R, of func(R) T) []T {
	out := make([]T, len(rounds))
	for i, r := range rounds {
		out[i] = of(r)
	}
	return out
}

// ratio of two times.
func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

func (s size) toBare() float64 {
	return median(each(s.creations, func(c creation) float64 { return ratio(c.towpath, c.bare) }))
}

func (s size) toBareAndCommit() float64 {
	return median(each(s.creations, func(c creation) float64 { return ratio(c.towpath, c.bare+c.commit) }))
}

func (s size) toNaive() float64 {
	return median(each(s.creations, func(c creation) float64 { return ratio(c.towpath, c.naive) }))
}

// commit is the time of a commit alone.
func (s size) commit() time.Duration {
	return median(each(s.creations, func(c creation) time.Duration { return c.commit }))
}

// burstToBare compares bursts; the bare program makes no commit, so the time of
// one is added.
func (s size) burstToBare() float64 {
	return median(each(s.bursts, func(r removal) float64 { return ratio(r.towpath, r.bare+s.commit()) }))
}

func (s size) clearing() float64 {
	return median(each(s.clearings, func(r removal) float64 { return ratio(r.towpath, r.bare) }))
}

// bareToNaive and bareClearing are what the kernel's own calls leave of a goal.
func (s size) bareToNaive() float64 {
	return median(each(s.creations, func(c creation) float64 { return ratio(c.bare, c.naive) }))
}

func (s size) bareClearing() float64 {
	return median(each(s.clearings, func(r removal) float64 { return ratio(r.batch, r.bare) }))
}

// goal is a bound on what was measured.
type goal struct {
	text        string
	got, atMost float64
	unit        string
	kernel      float64 // what the bare calls alone get, where it is known
}

func (g goal) met() bool { return g.got <= g.atMost }

// String is the goal with what came of it.
func (g goal) String() string {
	word := "MISSED"
	if g.met() {
		word = "ok"
	}
	text := fmt.Sprintf("%-6s  %s\t%.2f%s\tat most %g%s", word, g.text, g.got, g.unit, g.atMost, g.unit)
	if g.kernel > 0 {
		text += fmt.Sprintf("\tthe bare calls alone: %.2f", g.kernel)
	}
	return text
}

func missed(goals []goal) bool {
	return slices.ContainsFunc(goals, func(g goal) bool { return !g.met() })
}

// largePopulation is what the goals for a daemon with many endpoints are set for.
const largePopulation = 1000

// goals are the bounds that apply to the sizes measured.
func (r results) goals() []goal {
	var list []goal
	for _, s := range r.sizes {
		at := fmt.Sprintf(" at %d", s.population)
		list = append(list,
			goal{text: "create+connect / (bare + one commit)" + at, got: s.toBareAndCommit(), atMost: 2},
			goal{text: "the same, 32 clients at once" + at, got: s.burstToBare(), atMost: 2},
			goal{text: "create+connect / naive" + at, got: s.toNaive(), atMost: 0.25, kernel: s.bareToNaive()},
			goal{text: "remove 100 at once / 100 links one by one" + at, got: s.clearing(), atMost: 0.1, kernel: s.bareClearing()},
		)
	}
	if len(r.sizes) == 0 {
		return list
	}
	first, last := r.sizes[0], r.sizes[len(r.sizes)-1]
	if last.population >= largePopulation {
		list = append(list, goal{
			text: fmt.Sprintf("ratio to bare at %d / that at %d", last.population, first.population),
			got:  last.toBare() / first.toBare(), atMost: 1.2,
		})
	}
	if r.restart.population >= largePopulation {
		list = append(list,
			goal{text: "resident memory of the daemon", got: float64(r.restart.resident) / 1e6, atMost: 60, unit: " MB"},
			goal{text: "start with adoption / creating", got: ratio(r.restart.adopted, r.restart.created), atMost: 0.25},
		)
	}
	return append(list,
		goal{text: "packets lost while the daemon restarts", got: float64(r.restart.lost)},
		goal{text: "differences between plan and kernel afterwards", got: float64(len(r.restart.differ))},
	)
}

// write prints everything.
func (r results) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	r.writeCreations(t)
	r.writeRemovals(t)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write tables: %w", err)
	}
	a := r.restart
	fmt.Fprintf(w, "\nat %d endpoints: towpathd has %.1f MB resident; starts over them in %d ms (making them by %d clients at once takes %d ms); of %d packets meanwhile %d lost\n",
		a.population, float64(a.resident)/1e6, a.adopted.Milliseconds(), clients, a.created.Milliseconds(), a.sent, a.lost)
	for _, op := range a.differ[:min(len(a.differ), shownOps)] {
		fmt.Fprintln(w, "left to do:", op)
	}
	fmt.Fprintln(w)
	return writeGoals(w, r.goals())
}

// writeGoals prints goals with what came of them.
func writeGoals(w io.Writer, goals []goal) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, g := range goals {
		fmt.Fprintln(t, g)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write goals: %w", err)
	}
	return nil
}

// shownOps bounds how many differences are shown.
const shownOps = 5

func (r results) writeCreations(t io.Writer) {
	fmt.Fprintln(t, "create+connect, ms an endpoint\tendpoints\ttowpath\tbare\tcommit\tnaive\t/bare\t/(bare+commit)\t/naive\t")
	for _, s := range r.sizes {
		fmt.Fprintf(t, "one after the other\t%d\t%s\t%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t\n", s.population,
			ms(each(s.creations, func(c creation) time.Duration { return c.towpath })),
			ms(each(s.creations, func(c creation) time.Duration { return c.bare })),
			ms(each(s.creations, func(c creation) time.Duration { return c.commit })),
			ms(each(s.creations, func(c creation) time.Duration { return c.naive })),
			s.toBare(), s.toBareAndCommit(), s.toNaive())
	}
	for _, s := range r.sizes {
		fmt.Fprintf(t, "%d clients at once\t%s\t%s\t%s\t%s\t\t\t%.2f\t\t\n", clients, span(s.population, clients),
			ms(each(s.bursts, towpath)), ms(each(s.bursts, bare)), ms([]time.Duration{s.commit()}), s.burstToBare())
	}
}

func (r results) writeRemovals(t io.Writer) {
	fmt.Fprintln(t, "remove, ms\tendpoints\ttowpath\tbare\t\t\t/bare\t\t\t")
	for _, s := range r.sizes {
		fmt.Fprintf(t, "one\t%d\t%s\t%s\t\t\t%.2f\t\t\t\n", s.population, ms(each(s.removals, towpath)), ms(each(s.removals, bare)),
			median(each(s.removals, func(r removal) float64 { return ratio(r.towpath, r.bare) })))
	}
	for _, s := range r.sizes {
		fmt.Fprintf(t, "%d at once (bare: links one by one)\t%s\t%s\t%s\t\t\t%.2f\t\t\t\n", removals, span(s.population, removals),
			ms(each(s.clearings, towpath)), ms(each(s.clearings, bare)), s.clearing())
	}
}

func towpath(r removal) time.Duration { return r.towpath }

func bare(r removal) time.Duration { return r.bare }

// ms is the median in milliseconds.
func ms(list []time.Duration) string {
	return fmt.Sprintf("%.2f", float64(median(list))/float64(time.Millisecond))
}

// span is the range of population that n more endpoints cover.
func span(population, n int) string {
	low := min(population, burstBase)
	return fmt.Sprintf("%d-%d", low, low+n)
}
