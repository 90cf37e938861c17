package trace

import (
	"testing"
	"time"

	"github.com/towpath/towpath/api"
)

// arrived is a watch of a SYN that came in from outside, to where web has port 80.
func arrived(t *testing.T) Watch {
	t.Helper()
	in, inside := flow("198.51.100.1", mark, "192.0.2.10", 8080), flow("198.51.100.1", mark, "10.0.0.2", 80)
	return Watch{
		Machine: host(t, ""), From: "host", Entry: &Sighting{Space: "host", Link: "eth0"}, Mark: mark, Flow: in, Got: true,
		Sightings: []Sighting{
			seen(1, "host", "eth0", false, Packet{Flow: in, TTL: 64, TCP: flagSYN}),
			seen(2, "host", "v-web", true, Packet{Flow: inside, TTL: 63, TCP: flagSYN}),
			seen(3, "web", "eth0", false, Packet{Flow: inside, TTL: 63, TCP: flagSYN}),
		},
	}
}

// kept is a packet that was kept from leaving the host.
func kept(at int, p Packet) Sighting {
	s := seen(at, "host", "eth0", true, p)
	s.Stopped = true
	return s
}

// TestJoinOfStopped: an answer that is kept from leaving has come back, though the
// kernel says that the packet filter drops it.
func TestJoinOfStopped(t *testing.T) {
	answer, out := flow("10.0.0.2", 80, "198.51.100.1", mark), flow("192.0.2.10", 8080, "198.51.100.1", mark)
	for flags, verdict := range map[uint8]api.Verdict{flagSYN | flagACK: api.Answered, flagRST: api.Refused} {
		w := arrived(t)
		w.Sightings = append(w.Sightings,
			seen(5, "host", "v-web", false, Packet{Flow: answer, TTL: 64, TCP: flags}),
			kept(90, Packet{Flow: out, TTL: 63, TCP: flags}), // which a rule tells late
		)
		w.Drops = []Drop{{At: 7 * time.Microsecond, Space: "host", Reason: "NETFILTER_DROP", Symbol: "nft_do_chain", Packet: Packet{Flow: out, TTL: 63, TCP: flags}}}
		p := Join(w)
		last := p.Hops[len(p.Hops)-1]
		if p.Verdict != verdict || last.Detail != "192.0.2.10:8080 > 198.51.100.1:40000, stopped there" || last.AtMicros != 7 || last.Sources[0] != "nftrace" {
			t.Errorf("%s: %s, %+v", verdict, p.Verdict, last)
		}
		if p.From.Name != "outside" || p.Culprit != nil {
			t.Errorf("from %+v, by %+v", p.From, p.Culprit)
		}
	}
}

// TestJoinOfStoppedError: of what an error quotes nothing is told but the mark; it
// is about the packet as it came in.
func TestJoinOfStoppedError(t *testing.T) {
	w := arrived(t)
	w.Flow.Proto = "udp"
	for i := range w.Sightings {
		w.Sightings[i].Flow.Proto = "udp"
	}
	e := Packet{Flow: api.Flow{Proto: "icmp", ICMPType: 3, ICMPCode: 3, Src: w.Flow.Dst, Dst: w.Flow.Src}, TTL: 64, Quoted: Mark(mark).Packet()}
	w.Sightings = append(w.Sightings, kept(9, e))
	if p := Join(w); p.Verdict != api.Refused || p.Reason != "192.0.2.10 answers that nothing listens on port 8080" {
		t.Errorf("%s: %s", p.Verdict, p.Reason)
	}
}

// TestJoinOfStoppedRequest: a packet that was to leave again has no end here.
func TestJoinOfStoppedRequest(t *testing.T) {
	w := arrived(t)
	w.Sightings = append(w.Sightings[:1], kept(4, Packet{Flow: w.Flow, TTL: 63, TCP: flagSYN}))
	if p := Join(w); p.Verdict != api.Lost || p.Reason != "it would leave the machine by eth0 of host, and was stopped there" {
		t.Errorf("%s: %s", p.Verdict, p.Reason)
	}
}
