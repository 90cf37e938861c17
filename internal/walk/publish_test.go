package walk_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// publish adds "-p SPEC" to a sandbox.
func (w *world) publish(sandbox, spec string) {
	w.Helper()
	p, err := api.ParsePublication(spec)
	if err != nil {
		w.Fatal(err)
	}
	p.Sandbox = sandbox
	w.view.Publications.Put(&p)
}

// TestPassedOn: clients of a family that the container has no address of reach
// the socket that holds the port, if they may.
func TestPassedOn(t *testing.T) {
	w := newWorld(t)
	w.network("four", 7, false)
	w.connect("old", "four", "eth0", 2)
	w.publish("old", "8080:80")
	w.publish("old", "8081:80,from=2001:db8::/64")
	w.publish("old", "8082:80,from=2001:db8:1::/64")
	w.publish("old", "8083:80,from=192.0.2.0/24")
	ask(t, w.build("", nil), []question{
		{"outside", "[2001:db8::10]:8080/tcp", api.Delivered, "[2001:db8::1]:49152 > [2001:db8::10]:8080", ""},
		{"outside", "192.0.2.10:8080/tcp", api.Delivered, "192.0.2.1:49152 > 172.20.7.2:80", ""},
		{"outside", "[2001:db8::10]:8081/tcp", api.Delivered, "[2001:db8::1]:49152 > [2001:db8::10]:8081", ""},
		{"outside", "[2001:db8::10]:8082/tcp", api.Dropped, "", "held for a publication"},
		{"outside", "[2001:db8::10]:8083/tcp", api.Dropped, "", "held for a publication"},
	})
}

// TestPublished asks from everywhere for what is published. Where br_netfilter
// is on, a hairpin is bridged and not routed, with the same result.
func TestPublished(t *testing.T) {
	questions := []question{
		{"outside", "192.0.2.10:8080/tcp", api.Delivered, "192.0.2.1:49152 > 172.20.0.2:80", ""},
		{"outside", "[2001:db8::10]:8080/tcp", api.Delivered, "[2001:db8::1]:49152 > [fd00::2]:80", ""},
		{"outside", "172.20.1.1:8080/tcp", api.Delivered, "192.0.2.1:49152 > 172.20.0.2:80", ""},
		{"outside", "192.0.2.10:8080/udp", api.Refused, "", "nothing in host listens on udp port 8080"},
		{"outside", "192.0.2.10:8081/tcp", api.Refused, "192.0.2.1:49152 > 172.20.0.2:81", "nothing in web listens on tcp port 81"},
		{"outside", "192.0.2.10:8082/udp", api.Dropped, "", "the port is held for a publication"},
		{"outside", "192.0.2.10:8083/tcp", api.Delivered, "192.0.2.1:49152 > 172.20.0.3:80", ""},
		{"outside", "172.20.0.1:8083/tcp", api.Refused, "", "nothing in host listens on tcp port 8083"},
		{"outside", "192.0.2.10:8084/tcp", api.Delivered, "192.0.2.1:49152 > 172.20.0.2:80", ""},
		{"web", "192.0.2.10:8084/tcp", api.Dropped, "", "the port is held for a publication"},
		{"host", "192.0.2.10:8080/tcp", api.Delivered, "192.0.2.10:49152 > 172.20.0.2:80", ""},
		{"host", "127.0.0.1:8080/tcp", api.Delivered, "172.20.0.1:49152 > 172.20.0.2:80", ""},
		{"host", "127.0.0.1:8082/udp", api.Delivered, "172.20.0.1:49152 > 172.20.0.2:80", ""},
		{"web", "192.0.2.10:8080/tcp", api.Delivered, "172.20.0.1:49152 > 172.20.0.2:80", ""},
		{"web", "[2001:db8::10]:8080/tcp", api.Delivered, "[fd00::1]:49152 > [fd00::2]:80", ""},
		{"app", "172.20.0.1:8080/tcp", api.Delivered, "172.20.0.1:49152 > 172.20.0.2:80", ""},
		{"app", "[fd00::1]:8080/tcp", api.Delivered, "[fd00::1]:49152 > [fd00::2]:80", ""},
		{"db", "172.20.1.1:8080/tcp", api.Delivered, "172.20.1.2:49152 > 172.20.0.2:80", ""},
		{"outside", "172.20.0.2:80/tcp", api.Dropped, "", `rule "direct access from outside"`},
	}
	// With br_netfilter the translation is undone in the bridge, and the IPv6
	// input then drops what is for ::1 and came by a link (ip6_rcv_core).
	loopback := question{"host", "[::1]:8080/tcp", api.Delivered, "[fd00::1]:49152 > [fd00::2]:80", ""}
	dead := loopback
	dead.why = "the loopback address of IPv6 came in by a link"
	for name, c := range map[string]struct {
		change func(*machine.Host)
		last   question
	}{"bridge-nf-call=0": {nil, loopback}, "bridge-nf-call=1": {bridgeNF, dead}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.publish("web", "8080:80")
			w.publish("web", "8081:81")
			w.publish("web", "127.0.0.1:8082:80/udp")
			w.publish("app", "192.0.2.10:8083:80")
			w.publish("web", "8084:80,from=192.0.2.0/24")
			ask(t, w.build("", func(h *machine.Host) {
				if c.change != nil {
					c.change(h)
				}
				// A specific address is held beside what others have.
				held := space(h, "host").Held
				for i := range held {
					if held[i].Port == 8082 {
						held[i].Addr = netip.IPv4Unspecified()
					}
				}
			}), slices.Concat(questions, []question{c.last}))
		})
	}
}

// TestHairpin tells the two ways of a hairpin apart.
func TestHairpin(t *testing.T) {
	w := newWorld(t)
	w.publish("web", "8080:80")
	var ways [2]string
	for i, change := range []func(*machine.Host){nil, bridgeNF} {
		for _, h := range follow(t, w.build("", change), "web", "192.0.2.10:8080/tcp").Hops {
			if h.Direction == api.Request && h.NS == "host" {
				ways[i] += h.Action + " "
			}
		}
	}
	if want := "receives dnat routes accept masquerade sends "; ways[0] != want {
		t.Errorf("routed: %s, want %s", ways[0], want)
	}
	if want := "receives dnat accept masquerade bridges "; ways[1] != want {
		t.Errorf("bridged: %s, want %s", ways[1], want)
	}
	off := w.build("", func(h *machine.Host) {
		bridgeNF(h)
		for i := range space(h, "host").Links {
			space(h, "host").Links[i].Hairpin = false
		}
	})
	ask(t, off, []question{
		{"web", "192.0.2.10:8080/tcp", api.Dropped, "", "hairpin is off"},
		{"app", "192.0.2.10:8080/tcp", api.Delivered, "172.20.0.1:49152 > 172.20.0.2:80", ""},
	})
}

// TestLoopbackNeedsHelp takes away what translated loopback packets need.
func TestLoopbackNeedsHelp(t *testing.T) {
	w := newWorld(t)
	w.publish("web", "8080:80")
	k := w.build("", func(h *machine.Host) {
		s := space(h, "host")
		delete(s.Sysctls, "net/ipv4/conf/tp-front/route_localnet")
		kept := s.Routes[:0]
		for _, r := range s.Routes {
			if r.Dst != netip.MustParsePrefix("::1/128") || r.Dev != "tp-front" {
				kept = append(kept, r)
			}
		}
		s.Routes = kept
	})
	ask(t, k, []question{
		{"host", "127.0.0.1:8080/tcp", api.Dropped, "", "route_localnet is 0"},
		{"host", "[::1]:8080/tcp", api.Delivered, "[fd00::1]:49152 > [fd00::2]:80", "its answer does not come back: host has no route to ::1"},
	})
}

// TestLoopbackFromALink: packets that a container sends where its host alone may.
func TestLoopbackFromALink(t *testing.T) {
	w := newWorld(t)
	questions := []question{
		{"host@v-web-eth0=172.20.0.2", "127.0.0.1:80/tcp", api.Dropped, "", `rule "loopback destination from a link"`},
		{"host@v-web-eth0=127.0.0.1", "172.20.0.1:80/tcp", api.Dropped, "", `rule "loopback source from a link"`},
		{"host@v-web-eth0=::1", "[fd00::1]:80/tcp", api.Dropped, "", "the loopback address of IPv6 came in by a link"},
		{"host@v-web-eth0=fd00::2", "[::1]:80/tcp", api.Dropped, "", "the loopback address of IPv6 came in by a link"},
	}
	ask(t, w.build("", nil), questions)
	ask(t, w.build("", bridgeNF), questions)
	unguarded := w.build("", func(h *machine.Host) { space(h, "host").Tables = nil })
	ask(t, unguarded, []question{
		// With route_localnet and without the rule it gets through.
		{"host@v-web-eth0=172.20.0.2", "127.0.0.1:80/tcp", api.Delivered, "172.20.0.2:49152 > 127.0.0.1:80", "its answer does not come back"},
		{"host@eth0=192.0.2.1", "127.0.0.1:80/tcp", api.Dropped, "", "martian: a loopback destination"},
		{"host@eth0=127.0.0.1", "192.0.2.10:80/tcp", api.Dropped, "", "martian: a loopback source"},
		{"host@eth0=192.0.2.10", "172.20.0.2:80/tcp", api.Dropped, "", "martian: its source 192.0.2.10 is an address of host"},
		{"host@eth0=224.0.0.1", "192.0.2.10:80/tcp", api.Dropped, "", "martian: its source is for many"},
		{"host@eth0=0.0.0.0", "192.0.2.10:80/tcp", api.Dropped, "", "martian: it has no address"},
		{"host@eth0=ff02::1", "[2001:db8::10]:80/tcp", api.Dropped, "", "its source is a multicast address"},
	})
}

// TestKnownConnection: a packet of a connection that is there already goes its
// way, whatever the rules would say to a first one.
func TestKnownConnection(t *testing.T) {
	w := newWorld(t)
	end := netip.MustParseAddrPort
	k := w.build("", func(h *machine.Host) {
		space(h, "host").Connections = []machine.Connection{
			{
				Proto: "udp", Status: nft.StatusDNAT,
				Original: nft.Tuple{Src: end("192.0.2.1:49152"), Dst: end("192.0.2.10:9000")},
				Answer:   nft.Tuple{Src: end("172.20.0.2:80"), Dst: end("192.0.2.1:49152")},
			},
			{
				Proto:    "tcp",
				Original: nft.Tuple{Src: end("192.0.2.1:49152"), Dst: end("172.20.0.3:80")},
				Answer:   nft.Tuple{Src: end("172.20.0.3:80"), Dst: end("192.0.2.1:49152")},
			},
			{
				Proto: "icmp", Status: nft.StatusSNAT,
				Original: nft.Tuple{Src: end("172.20.0.2:0"), Dst: end("192.0.2.1:0")},
				Answer:   nft.Tuple{Src: end("192.0.2.1:0"), Dst: end("192.0.2.10:0")},
			},
		}
	})
	ask(t, k, []question{
		{"outside", "192.0.2.10:9000/udp", api.Delivered, "192.0.2.1:49152 > 172.20.0.2:80", ""},
		{"outside", "192.0.2.10:9000/tcp", api.Refused, "", "nothing in host listens"},
		{"outside", "172.20.0.3:80/tcp", api.Delivered, "192.0.2.1:49152 > 172.20.0.3:80", ""},
		{"outside", "172.20.0.2:80/tcp", api.Dropped, "", `rule "direct access from outside"`},
		{"host", "192.0.2.1", api.Delivered, "192.0.2.10 > 192.0.2.1", ""}, // an echo of its own
	})
}
