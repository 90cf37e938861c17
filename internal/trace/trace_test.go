package trace

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// host is a machine with a container on a bridge that is masqueraded.
func host(t *testing.T, rules string) *machine.Host {
	t.Helper()
	tables, err := nft.ParseTables(rules)
	if err != nil {
		t.Fatal(err)
	}
	for i := range tables {
		for j := range tables[i].Chains {
			for k := range tables[i].Chains[j].Rules {
				tables[i].Chains[j].Rules[k].Handle = uint64(10 + k)
			}
		}
	}
	return &machine.Host{Spaces: []machine.Space{
		{Name: machine.HostName, Tables: tables, Links: []machine.Link{
			{Name: "br", Index: 2, Type: "bridge"}, {Name: "v-web", Index: 3, Type: "veth", Master: "br"}, {Name: "eth0", Index: 4, Type: "veth"},
		}},
		{
			Name: "web", Links: []machine.Link{{Name: "eth0", Index: 2, Type: "veth"}, {Name: "lo", Index: 1, Type: "loopback"}},
			Addresses: []machine.Address{{Dev: "eth0", Prefix: netip.MustParsePrefix("10.0.0.2/24")}},
		},
	}}
}

const mark = 40000

func flow(src string, sport uint16, dst string, dport uint16) api.Flow {
	return api.Flow{Proto: "tcp", Src: netip.MustParseAddr(src), Sport: sport, Dst: netip.MustParseAddr(dst), Dport: dport}
}

func seen(at int, space, link string, out bool, p Packet) Sighting {
	return Sighting{At: time.Duration(at) * time.Microsecond, Space: space, Link: link, Out: out, Packet: p}
}

func told(p api.Path) string {
	var out []string
	for _, h := range p.Hops {
		out = append(out, strings.Join([]string{string(h.Direction), h.NS, h.Device, string(h.Layer), h.Action, h.Detail}, " "))
	}
	return strings.Join(out, "\n")
}

func expect(t *testing.T, p api.Path, verdict api.Verdict, reason string, hops ...string) {
	t.Helper()
	if p.Verdict != verdict || !strings.Contains(p.Reason, reason) {
		t.Errorf("%s: %q, want %s: %q", p.Verdict, p.Reason, verdict, reason)
	}
	if got, want := told(p), strings.Join(hops, "\n"); got != want {
		t.Errorf("hops:\n%s\nwant:\n%s", got, want)
	}
}

// TestJoinOfMasquerade puts a translated packet and its answer together, in
// whatever order they were heard of.
func TestJoinOfMasquerade(t *testing.T) {
	h := host(t, `table ip nat { chain post { type nat hook postrouting priority 100; policy accept; masquerade comment "out"; } }`)
	inside, outside := flow("10.0.0.2", mark, "192.0.2.1", 80), flow("192.0.2.10", mark, "192.0.2.1", 80)
	answer, back := flow("192.0.2.1", 80, "192.0.2.10", mark), flow("192.0.2.1", 80, "10.0.0.2", mark)
	w := Watch{
		Machine: h, From: "web", Mark: mark, Flow: inside, Got: true,
		Sightings: []Sighting{
			seen(9, "web", "eth0", false, Packet{Flow: back, TTL: 63, TCP: flagSYN}),
			seen(1, "web", "eth0", true, Packet{Flow: inside, TTL: 64, TCP: flagSYN}),
			seen(3, "host", "br", false, Packet{Flow: inside, TTL: 64, TCP: flagSYN}),
			seen(2, "host", "v-web", false, Packet{Flow: inside, TTL: 64, TCP: flagSYN}),
			seen(4, "host", "eth0", true, Packet{Flow: outside, TTL: 63, TCP: flagSYN}),
			seen(5, "host", "eth0", false, Packet{Flow: answer, TTL: 64, TCP: flagSYN}),
			seen(7, "host", "v-web", true, Packet{Flow: back, TTL: 63, TCP: flagSYN}),
			seen(10, "web", "eth0", true, Packet{Flow: inside, TTL: 64, TCP: flagRST}), // the kernel's own
		},
		Rulings: []Ruling{{
			At: 50, Space: "host", ID: 1, Family: nft.FamilyIP, Table: "nat", Chain: "post", Handle: 10, Verdict: "accept",
			Packet: &Packet{Flow: inside, TCP: flagSYN},
		}},
	}
	hops := []string{
		"request web eth0 route sends 10.0.0.2:40000 > 192.0.2.1:80",
		"request host v-web bridge receives port of bridge br",
		"request host br route routes 192.0.2.1 dev eth0",
		"request host eth0 postrouting masquerade 10.0.0.2:40000 -> 192.0.2.10:40000",
		"request host eth0 link sends 192.0.2.10:40000 > 192.0.2.1:80",
		"reply host eth0 link receives 192.0.2.1:80 > 192.0.2.10:40000",
		"reply host v-web prerouting un-snat 192.0.2.10:40000 -> 10.0.0.2:40000",
		"reply host eth0 route routes 10.0.0.2 dev v-web",
		"reply host br bridge bridges to port v-web",
		"reply web eth0 link receives 192.0.2.1:80 > 10.0.0.2:40000",
	}
	expect(t, Join(w), api.Answered, "", hops...)
	w.Got = false
	if p := Join(w); p.Verdict != api.Lost || !strings.Contains(p.Reason, "its answer was seen last at eth0 of web") {
		t.Errorf("an answer that the socket does not get: %s: %s", p.Verdict, p.Reason)
	}
}

// TestJoinOfDrop names the rule, its policy, and what came before.
func TestJoinOfDrop(t *testing.T) {
	h := host(t, `table inet f { chain c { type filter hook forward priority 0; policy drop; tcp dport 81 drop comment "no 81"; } }`)
	f := flow("10.0.0.2", mark, "192.0.2.1", 81)
	p := Packet{Flow: f, TTL: 64, TCP: flagSYN}
	w := Watch{
		Machine: h, From: "web", Mark: mark, Flow: f, Sightings: []Sighting{seen(1, "web", "eth0", true, p), seen(2, "host", "v-web", false, p)},
		Rulings: []Ruling{{Space: "host", ID: 7, Family: nft.FamilyInet, Table: "f", Chain: "c", Handle: 10, Verdict: "drop", Packet: &p, In: 2, Out: 4}},
	}
	begin := []string{"request web eth0 route sends 10.0.0.2:40000 > 192.0.2.1:81", "request host v-web bridge receives port of bridge br"}
	got := Join(w)
	expect(t, got, api.Dropped, `rule "no 81" of chain inet f c drops it`, append(begin, `request host br forward drop rule "no 81" of chain inet f c`)...)
	if got.Culprit == nil || got.Culprit.Handle != 10 {
		t.Errorf("culprit %+v", got.Culprit)
	}
	w.Rulings[0].Handle = 0
	expect(t, Join(w), api.Dropped, "the policy of chain inet f c drops it", append(begin, "request host br forward drop the policy of chain inet f c")...)
	w.Rulings = nil
	expect(t, Join(w), api.Lost, "it was seen last at v-web of host", begin...)
	w.Risen = map[string][]string{"host": {"IpExtInNoRoutes by 1"}}
	expect(t, Join(w), api.Dropped, "there IpExtInNoRoutes by 1 rose", begin...)
	w.Refusal = "EPERM (operation not permitted)"
	w.Sightings = nil
	expect(t, Join(w), api.Dropped, "the sender's own kernel does not send it: EPERM")
}

// TestJoinOfErrors tells apart who sent an ICMP error, and why.
func TestJoinOfErrors(t *testing.T) {
	h := host(t, `table inet f { }`)
	f := flow("10.0.0.2", mark, "192.0.2.1", 81)
	request := Packet{Flow: f, TTL: 64, TCP: flagSYN}
	for _, c := range []struct {
		from      string
		link      string
		typ, code uint8
		verdict   api.Verdict
		says      string
	}{
		{"192.0.2.1", "eth0", 3, 3, api.Refused, "nothing listens on port 81"},
		{"10.0.0.1", "eth0", 3, 0, api.Rejected, "10.0.0.1 answers: network unreachable"},
		{"10.0.0.1", "eth0", 11, 0, api.Rejected, "time to live is over"},
		{"10.0.0.1", "eth0", 3, 77, api.Rejected, "icmp type 3 code 77"},
		{"10.0.0.2", "lo", 3, 1, api.Dropped, "EHOSTUNREACH"},
		{"10.0.0.2", "lo", 3, 3, api.Refused, "nothing listens on port 81"}, // sent to oneself
	} {
		e := Packet{Flow: api.Flow{
			Proto: "icmp", Src: netip.MustParseAddr(c.from), Dst: f.Src, ICMPType: c.typ, ICMPCode: c.code,
		}, TTL: 64, Quoted: &request}
		p := Join(Watch{Machine: h, From: "web", Mark: mark, Flow: f, Sightings: []Sighting{
			seen(1, "web", "eth0", true, request), seen(2, "web", c.link, c.link == "lo", e),
		}})
		if p.Verdict != c.verdict || !strings.Contains(p.Reason, c.says) {
			t.Errorf("type %d code %d of %s: %s: %s", c.typ, c.code, c.from, p.Verdict, p.Reason)
		}
	}
}

// TestDifference finds the first hop that was not seen.
func TestDifference(t *testing.T) {
	hop := func(i int, ns, dev, action string, layer api.Layer) api.Hop {
		return api.Hop{Index: i, Direction: api.Request, NS: ns, Device: dev, Action: action, Layer: layer}
	}
	e := api.Path{Verdict: api.Delivered, Hops: []api.Hop{
		hop(0, "web", "eth0", "sends", api.LayerRoute), hop(1, "host", "v-web", "receives", api.LayerBridge),
		hop(2, "host", "eth0", "sends", api.LayerLink),
	}}
	a := api.Path{Verdict: api.Answered, Hops: e.Hops[1:]}
	if d := Difference(e, a); d != nil {
		t.Errorf("difference %d of equal paths", *d)
	}
	a.Hops = e.Hops[1:2]
	if d := Difference(e, a); d == nil || *d != 2 {
		t.Errorf("difference %v, want 2", d)
	}
	a = api.Path{Verdict: api.Lost, Hops: e.Hops[1:]}
	if d := Difference(e, a); d == nil || *d != 2 {
		t.Errorf("difference %v of another end, want 2", d)
	}
	if Agree(api.Path{Verdict: api.Undecided}, a) {
		t.Error("undecided agrees")
	}
}

// FuzzParsePacket: whatever is on a link must be read or refused.
func FuzzParsePacket(f *testing.F) {
	syn := append([]byte{0x45, 0, 0, 44, 0, 1, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1}, make([]byte, 24)...)
	syn[20], syn[21], syn[23], syn[33] = mark>>8, mark&0xff, 80, flagSYN
	f.Add(syn)
	f.Add(append([]byte{0x45, 0, 0, 72, 0, 1, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 3, 1, 0, 0, 0, 0, 0, 0}, syn...))
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 8, 58, 64}, make([]byte, 40)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := ParsePacket(b)
		if !ok {
			return
		}
		if !p.Flow.Src.IsValid() || p.Flow.Proto == "" {
			t.Errorf("read without addresses or protocol: %+v", p)
		}
		if Mark(mark).Has(p) && p.Quoted == nil && p.Flow.Sport != mark && p.Flow.Dport != mark && p.Echo != mark {
			t.Errorf("has not the mark: %+v", p)
		}
	})
}

// TestJoinOfUnheard: an error that came back to the sender's namespace, and that a
// rule there kept from it.
func TestJoinOfUnheard(t *testing.T) {
	h := host(t, `table inet f { chain c { type filter hook input priority 0; policy accept; meta l4proto icmp drop comment "no errors"; } }`)
	h.Spaces[1].Tables = h.Spaces[0].Tables
	f := flow("10.0.0.2", mark, "192.0.2.1", 81)
	request := Packet{Flow: f, TTL: 64, TCP: flagSYN}
	for _, c := range []struct {
		typ, code uint8
		verdict   api.Verdict
		says      string
	}{
		{3, 3, api.Refused, `nothing listens on port 81; its answer does not come back: rule "no errors" of chain inet f c drops it`},
		{3, 0, api.Dropped, `192.0.2.1 answers: network unreachable; the error does not come back: rule "no errors"`},
	} {
		e := Packet{Flow: api.Flow{Proto: "icmp", Src: f.Dst, Dst: f.Src, ICMPType: c.typ, ICMPCode: c.code}, TTL: 64, Quoted: &request}
		known := e
		known.Quoted = Mark(mark).Packet() // as the packet filter tells of it
		p := Join(Watch{
			Machine: h, From: "web", Mark: mark, Flow: f, Sightings: []Sighting{seen(1, "web", "eth0", true, request), seen(2, "web", "eth0", false, e)},
			Rulings: []Ruling{{At: 3, Space: "web", ID: 7, Family: nft.FamilyInet, Table: "f", Chain: "c", Handle: 10, Verdict: "drop", Packet: &known}},
		})
		expect(t, p, c.verdict, c.says, "request web eth0 route sends 10.0.0.2:40000 > 192.0.2.1:81", "error web eth0 link receives 192.0.2.1 > 10.0.0.2", `error web  input drop rule "no errors" of chain inet f c`)
		if p.Culprit == nil || p.Culprit.Handle != 10 {
			t.Errorf("culprit %+v", p.Culprit)
		}
	}
}

// TestJoinOfReturn: a packet that comes to its sender's namespace again is stopped
// there on its way in, not on its way out.
func TestJoinOfReturn(t *testing.T) {
	h := host(t, `table inet f { chain c { type filter hook prerouting priority 0; policy accept; tcp dport 81 drop comment "no 81"; } }`)
	h.Spaces[1].Tables = h.Spaces[0].Tables
	h.Spaces[0].Tables = nil
	f := flow("10.0.0.2", mark, "192.0.2.1", 81)
	p := Packet{Flow: f, TTL: 64, TCP: flagSYN}
	router := p
	router.TTL = 63
	expect(t, Join(Watch{
		Machine: h, From: "web", Mark: mark, Flow: f,
		Sightings: []Sighting{seen(1, "web", "eth0", true, p), seen(2, "host", "eth0", false, p), seen(3, "host", "eth0", true, router), seen(4, "web", "eth0", false, router)},
		Rulings:   []Ruling{{At: 5, Space: "web", ID: 7, Family: nft.FamilyInet, Table: "f", Chain: "c", Handle: 10, Verdict: "drop", Packet: &router, In: 2}},
	}), api.Dropped, `rule "no 81"`, "request web eth0 route sends 10.0.0.2:40000 > 192.0.2.1:81",
		"request host eth0 link receives 10.0.0.2:40000 > 192.0.2.1:81", "request host eth0 route routes 192.0.2.1 dev eth0",
		"request host eth0 link sends 10.0.0.2:40000 > 192.0.2.1:81", "request web eth0 link receives 10.0.0.2:40000 > 192.0.2.1:81",
		`request web eth0 prerouting drop rule "no 81" of chain inet f c`)
}

// TestBridgeTakesIn: what a bridge takes in from a port is told where it stays in
// the host, after what the port decides, and not where the host sends it on.
func TestBridgeTakesIn(t *testing.T) {
	h := host(t, "")
	h.Spaces[0].Addresses = []machine.Address{{Dev: "br", Prefix: netip.MustParsePrefix("10.0.0.1/24")}, {Dev: "eth0", Prefix: netip.MustParsePrefix("192.0.2.10/24")}}
	begin := []string{"request web eth0 route sends 10.0.0.2:40000 > 10.0.0.1:80", "request host v-web bridge receives port of bridge br"}
	syn := Packet{Flow: flow("10.0.0.2", mark, "10.0.0.1", 80), TTL: 64, TCP: flagSYN}
	all := []Sighting{seen(1, "web", "eth0", true, syn), seen(2, "host", "v-web", false, syn), seen(3, "host", "br", false, syn)}
	p := Join(Watch{Machine: h, From: "web", Mark: mark, Flow: syn.Flow, Sightings: all})
	expect(t, p, api.Lost, "it was seen last at br of host", append(begin, "request host br link receives 10.0.0.2:40000 > 10.0.0.1:80")...)
	// The host's address is translated, and the packet goes back to another container.
	sent := syn
	sent.Flow = flow("10.0.0.2", mark, "10.0.0.3", 80)
	p = Join(Watch{Machine: h, From: "web", Mark: mark, Flow: syn.Flow, Sightings: append(all, seen(4, "host", "v-web", true, sent))})
	for _, hop := range p.Hops {
		if hop.Device == "br" && hop.Action == "receives" {
			t.Errorf("the bridge is told to take it in: %v", told(p))
		}
	}
}
