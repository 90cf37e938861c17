package explain

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/explain"
	"github.com/towpath/towpath/internal/linux/look"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace/follow"
)

// TestLiveLooks: while the machine is read because a namespace came, flows are told
// of, and afterwards those that begin in the new one.
func TestLiveLooks(t *testing.T) {
	for _, level := range allLevels() {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			requireLevel(t, level)
			w := newWorld(t)
			m, c := w.machine(), w.looking()
			lister := look.List(c)
			defer lister.Close()
			l, err := follow.Open(t.Context(), m, c.Open, api.TraceQuery{Level: level, Proto: "tcp"})
			w.must(err)
			defer func() { w.must(l.Close()) }()
			late, told := testnet.New(t, "late"), make(chan struct{})
			testnet.Link(t, w.spaces["host"], late, "v-late", "eth0", []netip.Prefix{netip.MustParsePrefix("10.99.0.1/24")}, []netip.Prefix{netip.MustParsePrefix("10.99.0.2/24")})
			c.Named["late"] = late.F
			looked := 0
			again := func(ctx context.Context, was *explain.Machine, young []uint64) (*explain.Machine, error) {
				if looked++; looked == 1 {
					// It takes as long as it takes to tell of this.
					w.dial(w.spaces["web"], netip.MustParseAddrPort("172.20.0.3:81"), grace)
					select {
					case <-told:
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				c := c
				c.Earlier = &look.Earlier{Host: &was.Host, Again: young}
				h, err := look.Machine(ctx, c)
				now := *m
				now.Host = h
				return &now, err
			}
			w.must(l.Renew(t.Context(), follow.News{List: lister.Inodes, Again: again}))
			var dialing sync.WaitGroup
			defer dialing.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			from := func(name string) {
				for {
					paths, err := l.Next(ctx)
					if err != nil {
						t.Fatalf("waiting for what %s sends: %v", name, err)
					}
					for _, p := range paths {
						if p.From.NS == name && len(p.Hops) > 0 && p.Hops[0].NS == name && p.Complete {
							return
						}
					}
				}
			}
			from("web")
			close(told)
			dialing.Go(func() { w.keepDialing(ctx, late, netip.MustParseAddrPort("10.99.0.1:81")) })
			from("late")
			if !slices.Contains(l.Watched(), "late") || !slices.Contains(l.Watched(), "web") {
				t.Errorf("it watches %v", l.Watched())
			}
		})
	}
}

// keepDialing connects, ten times a second, until ctx ends.
func (w *world) keepDialing(ctx context.Context, from *testnet.NS, to netip.AddrPort) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		w.dial(from, to, grace)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}
