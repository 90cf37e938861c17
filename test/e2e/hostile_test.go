package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

// hostileTime is how long somebody does harm.
const hostileTime = 2 * time.Second

// manyRoutes is how many routes somebody adds at most: a bound on what the test
// costs, far above what the daemon reads of a sandbox.
const manyRoutes = 50_000

// evils are what root in a sandbox may do for ever; each says how often it did.
func evils() map[string]func(ctx context.Context, c *rt.Conn, m *rt.Monitor) int {
	up, down := true, false
	return map[string]func(ctx context.Context, c *rt.Conn, m *rt.Monitor) int{
		"deletes": func(ctx context.Context, c *rt.Conn, m *rt.Monitor) (n int) {
			for ctx.Err() == nil {
				if l, err := c.LinkByName(ctx, "eth0"); err == nil && c.DelLink(ctx, l.Index) == nil {
					n++
					continue
				}
				if _, err := m.Next(ctx); err != nil {
					break
				}
			}
			return n
		},
		"flaps": func(ctx context.Context, c *rt.Conn, _ *rt.Monitor) (n int) {
			for ctx.Err() == nil {
				l, err := c.LinkByName(ctx, "eth0")
				if err == nil && c.SetLink(ctx, l.Index, rt.LinkChange{Up: &down}) == nil && c.SetLink(ctx, l.Index, rt.LinkChange{Up: &up}) == nil {
					n++
				}
			}
			return n
		},
		"renames": func(ctx context.Context, c *rt.Conn, _ *rt.Monitor) (n int) {
			names := map[string]string{"eth0": "evil0", "evil0": "eth0", "lo": "evil1", "evil1": "lo"}
			for ctx.Err() == nil {
				links, err := c.Links(ctx, rt.LinkFilter{})
				if err != nil {
					continue // interrupted, or at its end
				}
				for _, l := range links {
					if name, ok := names[l.Name]; ok && c.SetLink(ctx, l.Index, rt.LinkChange{Up: &down, Name: &name}) == nil {
						n++
					}
				}
			}
			return n
		},
		"routes": func(ctx context.Context, c *rt.Conn, _ *rt.Monitor) (n int) {
			l, err := c.LinkByName(ctx, "eth0")
			for ; err == nil && n < manyRoutes && ctx.Err() == nil; n++ {
				var a [4]byte
				binary.BigEndian.PutUint32(a[:], 198<<24|uint32(n))
				err = c.AddRoute(ctx, rt.Route{Dst: netip.PrefixFrom(netip.AddrFrom4(a), 32), OIF: l.Index})
			}
			return n
		},
	}
}

// TestHostileSandbox: what root in a sandbox does for ever harms that sandbox
// alone: others' verbs take as long as before, and their packets arrive. It is
// told of, and the sandbox works again when it stops.
func TestHostileSandbox(t *testing.T) {
	for name, evil := range evils() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			w.must("sandbox", "create", "evil")
			w.must("sandbox", "create", "good")
			bad, _ := w.sandbox("evil")
			good, _ := w.sandbox("good")
			ping, err := good.EchoEvery(t.Context(), outside4(), 5*time.Millisecond)
			w.check(err)
			// What else the machine does may come in between once.
			delayed := true
			for tries := 0; tries < 3 && delayed; tries++ {
				delayed = w.delayed(bad, evil)
			}
			if delayed {
				t.Error("others are delayed, each time")
			}
			if r := ping.Stop(patience); len(r.Lost()) > 0 {
				t.Errorf("the ping of another: %s", r)
			}
			w.recovers(name, bad)
		})
	}
}

// delayed reports whether others are, while harm is done.
func (w *world) delayed(bad *testnet.NS, evil func(context.Context, *rt.Conn, *rt.Monitor) int) bool {
	w.Helper()
	before := w.others(time.Now().Add(hostileTime / 2))
	stop := time.Now().Add(hostileTime)
	times := w.doEvil(bad, stop, evil)
	during := w.others(stop)
	n := <-times
	if n == 0 {
		w.Error("no harm was done")
	}
	w.Logf("%d times; others: %s before, %s meanwhile", n, median(before), median(during))
	return median(during) > 5*median(before)+50*time.Millisecond
}

// recovers checks that a sandbox works again, and that its harm was told of.
func (w *world) recovers(name string, bad *testnet.NS) {
	w.Helper()
	w.heals(time.Minute)
	reaches(w, bad, w.outside, outside4())
	if name == "routes" { // which are the tenant's own
		return
	}
	if events := w.must("events", "--since", "1h", "--until", "0s"); !strings.Contains(events, "sandbox throttle evil") {
		w.Errorf("events do not tell of it:\n%s", events)
	}
}

// others makes and removes sandboxes until a time, a few at least, and says how
// long each took.
func (w *world) others(end time.Time) (took []time.Duration) {
	w.Helper()
	for len(took) < 5 || time.Now().Before(end) {
		start := time.Now()
		w.must("sandbox", "create", "other")
		took = append(took, time.Since(start))
		w.must("sandbox", "rm", "other")
	}
	return took
}

func median(list []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(list))[len(list)/2]
}

// doEvil does harm in a sandbox until a time, and then tells how often.
func (w *world) doEvil(ns *testnet.NS, end time.Time, evil func(context.Context, *rt.Conn, *rt.Monitor) int) <-chan int {
	w.Helper()
	c, err := rt.Dial(ns.FD())
	w.check(err)
	m, err := rt.Listen(ns.FD(), rt.GroupLink)
	w.check(err)
	ctx, stop := context.WithDeadline(w.Context(), end)
	done := make(chan int, 1)
	go func() {
		defer stop()
		n := evil(ctx, c, m)
		if err := errors.Join(m.Close(), c.Close()); err != nil {
			w.Errorf("close what did harm: %v", err)
		}
		done <- n
	}()
	return done
}
