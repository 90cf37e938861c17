package driver_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
)

// drawPublication draws from few, so that they meet.
func drawPublication(t *rapid.T) *api.Publication {
	p := &api.Publication{
		Sandbox: rapid.SampledFrom([]string{"web", "web2", "db"}).Draw(t, "sandbox"), Port: uint16(rapid.SampledFrom([]int{80, 81, 8}).Draw(t, "serves")),
		HostPort: uint16(rapid.SampledFrom([]int{1, 63, 64, 100, 127, 128, 4000, 65535}).Draw(t, "port")),
		Count:    uint16(rapid.SampledFrom([]int{1, 1, 2, 65, 4000}).Draw(t, "count")),
		Proto:    rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "proto"),
	}
	p.Count = uint16(min(int(p.Count), 1<<16-int(p.HostPort), 1<<16-int(p.Port)))
	if host := rapid.SampledFrom([]string{"", "192.0.2.10", "0.0.0.0", "::1"}).Draw(t, "host"); host != "" {
		p.HostIP = netip.MustParseAddr(host)
	}
	return p
}

// TestPublications compares with a plain map; a copy is not changed with its
// original.
func TestPublications(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		got, want := driver.NewPublications(), map[string]*api.Publication{}
		kept, keptWant := got, want
		for range rapid.IntRange(0, 20).Draw(t, "changes") {
			p := drawPublication(t)
			switch rapid.SampledFrom([]string{"put", "put", "delete", "copy"}).Draw(t, "what") {
			case "put":
				got.Put(p)
				want[p.ID()] = p
			case "delete":
				got.Delete(p.ID())
				delete(want, p.ID())
			case "copy":
				kept, keptWant = got, want
				got, want = got.Clone(), maps.Clone(want)
			}
		}
		asks := drawPublication(t)
		samePublications(t, got, want, asks)
		samePublications(t, kept, keptWant, asks)
	})
}

func samePublications(t *rapid.T, got driver.Publications, want map[string]*api.Publication, asks *api.Publication) {
	ids := slices.Sorted(maps.Keys(want))
	all := maps.Collect(got.All())
	if !maps.Equal(all, want) || got.Len() != len(want) {
		t.Fatalf("there are %v, want %v", slices.Sorted(maps.Keys(all)), ids)
	}
	var of []string
	overlaps := false
	for _, id := range ids {
		if got.Get(id) != want[id] {
			t.Errorf("%s is %v", id, got.Get(id))
		}
		if want[id].Sandbox == "web" {
			of = append(of, id)
		}
		overlaps = overlaps || asks.Overlaps(want[id])
	}
	var gotOf []string
	for p := range got.Of("web") {
		gotOf = append(gotOf, p.ID())
	}
	if !slices.Equal(gotOf, of) {
		t.Errorf("of web there are %v, want %v", gotOf, of)
	}
	sameServices(t, got, want)
	if q := got.Overlapping(asks); (q != nil) != overlaps || q != nil && !asks.Overlaps(q) {
		t.Errorf("%s overlaps %v, want %v", asks.ID(), q, overlaps)
	}
}

// sameServices checks that each port a sandbox serves is told once, by one that
// counts.
func sameServices(t *rapid.T, got driver.Publications, want map[string]*api.Publication) {
	counts := func(p *api.Publication) bool { return p.HostPort != 64 }
	name := func(p *api.Publication) string { return fmt.Sprint(p.Port, p.Count, p.Proto) }
	services := map[string]bool{}
	for _, p := range want {
		if p.Sandbox == "web" && counts(p) {
			services[name(p)] = true
		}
	}
	for p := range got.Services("web", counts) {
		if want[p.ID()] != p || !services[name(p)] || !counts(p) || p.Sandbox != "web" {
			t.Errorf("%s is told, which is not there, is told already, or does not count", p.ID())
		}
		delete(services, name(p))
	}
	if len(services) > 0 {
		t.Errorf("ports that are not told: %v", services)
	}
}

// BenchmarkOneMore is what one more publication costs of ten, and of ten thousand.
func BenchmarkOneMore(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			all := driver.NewPublications()
			for i := range n {
				all.Put(&api.Publication{Sandbox: "web", HostPort: uint16(1 + i), Port: 80, Count: 1, Proto: "tcp"})
			}
			one := &api.Publication{Sandbox: "web", HostPort: 60000, Port: 80, Count: 1, Proto: "tcp"}
			for b.Loop() {
				next := all.Clone()
				if next.Overlapping(one) == nil {
					next.Put(one)
				}
				for range next.Services("web", func(p *api.Publication) bool { return p != one }) {
					continue
				}
			}
		})
	}
}
