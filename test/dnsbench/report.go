package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// workload is what is asked, by how many clients at once.
type workload struct {
	names   kind
	clients int
}

func loads() []workload {
	return []workload{{local, 1}, {local, 16}, {kept, 1}, {kept, 16}, {fresh, 1}, {fresh, 16}}
}

// String is "local, 16 clients".
func (l workload) String() string { return fmt.Sprintf("%s, %d at once", l.names, l.clients) }

// run is one measurement.
type run struct {
	round int
	peer  string
	load  workload
	figures
}

// million is what a million queries for a thousand names came to.
type million struct {
	answered
	before, after int64 // resident memory
}

// results is all that was measured.
type results struct {
	runs       []run
	neighbours []neighbours
	skipped    []string
	million    million
	idle       float64 // bytes a sandbox
}

// neighbours are two runs of ours, one at once after the other.
type neighbours struct {
	clients     int
	kept, local figures
}

// neighbours measures cached names beside local ones. What they differ by is less
// than what one query differs by from moment to moment, as the other processor has
// to be woken or not. So both ends are on one processor, and the two follow each
// other in short turns, each first every other time.
func (w *world) neighbours(ctx context.Context, o options) (list []neighbours, err error) {
	const turns = 4 // of a round
	server := w.running[0]
	if err := pin(server.pid, true); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pin(server.pid, false)) }()
	for _, n := range []int{1, 16} {
		for i := range o.rounds * turns {
			pair := neighbours{clients: n}
			order := []struct {
				names kind
				to    *figures
			}{{kept, &pair.kept}, {local, &pair.local}}
			if i%2 == 1 {
				slices.Reverse(order)
			}
			for _, turn := range order {
				if *turn.to, err = w.measure(ctx, server, workload{turn.names, n}, o.time/turns, "-pinned"); err != nil {
					return nil, err
				}
			}
			list = append(list, pair)
		}
	}
	return list, nil
}

// apart is a figure of cached names over that of local ones.
func (r *results) apart(clients int, of func(figures) float64) float64 {
	var a, b []float64
	for _, p := range r.neighbours {
		if p.clients == clients {
			a, b = append(a, of(p.kept)), append(b, of(p.local))
		}
	}
	return pairs(a, b)
}

// million asks a million times, after some that fill what grows once.
func (w *world) million(ctx context.Context) (m million, err error) {
	s := w.running[0]
	if _, err = w.load(ctx, s, "-clients", "16", "-count", "50000"); err != nil {
		return m, err
	}
	if m.before, err = memory(s.pid); err != nil {
		return m, err
	}
	if m.answered, err = w.load(ctx, s, "-clients", "16", "-count", "1000000"); err != nil {
		return m, err
	}
	m.after, err = memory(s.pid)
	return m, err
}

// idle measures what the sockets of a sandbox that asks nothing cost in memory.
func (w *world) idle(ctx context.Context) (float64, error) {
	const sandboxes = localNames
	var with [2]int64
	for i, n := range []string{"0", fmt.Sprint(sandboxes)} {
		cmd, err := w.daemon(ctx, "ready", "/proc/self/exe", "serve", "-idle", n, "-upstream", upstreamAddr+":53")
		if err != nil {
			return 0, err
		}
		if with[i], err = memory(cmd.Process.Pid); err != nil {
			return 0, err
		}
		_ = cmd.Process.Kill()
	}
	return float64(with[1]-with[0]) / sandboxes, nil
}

// measure is one figure of a run; less is better when less is.
type measure struct {
	name string
	less bool
	of   func(figures) float64
}

func measures() []measure {
	return []measure{
		{"queries/s", false, figures.perSecond},
		{"p50", true, func(f figures) float64 { return float64(f.P50.Nanoseconds()) / 1e3 }},
		{"CPU/query", true, figures.perQuery},
	}
}

// values gives a figure of all runs of a peer, in the order of the rounds.
func (r *results) values(peer string, l workload, of func(figures) float64) (out []float64) {
	for _, run := range r.runs {
		if run.peer == peer && run.load == l {
			out = append(out, of(run.figures))
		}
	}
	return out
}

// median of an even number is the mean of the two in the middle; of none 0.
func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(list))
	return (s[len(s)/2] + s[(len(s)-1)/2]) / 2
}

// pairs is the median over the rounds of a / b.
func pairs(a, b []float64) float64 {
	var list []float64
	for i := range min(len(a), len(b)) {
		list = append(list, a[i]/b[i])
	}
	return median(list)
}

// ratio is how many times better we are.
func (r *results) ratio(peer string, l workload, m measure) float64 {
	ours, theirs := r.values(towpath, l, m.of), r.values(peer, l, m.of)
	if m.less {
		return pairs(theirs, ours)
	}
	return pairs(ours, theirs)
}

// goal is what is to hold.
type goal struct {
	text string
	got  float64
	most bool // got is to be at most the bound, not at least
	want float64
}

func (g goal) met() bool { return g.most && g.got <= g.want || !g.most && g.got >= g.want }

// tie is how near is as good: what differs by less than a tenth is the same.
const tie = 0.9

// goals compares. Against dnsmasq there is none.
func (r *results) goals() []goal {
	var out []goal
	for _, peer := range []string{docker, aardvark} {
		for _, l := range loads() {
			for _, m := range measures() {
				if len(r.values(peer, l, m.of)) > 0 {
					out = append(out, goal{text: fmt.Sprintf("%s, %s: times better than %s", m.name, l, peer), got: r.ratio(peer, l, m), want: tie})
				}
			}
		}
	}
	for _, n := range []int{1, 16} {
		for _, m := range measures()[1:] {
			out = append(out, goal{text: fmt.Sprintf("%s, %d at once: cached / local", m.name, n), got: r.apart(n, m.of), most: true, want: 1.2})
		}
	}
	return append(out,
		goal{text: "errors in a million queries", got: float64(r.million.Errors), most: true},
		goal{text: "resident memory after / before a million queries", got: float64(r.million.after) / float64(r.million.before), most: true, want: 1.1})
}

func (r *results) missed() bool {
	return slices.ContainsFunc(r.goals(), func(g goal) bool { return !g.met() })
}

// write prints tables.
func (r *results) write(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\tqueries/s\tp50 µs\tp99 µs\tCPU µs/query\terrors\t\n")
	for _, l := range loads() {
		fmt.Fprintf(t, "%s\t\t\t\t\t\t\n", l)
		for _, p := range peers() {
			if len(r.values(p.name, l, figures.perSecond)) == 0 {
				continue
			}
			all := func(of func(figures) float64) float64 { return median(r.values(p.name, l, of)) }
			errs := 0.0
			for _, n := range r.values(p.name, l, func(f figures) float64 { return float64(f.Errors) }) {
				errs += n
			}
			fmt.Fprintf(t, "%s\t%.0f\t%.1f\t%.0f\t%.1f\t%.0f\t\n", p.name, all(figures.perSecond),
				all(measures()[1].of), all(func(f figures) float64 { return float64(f.P99.Nanoseconds()) / 1e3 }), all(figures.perQuery), errs)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d queries for %d names: %d errors, %.1f s; resident memory %.1f MB before, %.1f MB after.\n",
		r.million.Queries, localNames, r.million.Errors, r.million.Took.Seconds(), float64(r.million.before)/1e6, float64(r.million.after)/1e6)
	fmt.Fprintf(out, "A sandbox that asks nothing: %.1f kB of the resolver's memory, with UDP and TCP sockets.\n\n", r.idle/1e3)
	for _, g := range r.goals() {
		verdict := "ok    "
		if !g.met() {
			verdict = "MISSED"
		}
		sign := "at least"
		if g.most {
			sign = "at most"
		}
		fmt.Fprintf(out, "%s  %s: %.2f, wanted %s %.2f\n", verdict, g.text, g.got, sign, g.want)
	}
	for _, s := range r.skipped {
		fmt.Fprintf(out, "skipped  %s\n", s)
	}
	return nil
}
