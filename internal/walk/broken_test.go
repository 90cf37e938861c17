package walk_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/walk"
)

// onLink changes a link of a namespace.
func onLink(ns, name string, change func(*machine.Link)) func(*machine.Host) {
	return func(h *machine.Host) {
		for i := range space(h, ns).Links {
			if l := &space(h, ns).Links[i]; l.Name == name {
				change(l)
			}
		}
	}
}

// down sets a link down; its routes are then not used.
func down(l *machine.Link) { l.Up = false }

// sysctls sets values of a namespace.
func sysctls(ns string, pairs ...string) func(*machine.Host) {
	return func(h *machine.Host) {
		for i := 0; i < len(pairs); i += 2 {
			space(h, ns).Sysctls[pairs[i]] = pairs[i+1]
		}
	}
}

// routes adds routes to the main table of a namespace, before what is there.
func routes(ns string, list ...machine.Route) func(*machine.Host) {
	return func(h *machine.Host) {
		for _, r := range list {
			r.Table = max(r.Table, machine.TableMain)
			space(h, ns).Routes = slices.Insert(space(h, ns).Routes, 0, r)
		}
	}
}

// TestBroken breaks one thing at a time.
func TestBroken(t *testing.T) {
	far4, far6 := netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:5::/48")
	for _, c := range []struct {
		name      string
		change    func(*machine.Host)
		questions []question
	}{
		{"interface down", onLink("web", "eth0", down), []question{
			{"web", "192.0.2.1", api.Dropped, "", "web has no route to 192.0.2.1: ENETUNREACH"},
			{"host", "172.20.0.2", api.Dropped, "", "nobody on tp-front answers for 172.20.0.2"},
			{"app", "172.20.0.2", api.Dropped, "", "nobody on eth0 answers"},
		}},
		{"no carrier", onLink("host", "eth0", func(l *machine.Link) { l.NoCarrier = true }), []question{
			{"web", "192.0.2.1", api.Rejected, "", "link eth0 has no carrier"},
			{"host", "192.0.2.1", api.Dropped, "", "link eth0 has no carrier"},
		}},
		{"host end down", onLink("host", "v-web-eth0", down), []question{
			{"web", "172.20.0.3", api.Dropped, "", "nobody on eth0 answers"},
			{"host", "172.20.0.2", api.Dropped, "", "nobody on tp-front answers"},
		}},
		{"bridge down", onLink("host", "tp-front", down), []question{
			{"web", "172.20.0.3", api.Dropped, "", "nobody on eth0 answers"},
			{"web", "192.0.2.1", api.Dropped, "", "nobody on eth0 answers for 172.20.0.1"},
		}},
		{"other end not known", onLink("host", "v-web-eth0", func(l *machine.Link) { l.PeerNS = "gone" }), []question{
			{"host", "172.20.0.2", api.Dropped, "", "nobody on tp-front answers"},
		}},
		{"port without its bridge", onLink("host", "v-web-eth0", func(l *machine.Link) { l.Master = "" }), []question{
			{"web", "172.20.0.3", api.Dropped, "", "nobody on eth0 answers"},
		}},
		{"ip_forward", sysctls("host", "net/ipv4/ip_forward", "0"), []question{
			{"web", "192.0.2.1", api.Dropped, "", "host does not forward IPv4 that comes in by tp-front"},
			{"web", "2001:db8::1", api.Delivered, "2001:db8::10 > 2001:db8::1", ""},
			{"web", "172.20.0.1", api.Delivered, "172.20.0.2 > 172.20.0.1", ""},
		}},
		{"forwarding of one link", sysctls("host", "net/ipv4/conf/tp-front/forwarding", "0"), []question{
			{"web", "192.0.2.1", api.Dropped, "", "does not forward IPv4"},
			{"db", "192.0.2.1", api.Delivered, "192.0.2.10 > 192.0.2.1", ""},
		}},
		{"force_forwarding", sysctls("host", "net/ipv6/conf/eth0/force_forwarding", "0"), []question{
			{"web", "2001:db8::1", api.Delivered, "", "its answer does not come back: host does not forward IPv6 that comes in by eth0"},
		}},
		{"forwarding of IPv6", sysctls("host", "net/ipv6/conf/tp-front/force_forwarding", "0", "net/ipv6/conf/all/forwarding", "1"), []question{
			{"web", "2001:db8::1", api.Delivered, "2001:db8::10 > 2001:db8::1", ""},
		}},
		{"no route back", func(h *machine.Host) {
			s := space(h, "outside")
			s.Routes = slices.DeleteFunc(s.Routes, func(r machine.Route) bool { return r.Dst == netip.MustParsePrefix("172.20.0.0/16") })
			space(h, "host").Tables = nil
		}, []question{
			{"web", "192.0.2.1", api.Delivered, "172.20.0.2 > 192.0.2.1", "its answer does not come back: outside has no route to 172.20.0.2: ENETUNREACH"},
		}},
		{"blackhole", routes("host", machine.Route{Type: machine.Blackhole, Dst: far4}, machine.Route{Type: machine.Blackhole, Dst: far6}), []question{
			{"web", "198.51.100.7", api.Dropped, "", "the route of host to 198.51.100.0/24 is a blackhole"},
			{"web", "2001:db8:5::7", api.Dropped, "", "the route of host to 2001:db8:5::/48 is a blackhole"},
			{"host", "198.51.100.7", api.Dropped, "", "it is a blackhole route, EINVAL"},
		}},
		{"unreachable", routes("host", machine.Route{Type: machine.Unreachable, Dst: far4}, machine.Route{Type: machine.Unreachable, Dst: far6}), []question{
			{"web", "198.51.100.7", api.Rejected, "", "is unreachable"},
			{"web", "2001:db8:5::7", api.Rejected, "", "is unreachable"},
			{"host", "198.51.100.7", api.Dropped, "", "it is an unreachable route, EHOSTUNREACH"},
		}},
		{"prohibit", routes("host", machine.Route{Type: machine.Prohibit, Dst: far4}, machine.Route{Type: machine.Prohibit, Dst: far6}), []question{
			{"web", "198.51.100.7", api.Rejected, "", "prohibits it"},
			{"web", "2001:db8:5::7", api.Rejected, "", "prohibits it"},
			{"host", "198.51.100.7", api.Dropped, "", "it is a prohibit route, EACCES"},
		}},
		{"throw", routes("host", machine.Route{Type: machine.Throw, Dst: far4}, machine.Route{Type: machine.Throw, Dst: far6}), []question{
			{"web", "198.51.100.7", api.Rejected, "", "host has no route to 198.51.100.7"},
			{"web", "2001:db8:5::7", api.Rejected, "", "host has no route to 2001:db8:5::7"},
		}},
		{"rp_filter strict", func(h *machine.Host) {
			sysctls("host", "net/ipv4/conf/all/rp_filter", "1")(h)
			routes("host", machine.Route{Type: machine.Unicast, Dst: netip.MustParsePrefix("172.20.0.2/32"), Dev: "eth0"})(h)
		}, []question{
			{"web", "192.0.2.1", api.Dropped, "", "nobody on eth0 answers for 172.20.0.1"}, // ARP is filtered too
			{"host@v-web-eth0=172.20.0.2", "192.0.2.1:80/tcp", api.Dropped, "", "rp_filter: the route back to 172.20.0.2 is over eth0, not tp-front"},
			{"host@v-web-eth0=172.20.0.3", "192.0.2.1:80/tcp", api.Delivered, "", "its answer"},
		}},
		{"rp_filter loose", func(h *machine.Host) {
			sysctls("host", "net/ipv4/conf/eth0/rp_filter", "2")(h)
			routes("host", machine.Route{Type: machine.Unreachable, Dst: far4})(h)
		}, []question{
			{"host@eth0=198.51.100.7", "192.0.2.10:80/tcp", api.Dropped, "", "rp_filter: there is no route back to 198.51.100.7"},
			{"host@eth0=172.20.0.77", "192.0.2.10:80/tcp", api.Delivered, "172.20.0.77:49152 > 192.0.2.10:80", "its answer"},
		}},
		{"echo ignored", sysctls("app", "net/ipv4/icmp_echo_ignore_all", "1", "net/ipv6/icmp/echo_ignore_all", "1"), []question{
			{"web", "172.20.0.3", api.Dropped, "", "echo requests are ignored here"},
			{"web", "fd00::3", api.Dropped, "", "echo requests are ignored here"},
			{"web", "172.20.0.3:80/tcp", api.Delivered, "", ""},
		}},
		{"wrong neighbour", func(h *machine.Host) {
			space(h, "host").Neighbours = []machine.Neighbour{{Dev: "tp-front", IP: netip.MustParseAddr("172.20.0.2"), MAC: "02:00:00:00:00:ee"}}
		}, []question{{"host", "172.20.0.2", api.Dropped, "", "no port of bridge tp-front leads to 02:00:00:00:00:ee"}}},
		{"neighbour that is down", func(h *machine.Host) {
			space(h, "host").Neighbours = []machine.Neighbour{{Dev: "tp-front", IP: netip.MustParseAddr("172.20.0.2"), MAC: macOf(h, "web"), State: machine.NeighbourStale}}
			space(h, "web").Link("eth0").Up = false
		}, []question{
			{"host", "172.20.0.2", api.Dropped, "", "(web has it, but its link eth0 is down)"},
		}},
		{"neighbour of another", func(h *machine.Host) {
			space(h, "host").Neighbours = []machine.Neighbour{{Dev: "tp-front", IP: netip.MustParseAddr("172.20.0.2"), MAC: macOf(h, "app")}}
		}, []question{{"host", "172.20.0.2", api.Dropped, "", "app does not forward IPv4"}}},
		{"static entry of another port", func(h *machine.Host) {
			space(h, "host").Forwarding = []machine.ForwardingEntry{{Dev: "v-app-eth0", MAC: macOf(h, "web"), Bridge: "tp-front", Static: true}}
		}, []question{{"host", "172.20.0.2", api.Dropped, "", "the frame is for eth0 of web, not for eth0 of app"}}},
		{"listener of one address", func(h *machine.Host) {
			space(h, "web").Listeners = []machine.Listener{{Proto: "tcp", Addr: netip.MustParseAddr("127.0.0.1"), Port: 80}, {Proto: "udp", Addr: netip.IPv4Unspecified(), Port: 80}}
		}, []question{
			{"host", "172.20.0.2:80/tcp", api.Refused, "", "nothing in web listens"},
			{"web", "127.0.0.1:80/tcp", api.Delivered, "", ""},
			{"host", "172.20.0.2:80/udp", api.Delivered, "", ""},
			{"host", "[fd00::2]:80/udp", api.Refused, "", ""},
		}},
		{"listeners not known", func(h *machine.Host) { space(h, "web").Listeners = nil }, []question{{"host", "172.20.0.2:1234/tcp", api.Delivered, "", ""}}},
		{"routers in circles", func(h *machine.Host) {
			routes("host", machine.Route{Type: machine.Unicast, Dst: far4, Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"})(h)
			routes("outside", machine.Route{Type: machine.Unicast, Dst: far4, Via: netip.MustParseAddr("192.0.2.10"), Dev: "eth0"})(h)
			sysctls("outside", "net/ipv4/ip_forward", "1")(h)
			space(h, "host").Tables = nil
		}, []question{{"web", "198.51.100.7", api.Rejected, "", "its time to live is over"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, q := range c.questions {
				if q.verdict == api.Refused && q.why == "" {
					c.questions[i].why = "listens"
				}
			}
			ask(t, newWorld(t).build("", c.change), c.questions)
		})
	}
}

func macOf(h *machine.Host, sandbox string) string {
	i := slices.IndexFunc(space(h, sandbox).Links, func(l machine.Link) bool { return l.Name == "eth0" })
	return space(h, sandbox).Links[i].MAC
}

// TestPolicyRouting asks by rules of all kinds.
func TestPolicyRouting(t *testing.T) {
	to := netip.MustParsePrefix
	for _, c := range []struct {
		name string
		rule machine.Rule
		want string // of the answer to web > 198.51.100.7, whose route in table 100 is a blackhole
	}{
		{"to", machine.Rule{To: to("198.51.100.0/24"), Table: 100}, "blackhole"},
		{"to another", machine.Rule{To: to("198.51.101.0/24"), Table: 100}, "no route"},
		{"from", machine.Rule{From: to("172.20.0.0/30"), Table: 100}, "blackhole"},
		{"iif", machine.Rule{IIf: "tp-front", Table: 100}, "blackhole"},
		{"iif of another", machine.Rule{IIf: "lo", Table: 100}, "no route"},
		{"oif", machine.Rule{OIf: "eth0", Table: 100}, "no route"},
		{"mark", machine.Rule{Mark: 1, Mask: 1, Table: 100}, "no route"},
		{"not", machine.Rule{Not: true, IIf: "eth0", Table: 100}, "blackhole"},
		{"other family", machine.Rule{IPv6: true, Table: 100}, "no route"},
		{"action", machine.Rule{Action: machine.Prohibit}, "prohibits"},
		{"suppressed", machine.Rule{Table: 100, SuppressPrefix: 24}, "no route"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newWorld(t).build("", func(h *machine.Host) {
				s := space(h, "host")
				s.Routes = slices.DeleteFunc(s.Routes, func(r machine.Route) bool { return r.Dst.Bits() == 0 })
				s.Routes = append(s.Routes, machine.Route{Table: 100, Type: machine.Blackhole, Dst: to("198.51.100.0/24")})
				c.rule.Priority, c.rule.Action = 50, max(c.rule.Action, machine.Unicast)
				if c.rule.SuppressPrefix == 0 {
					c.rule.SuppressPrefix = -1
				}
				s.Rules = append(s.Rules, c.rule)
			})
			if p := follow(t, k, "web", "198.51.100.7"); !strings.Contains(p.Reason, c.want) {
				t.Errorf("%s, want %s", hops(p), c.want)
			}
		})
	}
}

// TestBadQuestions: each names what is wrong.
func TestBadQuestions(t *testing.T) {
	k := newWorld(t).build("", nil)
	dst := netip.MustParseAddrPort("192.0.2.1:80")
	for want, q := range map[string]walk.Question{
		`there is no namespace "nobody"`:       {From: "nobody", Dst: dst, Proto: "tcp"},
		`protocol "gre" is not known`:          {From: "web", Dst: dst, Proto: "gre"},
		"no destination":                       {From: "web", Proto: "tcp"},
		"source ::1 and destination":           {From: "web", Src: netip.MustParseAddrPort("[::1]:1"), Dst: dst, Proto: "tcp"},
		`there is no link "eth9"`:              {From: "host", Link: "eth9", Src: dst, Dst: dst, Proto: "tcp"},
		"a packet from outside needs a source": {From: "host", Link: "eth0", Dst: dst, Proto: "tcp"},
		"walk from nobody to 192.0.2.1:80: ":   {From: "nobody", Dst: dst, Proto: "tcp"},
	} {
		if _, err := k.Walk(q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", q, err, want)
		}
	}
	if _, err := walk.New(machine.Host{Spaces: []machine.Space{{Name: "a"}, {Name: "a"}}}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a namespace twice: %v", err)
	}
}
