package trace

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/towpath/towpath/api"
)

// ended is a path that a rule ended.
func ended(to string, port uint16) api.Path {
	return api.Path{
		From: api.Party{NS: "web"}, Flow: api.Flow{Proto: "udp", Dst: netip.MustParseAddr(to), Dport: port}, Verdict: api.Dropped, Reason: "a rule drops it",
		Hops: []api.Hop{{NS: "host", Device: "eth0", Action: "drop"}},
	}
}

// TestGate: the first of a kind is told at once, the others are counted.
func TestGate(t *testing.T) {
	var g Gate
	if !g.Add(ended("192.0.2.1", 7), 0) || !g.Add(ended("192.0.2.1", 9), 0) {
		t.Error("the first of a kind is not told")
	}
	for range 3 {
		if g.Add(ended("192.0.2.1", 7), time.Second) {
			t.Error("one more is told")
		}
	}
	if out := g.Due(5 * time.Second); len(out) != 0 {
		t.Errorf("told too soon: %v", out)
	}
	out := g.Due(10 * time.Second)
	if len(out) != 1 || out[0].Flow.Dport != 7 || out[0].Alike != 2 {
		t.Errorf("after 10 s: %+v", out)
	}
	if !g.Add(ended("192.0.2.1", 9), 11*time.Second) {
		t.Error("what comes after a long time is not told")
	}
	if g.Add(ended("192.0.2.1", 7), 11*time.Second) || len(g.Due(29*time.Second)) != 0 || len(g.Due(30*time.Second)) != 1 {
		t.Error("the interval does not double")
	}
}

// TestGateFlood: of a flood all are counted and few are told, be they of one kind
// or of many.
func TestGateFlood(t *testing.T) {
	for name, port := range map[string]func(int) uint16{"one kind": func(int) uint16 { return 7 }, "many kinds": func(i int) uint16 { return uint16(i) }} {
		t.Run(name, func(t *testing.T) {
			var g Gate
			const sent = 10000
			told, alike := 0, uint64(0)
			for i := range sent {
				at := time.Duration(i) * time.Second / sent
				if g.Add(ended("192.0.2.1", port(i)), at) {
					told++
				}
				for _, p := range g.Due(at) {
					told, alike = told+1, alike+p.Alike
				}
			}
			for _, p := range g.Due(2 * time.Second) {
				told, alike = told+1, alike+p.Alike
			}
			if told > 2*mostKinds || uint64(told)+alike != sent {
				t.Errorf("%d told, and %d more", told, alike)
			}
		})
	}
}

// TestGateElsewhere: what ends elsewhere, or otherwise, is not alike.
func TestGateElsewhere(t *testing.T) {
	var g Gate
	for i, change := range []func(*api.Path){
		func(*api.Path) {}, func(p *api.Path) { p.From.NS = "app" }, func(p *api.Path) { p.Reason = "another" }, func(p *api.Path) { p.Hops[0].NS = "db" },
		func(p *api.Path) { p.Verdict = api.Lost }, func(p *api.Path) { p.Flow.Proto = "tcp" },
	} {
		p := ended("192.0.2.1", 7)
		if change(&p); !g.Add(p, 0) {
			t.Error(fmt.Sprint("not told: ", i))
		}
	}
}
