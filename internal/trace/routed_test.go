package trace

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// router is a machine whose host has a bridge with one port, and an uplink.
func router() *machine.Host {
	return &machine.Host{Spaces: []machine.Space{
		{Name: "host", Links: []machine.Link{
			{Name: "br", Index: 2, Type: "bridge"}, {Name: "v-web", Index: 3, Type: "veth", Master: "br", PeerNS: "web"}, {Name: "eth0", Index: 4, Type: "veth"},
		}, Addresses: []machine.Address{{Dev: "br", Prefix: netip.MustParsePrefix("172.20.0.1/24")}}, Tables: []nft.TableDef{{
			Table: nft.Table{Family: nft.FamilyInet, Name: "t"}, Chains: []nft.ChainDef{
				{Chain: nft.Chain{Name: "f", Type: "filter", Hook: "forward"}}, {Chain: nft.Chain{Name: "d", Type: "nat", Hook: "prerouting"}},
			},
		}}},
		{Name: "web", Links: []machine.Link{{Name: "eth0", Index: 2, Type: "veth", PeerNS: "host"}}},
	}}
}

// came is what is seen of a SYN that the host took in, and no more.
func came() (Watch, Packet) {
	p := Packet{Flow: api.Flow{Proto: "tcp", Src: netip.MustParseAddr("172.20.0.2"), Sport: 4000, Dst: netip.MustParseAddr("198.51.100.7"), Dport: 80}, TCP: flagSYN, TTL: 64}
	return Watch{
		Machine: router(), From: "web", Mark: 4000, Flow: p.Flow, Level: api.LevelTaps,
		Sightings: []Sighting{{At: 1, Space: "web", Link: "eth0", Out: true, Packet: p}, {At: 2, Space: "host", Link: "v-web", Packet: p}},
	}, p
}

// TestUnrouted: what the kernel, asked for its route, refuses is told as the end of
// a packet that was seen no more, and as a conclusion.
func TestUnrouted(t *testing.T) {
	answer := func(dev, refusal string) Routed {
		return Routed{Route: machine.Route{Dev: dev, Table: machine.TableMain}, Refusal: refusal}
	}
	for _, c := range []struct {
		name             string
		comes, out, back Routed
		want             string
	}{
		{"routed", answer("eth0", ""), answer("eth0", ""), answer("br", ""), ""},
		{"no route", answer("", "ENETUNREACH"), answer("", "ENETUNREACH"), answer("br", ""), "there is no route to its destination"},
		{"prohibit", answer("", "EACCES"), answer("", "EACCES"), answer("br", ""), "its route is a prohibition"},
		{"unreachable", answer("", "EHOSTUNREACH"), answer("", "EHOSTUNREACH"), answer("br", ""), "its route says that it is unreachable"},
		{"not forwarding", answer("", "EHOSTUNREACH"), answer("eth0", ""), answer("br", ""), "this namespace does not forward IPv4"},
		{"blackhole", answer("", "EINVAL"), answer("", "EINVAL"), answer("br", ""), "a blackhole"},
		{"rp_filter", answer("", "EINVAL"), answer("eth0", ""), answer("eth0", ""), "rp_filter"},
		{"rp_filter, before 6.14", answer("", "EXDEV"), answer("eth0", ""), answer("", "ENETUNREACH"), "rp_filter"},
		{"martian", answer("", "EINVAL"), answer("eth0", ""), answer("br", ""), "a martian"},
	} {
		w, p := came()
		asked := Questions(w)
		want := []Question{
			{"host", "br", p.Flow}, {"host", "", api.Flow{Proto: "tcp", Dst: p.Flow.Dst}}, {"host", "", api.Flow{Proto: "tcp", Dst: p.Flow.Src}},
		}
		if !slices.Equal(asked, want) {
			t.Fatalf("asked %+v, want %+v", asked, want)
		}
		for i, a := range []Routed{c.comes, c.out, c.back} {
			a.Question = asked[i]
			w.Routes = append(w.Routes, a)
		}
		got := Join(w)
		if c.want == "" {
			if got.Verdict != api.Lost || len(got.Hops) != 2 {
				t.Errorf("%s: %s, %s", c.name, got.Verdict, got.Reason)
			}
			continue
		}
		h := got.Hops[len(got.Hops)-1]
		if got.Verdict != api.Dropped || got.Reason != "at br of host: "+h.Detail || !strings.Contains(h.Detail, c.want) || h.Certain || h.Index != 2 || h.Sources[0] != "route" {
			t.Errorf("%s: %s, %s: %+v", c.name, got.Verdict, got.Reason, h)
		}
	}
}

// TestUnroutedUnknown: nothing is concluded from the route of a packet that may
// have had another one, that may have been bridged, or that was routed.
func TestUnroutedUnknown(t *testing.T) {
	ruling := func(p Packet, chain string, handle uint64) Ruling {
		return Ruling{Space: "host", Family: nft.FamilyInet, Table: "t", Chain: chain, Handle: handle, Verdict: "accept", ID: 1, Packet: &p}
	}
	for name, change := range map[string]func(*Watch, Packet){
		"by a mark": func(w *Watch, _ Packet) {
			w.Machine.Spaces[0].Rules = []machine.Rule{{Mark: 1, Mask: 1, Table: 100}}
		},
		"bridged":            func(w *Watch, _ Packet) { w.Machine.Spaces[0].Addresses = nil },
		"a chain behind":     func(w *Watch, p Packet) { w.Rulings = []Ruling{ruling(p, "f", 0)} },
		"left":               func(w *Watch, p Packet) { w.Sightings[1].Out = true },
		"an error of others": func(w *Watch, p Packet) { w.Sightings[1].Quoted = &p },
		"translated": func(w *Watch, p Packet) {
			w.Machine.Spaces[0].Tables[0].Chains[1].Rules = []nft.Rule{{Handle: 9, Exprs: []nft.Expr{nft.NAT{}}}}
			w.Rulings = []Ruling{ruling(p, "d", 9)}
		},
	} {
		w, p := came()
		change(&w, p)
		if asked := Questions(w); len(asked) > 0 {
			t.Errorf("%s: asked %+v", name, asked)
		}
	}
}
