package explain

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/rt"
)

// arriving are packets that must get there.
func arriving() []scenario {
	return []scenario{
		{name: "masquerade", from: "web", to: "192.0.2.1:80", verdict: api.Delivered, where: "host postrouting", rule: `"out"`, nat: "masquerade 172.20.0.2:49152 -> 192.0.2.10:49152"},
		{name: "masquerade v6", from: "web", to: "[2001:db8::1]:80", verdict: api.Delivered, where: "host postrouting", nat: "masquerade [fd00::2]:49152 -> [2001:db8::10]:49152"},
		{name: "echo", from: "web", to: "outside", verdict: api.Delivered, where: "host postrouting", nat: "masquerade 172.20.0.2 -> 192.0.2.10"},
		{name: "echo v6", from: "web", to: "2001:db8::1", verdict: api.Delivered, where: "host postrouting", nat: "masquerade fd00::2 -> 2001:db8::10"},
		{name: "published, from the machine outside", from: "192.0.2.1", to: "192.0.2.10:8080", verdict: api.Delivered, nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80"},
		{name: "published, v6", from: "2001:db8::1", to: "[2001:db8::10]:8080", verdict: api.Delivered, nat: "dnat [2001:db8::10]:8080 -> [fd00::2]:80"},
		{name: "published, from the host", from: "host", to: "192.0.2.10:8080", verdict: api.Delivered, where: "host output", nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80"},
		{name: "published, from the host v6", from: "host", to: "[2001:db8::10]:8080", verdict: api.Delivered, where: "host output", nat: "dnat [2001:db8::10]:8080 -> [fd00::2]:80"},
		{name: "published, from the host's loopback", from: "host", to: "127.0.0.1:8080", verdict: api.Delivered, nat: "dnat 127.0.0.1:8080 -> 172.20.0.2:80"},
		{name: "published, from the host's loopback v6", from: "host", to: "[::1]:8080", change: func(w *world) { w.bridgeNF("0") }, verdict: api.Delivered, nat: "dnat [::1]:8080 -> [fd00::2]:80"},
		{name: "hairpin", from: "web", to: "192.0.2.10:8080", verdict: api.Delivered, rule: `"hairpin"`, nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80"},
		{name: "hairpin v6", from: "web", to: "[2001:db8::10]:8080", verdict: api.Delivered, rule: `"hairpin"`, nat: "dnat [2001:db8::10]:8080 -> [fd00::2]:80"},
		{name: "published, from another network", from: "db", to: "192.0.2.10:8080", verdict: api.Delivered, rule: `"published"`, nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80"},
		{name: "same bridge", from: "web", to: "app:80", verdict: api.Delivered, where: "host bridge"},
		{name: "same bridge v6", from: "web", to: "[fd00::3]:80", verdict: api.Delivered, where: "host bridge"},
		{name: "to oneself", from: "web", to: "web:80", verdict: api.Delivered, where: "web socket", taps: knows{lacks: "place"}, bpf: knows{lacks: "place"}},
		{name: "to the host", from: "web", to: "host:80", verdict: api.Delivered, where: "host socket", taps: knows{lacks: "place"}, bpf: knows{lacks: "place"}},
	}
}

// isolated are packets that Towpath itself stops.
func isolated() []scenario {
	return []scenario{
		{name: "isolated networks", from: "web", to: "db:80", verdict: api.Dropped, where: "host forward", rule: `"isolation"`, fix: "towpath network connect back web"},
		{name: "isolated networks v6", from: "web", to: "[fd00:0:0:1::2]:80", verdict: api.Dropped, where: "host forward", rule: `"isolation"`, fix: "towpath network connect back web"},
		{name: "internal network", from: "cage", to: "192.0.2.1:80", verdict: api.Dropped, where: "cage route", reason: "ENETUNREACH", fix: "towpath network connect back cage", taps: knows{says: "the sender's own kernel does not send it: ENETUNREACH", lacks: "place"}, bpf: knows{says: "the sender's own kernel does not send it: ENETUNREACH", lacks: "place"}},
		{name: "internal network v6", from: "cage", to: "[2001:db8::1]:80", verdict: api.Dropped, where: "cage route", reason: "ENETUNREACH", fix: "towpath network connect back cage", taps: knows{says: "the sender's own kernel does not send it: ENETUNREACH", lacks: "place"}, bpf: knows{says: "the sender's own kernel does not send it: ENETUNREACH", lacks: "place"}},
		{name: "no ICC", from: "one", to: "two:80", verdict: api.Dropped, where: "host ", fix: "towpath publish two 80"},
		{name: "no ICC v6", from: "one", to: "[fd00:0:0:3::3]:80", verdict: api.Dropped, where: "host neighbour", fix: "towpath publish two 80", taps: knows{says: "the sender's own kernel gives it up: address unreachable (EHOSTUNREACH)", lacks: "place, rule"}, bpf: knows{says: "nobody answers for the next hop", lacks: "place, rule"}},
		{name: "direct access", from: "192.0.2.1", to: "172.20.0.2:80", verdict: api.Dropped, where: "host forward", rule: `"direct access from outside"`, fix: "towpath publish web 80"},
	}
}

// filtered are packets that others' rules stop.
func filtered() []scenario {
	return []scenario{
		{name: "foreign drop", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.table("host", `table ip f { chain c { type filter hook forward priority 10; policy accept; ip saddr 172.20.0.2 drop comment "no web" } }`)
		}, verdict: api.Dropped, where: "host forward", rule: `"no web"`, fix: "nft delete rule ip f c handle"},
		{name: "foreign drop v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) {
			w.table("host", `table inet f { chain c { type filter hook forward priority 10; policy accept; ip6 saddr fd00::2 drop comment "no web" } }`)
		}, verdict: api.Dropped, where: "host forward", rule: `"no web"`, fix: "nft delete rule inet f c handle"},
		{name: "two chains of one priority", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.table("host", `table ip a { chain c { type filter hook forward priority 10; policy accept; tcp dport 80 drop comment "hooked first" } }`)
			w.table("host", `table inet b { chain c { type filter hook forward priority 10; policy accept; tcp dport 80 reject comment "hooked last" } }`)
		}, verdict: api.Rejected, where: "host forward", rule: `"hooked last"`, fix: "nft delete rule inet b c handle"},
		{name: "foreign policy", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.table("host", `table ip f { chain c { type filter hook forward priority 10; policy drop; } }`)
		}, verdict: api.Dropped, where: "host forward", reason: "the policy of chain ip f c", fix: "nft add rule ip f c"},
		{name: "foreign policy v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) {
			w.table("host", `table ip6 f { chain c { type filter hook forward priority 10; policy drop; } }`)
		}, verdict: api.Dropped, where: "host forward", reason: "the policy of chain ip6 f c", fix: "nft add rule ip6 f c"},
		{name: "Docker's policy", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.iptables("iptables-nft", "-N", "DOCKER-USER")
			w.iptables("iptables-nft", "-P", "FORWARD", "DROP")
		}, verdict: api.Dropped, where: "host forward", reason: "the policy of chain ip filter FORWARD", fix: "start towpathd with --cooperate=auto, or by hand: iptables -I DOCKER-USER -i"},
		{name: "Docker's policy, without a door v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) {
			w.iptables("ip6tables-nft", "-N", "DOCKER-FORWARD")
			w.iptables("ip6tables-nft", "-P", "FORWARD", "DROP")
		}, verdict: api.Dropped, where: "host forward", reason: "the policy of chain ip6 filter FORWARD", fix: "ip6tables -I FORWARD -i"},
		{name: "foreign reject", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.table("host", `table inet f { chain c { type filter hook forward priority 10; policy accept; tcp dport 80 reject with icmpx admin-prohibited comment "no http" } }`)
		}, verdict: api.Rejected, where: "host forward", rule: `"no http"`},
		{name: "foreign reject v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) {
			w.table("host", `table inet f { chain c { type filter hook forward priority 10; policy accept; tcp dport 80 reject with icmpx admin-prohibited comment "no http" } }`)
		}, verdict: api.Rejected, where: "host forward", rule: `"no http"`},
		{name: "drop in the container", from: "host", to: "web:80", change: func(w *world) {
			w.table("web", `table inet f { chain c { type filter hook input priority 0; policy accept; tcp dport 80 drop comment "inside" } }`)
		}, verdict: api.Dropped, where: "web input", rule: `"inside"`, fix: "towpath exec web -- nft delete rule inet f c handle"},
		{name: "iptables-nft drop", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.iptables("iptables-nft", "-A", "FORWARD", "-p", "tcp", "-m", "multiport", "--dports", "79,80", "-m", "conntrack", "--ctstate", "NEW", "-m", "comment", "--comment", "no web", "-j", "DROP")
		}, verdict: api.Dropped, where: "host forward", rule: `"no web"`, reason: "ip filter FORWARD"},
		{name: "iptables-nft reject", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.iptables("iptables-nft", "-A", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "REJECT", "--reject-with", "tcp-reset")
		}, verdict: api.Rejected, where: "host forward", reason: "ip filter FORWARD"},
		{name: "iptables-nft reject v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) {
			w.iptables("ip6tables-nft", "-A", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "REJECT", "--reject-with", "tcp-reset")
		}, verdict: api.Rejected, where: "host forward", reason: "ip6 filter FORWARD"},
		{name: "iptables-nft translation", from: "web", to: "192.0.2.77:80", change: func(w *world) {
			w.iptables("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-d", "192.0.2.77", "-j", "DNAT", "--to-destination", "192.0.2.1")
		}, verdict: api.Delivered, nat: "dnat 192.0.2.77:80 -> 192.0.2.1:80"},
		{name: "iptables that cannot be evaluated", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.iptables("iptables-nft", "-A", "FORWARD", "-m", "string", "--algo", "bm", "--string", "GET", "-j", "DROP")
		}, verdict: api.Undecided, where: "host forward", reason: "string", fix: "towpath probe web 192.0.2.1:80", unsent: true, taps: knows{verdict: api.Answered, lacks: "place"}, bpf: knows{verdict: api.Answered, lacks: "place"}},
		{name: "iptables-nft drop v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) {
			w.iptables("ip6tables-nft", "-A", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "DROP")
		}, verdict: api.Dropped, where: "host forward", reason: "ip6 filter FORWARD"},
		{name: "legacy iptables drop", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.iptables("iptables-legacy", "-N", "mine")
			w.iptables("iptables-legacy", "-A", "mine", "-p", "tcp", "--dport", "80", "-m", "comment", "--comment", "no web", "-j", "DROP")
			w.iptables("iptables-legacy", "-A", "FORWARD", "-s", "172.20.0.0/24", "-o", "eth+", "-m", "conntrack", "--ctstate", "NEW", "-j", "mine")
		}, verdict: api.Dropped, where: "host forward", rule: `"no web"`, fix: "iptables-legacy -t filter -D mine 1", taps: knows{verdict: api.Lost, says: "it was seen last at v-web of host", lacks: "place, rule"}, bpf: knows{says: "a hook of the packet filter drops it, and no rule of nftables", lacks: "rule"}, onlyFull: "hook"},
		{name: "legacy iptables drop v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) {
			w.iptables("ip6tables-legacy", "-A", "FORWARD", "-s", "fd00::1", "-j", "ACCEPT")
			w.iptables("ip6tables-legacy", "-A", "FORWARD", "!", "-s", "fd00::/126", "-j", "ACCEPT")
			w.iptables("ip6tables-legacy", "-A", "FORWARD", "-i", "tp-front", "-p", "tcp", "--dport", "80", "-j", "DROP")
		}, verdict: api.Dropped, where: "host forward", reason: "ip6 legacy:filter FORWARD", fix: "ip6tables-legacy -t filter -D FORWARD 3", taps: knows{verdict: api.Lost, says: "it was seen last at v-web of host", lacks: "place, rule"}, bpf: knows{says: "a hook of the packet filter drops it, and no rule of nftables", lacks: "rule"}, onlyFull: "hook"},
		{name: "neighbour discovery dropped", from: "web", to: "[2001:db8::1]:80", change: func(w *world) {
			w.table("host", `table ip6 f { chain c { type filter hook output priority 0; policy accept; meta l4proto ipv6-icmp drop } }`)
		}, verdict: api.Dropped, where: "host neighbour", reason: "neighbour discovery", taps: knows{says: "the sender's own kernel gives it up: address unreachable (EHOSTUNREACH)", lacks: "place, rule"}, bpf: knows{says: "nobody answers for the next hop", lacks: "place, rule"}},
	}
}

// tracked are packets that connection tracking, or the guard against false
// senders, is against.
func tracked() []scenario {
	return []scenario{
		{name: "wrong source", from: "web", to: "192.0.2.1:80", source: "172.20.0.77", verdict: api.Dropped, where: "host ingress", rule: `"spoofed source address"`, fix: "towpath sandbox inspect web", unsent: true},
		{name: "wrong source v6", from: "web", to: "[2001:db8::1]:80", source: "fd00::77", verdict: api.Dropped, where: "host ingress", rule: `"spoofed source address"`, fix: "towpath sandbox inspect web", unsent: true},
		{name: "conntrack invalid", from: "web", to: "app:80", change: func(w *world) {
			w.bridgeNF("0")
			w.route("app", rt.Route{Dst: netip.MustParsePrefix("172.20.0.2/32"), Gateway: netip.MustParseAddr("172.20.0.1"), OIF: w.index("app", "eth0")})
			w.table("host", `table ip f { chain c { type filter hook forward priority -10; policy accept; ct state invalid drop comment "invalid" } }`)
		}, verdict: api.Delivered, rule: `"invalid"`, fix: "nft delete rule ip f c handle"},
		{name: "conntrack invalid v6", from: "web", to: "[fd00::3]:80", change: func(w *world) {
			w.bridgeNF("0")
			w.route("app", rt.Route{Dst: netip.MustParsePrefix("fd00::2/128"), Gateway: netip.MustParseAddr("fd00::1"), OIF: w.index("app", "eth0")})
			w.table("host", `table ip6 f { chain c { type filter hook forward priority -10; policy accept; ct state invalid drop comment "invalid" } }`)
		}, verdict: api.Delivered, rule: `"invalid"`, fix: "nft delete rule ip6 f c handle"},
		{name: "conntrack table full", from: "web", to: "192.0.2.1:80", change: func(w *world) { w.spaces["host"].FillConntrack(w) }, verdict: api.Dropped, where: "host prerouting", reason: "the table of connections of host is full", fix: "nf_conntrack_max", taps: knows{says: "seen last at v-web of host; there ConntrackDrop by 1 rose", lacks: "place"}, bpf: knows{says: "a hook of the packet filter drops it, and no rule of nftables"}, onlyFull: "hook"},
		{name: "conntrack table full v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) { w.spaces["host"].FillConntrack(w) }, verdict: api.Dropped, where: "host prerouting", reason: "the table of connections of host is full", fix: "nf_conntrack_max", taps: knows{says: "seen last at v-web of host; there ConntrackDrop by 1 rose", lacks: "place"}, bpf: knows{says: "a hook of the packet filter drops it, and no rule of nftables"}, onlyFull: "hook"},
	}
}

// unrouted are packets for which there is no way.
func unrouted() []scenario {
	route := func(typ uint8, dst string) func(*world) {
		return func(w *world) { w.route("host", rt.Route{Dst: netip.MustParsePrefix(dst), Type: typ}) }
	}
	return []scenario{
		{name: "no route on the host", from: "web", to: "198.51.100.7:80", change: func(w *world) { w.noDefault("host", "0.0.0.0/0") }, verdict: api.Rejected, where: "host route", reason: "host has no route to 198.51.100.7", fix: "ip route add 198.51.100.7 via", taps: knows{says: "172.20.0.1 answers: network unreachable", lacks: "place"}, bpf: knows{says: "172.20.0.1 answers: network unreachable"}},
		{name: "no route on the host v6", from: "web", to: "[2001:db8:5::7]:80", change: func(w *world) { w.noDefault("host", "::/0") }, verdict: api.Rejected, where: "host route", reason: "host has no route to 2001:db8:5::7", taps: knows{says: "fd00::1 answers: no route", lacks: "place"}, bpf: knows{says: "fd00::1 answers: no route"}},
		{name: "no route in the container", from: "web", to: "192.0.2.1:80", change: func(w *world) { w.noDefault("web", "0.0.0.0/0") }, verdict: api.Dropped, where: "web route", reason: "ENETUNREACH", fix: "towpath network connect", taps: knows{says: "the sender's own kernel does not send it: ENETUNREACH", lacks: "place"}, bpf: knows{says: "the sender's own kernel does not send it: ENETUNREACH", lacks: "place"}},
		{name: "no route in the container v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) { w.noDefault("web", "::/0") }, verdict: api.Dropped, where: "web route", reason: "ENETUNREACH", fix: "towpath network connect", taps: knows{says: "the sender's own kernel does not send it: ENETUNREACH", lacks: "place"}, bpf: knows{says: "the sender's own kernel does not send it: ENETUNREACH", lacks: "place"}},
		{name: "blackhole", from: "web", to: "198.51.100.7:80", change: route(unix.RTN_BLACKHOLE, "198.51.100.0/24"), verdict: api.Dropped, where: "host route", reason: "blackhole", fix: "ip route del blackhole 198.51.100.0/24", taps: knows{says: "its route leads nowhere: a blackhole"}, bpf: knows{says: "its route leads nowhere: a blackhole"}},
		{name: "blackhole v6", from: "web", to: "[2001:db8:5::7]:80", change: route(unix.RTN_BLACKHOLE, "2001:db8:5::/48"), verdict: api.Dropped, where: "host route", reason: "blackhole", fix: "ip route del blackhole 2001:db8:5::/48", taps: knows{says: "its route leads nowhere: a blackhole"}, bpf: knows{says: "its route leads nowhere: a blackhole"}},
		{name: "unreachable", from: "web", to: "198.51.100.7:80", change: route(unix.RTN_UNREACHABLE, "198.51.100.0/24"), verdict: api.Rejected, where: "host route", reason: "unreachable", fix: "ip route del unreachable", taps: knows{says: "172.20.0.1 answers: host unreachable", lacks: "place"}, bpf: knows{says: "172.20.0.1 answers: host unreachable"}},
		{name: "prohibit v6", from: "web", to: "[2001:db8:5::7]:80", change: route(unix.RTN_PROHIBIT, "2001:db8:5::/48"), verdict: api.Rejected, where: "host route", reason: "prohibits", fix: "ip route del prohibit 2001:db8:5::/48", taps: knows{says: "fd00::1 answers: prohibited by an administrator", lacks: "place"}, bpf: knows{says: "fd00::1 answers: prohibited by an administrator"}},
		{name: "rule of routing", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.must(w.spaces["host"].Conn(w).AddRule(w.Context(), rt.Rule{Family: unix.AF_INET, Priority: 100, IIF: "tp-front", IPProto: unix.IPPROTO_TCP, DstPorts: [2]uint16{80, 90}, Action: unix.FR_ACT_PROHIBIT}))
		}, verdict: api.Rejected, where: "host route", reason: "prohibits", fix: "ip rule show", taps: knows{says: "172.20.0.1 answers: prohibited by an administrator", lacks: "place"}, bpf: knows{says: "172.20.0.1 answers: prohibited by an administrator"}},
		{name: "another rule of routing", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.must(w.spaces["host"].Conn(w).AddRule(w.Context(), rt.Rule{Family: unix.AF_INET, Priority: 100, IPProto: unix.IPPROTO_UDP, Action: unix.FR_ACT_PROHIBIT}))
		}, verdict: api.Delivered},
		{name: "routed by its port", from: "web", to: "192.0.2.1:80", change: func(w *world) { w.byPort(80, 100) }, verdict: api.Delivered, where: "host route"},
		{name: "routed by its port v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) { w.byPort(80, 100) }, verdict: api.Delivered, where: "host route"},
		{name: "forwarding off", from: "web", to: "192.0.2.1:80", change: func(w *world) { w.sysctl("host", "net/ipv4/ip_forward", "0") }, verdict: api.Dropped, where: "host route", reason: "does not forward IPv4", fix: "sysctl -w net.ipv4.ip_forward=1", taps: knows{says: "this namespace does not forward IPv4"}, bpf: knows{says: "this namespace does not forward IPv4 (IP_INADDRERRORS in ip_error)"}},
		{name: "forwarding off v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) { w.sysctl("host", "net/ipv6/conf/all/forwarding", "0") }, verdict: api.Dropped, where: "host route", reason: "does not forward IPv6", fix: "sysctl -w net.ipv6.conf.all.forwarding=1", taps: knows{says: "seen last at v-web of host; there Ip6InAddrErrors by 1 rose", lacks: "place"}, bpf: knows{says: "this namespace does not forward IPv6 (IP_INADDRERRORS in ip6_forward)"}},
		{name: "rp_filter", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.route("host", rt.Route{Dst: netip.MustParsePrefix("172.20.0.2/32"), OIF: w.index("host", "eth0")})
			w.sysctl("host", "net/ipv4/conf/tp-front/rp_filter", "1")
		}, verdict: api.Dropped, where: "web neighbour", reason: "host has it, but rp_filter", fix: "sysctl -w net.ipv4.conf.tp-front.rp_filter=2", taps: knows{says: "the sender's own kernel gives it up: host unreachable (EHOSTUNREACH)", lacks: "place"}, bpf: knows{says: "nobody answers for the next hop"}},
		{name: "rp_filter, neighbour known", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			gateway, err := w.spaces["host"].Conn(w).LinkByName(w.Context(), "tp-front")
			w.must(err)
			w.must(w.spaces["web"].Conn(w).ReplaceNeighbour(w.Context(), rt.Neighbour{Index: w.index("web", "eth0"), IP: netip.MustParseAddr("172.20.0.1"), MAC: gateway.MAC}))
			w.route("host", rt.Route{Dst: netip.MustParsePrefix("172.20.0.2/32"), OIF: w.index("host", "eth0")})
			w.sysctl("host", "net/ipv4/conf/tp-front/rp_filter", "1")
		}, verdict: api.Dropped, where: "host route", reason: "rp_filter: the route back to 172.20.0.2 is over eth0", fix: "sysctl -w net.ipv4.conf.tp-front.rp_filter=2", taps: knows{says: "the way back to its source is by another link (rp_filter)"}, bpf: knows{says: "the way back to its source is by another link (rp_filter)"}},
		{name: "neighbour failed", from: "web", to: "172.20.0.99:80", verdict: api.Dropped, where: "web neighbour", reason: "EHOSTUNREACH", fix: "ip neigh show dev eth0", taps: knows{says: "the sender's own kernel gives it up: host unreachable (EHOSTUNREACH)", lacks: "place"}, bpf: knows{says: "nobody answers for the next hop"}},
		{name: "neighbour failed beyond the host", from: "web", to: "192.0.2.99:80", verdict: api.Rejected, where: "host neighbour", reason: "nobody on eth0 answers for 192.0.2.99", taps: knows{says: "192.0.2.10 answers: host unreachable", lacks: "place, translation"}, bpf: knows{says: "192.0.2.10 answers: host unreachable"}, onlyFull: "translation"},
		{name: "neighbour failed beyond the host v6", from: "web", to: "[2001:db8::99]:80", verdict: api.Rejected, where: "host neighbour", reason: "nobody on eth0 answers for 2001:db8::99", taps: knows{says: "2001:db8::10 answers: address unreachable", lacks: "place, translation"}, bpf: knows{says: "2001:db8::10 answers: address unreachable"}, onlyFull: "translation"},
		{name: "neighbour failed v6", from: "web", to: "[fd00::99]:80", verdict: api.Dropped, where: "web neighbour", reason: "EHOSTUNREACH", taps: knows{says: "the sender's own kernel gives it up: address unreachable (EHOSTUNREACH)", lacks: "place"}, bpf: knows{says: "nobody answers for the next hop"}},
	}
}

// unfit are packets that are too long, or too old.
func unfit() []scenario {
	return []scenario{
		{name: "time to live", from: "web", to: "192.0.2.1:80", change: func(w *world) { w.sysctl("web", "net/ipv4/ip_default_ttl", "1") }, verdict: api.Rejected, where: "host route", reason: "time to live", taps: knows{says: "172.20.0.1 answers: time to live is over", lacks: "place"}, bpf: knows{says: "172.20.0.1 answers: time to live is over"}},
		{name: "MTU of the host's link", from: "web", to: "192.0.2.1:80", size: 1500, change: func(w *world) { w.mtu("host", "eth0", 1400) }, verdict: api.Rejected, where: "host route", reason: "1500 bytes do not fit the MTU of eth0, 1400", unsent: true, taps: knows{says: "172.20.0.1 answers: too big, and may not be cut up", lacks: "place"}, bpf: knows{says: "172.20.0.1 answers: too big, and may not be cut up"}},
		{name: "MTU of the host's link v6", from: "web", to: "[2001:db8::1]:80", size: 1450, change: func(w *world) { w.mtu("host", "eth0", 1400) }, verdict: api.Rejected, where: "host route", reason: "1450 bytes do not fit the MTU of eth0, 1400", unsent: true, taps: knows{says: "fd00::1 answers: too big", lacks: "place"}, bpf: knows{says: "fd00::1 answers: too big"}},
		{name: "time to live, given v6", from: "web", to: "[2001:db8::1]:80", ttl: 1, verdict: api.Rejected, where: "host route", reason: "time to live", unsent: true, taps: knows{says: "fd00::1 answers: hop limit is over", lacks: "place"}, bpf: knows{says: "fd00::1 answers: hop limit is over"}},
		{name: "time to live, given", from: "web", to: "192.0.2.1:80", ttl: 1, verdict: api.Rejected, where: "host route", reason: "time to live", unsent: true, taps: knows{says: "172.20.0.1 answers: time to live is over", lacks: "place"}, bpf: knows{says: "172.20.0.1 answers: time to live is over"}},
		{name: "MTU of one's own link", from: "web", to: "[2001:db8::1]:80", size: 1501, verdict: api.Dropped, where: "web route", reason: "EMSGSIZE", unsent: true, taps: knows{says: "the sender's own kernel does not send it: EMSGSIZE", lacks: "place"}, bpf: knows{says: "the sender's own kernel does not send it: EMSGSIZE", lacks: "place"}},
	}
}

// broken are packets to where nobody takes them, and over links that are down.
func broken() []scenario {
	return []scenario{
		{name: "closed port", from: "web", to: "app:81", verdict: api.Refused, where: "app socket", reason: "nothing in app listens on tcp port 81", fix: "towpath exec app -- ss", taps: knows{says: "172.20.0.3 answers with a reset: nothing listens on port 81", lacks: "place"}, bpf: knows{says: "172.20.0.3 answers with a reset: nothing listens on port 81"}},
		{name: "closed port v6", from: "web", to: "[fd00::3]:81", verdict: api.Refused, where: "app socket", taps: knows{says: "fd00::3 answers with a reset: nothing listens on port 81", lacks: "place"}, bpf: knows{says: "fd00::3 answers with a reset: nothing listens on port 81"}},
		{name: "closed udp port", from: "web", to: "app:81/udp", verdict: api.Refused, where: "app socket", unsent: true, taps: knows{says: "172.20.0.3 answers that nothing listens on port 81", lacks: "place"}, bpf: knows{says: "172.20.0.3 answers that nothing listens on port 81"}},
		{name: "closed udp port v6", from: "web", to: "[fd00::3]:81/udp", verdict: api.Refused, where: "app socket", unsent: true, taps: knows{says: "fd00::3 answers that nothing listens on port 81", lacks: "place"}, bpf: knows{says: "fd00::3 answers that nothing listens on port 81"}},
		{name: "open udp port", from: "web", to: "app:53/udp", change: func(w *world) {
			w.spaces["app"].ServeUDP(w, netip.MustParseAddrPort("172.20.0.3:53"))
		}, verdict: api.Delivered, where: "app socket", unsent: true, taps: knows{verdict: api.Answered, lacks: "place"}, bpf: knows{verdict: api.Answered, lacks: "place"}},
		{name: "open udp port v6", from: "web", to: "[fd00::3]:53/udp", change: func(w *world) {
			w.spaces["app"].ServeUDP(w, netip.MustParseAddrPort("[fd00::3]:53"))
		}, verdict: api.Delivered, where: "app socket", unsent: true, taps: knows{verdict: api.Answered, lacks: "place"}, bpf: knows{verdict: api.Answered, lacks: "place"}},
		{name: "loopback only", from: "web", to: "app:82", change: func(w *world) {
			w.spaces["app"].ServeTCP(w, netip.MustParseAddrPort("127.0.0.1:82"))
		}, verdict: api.Refused, where: "app socket", fix: "listens on 127.0.0.1:82 only", taps: knows{says: "172.20.0.3 answers with a reset: nothing listens on port 82", lacks: "place"}, bpf: knows{says: "172.20.0.3 answers with a reset: nothing listens on port 82"}},
		{name: "not published", from: "192.0.2.1", to: "host:81", change: func(w *world) {
			w.spaces["db"].ServeTCP(w, netip.AddrPortFrom(netip.IPv6Unspecified(), 81))
		}, verdict: api.Refused, where: "host socket", fix: "towpath publish db 81:81", taps: knows{says: "192.0.2.10 answers with a reset: nothing listens on port 81", lacks: "place"}, bpf: knows{says: "192.0.2.10 answers with a reset: nothing listens on port 81"}},
		{name: "port of the bridge down", from: "web", to: "192.0.2.1:80", change: func(w *world) { w.down("host", "v-web") }, verdict: api.Dropped, where: "web link", reason: "v-web in host is down", fix: "ip link set v-web up", taps: knows{says: "the sender's own kernel gives it up: host unreachable (EHOSTUNREACH)", lacks: "place"}, bpf: knows{says: "nobody answers for the next hop", lacks: "place"}},
		{name: "port of the bridge down v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) { w.down("host", "v-web") }, verdict: api.Dropped, where: "web link", reason: "v-web in host is down", fix: "ip link set v-web up", taps: knows{says: "the sender's own kernel gives it up: address unreachable (EHOSTUNREACH)", lacks: "place"}, bpf: knows{says: "nobody answers for the next hop", lacks: "place"}},
		{name: "link of the container down", from: "host", to: "172.20.0.2:80", change: func(w *world) { w.down("web", "eth0") }, verdict: api.Dropped, where: "host neighbour", reason: "nobody on tp-front answers", taps: knows{says: "the sender's own kernel gives it up: host unreachable (EHOSTUNREACH)", lacks: "place"}, bpf: knows{says: "nobody answers for the next hop"}},
		{name: "link of the container down v6", from: "host", to: "[fd00::2]:80", change: func(w *world) { w.down("web", "eth0") }, verdict: api.Dropped, where: "host neighbour", reason: "nobody on tp-front answers", taps: knows{says: "the sender's own kernel gives it up: address unreachable (EHOSTUNREACH)", lacks: "place"}, bpf: knows{says: "nobody answers for the next hop"}},
		{name: "locked port", from: "web", to: "app:80", change: func(w *world) {
			c := w.spaces["host"].Conn(w)
			w.must(c.SetLink(w.Context(), w.index("host", "v-web"), rt.LinkChange{Port: &rt.PortChange{Locked: new(true), Learning: new(false)}}))
			for _, n := range w.entries("v-web") {
				w.must(c.DelNeighbour(w.Context(), n))
			}
		}, verdict: api.Dropped, where: "host neighbour", reason: "locked", fix: "bridge fdb replace", taps: knows{says: "the sender's own kernel gives it up: host unreachable (EHOSTUNREACH)", lacks: "place"}, bpf: knows{says: "nobody answers for the next hop", lacks: "place"}},
	}
}
