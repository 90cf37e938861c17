package trace

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/nft"
)

// TestLiveParts tells two flows apart that go out by one port, and does not tell
// of one twice.
func TestLiveParts(t *testing.T) {
	h := host(t, `table inet f { }`)
	l := &Live{Machine: h}
	send := func(at int, dst string) Sighting {
		f := flow("10.0.0.2", mark, dst, 53)
		f.Proto = "udp"
		return seen(at, "web", "eth0", true, Packet{Flow: f, TTL: 64})
	}
	answer := func(at int, src string) Sighting {
		f := flow(src, 53, "10.0.0.2", mark)
		f.Proto = "udp"
		return seen(at, "web", "eth0", false, Packet{Flow: f, TTL: 64})
	}
	l.Add(Watch{Sightings: []Sighting{send(10, "192.0.2.1"), send(11, "192.0.2.2"), answer(20, "192.0.2.2"), answer(25, "192.0.2.1")}}, 0)
	if early := l.Ready(50 * time.Microsecond); len(early) != 0 {
		t.Errorf("told too early: %v", early)
	}
	paths := l.Ready(time.Second)
	if len(paths) != 2 {
		t.Fatalf("%d paths, want 2", len(paths))
	}
	for i, dst := range []string{"192.0.2.1", "192.0.2.2"} {
		p := paths[i]
		if p.Verdict != api.Answered || p.Flow.Dst.String() != dst || len(p.Hops) != 2 || p.Hops[0].AtMicros != 0 || !p.Complete {
			t.Errorf("path %d: %s %s\n%s", i, p.Verdict, p.Flow.Dst, told(p))
		}
	}
	l.Add(Watch{Sightings: []Sighting{send(2e6, "192.0.2.1"), send(2e6, "192.0.2.9")}, Lost: true}, 0)
	if again := l.Ready(20 * time.Second); len(again) != 1 || again[0].Flow.Dst.String() != "192.0.2.9" || again[0].Verdict != api.Lost || again[0].Complete {
		t.Errorf("after that: %+v", again)
	}
	multicast := flow("10.0.0.2", 5353, "224.0.0.251", 5353)
	multicast.Proto = "udp"
	l.Add(Watch{Sightings: []Sighting{seen(3e6, "web", "eth0", true, Packet{Flow: multicast, TTL: 255})}}, 0)
	if more := l.Ready(time.Minute); len(more) != 0 || len(l.flows) != 0 {
		t.Errorf("multicast is told of, or flows are kept: %v, %d", more, len(l.flows))
	}
}

// TestLiveRenamed: of two that send from one port to the same place the second gets
// another port, which connection tracking tells. Each has its path, however late
// that is heard.
func TestLiveRenamed(t *testing.T) {
	h := host(t, `table inet f { }`)
	udp := func(src string, sport uint16, dst string, dport uint16) api.Flow {
		f := flow(src, sport, dst, dport)
		f.Proto = "udp"
		return f
	}
	packet := func(f api.Flow) Packet { return Packet{Flow: f, TTL: 64} }
	was, is := udp("10.0.0.3", mark, "192.0.2.1", 53), udp("192.0.2.10", 1024, "192.0.2.1", 53)
	l := &Live{Machine: h}
	l.Add(Watch{Sightings: []Sighting{
		seen(10, "web", "eth0", true, packet(udp("10.0.0.2", mark, "192.0.2.1", 53))),
		seen(11, "db", "eth0", true, packet(was)),
		seen(20, "host", "eth0", true, packet(is)),
		seen(21, "host", "eth0", true, packet(udp("192.0.2.10", mark, "192.0.2.1", 53))),
		seen(30, "host", "eth0", false, packet(reversed(is))),
		seen(31, "host", "eth0", false, packet(udp("192.0.2.1", 53, "192.0.2.10", mark))),
		seen(40, "db", "eth0", false, packet(reversed(was))),
		seen(41, "web", "eth0", false, packet(udp("192.0.2.1", 53, "10.0.0.2", mark))),
	}}, 0)
	l.Add(Watch{Renamed: []Renamed{{Was: was, Is: is}}}, 0)
	paths := l.Ready(time.Second)
	if len(paths) != 2 {
		t.Fatalf("%d paths, want 2", len(paths))
	}
	for i, want := range []string{"192.0.2.10:40000", "192.0.2.10:1024"} {
		if got := told(paths[i]); paths[i].Verdict != api.Answered || !strings.Contains(got, want) {
			t.Errorf("%s, want %s:\n%s", paths[i].Verdict, want, got)
		}
	}
}

// TestLiveEvenPorts: a flow from a port to the same one, as NTP has them, is known by
// its addresses to go there or back, whatever a translation makes of either end.
func TestLiveEvenPorts(t *testing.T) {
	l := &Live{Machine: host(t, `table inet f { }`)}
	udp := func(src, dst string) Packet {
		f := flow(src, 123, dst, 123)
		f.Proto = "udp"
		return Packet{Flow: f, TTL: 64}
	}
	l.Add(Watch{Sightings: []Sighting{
		seen(10, "web", "eth0", true, udp("10.0.0.2", "198.51.100.1")),
		seen(11, "host", "v-web", false, udp("10.0.0.2", "198.51.100.1")),
		seen(12, "host", "eth0", true, udp("192.0.2.10", "192.0.2.1")),
		seen(13, "host", "eth0", false, udp("192.0.2.1", "192.0.2.10")),
		seen(14, "web", "eth0", false, udp("198.51.100.1", "10.0.0.2")),
	}, Renamed: []Renamed{{Was: udp("10.0.0.2", "198.51.100.1").Flow, Is: udp("192.0.2.10", "192.0.2.1").Flow}}}, 0)
	paths := l.Ready(time.Second)
	if len(paths) != 1 || paths[0].Verdict != api.Answered || paths[0].From.NS != "web" {
		t.Fatalf("%d paths: %+v", len(paths), paths)
	}
	var ways []api.Direction
	for _, h := range paths[0].Hops {
		ways = append(ways, h.Direction)
	}
	if at := slices.Index(ways, api.Reply); at < 0 || slices.Contains(ways[at:], api.Request) {
		t.Errorf("directions %v:\n%s", ways, told(paths[0]))
	}
}

// TestLiveFromLoopback: what the host sends to its own loopback address has, when a
// link sees it first, neither of its addresses any more. Connection tracking knows
// it; and an answer that the host drops is none.
func TestLiveFromLoopback(t *testing.T) {
	h := host(t, `table inet f { chain o { type nat hook output priority 0; tcp dport 8080 dnat ip to 10.0.0.2:80; } }`)
	was, is := flow("127.0.0.1", mark, "127.0.0.1", 8080), flow("10.0.0.1", mark, "10.0.0.2", 80)
	syn, synack := Packet{Flow: was, TTL: 64, TCP: flagSYN}, Packet{Flow: reversed(is), TTL: 64, TCP: flagSYN | flagACK}
	sent := Packet{Flow: is, TTL: 64, TCP: flagSYN}
	w := Watch{
		Sightings: []Sighting{seen(10, "host", "v-web", true, sent), seen(11, "web", "eth0", false, sent), seen(20, "web", "eth0", true, synack), seen(21, "host", "v-web", false, synack)},
		Rulings:   []Ruling{{At: 30 * time.Microsecond, Space: "host", ID: 1, Family: nft.FamilyInet, Table: "f", Chain: "o", Handle: 10, Verdict: "accept", Packet: &syn}},
		Renamed:   []Renamed{{Was: was, Is: is}},
	}
	for reason, want := range map[string]api.Verdict{"": api.Answered, "NO_SOCKET": api.Answered, "IP_INHDR": api.Dropped} {
		w.Drops = []Drop{{At: 22 * time.Microsecond, Space: "host", Link: "br", Reason: reason, Packet: synack}}
		if reason == "" {
			w.Drops = nil
		}
		l := &Live{Machine: h}
		l.Add(w, 0)
		paths := l.Ready(time.Minute)
		if len(paths) != 1 || paths[0].Verdict != want || paths[0].Flow != was || !strings.Contains(told(paths[0]), "dnat 127.0.0.1:8080 -> 10.0.0.2:80") {
			t.Errorf("with a drop for %q, want %s: %+v", reason, want, paths)
		}
	}
}
