package walk_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/walk"
)

// question is a line of a table: a packet, and what becomes of it.
type question struct {
	from, to string
	verdict  api.Verdict
	// seen is the packet in the last hop of the request; "" is not looked at.
	seen string
	// why is in the reason; "" wants none.
	why string
}

// ask follows all packets of a table.
func ask(t *testing.T, w *walk.Walker, questions []question) {
	t.Helper()
	for _, q := range questions {
		p := follow(t, w, q.from, q.to)
		wrongWhy := q.why == "" && p.Reason != "" || !strings.Contains(p.Reason, q.why)
		if p.Verdict != q.verdict || wrongWhy || q.seen != "" && seen(p) != q.seen {
			t.Errorf("%s > %s: seen %q, want %s %q %q; the path is\n%s", q.from, q.to, seen(p), q.verdict, q.seen, q.why, hops(p))
		}
	}
}

// TestPlan asks of what the daemon makes by default.
func TestPlan(t *testing.T) {
	questions := []question{
		{"web", "192.0.2.1:80/tcp", api.Delivered, "192.0.2.10:49152 > 192.0.2.1:80", ""},
		{"web", "[2001:db8::1]:80/udp", api.Delivered, "[2001:db8::10]:49152 > [2001:db8::1]:80", ""},
		{"web", "192.0.2.1", api.Delivered, "192.0.2.10 > 192.0.2.1", ""},
		{"web", "2001:db8::1", api.Delivered, "2001:db8::10 > 2001:db8::1", ""},
		{"web", "192.0.2.1:81/tcp", api.Refused, "", "nothing in outside listens on tcp port 81"},
		{"web", "[2001:db8::1]:81/udp", api.Refused, "", "nothing in outside listens on udp port 81"},
		{"web", "172.20.0.3:80/tcp", api.Delivered, "172.20.0.2:49152 > 172.20.0.3:80", ""},
		{"web", "[fd00::3]:80/udp", api.Delivered, "[fd00::2]:49152 > [fd00::3]:80", ""},
		{"web", "172.20.0.3:81/udp", api.Refused, "", "nothing in app listens"},
		{"web", "172.20.0.2:80/tcp", api.Delivered, "172.20.0.2:49152 > 172.20.0.2:80", ""},
		{"web", "127.0.0.1:80/tcp", api.Delivered, "127.0.0.1:49152 > 127.0.0.1:80", ""},
		{"web", "172.20.1.2:80/tcp", api.Dropped, "", `rule "isolation"`},
		{"web", "172.20.1.2", api.Dropped, "", `rule "isolation"`},
		{"web", "172.20.0.1:80/tcp", api.Delivered, "172.20.0.2:49152 > 172.20.0.1:80", ""},
		{"web", "172.20.1.1:80/tcp", api.Delivered, "172.20.0.2:49152 > 172.20.1.1:80", ""},
		{"web", "192.0.2.10", api.Delivered, "172.20.0.2 > 192.0.2.10", ""},
		{"web", "172.20.0.77:80/tcp", api.Dropped, "", "nobody on eth0 answers for 172.20.0.77: EHOSTUNREACH"},
		{"web", "192.0.2.77:80/tcp", api.Rejected, "", "nobody on eth0 answers for 192.0.2.77"},
		{"web", "172.20.0.255:80/udp", api.Dropped, "", "broadcast address: EACCES"},
		{"web", "224.0.0.9:80/udp", api.Undecided, "", "not followed"},
		{"host", "172.20.0.2:80/tcp", api.Delivered, "172.20.0.1:49152 > 172.20.0.2:80", ""},
		{"host", "[fd00::2]:80/udp", api.Delivered, "[fd00::1]:49152 > [fd00::2]:80", ""},
		{"host", "127.0.0.1:81/udp", api.Refused, "", "nothing in host listens"},
		{"host", "::1", api.Delivered, "::1 > ::1", ""},
		{"host", "172.20.0.1", api.Delivered, "172.20.0.1 > 172.20.0.1", ""},
		{"outside", "192.0.2.10:80/tcp", api.Delivered, "192.0.2.1:49152 > 192.0.2.10:80", ""},
		{"outside", "172.20.0.2:80/tcp", api.Dropped, "", `rule "direct access from outside"`},
		{"outside", "fd00::2", api.Dropped, "", `rule "direct access from outside"`},
		{"outside", "172.20.0.255:80/udp", api.Delivered, "192.0.2.1:49152 > 172.20.0.255:80", "its answer does not come back: it comes as 192.0.2.10:80"},
		{"outside", "172.20.0.255", api.Dropped, "", "ignored"},
	}
	for name, change := range map[string]func(*machine.Host){"bridge-nf-call=0": nil, "bridge-nf-call=1": bridgeNF} {
		t.Run(name, func(t *testing.T) { ask(t, newWorld(t).build("", change), questions) })
	}
}

// TestSeveralNetworks: an answer leaves by the interface the question came in on.
func TestSeveralNetworks(t *testing.T) {
	w := newWorld(t)
	w.view.Networks["front"].GatewayMode = api.GatewayRouted
	k := w.build("", func(h *machine.Host) { space(h, "db").Sysctls["net/ipv4/conf/all/rp_filter"] = "1" })
	ask(t, k, []question{
		{"db", "192.0.2.1:80/tcp", api.Delivered, "192.0.2.10:49152 > 192.0.2.1:80", ""}, // the default route is that of back
		{"db", "[2001:db8::1]:80/tcp", api.Delivered, "[fd00::4]:49152 > [2001:db8::1]:80", ""},
		{"db=172.20.0.4", "192.0.2.1:80/tcp", api.Delivered, "172.20.0.4:49152 > 192.0.2.1:80", ""},
		{"outside", "172.20.0.4", api.Delivered, "192.0.2.1 > 172.20.0.4", ""},
		{"web", "172.20.0.4:80/tcp", api.Delivered, "172.20.0.2:49152 > 172.20.0.4:80", ""},
	})
}

// TestModes asks of networks that are not as by default.
func TestModes(t *testing.T) {
	for _, c := range []struct {
		name      string
		change    func(*driver.View)
		questions []question
	}{
		{"internal", func(v *driver.View) { v.Networks["front"].Internal = true }, []question{
			{"web", "172.20.0.3:80/tcp", api.Delivered, "172.20.0.2:49152 > 172.20.0.3:80", ""},
			{"web", "192.0.2.1:80/tcp", api.Dropped, "", "web has no route to 192.0.2.1: ENETUNREACH"},
			{"host", "172.20.0.2:80/tcp", api.Delivered, "172.20.0.1:49152 > 172.20.0.2:80", ""},
			{"web", "172.20.0.1", api.Delivered, "172.20.0.2 > 172.20.0.1", ""},
			{"outside", "172.20.0.2:80/tcp", api.Dropped, "", `rule "direct access from outside"`},
		}},
		{"isolated", func(v *driver.View) {
			v.Networks["front"].Internal, v.Networks["front"].GatewayMode = true, api.GatewayIsolated
			for _, e := range v.EndpointsOn("front") {
				e.Gateways = nil
			}
		}, []question{
			{"web", "172.20.0.3:80/tcp", api.Delivered, "172.20.0.2:49152 > 172.20.0.3:80", ""},
			{"web", "172.20.0.1", api.Dropped, "", "nobody on eth0 answers for 172.20.0.1"},
			{"host", "172.20.0.2:80/tcp", api.Dropped, "", "outside does not forward"}, // the host knows no other way than its default route
		}},
		{"routed", func(v *driver.View) { v.Networks["front"].GatewayMode = api.GatewayRouted }, []question{
			{"web", "192.0.2.1:80/tcp", api.Delivered, "172.20.0.2:49152 > 192.0.2.1:80", ""},
			{"web", "[2001:db8::1]:80/tcp", api.Delivered, "[fd00::2]:49152 > [2001:db8::1]:80", ""},
			{"outside", "172.20.0.2", api.Delivered, "192.0.2.1 > 172.20.0.2", ""},
			{"outside", "fd00::2", api.Delivered, "2001:db8::1 > fd00::2", ""},
			{"outside", "172.20.0.2:80/tcp", api.Dropped, "", `rule "direct access from outside"`},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.change(&w.view)
			ask(t, w.build("", nil), c.questions)
		})
	}
}

// TestICCOff: frames between containers end at isolated ports where they bypass
// the rules, and at the rules where they do not.
func TestICCOff(t *testing.T) {
	for name, nf := range map[string]bool{"ports": false, "rules": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.view.Networks["front"].ICC, w.view.Host.BridgeNF4, w.view.Host.BridgeNF6 = false, nf, nf
			why4, why6, change := "nobody on eth0 answers for 172.20.0.3", "nobody on eth0 answers for fd00::3", (func(*machine.Host))(nil)
			if nf {
				why4, why6, change = `rule "icc off"`, `neighbour discovery of fd00::3: rule "icc off"`, bridgeNF
			}
			ask(t, w.build("", change), []question{
				{"web", "172.20.0.3:80/tcp", api.Dropped, "", why4},
				{"web", "[fd00::3]:80/tcp", api.Dropped, "", why6},
				{"web", "192.0.2.1:80/tcp", api.Delivered, "192.0.2.10:49152 > 192.0.2.1:80", ""},
				{"web", "[2001:db8::1]:80/tcp", api.Delivered, "[2001:db8::10]:49152 > [2001:db8::1]:80", ""},
				{"host", "172.20.0.3:80/tcp", api.Delivered, "172.20.0.1:49152 > 172.20.0.3:80", ""},
				{"db", "172.20.1.1", api.Delivered, "172.20.1.2 > 172.20.1.1", ""},
			})
		})
	}
}

// TestFromOutsideByLink: nobody is known beyond the uplink, and whoever is there
// answers.
func TestFromOutsideByLink(t *testing.T) {
	w := newWorld(t)
	k := w.build("", func(h *machine.Host) {
		for i := range h.Spaces {
			if h.Spaces[i].Name == "outside" {
				h.Spaces = append(h.Spaces[:i], h.Spaces[i+1:]...)
				break
			}
		}
		for i := range space(h, "host").Links {
			if l := &space(h, "host").Links[i]; l.Name == "eth0" {
				l.PeerNS, l.Peer = "", ""
			}
		}
	})
	ask(t, k, []question{
		{"host@eth0=192.0.2.55", "192.0.2.10:80/tcp", api.Delivered, "192.0.2.55:49152 > 192.0.2.10:80", ""},
		{"host@eth0=203.0.113.5", "172.20.0.2:80/tcp", api.Dropped, "", `rule "direct access from outside"`},
		{"host@eth0=2001:db8::55", "[2001:db8::10]:81/udp", api.Refused, "", "nothing in host listens"},
		{"web", "198.51.100.7:443/tcp", api.Delivered, "192.0.2.10:49152 > 198.51.100.7:443", ""},
		{"web", "2001:db8:5::7", api.Delivered, "2001:db8::10 > 2001:db8:5::7", ""},
	})
	p := follow(t, k, "web", "198.51.100.7:443/tcp")
	if p.To != (api.Party{Name: "outside", Addr: netip.MustParseAddr("198.51.100.7")}) {
		t.Errorf("the packet goes to %+v", p.To)
	}
	if p = follow(t, k, "host@eth0=192.0.2.55", "192.0.2.10"); p.From.Name != "outside" || p.To.Name != "host" {
		t.Errorf("from %+v to %+v", p.From, p.To)
	}
}
