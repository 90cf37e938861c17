package driver

import (
	"slices"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
)

// TestFamiliesAreApart: what is published at any address of one family is held
// and translated in that family alone, of every protocol alike, so that the port
// of the other may be another sandbox's.
func TestFamiliesAreApart(t *testing.T) {
	for spec, want := range map[string]struct {
		proto string
		sets  []string
	}{
		"80:80/tcp":          {"tcp", []string{"publish4_any", "publish6_any"}},
		"80:80/sctp":         {"sctp", []string{"publish4_any", "publish6_any"}},
		"0.0.0.0:80:80/tcp":  {"tcp", []string{"publish4_any"}},
		"0.0.0.0:80:80/sctp": {"sctp", []string{"publish4_any"}},
		"[::]:80:80/tcp":     {"tcp6", []string{"publish6_any"}},
		"[::]:80:80/udp":     {"udp6", []string{"publish6_any"}},
		"[::]:80:80/sctp":    {"sctp6", []string{"publish6_any"}},
		"[::1]:80:80/sctp":   {"sctp", []string{"publish6"}},
	} {
		p, err := api.ParsePublication(spec)
		if err != nil {
			t.Fatal(err)
		}
		p.Sandbox = "web"
		v := twoNetworks()
		v.Host.SCTP = true
		var sets, protos []string
		for _, o := range planPublication(&p, v) {
			switch o := o.(type) {
			case kernel.Element:
				sets = append(sets, o.Set)
			case kernel.Socket:
				protos = append(protos, o.Proto)
			}
		}
		if !slices.Equal(sets, want.sets) || !slices.Equal(protos, []string{want.proto}) {
			t.Errorf("%s: in %v, held as %v; want %v and %s", spec, sets, protos, want.sets, want.proto)
		}
		v.Host.SCTP = false
		held := slices.ContainsFunc(planPublication(&p, v), func(o kernel.Object) bool { _, is := o.(kernel.Socket); return is })
		if held != (p.Proto != "sctp") {
			t.Errorf("%s: held by a kernel without SCTP sockets: %t", spec, held)
		}
	}
}
