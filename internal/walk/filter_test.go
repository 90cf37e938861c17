package walk_test

import (
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// TestFilters puts tables of others in the way.
func TestFilters(t *testing.T) {
	const base = "type filter hook "
	for _, c := range []struct {
		name, ns, table string
		questions       []question
	}{
		{"forward policy drop", "host", `table ip docker { chain FORWARD { ` + base + `forward priority filter; policy drop; } }`, []question{
			{"web", "192.0.2.1", api.Dropped, "", "the policy of chain ip docker FORWARD drops it"},
			{"web", "2001:db8::1", api.Delivered, "", ""},
			{"web", "172.20.0.1", api.Delivered, "", ""},
		}},
		{"one priority", "host", `table ip a {
				chain c { ` + base + `forward priority 10; policy accept; drop comment "first" }
				chain d { ` + base + `forward priority 10; policy accept; udp dport 80 reject comment "second" }
				chain n { type nat hook prerouting priority -100; policy accept; tcp dport 82 dnat to 192.0.2.7 }
			}
			table inet b { chain c { ` + base + `forward priority 10; policy accept; tcp dport 80 reject comment "last" } }
			table ip m { chain n { type nat hook prerouting priority -100; policy accept; tcp dport 82 dnat to 192.0.2.1:81 } }`, []question{
			{"web", "192.0.2.1", api.Dropped, "", `rule "first"`},
			{"web", "192.0.2.1:80/udp", api.Rejected, "", `rule "second"`},
			{"web", "192.0.2.1:80/tcp", api.Rejected, "", `rule "last"`},
			{"web", "192.0.2.5:82/tcp", api.Dropped, "172.20.0.2:49152 > 192.0.2.1:81", `rule "first"`},
		}},
		{"reject", "host", `table inet f { chain c { ` + base + `forward priority 10; policy accept;
			tcp dport 80 reject with tcp reset
			udp dport 80 reject with icmpx admin-prohibited
			meta l4proto icmp reject with icmp host-prohibited
			meta l4proto ipv6-icmp reject } }`, []question{
			{"web", "192.0.2.1:80/tcp", api.Rejected, "", "rejects it"},
			{"web", "[2001:db8::1]:80/udp", api.Rejected, "", "rejects it"},
			{"web", "192.0.2.1", api.Rejected, "", "rejects it"},
			{"web", "2001:db8::1", api.Rejected, "", "rejects it"},
		}},
		{"reject that gets lost", "host", `table ip f {
			chain c { ` + base + `forward priority 10; policy accept; meta l4proto udp reject comment "no" }
			chain d { ` + base + `output priority 0; policy accept; icmp type destination-unreachable drop comment "silence" } }`, []question{
			{"web", "192.0.2.1:80/udp", api.Dropped, "", `rule "no" of chain ip f c rejects it; the error does not come back: rule "silence" of chain ip f d drops it`},
		}},
		{"output", "web", `table inet f { chain c { ` + base + `output priority 0; policy accept;
			tcp dport 80 drop
			udp dport 80 reject } }`, []question{
			{"web", "192.0.2.1:80/tcp", api.Dropped, "", "drops it: EPERM"},
			{"web", "192.0.2.1:80/udp", api.Rejected, "", "rejects it"},
			{"app", "172.20.0.2:80/tcp", api.Delivered, "", ""},
		}},
		{"answers dropped", "web", `table inet f { chain c { ` + base + `input priority 0; policy accept; ct state established drop comment "late" } }`, []question{
			{"web", "192.0.2.1:80/tcp", api.Delivered, "", `its answer does not come back: rule "late"`},
			{"host", "172.20.0.2:80/tcp", api.Delivered, "", ""},
		}},
		{"refusals dropped", "web", `table inet f { chain c { ` + base + `input priority 0; policy accept; ct state related drop comment "late" } }`, []question{
			{"web", "192.0.2.1:81/udp", api.Refused, "", `nothing in outside listens on udp port 81; its answer does not come back: rule "late"`},
		}},
		{"without neighbour discovery", "web", `table ip6 f { chain c { ` + base + `input priority 0; policy accept; icmpv6 type nd-neighbor-advert drop comment "nd" } }`, []question{
			{"web", "2001:db8::1", api.Dropped, "", `neighbour discovery of fd00::1: rule "nd"`},
			{"web", "192.0.2.1", api.Delivered, "", ""},
			{"host", "fd00::2", api.Delivered, "", ""},
		}},
		{"solicitations dropped", "host", `table ip6 f { chain c { ` + base + `input priority 0; policy accept; icmpv6 type nd-neighbor-solicit drop comment "nd" } }`, []question{
			{"web", "2001:db8::1", api.Dropped, "", `neighbour discovery of fd00::1: rule "nd"`},
			{"host", "fd00::2", api.Delivered, "", ""}, // who is asked learns who asks
		}},
		{"notrack", "host", `table ip f { chain c { ` + base + `prerouting priority raw; policy accept; ip daddr 192.0.2.1 notrack } }`, []question{
			{"web", "192.0.2.1:80/udp", api.Delivered, "172.20.0.2:49152 > 192.0.2.1:80", `its answer does not come back: rule "direct access from outside"`},
		}},
		{"mark", "host", `table ip f {
			chain c { ` + base + `prerouting priority mangle; policy accept; udp dport 80 meta mark set 0x2a ct mark set 0x7 }
			chain d { ` + base + `forward priority -1; policy accept; meta mark 0x2a ct mark 0x7 ip ttl 63 drop comment "marked" } }`, []question{
			{"web", "192.0.2.1:80/udp", api.Dropped, "", `rule "marked"`},
			{"web", "192.0.2.1:80/tcp", api.Delivered, "", ""},
		}},
		{"rewrite", "host", `table ip f { chain c { ` + base + `prerouting priority raw; policy accept; udp dport 53 ip daddr set 192.0.2.1 udp dport set 80 } }`, []question{
			{"web", "192.0.2.99:53/udp", api.Delivered, "192.0.2.10:49152 > 192.0.2.1:80", "its answer does not come back: it comes as 192.0.2.1:80 > 172.20.0.2:49152"},
		}},
		// The resolver of a container: a port that is not its own, without conntrack.
		{"rewrite on the loopback", "web", `table netdev f { chain c { ` + base + `ingress device "lo" priority 0; policy accept;
			ip daddr 127.0.0.11 udp dport 53 udp dport set 80
			ip saddr 127.0.0.11 udp sport 80 udp sport set 53 } }`, []question{
			{"web", "127.0.0.11:53/udp", api.Delivered, "127.0.0.1:49152 > 127.0.0.11:80", ""},
			{"web", "127.0.0.12:53/udp", api.Refused, "", "nothing in web listens on udp port 53"},
		}},
		{"snat", "host", `table ip f { chain c { type nat hook postrouting priority 90; policy accept; ip daddr 192.0.2.1 snat to 192.0.2.10:700-800 } }`, []question{
			{"web", "192.0.2.1:80/tcp", api.Delivered, "192.0.2.10:700 > 192.0.2.1:80", ""},
		}},
		{"foreign dnat", "host", `table ip f { chain c { type nat hook prerouting priority dstnat; policy accept; ip daddr 192.0.2.10 tcp dport 9000 dnat to 172.20.0.2:80 } }`, []question{
			{"outside", "192.0.2.10:9000/tcp", api.Delivered, "192.0.2.1:49152 > 172.20.0.2:80", ""},
		}},
		// The error goes back as one about the packet that was sent: it has the
		// connection of that packet, though this got no further.
		{"an error about what was translated", "host", `table ip f { chain c { type nat hook prerouting priority dstnat; policy accept; ip daddr 192.0.2.10 tcp dport 9000 dnat to 172.20.0.2:80 }
			chain d { type filter hook forward priority 10; policy accept; tcp dport 80 reject comment "no http" } }`, []question{
			{"outside", "192.0.2.10:9000/tcp", api.Rejected, "", `rule "no http" of chain ip f d rejects it`},
		}},
		{"redirect", "host", `table inet f { chain c { type nat hook prerouting priority dstnat; policy accept; meta l4proto { tcp, udp } th dport 9000 redirect to :80 }
			chain d { type nat hook output priority -100; policy accept; tcp dport 9000 redirect to :80 } }`, []question{
			{"outside", "172.20.0.1:9000/tcp", api.Delivered, "192.0.2.1:49152 > 192.0.2.10:80", ""},
			{"outside", "[fd00::1]:9000/udp", api.Delivered, "[2001:db8::1]:49152 > [2001:db8::10]:80", ""},
			{"host", "192.0.2.1:9000/tcp", api.Delivered, "192.0.2.10:49152 > 127.0.0.1:80", ""},
			{"host", "[2001:db8::1]:9000/tcp", api.Delivered, "[2001:db8::10]:49152 > [::1]:80", ""},
		}},
		{"masquerade towards a bridge", "host", `table ip f { chain c { type nat hook postrouting priority 90; policy accept; oifname "tp-front" masquerade } }`, []question{
			{"host", "172.20.0.2:80/tcp", api.Delivered, "172.20.0.1:49152 > 172.20.0.2:80", ""},
		}},
		{"ingress", "host", `table netdev f { chain c { ` + base + `ingress device "v-web-eth0" priority 0; policy drop; arp operation request accept; ether saddr 02:00:00:01:00:02 ip saddr 172.20.0.2 accept } }`, []question{
			{"web", "192.0.2.1", api.Delivered, "", ""},
			{"web", "2001:db8::1", api.Dropped, "", "neighbour discovery of fd00::1: the policy of chain netdev f c"},
			{"app", "192.0.2.1", api.Delivered, "", ""},
		}},
		{"ingress without ARP", "host", `table netdev f { chain c { ` + base + `ingress device "v-web-eth0" priority 0; policy accept; arp saddr ip 172.20.0.2 counter drop comment "mute" } }`, []question{
			{"web", "192.0.2.1", api.Dropped, "", `neighbour discovery of 172.20.0.1: rule "mute"`},
			{"app", "172.20.0.2", api.Dropped, "", `neighbour discovery of 172.20.0.2: rule "mute"`},
			{"app", "192.0.2.1", api.Delivered, "", ""},
		}},
		{"egress", "host", `table netdev f { chain c { ` + base + `egress device "eth0" priority 0; policy accept; ip saddr 192.0.2.10 udp dport 80 drop comment "out" } }`, []question{
			{"web", "192.0.2.1:80/udp", api.Dropped, "", `rule "out"`},
		}},
		{"bridge", "host", `table bridge f {
			chain c { ` + base + `forward priority 0; policy accept; iifname "v-web-eth0" oifname "v-app-eth0" ip protocol udp drop comment "apart" }
			chain d { ` + base + `input priority 0; policy accept; ip daddr 192.0.2.1 udp dport 80 drop comment "up" } }`, []question{
			{"web", "172.20.0.3:80/udp", api.Dropped, "", `rule "apart"`},
			{"web", "172.20.0.3:80/tcp", api.Delivered, "", ""},
			{"web", "192.0.2.1:80/udp", api.Dropped, "", `rule "up"`},
		}},
		{"reverse path", "host", `table inet f { chain c { ` + base + `prerouting priority raw; policy accept; fib saddr . iif oif missing drop comment "rpf" } }`, []question{
			{"web", "192.0.2.1", api.Delivered, "", ""},
			{"web", "2001:db8::1", api.Delivered, "", ""},
			{"host", "127.0.0.1", api.Delivered, "", ""},
			{"host@eth0=172.20.0.9", "192.0.2.10", api.Dropped, "", `rule "rpf"`},
		}},
		{"dormant", "host", `table inet f { flags dormant
			chain c { ` + base + `forward priority 0; policy drop; } }`, []question{
			{"web", "192.0.2.1", api.Delivered, "", ""},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ask(t, newWorld(t).build("", addTables(c.ns, c.table)), c.questions)
		})
	}
}

// TestUndecidedError: likewise on the way of an error.
func TestUndecidedError(t *testing.T) {
	k := newWorld(t).build("", func(h *machine.Host) {
		addTables("host", `table ip f { chain c { type filter hook forward priority 10; policy accept; reject } }`)(h)
		addTables("host", `table ip g { chain c { type filter hook output priority 0; policy accept; meta cpu 1 drop } }`)(h)
	})
	ask(t, k, []question{{"web", "192.0.2.1:80/udp", api.Undecided, "", "meta cpu (key 20) is not known"}})
}

// TestUndecided: a rule that cannot be evaluated is named, on the way there and
// on the way back.
func TestUndecided(t *testing.T) {
	for name, c := range map[string]struct {
		ns string
		v  nft.VerdictCode
	}{"unknown": {"host", nft.Drop}, "queue": {"host", nft.Queue}, "on the way back": {"outside", nft.Drop}} {
		t.Run(name, func(t *testing.T) {
			k := newWorld(t).build("", func(h *machine.Host) {
				hook := map[string]string{"host": "forward", "outside": "output"}[c.ns]
				exprs := []nft.Expr{nft.Unknown{Name: "match"}, nft.Verdict{Code: c.v}}
				if c.v == nft.Queue {
					exprs = exprs[1:]
				}
				s := space(h, c.ns)
				s.Tables = append(s.Tables, nft.TableDef{Table: nft.Table{Family: nft.FamilyIP, Name: "xt"}, Chains: []nft.ChainDef{{
					Chain: nft.Chain{Family: nft.FamilyIP, Table: "xt", Name: "c", Type: "filter", Hook: hook, Policy: "accept"},
					Rules: []nft.Rule{{Family: nft.FamilyIP, Exprs: exprs, Handle: 42, Comment: "theirs"}},
				}}})
			})
			p := follow(t, k, "web", "192.0.2.1")
			if p.Culprit != nil {
				p.Culprit.Text = ""
			}
			if p.Verdict != api.Undecided || p.Complete || p.Culprit == nil || *p.Culprit != (api.Rule{Family: "ip", Table: "xt", Chain: "c", Handle: 42, Comment: "theirs"}) {
				t.Errorf("culprit %+v, complete %v; the path is\n%s", p.Culprit, p.Complete, hops(p))
			}
		})
	}
}
