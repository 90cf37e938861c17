package machine_test

import (
	"net/netip"
	"testing"

	"github.com/towpath/towpath/internal/machine"
)

// TestStranger: who stands for anybody outside has no route of his own.
func TestStranger(t *testing.T) {
	route := func(dst, via, dev string, metric uint32) machine.Route {
		r := machine.Route{Table: machine.TableMain, Type: machine.Unicast, Dst: netip.MustParsePrefix(dst), Dev: dev, Metric: metric}
		if via != "" {
			r.Via = netip.MustParseAddr(via)
		}
		return r
	}
	for _, c := range []struct {
		what     string
		routes   []machine.Route
		v6       bool
		stranger string // "": none
		link     string
		gateway  string
	}{
		{what: "no routes", stranger: "198.51.100.1"},
		{what: "no routes, IPv6", v6: true, stranger: "2001:db8::1"},
		{what: "the best of two default routes", stranger: "198.51.100.1", link: "eth1", gateway: "10.1.0.1", routes: []machine.Route{
			route("0.0.0.0/0", "10.0.0.1", "eth0", 200), route("0.0.0.0/0", "10.1.0.1", "eth1", 100), route("::/0", "fe80::1", "eth2", 1),
		}},
		{what: "a link with the first", stranger: "203.0.113.1", link: "eth0", routes: []machine.Route{
			route("0.0.0.0/0", "", "eth0", 0), route("198.51.100.0/24", "", "eth0", 0),
		}},
		{what: "a link with the first, IPv6", v6: true, stranger: "2001:db8:ffff::1", routes: []machine.Route{route("2001:db8::/64", "", "eth0", 0)}},
		{what: "all have routes", stranger: "192.0.2.9", link: "eth0", gateway: "192.0.2.9", routes: []machine.Route{
			route("0.0.0.0/0", "192.0.2.9", "eth0", 0), route("198.51.100.0/24", "", "a", 0), route("203.0.113.0/24", "", "b", 0), route("192.0.2.0/24", "", "eth0", 0),
		}},
		{what: "all have routes, and there is no gateway", routes: []machine.Route{route("128.0.0.0/1", "", "a", 0)}},
	} {
		s := &machine.Space{Name: machine.HostName, Routes: c.routes}
		got := ""
		if a := s.Stranger(c.v6); a.IsValid() {
			got = a.String()
		}
		link, via := s.Uplink(c.v6)
		gateway := ""
		if via.IsValid() {
			gateway = via.String()
		}
		if got != c.stranger || link != c.link || gateway != c.gateway {
			t.Errorf("%s: %q, by %q via %q; want %q, by %q via %q", c.what, got, link, gateway, c.stranger, c.link, c.gateway)
		}
	}
	var none *machine.Space
	if link, _ := none.Uplink(false); link != "" || none.Stranger(false) != netip.MustParseAddr("198.51.100.1") {
		t.Error("of no namespace something is known")
	}
}
