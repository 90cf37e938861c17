package main

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// times gives n rounds that all took the same.
func times[R any](n int, r R) []R { return slices.Repeat([]R{r}, n) }

// good is a run that meets every goal.
func good() results {
	at := func(n int) size {
		return size{
			population: n,
			creations:  times(3, creation{towpath: 4 * time.Millisecond, bare: 2 * time.Millisecond, commit: time.Millisecond, naive: 25 * time.Millisecond}),
			removals:   times(3, removal{towpath: 30 * time.Millisecond, bare: 30 * time.Millisecond}),
			bursts:     times(3, removal{towpath: 4 * time.Millisecond, bare: 2 * time.Millisecond}),
			clearings:  times(3, removal{towpath: 200 * time.Millisecond, bare: 2 * time.Second, batch: 100 * time.Millisecond}),
		}
	}
	return results{
		sizes:   []size{at(10), at(1000)},
		restart: restart{population: 1000, resident: 40e6, adopted: time.Second, created: 8 * time.Second, sent: 100},
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		list []time.Duration
		want time.Duration
	}{
		{nil, 0},
		{[]time.Duration{3}, 3},
		{[]time.Duration{9, 1, 5}, 5},
		{[]time.Duration{8, 2, 100, 4}, 6},
	} {
		if got := median(tt.list); got != tt.want {
			t.Errorf("median of %v is %v, want %v", tt.list, got, tt.want)
		}
	}
}

func TestGoals(t *testing.T) {
	if missed(good().goals()) {
		t.Errorf("goals of a good run: %v", good().goals())
	}
	tests := map[string]func(*results){
		"create+connect / (bare + one commit) at 1000": func(r *results) {
			r.sizes[1].creations = times(3, creation{towpath: 46, bare: 20, commit: 1, naive: 1000})
		},
		"the same, 32 clients at once at 10":              func(r *results) { r.sizes[0].bursts = times(3, removal{towpath: time.Second, bare: 1}) },
		"create+connect / naive at 10":                    func(r *results) { r.sizes[0].creations = times(3, creation{towpath: 4, bare: 2, commit: 1, naive: 15}) },
		"remove 100 at once / 100 links one by one at 10": func(r *results) { r.sizes[0].clearings = times(3, removal{towpath: 2, bare: 10}) },
		"ratio to bare at 1000 / that at 10": func(r *results) {
			r.sizes[1].creations = times(3, creation{towpath: 5, bare: 2, commit: 1, naive: 100})
		},
		"resident memory of the daemon":                  func(r *results) { r.restart.resident = 61e6 },
		"start with adoption / creating":                 func(r *results) { r.restart.adopted = 3 * time.Second },
		"packets lost while the daemon restarts":         func(r *results) { r.restart.lost = 1 },
		"differences between plan and kernel afterwards": func(r *results) { r.restart.differ = []string{"+ host: up dev x"} },
	}
	for text, spoil := range tests {
		r := good()
		spoil(&r)
		var bad []string
		for _, g := range r.goals() {
			if !g.met() {
				bad = append(bad, g.text)
			}
		}
		if !slices.Equal(bad, []string{text}) {
			t.Errorf("missed %q, want only %q", bad, text)
		}
	}
}

// TestGoalsOfASmallRun: bounds for many endpoints say nothing about few.
func TestGoalsOfASmallRun(t *testing.T) {
	r := good()
	r.sizes, r.restart.population, r.restart.resident = r.sizes[:1], 10, 1e9
	for _, g := range r.goals() {
		if strings.Contains(g.text, "1000") || strings.Contains(g.text, "memory") {
			t.Errorf("goal %q at 10 endpoints", g.text)
		}
	}
}

func TestWrite(t *testing.T) {
	r := good()
	r.restart.lost = 2
	var b strings.Builder
	if err := r.write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one after the other       1000     4.00", "900-1000", "40.0 MB resident", "MISSED  packets lost", "ok      start with adoption", "the bare calls alone: 0.05"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// TestTurns: each step runs once a round, and over the rounds it comes right
// before its neighbour and right after it.
func TestTurns(t *testing.T) {
	follows := map[[2]int]bool{}
	for round := range 8 {
		var ran []int
		var steps []func() error
		for i := range 4 {
			steps = append(steps, func() error { ran = append(ran, i); return nil })
		}
		if err := turns(round, steps...); err != nil {
			t.Fatal(err)
		}
		for i := range ran[1:] {
			follows[[2]int{ran[i], ran[i+1]}] = true
		}
		if slices.Sort(ran); !slices.Equal(ran, []int{0, 1, 2, 3}) {
			t.Errorf("round %d ran %v", round, ran)
		}
	}
	for i := range 4 {
		if !follows[[2]int{i, (i + 1) % 4}] || !follows[[2]int{(i + 1) % 4, i}] {
			t.Errorf("step %d does not come both before and after its neighbour: %v", i, follows)
		}
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		args  string
		bin   string
		sizes []int // nil: refused
	}{
		{"", "bin", []int{10, 100, 1000}},
		{"-quick out", "out", []int{10, 100}},
		{"-sizes 5,50", "bin", []int{5, 50}},
		{"-sizes 50,5", "", nil},
		{"-sizes 1001", "", nil},
		{"-sizes ten", "", nil},
		{"a b", "", nil},
		{"-part both", "", nil},
	} {
		o, err := parse(strings.Fields(tt.args), io.Discard)
		if (err != nil) != (tt.sizes == nil) {
			t.Errorf("%q: %v", tt.args, err)
		}
		if err == nil && (o.bin != tt.bin || !slices.Equal(o.sizes, tt.sizes)) {
			t.Errorf("%q: %+v", tt.args, o)
		}
	}
}

// TestParts: each leaves the others out.
func TestParts(t *testing.T) {
	for part, want := range map[string][3]bool{"": {true, true, true}, "control": {true, false, false}, "path": {false, true, false}, "trace": {false, false, true}} {
		o, err := parse([]string{"-part", part}, io.Discard)
		if got := [3]bool{len(o.sizes) > 0, o.rounds > 0, o.traces > 0}; err != nil || got != want {
			t.Errorf("-part %q: %v, %v", part, got, err)
		}
	}
}

// TestTracesWrite: what programs take is told beside empty ones, and what could
// not be measured is said.
func TestTracesWrite(t *testing.T) {
	off := &watching{name: "off", times: map[string][]float64{request: {10e3, 20e3}, connection: {50e3, 60e3}}}
	on := &watching{name: "on", times: map[string][]float64{request: {12e3, 26e3}, connection: {55e3, 72e3}}, began: []float64{80}}
	var b strings.Builder
	err := traces{ways: []*watching{off, on}, hits: []hit{{name: "sent", runs: 7, took: []float64{90, 100}, empty: []float64{50, 50}}}}.write(&b)
	if err != nil || !strings.Contains(b.String(), "off  1.25  1.15  80\n") || !strings.Contains(b.String(), "sent     7           95            50    45\n") {
		t.Errorf("%v\n%s", err, &b)
	}
	b.Reset()
	if err := (traces{missing: io.EOF}).write(&b); err != nil || b.String() != "watching packets: not measured, for EOF\n" {
		t.Errorf("%v: %q", err, &b)
	}
}
