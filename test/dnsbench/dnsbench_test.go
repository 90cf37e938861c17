package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// runsOf makes a run a round, load and peer, of which each query costs that much.
func runsOf(costs map[string]time.Duration) *results {
	r := &results{million: million{answered: answered{Queries: 1e6}, before: 10e6, after: 10e6}}
	for round := range 3 {
		for _, l := range loads() {
			for peer, cost := range costs {
				f := figures{answered{Queries: 1000, Took: 1000 * cost, P50: cost, P99: 3 * cost}, 1000 * cost}
				r.runs = append(r.runs, run{round, peer, l, f})
			}
		}
	}
	return r
}

func TestGoals(t *testing.T) {
	us := time.Microsecond
	good := runsOf(map[string]time.Duration{towpath: 10 * us, docker: 20 * us, aardvark: 9500 * time.Nanosecond, dnsmasq: us})
	if good.missed() || len(good.goals()) != 2*6*3+4+2 {
		t.Errorf("goals of a good run: %v", good.goals())
	}
	if got := good.ratio(docker, loads()[0], measures()[0]); got != 2 {
		t.Errorf("ratio of rates %v, want 2", got)
	}
	if got := good.ratio(docker, loads()[0], measures()[1]); got != 2 {
		t.Errorf("ratio of latencies %v, want 2", got)
	}
	if bad := runsOf(map[string]time.Duration{towpath: 10 * us, docker: 8 * us}); !bad.missed() {
		t.Error("slower than a peer, and no goal missed")
	}
	good.million.Errors = 1
	if !good.missed() {
		t.Error("an error in a million queries, and no goal missed")
	}
	var b strings.Builder
	good.skipped = []string{"docker: not measured"}
	if err := good.write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"MISSED  errors in a million queries: 1.00", "skipped  docker: not measured", "local, 1 at once", "105263"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}

func TestMedian(t *testing.T) {
	for want, list := range map[float64][]float64{0: nil, 3: {3}, 5: {9, 1, 5}, 6: {8, 2, 100, 4}} {
		if got := median(list); got != want {
			t.Errorf("median of %v is %v, want %v", list, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	for args, want := range map[string]string{
		"": "9 1s", "-quick": "3 300ms", "-rounds 2 -time 50ms": "2 50ms",
		"-rounds 0": "", "-time 1ms": "", "peer": "", "-nonsense": "",
	} {
		o, err := parse(strings.Fields(args), io.Discard)
		if got := fmt.Sprint(o.rounds, " ", o.time); err == nil && got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %s, %v, want %q", args, got, err, want)
		}
	}
}

// TestQueries: the client's queries are answered by the upstream, and the
// answers are right.
func TestQueries(t *testing.T) {
	for _, names := range []kind{local, kept, fresh} {
		q := newQuestion(names)
		first := slices.Clone(q.next())
		second := slices.Clone(q.next())
		if names == fresh && bytes.Equal(first[12:], second[12:]) {
			t.Error("the same name twice")
		}
		if right(second) {
			t.Errorf("%s: a query is taken for an answer", names)
		}
		if !right(positive(slices.Clone(second))) {
			t.Errorf("%s: the answer is not right: %x", names, second)
		}
	}
	if positive(make([]byte, 12)) != nil {
		t.Error("an answer to nothing")
	}
}
