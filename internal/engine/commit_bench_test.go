package engine

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/store/mem"
)

// aNetwork is how many endpoints share one: fewer than its bridge has ports.
const aNetwork = 1000

// BenchmarkCommit is a sandbox with one endpoint that comes, and goes again: the
// decisions and their commits to a store in memory, without what the kernel does.
func BenchmarkCommit(b *testing.B) {
	for _, population := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprint(population), func(b *testing.B) {
			e := populated(b, population)
			for b.Loop() {
				if _, err := e.commit(b.Context(), e.adds("web", "n0")); err != nil {
					b.Fatal(err)
				}
				_, err := e.commit(b.Context(), func(d *draft) error { d.deleteSandbox("web"); return nil })
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// populated is an engine that so many endpoints have been committed to.
func populated(b *testing.B, endpoints int) *Engine {
	b.Helper()
	s := mem.New()
	b.Cleanup(func() { _ = s.Close() })
	e := New(Config{Store: s, Log: slog.New(slog.DiscardHandler)})
	if err := e.load(b.Context()); err != nil {
		b.Fatal(err)
	}
	for i := range endpoints {
		network := fmt.Sprint("n", i/aNetwork)
		if i%aNetwork == 0 {
			subnet := api.Subnet{Subnet: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", i/aNetwork)), Gateway: netip.MustParseAddr(fmt.Sprintf("10.%d.0.1", i/aNetwork))}
			n := &api.Network{Name: network, Device: "tp-" + network, Subnets: []api.Subnet{subnet}}
			if _, err := e.commit(b.Context(), func(d *draft) error { d.putNetwork(n); return nil }); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := e.commit(b.Context(), e.adds(fmt.Sprint("s", i), network)); err != nil {
			b.Fatal(err)
		}
	}
	return e
}

// adds makes a sandbox with one endpoint.
func (e *Engine) adds(name, network string) func(*draft) error {
	spec := api.SandboxSpec{Name: name, Networks: []api.EndpointSpec{{Network: network}}}
	return func(d *draft) error { return e.draftSandbox(d, api.Sandbox{Name: name}, spec) }
}
