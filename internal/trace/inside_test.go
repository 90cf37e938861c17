package trace

import (
	"testing"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/nft"
)

func micro(n int) time.Duration { return time.Duration(n) * time.Microsecond }

func drop(at int, space, link, reason, symbol string, p Packet) Drop {
	return Drop{At: micro(at), Space: space, Link: link, Reason: reason, Symbol: symbol, Packet: p}
}

// crossings are a packet at the beginning of a hook and, with after, at its end.
func crossings(at int, space, hook string, before Packet, after *Packet) []Crossing {
	out := []Crossing{{At: micro(at), Space: space, Hook: hook, ID: 7, In: "br", Packet: before}}
	if after != nil {
		out = append(out, Crossing{At: micro(at + 1), Space: space, Hook: hook, ID: 7, In: "br", Left: true, Packet: *after})
	}
	return out
}

// TestDropInHook: the older iptables tells of no rule, but where it dropped.
func TestDropInHook(t *testing.T) {
	h := host(t, "")
	out := flow("10.0.0.2", mark, "192.0.2.1", 80)
	syn := Packet{Flow: out, TTL: 64, TCP: flagSYN}
	w := Watch{
		Machine: h, From: "web", Mark: mark, Flow: out, Level: api.LevelFull,
		Sightings: []Sighting{seen(1, "web", "eth0", true, syn), seen(2, "host", "v-web", false, syn)},
		Crossings: append(crossings(3, "host", "prerouting", syn, &syn), crossings(5, "host", "forward", syn, nil)...),
		Drops:     []Drop{drop(6, "host", "br", "NETFILTER_DROP", "nf_hook_slow", syn)},
	}
	p := Join(w)
	const words = "a hook of the packet filter drops it, and no rule of nftables: the older iptables, connection tracking, or a program (NETFILTER_DROP in nf_hook_slow)"
	expect(t, p, api.Dropped, "at br of host: "+words,
		"request web eth0 route sends 10.0.0.2:40000 > 192.0.2.1:80",
		"request host v-web bridge receives port of bridge br",
		"request host br forward drop "+words)
	if last := p.Hops[2]; last.Sources[0] != "bpf" || !last.Certain || last.NSInode != h.Space("host").Inode || p.Hops[0].Sources[0] != "bpf" {
		t.Errorf("%+v", p.Hops)
	}
	w.Level, w.Crossings = api.LevelTracepoints, nil
	if p = Join(w); p.Hops[2].Layer != "" || p.Level != api.LevelTracepoints {
		t.Errorf("without hooks: %+v", p)
	}
}

// TestGivenUpBehindHooks: nobody answered for the next hop of a packet that was
// filtered and translated already, which is told in the order in which it happened.
func TestGivenUpBehindHooks(t *testing.T) {
	h := host(t, `table ip f {
		chain pass { type filter hook forward priority 0; policy accept; accept comment "pass"; }
		chain post { type nat hook postrouting priority 100; policy accept; masquerade comment "out"; }
	}`)
	out, as := flow("10.0.0.2", mark, "192.0.2.99", 80), flow("192.0.2.10", mark, "192.0.2.99", 80)
	syn, masked := Packet{Flow: out, TTL: 63, TCP: flagSYN}, Packet{Flow: as, TTL: 63, TCP: flagSYN}
	ruling := func(at int, chain string) Ruling {
		return Ruling{At: micro(at), Space: "host", ID: 7, Family: nft.FamilyIP, Table: "f", Chain: chain, Handle: 10, Verdict: "accept", In: 2, Out: 4, Packet: &syn}
	}
	p := Join(Watch{
		Machine: h, From: "web", Mark: mark, Flow: out, Level: api.LevelFull,
		Sightings: []Sighting{seen(1, "web", "eth0", true, syn), seen(2, "host", "v-web", false, syn)},
		Rulings:   []Ruling{ruling(4, "pass"), ruling(6, "post")},
		Crossings: append(crossings(3, "host", "forward", syn, &syn), crossings(5, "host", "postrouting", syn, &masked)...),
		Drops:     []Drop{drop(9, "host", "eth0", "NEIGH_FAILED", "neigh_invalidate", masked)},
	})
	expect(t, p, api.Dropped, "nobody answers for the next hop",
		"request web eth0 route sends 10.0.0.2:40000 > 192.0.2.99:80",
		"request host v-web bridge receives port of bridge br",
		`request host br forward accept rule "pass" of chain ip f pass`,
		"request host  postrouting masquerade 10.0.0.2:40000 -> 192.0.2.10:40000",
		"request host eth0 neighbour drop nobody answers for the next hop (NEIGH_FAILED in neigh_invalidate)")
}

// TestDropsAside: copies that a bridge floods, and answers that a raw socket has
// got, are no end.
func TestDropsAside(t *testing.T) {
	h := host(t, "")
	out, back := flow("10.0.0.2", mark, "10.0.0.3", 80), flow("10.0.0.3", 80, "10.0.0.2", mark)
	syn, synack := Packet{Flow: out, TTL: 64, TCP: flagSYN}, Packet{Flow: back, TTL: 64, TCP: flagSYN | flagACK}
	w := Watch{
		Machine: h, From: "web", Mark: mark, Flow: out, Level: api.LevelTracepoints,
		Sightings: []Sighting{seen(1, "web", "eth0", true, syn), seen(2, "host", "v-web", false, syn)},
		Drops:     []Drop{drop(9, "app", "eth0", "OTHERHOST", "ip_rcv_core", syn)},
	}
	expect(t, Join(w), api.Lost, "it was seen last at v-web of host",
		"request web eth0 route sends 10.0.0.2:40000 > 10.0.0.3:80",
		"request host v-web bridge receives port of bridge br")
	w.Got = true
	w.Sightings = append(w.Sightings, seen(20, "web", "eth0", false, synack))
	w.Drops = append(w.Drops, drop(21, "web", "eth0", "NO_SOCKET", "tcp_v4_rcv", synack))
	expect(t, Join(w), api.Answered, "",
		"request web eth0 route sends 10.0.0.2:40000 > 10.0.0.3:80",
		"request host v-web bridge receives port of bridge br",
		"reply web eth0 link receives 10.0.0.3:80 > 10.0.0.2:40000")
}

// TestCopyOfReset: that a copy of an answer is dropped does not hide where the
// packet ended.
func TestCopyOfReset(t *testing.T) {
	h := host(t, "")
	out, back := flow("10.0.0.2", mark, "10.0.0.3", 81), flow("10.0.0.3", 81, "10.0.0.2", mark)
	syn, rst := Packet{Flow: out, TTL: 64, TCP: flagSYN}, Packet{Flow: back, TTL: 64, TCP: flagRST}
	expect(t, Join(Watch{
		Machine: h, From: "web", Mark: mark, Flow: out, Level: api.LevelTracepoints,
		Sightings: []Sighting{seen(1, "web", "eth0", true, syn), seen(2, "app", "eth0", false, syn), seen(4, "app", "eth0", true, rst), seen(5, "web", "eth0", false, rst)},
		Drops:     []Drop{drop(3, "app", "eth0", "NO_SOCKET", "tcp_v4_rcv", syn), drop(9, "web", "", "QUEUE_PURGE", "inet_sock_destruct", rst)},
	}), api.Refused, "10.0.0.3 answers with a reset: nothing listens on port 81",
		"request web eth0 route sends 10.0.0.2:40000 > 10.0.0.3:81",
		"request app eth0 link receives 10.0.0.2:40000 > 10.0.0.3:81",
		"request app eth0 socket refuses nothing listens there (NO_SOCKET in tcp_v4_rcv)",
		"reply app eth0 route sends 10.0.0.3:81 > 10.0.0.2:40000",
		"reply web eth0 link receives 10.0.0.3:81 > 10.0.0.2:40000")
}

// TestDropOfAnswer ends the answer, not the packet.
func TestDropOfAnswer(t *testing.T) {
	h := host(t, "")
	out, back := flow("10.0.0.2", mark, "192.0.2.1", 80), flow("192.0.2.1", 80, "10.0.0.2", mark)
	syn, synack := Packet{Flow: out, TTL: 64, TCP: flagSYN}, Packet{Flow: back, TTL: 64, TCP: flagSYN | flagACK}
	p := Join(Watch{
		Machine: h, From: "web", Mark: mark, Flow: out, Level: api.LevelTracepoints,
		Sightings: []Sighting{seen(1, "web", "eth0", true, syn), seen(5, "host", "eth0", false, synack)},
		Drops:     []Drop{drop(6, "host", "eth0", "IP_RPFILTER", "ip_rcv_finish_core", synack)},
	})
	expect(t, p, api.Dropped, "its answer does not come back: at eth0 of host: the way back to its source is by another link (rp_filter) (IP_RPFILTER in ip_rcv_finish_core)",
		"request web eth0 route sends 10.0.0.2:40000 > 192.0.2.1:80",
		"reply host eth0 link receives 192.0.2.1:80 > 10.0.0.2:40000",
		"reply host eth0 route drop the way back to its source is by another link (rp_filter) (IP_RPFILTER in ip_rcv_finish_core)")
}

// TestHooksTellTranslation: an answer that its receiver's own hooks translate back,
// behind the last link.
func TestHooksTellTranslation(t *testing.T) {
	h := host(t, "")
	asked, sent := flow("10.0.0.1", mark, "192.0.2.10", 8080), flow("10.0.0.1", mark, "10.0.0.2", 80)
	back, undone := flow("10.0.0.2", 80, "10.0.0.1", mark), flow("192.0.2.10", 8080, "10.0.0.1", mark)
	syn, dnat := Packet{Flow: asked, TTL: 64, TCP: flagSYN}, Packet{Flow: sent, TTL: 64, TCP: flagSYN}
	synack, un := Packet{Flow: back, TTL: 64, TCP: flagSYN | flagACK}, Packet{Flow: undone, TTL: 64, TCP: flagSYN | flagACK}
	p := Join(Watch{
		Machine: h, From: "host", Mark: mark, Flow: asked, Level: api.LevelFull, Got: true,
		Sightings: []Sighting{seen(4, "host", "v-web", true, dnat), seen(5, "web", "eth0", false, dnat), seen(8, "web", "eth0", true, synack), seen(9, "host", "v-web", false, synack)},
		Crossings: append(crossings(1, "host", "output", syn, &dnat), crossings(10, "host", "input", synack, &un)...),
	})
	expect(t, p, api.Answered, "",
		"request host br output dnat 192.0.2.10:8080 -> 10.0.0.2:80",
		"request host br bridge bridges to port v-web",
		"request web eth0 link receives 10.0.0.1:40000 > 10.0.0.2:80",
		"reply web eth0 route sends 10.0.0.2:80 > 10.0.0.1:40000",
		"reply host v-web bridge receives port of bridge br",
		"reply host br input un-dnat 10.0.0.2:80 -> 192.0.2.10:8080")
}

// TestWordsOfDrops keep the kernel's name, and say what it means.
func TestWordsOfDrops(t *testing.T) {
	for _, c := range []struct{ reason, symbol, want string }{
		{"NEIGH_FAILED", "neigh_invalidate", "nobody answers for the next hop (NEIGH_FAILED in neigh_invalidate)"},
		{"NOT_SPECIFIED", "neigh_invalidate", "nobody answers for the next hop (NOT_SPECIFIED in neigh_invalidate)"},
		{"IP_INHDR", "ip_forward", "its time to live is over (IP_INHDR in ip_forward)"},
		{"IP_INHDR", "ip_rcv_core", "its header is not valid (IP_INHDR in ip_rcv_core)"},
		{"NOT_SPECIFIED", "some_function", "the kernel gives no reason (NOT_SPECIFIED in some_function)"},
		{"", "nft_do_chain", "the packet filter drops it (in nft_do_chain)"},
		{"OF_TOMORROW", "", "the kernel drops it (OF_TOMORROW)"},
		{"", "", "the kernel gives no reason"},
	} {
		if got := (&Drop{Reason: c.reason, Symbol: c.symbol, Packet: Packet{TTL: 1}}).words(); got != c.want {
			t.Errorf("%s in %s: %q, want %q", c.reason, c.symbol, got, c.want)
		}
	}
}

// TestLayersOfDrops: where the reason does not say it, the function does.
func TestLayersOfDrops(t *testing.T) {
	for _, c := range []struct {
		reason, symbol string
		want           api.Layer
	}{
		{"NO_TX_TARGET", "br_handle_frame_finish", api.LayerBridge},
		{"NO_TX_TARGET", "vxlan_xmit", api.LayerLink},
		{"IP_RPFILTER", "ip_rcv_finish_core", api.LayerRoute},
		{"NOT_SPECIFIED", "neigh_invalidate", api.LayerNeighbour},
	} {
		if got := (&Drop{Reason: c.reason, Symbol: c.symbol}).layer(); got != c.want {
			t.Errorf("%s in %s: %s, want %s", c.reason, c.symbol, got, c.want)
		}
	}
}

// TestLiveDrops tells of drops in the midst of flows where that is asked for.
func TestLiveDrops(t *testing.T) {
	h := host(t, "")
	out := flow("10.0.0.2", mark, "192.0.2.1", 80)
	data := Packet{Flow: out, TTL: 64, TCP: flagACK}
	for _, each := range []bool{true, false} {
		l := Live{Machine: h, Level: api.LevelTracepoints, EachDrop: each}
		l.Add(Watch{Drops: []Drop{
			drop(1, "web", "eth0", "QDISC_DROP", "__dev_queue_xmit", data),
			drop(2, "web", "eth0", "OTHERHOST", "ip_rcv_core", data),
			drop(3, "host", "br", "NETFILTER_DROP", "nf_hook_slow", Packet{Flow: flow("10.0.0.2", mark+1, "192.0.2.1", 80), TTL: 64, TCP: flagSYN}),
		}}, 0)
		paths := l.Ready(micro(3) + delay + still)
		if each {
			if len(paths) == 0 {
				t.Fatal("no path of a drop in the midst of a flow")
			}
			expect(t, paths[0], api.Dropped, "at eth0 of web: the queue of the link drops it (QDISC_DROP in __dev_queue_xmit)",
				"request web eth0 egress drop the queue of the link drops it (QDISC_DROP in __dev_queue_xmit)")
			paths = paths[1:]
		}
		if len(paths) != 1 || paths[0].Verdict != api.Dropped || paths[0].From.NS != "host" || len(paths[0].Hops) != 1 {
			t.Errorf("each %v: %+v", each, paths)
		}
	}
}

// TestErrorThatIsCut: an error quotes no more than the ports, and is known by them.
func TestErrorThatIsCut(t *testing.T) {
	out := flow("10.0.0.2", mark, "192.0.2.1", 80)
	p := Packet{Flow: api.Flow{Proto: "icmp", ICMPType: 3, ICMPCode: 1}, Quoted: &Packet{Flow: out}}
	if d, ok := Mark(mark).direction(p, Ends{}); d != api.ErrorBack || !ok {
		t.Errorf("%q, %v", d, ok)
	}
	if forth, _, begins := marks(p); forth != mark || begins {
		t.Errorf("mark %d, begins %v", forth, begins)
	}
}
