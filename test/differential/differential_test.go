// Package differential compares the walk of virtual packets with real ones: it
// draws networks at random, has them made as the daemon makes them, sends
// packets in them, and looks where each arrives, as what, and what comes back.
package differential

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

const (
	// enough packets for a run; each world sends perWorld of them at most.
	enough, perWorld = 10_000, 250
	// patience is how long what is expected may take to be seen, grace how long
	// what is not expected is waited for.
	patience, grace = 10 * time.Second, 200 * time.Millisecond
)

// TestWalkIsTheKernel draws worlds until enough packets were sent.
func TestWalkIsTheKernel(t *testing.T) {
	testnet.Require(t, "netns")
	tally, failed := map[string]int{}, false
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSpec(rt)
		if tally["packets"] >= enough && !failed {
			return
		}
		var differences []string
		t.Run(fmt.Sprintf("world %d", tally["worlds"]), func(t *testing.T) {
			differences = newWorld(t, s).compare(tally)
		})
		tally["worlds"]++
		if len(differences) > 0 {
			failed = true
			rt.Fatalf("%d differences in %+v:\n%s", len(differences), s, strings.Join(differences[:min(len(differences), 8)], "\n"))
		}
	})
	t.Logf("%v", tally)
	if tally["packets"] < enough && !testing.Short() { // which draws fewer worlds
		t.Errorf("%d packets were sent, want %d", tally["packets"], enough)
	}
}

// compare sends what the world has to send, and tells each difference between
// the walk and what was seen. A machine under load loses packets (its backlog is
// one for all namespaces, net.core.netdev_max_backlog): what is missing is sent
// once more, and is a difference if it is missing again.
func (w *world) compare(tally map[string]int) []string {
	r := newRecord()
	for _, ns := range w.spaces {
		w.listen(r, ns)
	}
	w.look()
	shots := w.shots(perWorld)
	out, missing := w.round(r, shots, tally)
	for i := range missing {
		missing[i].id = firstID + uint16(len(shots)+i)
	}
	tally["sent again"] += len(missing)
	if len(missing) > 0 {
		again, lost := w.round(r, missing, map[string]int{})
		out = append(out, again...)
		for _, s := range lost {
			out = append(out, w.difference(r, s))
		}
	}
	// By now there are neighbours, learned addresses and connections, which must
	// not matter to packets like those that were sent.
	w.look()
	for _, s := range shots {
		s.id += unsent
		want, path, err := expect(w.walker, s)
		if err == nil {
			out = append(out, w.readBack(s, want, path)...)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(out, r.odd...)
}

// round sends shots and gives the differences, apart from those of which
// something that was expected was not seen.
func (w *world) round(r *record, shots []shot, tally map[string]int) (differences []string, missing []shot) {
	want, paths := map[uint16]outcome{}, map[uint16]api.Path{}
	for _, s := range shots {
		var err error
		if want[s.id], paths[s.id], err = expect(w.walker, s); err != nil {
			differences = append(differences, fmt.Sprintf("%s: %v\n%s", s, err, text(paths[s.id])))
		}
		differences = append(differences, w.readBack(s, want[s.id], paths[s.id])...)
	}
	r.add(shots)
	w.shoot(r, shots, want)
	for _, s := range shots {
		got := r.of(s)
		tally["packets"]++
		tally[string(paths[s.id].Verdict)]++
		switch {
		case !certain(paths[s.id]):
			tally["uncertain"]++
		case want[s.id].agrees(got):
		case !want[s.id].settled(got):
			missing = append(missing, s)
		default:
			differences = append(differences, w.difference(r, s))
		}
		if got.back == answer {
			tally["answered by the kernel"]++
		}
	}
	return differences, missing
}

// readBack compares the walk through what was planned with that through what is
// read back from the kernel.
func (w *world) readBack(s shot, want outcome, planned api.Path) []string {
	got, path, err := expect(w.seen, s)
	if err == nil && (want.agrees(got) || !certain(path) || !certain(planned)) {
		return nil
	}
	return []string{fmt.Sprintf("%s\n  planned:   %s\n  read back: %s, %v\n%s%s", s, want, got, err, text(planned), text(path))}
}

// difference tells what the walk says of a shot, and what was seen of it.
func (w *world) difference(r *record, s shot) string {
	want, path, _ := expect(w.walker, s)
	return fmt.Sprintf("%s\n  walk:   %s\n  kernel: %s\n%s", s, want, r.of(s), text(path))
}

// certain reports whether the walk took nothing for a matter of luck: of two
// links that answer for an address, either may be believed.
func certain(p api.Path) bool {
	return !slices.ContainsFunc(p.Hops, func(h api.Hop) bool { return !h.Certain })
}

// shoot sends from all namespaces, and returns when all that is expected was
// seen, and then for a while nothing else.
func (w *world) shoot(r *record, shots []shot, want map[uint16]outcome) {
	var open []*os.File
	for name, ns := range w.spaces {
		mine := slices.DeleteFunc(slices.Clone(shots), func(s shot) bool { return s.from != name })
		open = append(open, w.send(r, ns, mine)...)
	}
	defer func() {
		for _, f := range open {
			f.Close()
		}
	}()
	over, quiet := time.NewTimer(patience), time.NewTimer(grace)
	defer over.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-r.news:
			quiet.Reset(grace)
		case <-quiet.C:
			if r.settled(want) {
				return
			}
			quiet.Reset(grace)
		case <-over.C:
			return
		}
	}
}

// settled reports whether all that is expected was seen.
func (r *record) settled(want map[uint16]outcome) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range maps.Keys(want) {
		if !want[id].settled(r.got[id]) {
			return false
		}
	}
	return true
}

// text is a path for the reader of a difference.
func text(p api.Path) string {
	out := fmt.Sprintf("  %s %s\n", p.Verdict, p.Reason)
	for _, h := range p.Hops {
		out += fmt.Sprintf("    %-7s %-8s %-10s %-11s %-10s %s\n", h.Direction, h.NS, h.Device, h.Layer, h.Action, h.Detail)
	}
	return out
}
