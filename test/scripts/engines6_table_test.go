package scripts

import "github.com/towpath/towpath/api"

const (
	farWeb6 = "[2001:db8::1]:443"
	inHost6 = "[2001:db8::10]:8080"
	natOut6 = "masquerade [fd82::2]:49152 -> [2001:db8::10]:49152"
	natIn6  = "dnat [2001:db8::10]:8080 -> [fd82::2]:80"
)

// usual6 are the ways of IPv6, and what rules of it are against.
func usual6() []foreign {
	return []foreign{
		{what: "masquerade v6", from: "web", to: farWeb6, verdict: api.Delivered, where: "host postrouting", author: engines, rule: `"MASQUERADE"`, nat: natOut6},
		{what: "the way out is let through v6", from: "web", to: farWeb6, verdict: api.Delivered, where: "host forward", author: engines, rule: "accept", nat: natOut6},
		{what: "a port that is closed outside v6", from: "web", to: "[2001:db8::1]:444", verdict: api.Delivered, ends: api.Refused, nat: natOut6, says: "2001:db8::1 answers with a reset: nothing listens on port 444"},
		{what: "echo to outside v6", from: "web", to: "2001:db8::1", verdict: api.Delivered, where: "host postrouting", author: engines, rule: `"MASQUERADE"`, nat: "masquerade fd82::2 -> 2001:db8::10"},
		{what: "published, from outside v6", from: "outside", to: inHost6, verdict: api.Delivered, where: "host prerouting", author: engines, rule: `"DNAT"`, nat: natIn6, whose: "web", alsoSent: true},
		{what: "published, from the host v6", from: "host", to: inHost6, verdict: api.Delivered, where: "host output", author: engines, rule: `"DNAT"`, nat: natIn6, whose: "web"},
		{what: "published, from the host's loopback v6", from: "host", to: "[::1]:8080", only: viaDocker, verdict: api.Delivered, where: "host socket", whose: "host", taps: noPlace(), bpf: noPlace()},
		{what: "hairpin v6", from: "web", to: inHost6, only: viaDocker, verdict: api.Delivered, where: "host socket", whose: "host", taps: noPlace(), bpf: noPlace()},
		{what: "hairpin v6", from: "web", to: inHost6, only: viaPodman, verdict: api.Delivered, where: "host prerouting", author: engines, rule: `"DNAT"`, nat: natIn6 + ", masquerade [fd82::2]:49152 -> [fd82::1]:49152", whose: "web"},
		{what: "published, from another container v6", from: "db", to: inHost6, only: viaDocker, verdict: api.Delivered, where: "host socket", whose: "host", taps: noPlace(), bpf: noPlace()},
		{what: "published, from another container v6", from: "db", to: inHost6, only: viaPodman, verdict: api.Delivered, where: "host prerouting", author: engines, rule: `"DNAT"`, nat: natIn6 + ", masquerade [fd82::3]:49152 -> [fd82::1]:49152", whose: "web"},
		{what: "same bridge v6", from: "web", to: "[fd82::3]:5432", verdict: api.Delivered, where: "host bridge", whose: "db"},
		{what: "from the host v6", from: "host", to: "[fd82::2]:80", verdict: api.Delivered, where: "web link", whose: "web"},
		{what: "a closed port of tcp v6", from: "db", to: "[fd82::2]:81", verdict: api.Refused, where: "web socket", reason: "nothing in web listens on tcp port 81", fix: noListener + "81", says: "fd82::2 answers with a reset: nothing listens on port 81", whose: "web", taps: noPlace()},
		{what: "a closed port of udp v6", from: "db", to: "[fd82::2]:53/udp", verdict: api.Refused, where: "web socket", reason: "nothing in web listens on udp port 53", fix: noListener + "53", says: "fd82::2 answers that nothing listens on port 53", whose: "web", taps: noPlace()},
		{what: "networks that are not isolated v6", from: "web", to: "[fd83::2]:80", only: viaPodman, verdict: api.Delivered, where: "stock link", nat: "masquerade [fd82::2]:49152 -> [fd83::1]:49152", whose: "stock"},
		{what: "isolated networks v6", from: "web", to: "[fd83::2]:80", only: viaDocker, verdict: api.Dropped, where: "host forward", author: engines, rule: "drop", reason: "DOCKER-ISOLATION", fix: "docker network connect back web", whose: "stock"},
		{what: "isolated networks v6", from: "robin", to: "[fd86::2]:80", only: viaPodman, verdict: api.Dropped, where: "host forward", author: engines, rule: `oifname "podman5" counter drop`, reason: "NETAVARK_ISOLATION", fix: "podman network connect wing robin", whose: "wren"},
		{what: "internal network v6", from: "bird", to: farWeb6, only: viaDocker, verdict: api.Dropped, where: "host forward", author: engines, rule: "drop", reason: "DOCKER-ISOLATION", fix: "docker network connect NETWORK bird"},
		{what: "internal network v6", from: "bird", to: farWeb6, only: viaPodman, verdict: api.Dropped, where: "bird route", reason: "bird has no route to 2001:db8::1: ENETUNREACH", fix: "podman network connect NETWORK bird", says: unsent + "ENETUNREACH", taps: noPlace(), bpf: noPlace()},
		{what: "what the user drops v6", from: "web", to: farWeb6, do: `nft 'table ip6 mine { chain c { type filter hook forward priority 10; ip6 saddr fd82::2 drop comment "no web"; }; }'`, undo: "nft delete table ip6 mine", verdict: api.Dropped, where: "host forward", author: "user", rule: "no web", reason: `rule "no web" of chain ip6 mine c`, fix: "nft delete rule ip6 mine c handle"},
		{what: "what the user drops by iptables v6", from: "web", to: farWeb6, do: "ip6tables -I FORWARD -s fd82::2 -p tcp --dport 443 -j DROP", undo: "ip6tables -D FORWARD 1", verdict: api.Dropped, where: "host forward", author: "user", rule: "ip6 saddr fd82::2", reason: "ip6 filter FORWARD", fix: "nft delete rule ip6 filter FORWARD handle"},
		{what: "what the user rejects v6", from: "web", to: farWeb6, do: "ip6tables -I FORWARD -s fd82::2 -p tcp -j REJECT --reject-with tcp-reset", undo: "ip6tables -D FORWARD 1", verdict: api.Rejected, where: "host forward", author: "user", rule: "REJECT", reason: "ip6 filter FORWARD", fix: "nft delete rule ip6 filter FORWARD handle"},
	}
}

// unrouted6 are packets of IPv6 for which there is no way. That a host does not
// forward it is not among them: Towpath, which needs that itself, sets it again at
// once. There is no rp_filter of IPv6.
func unrouted6() []foreign {
	const far = "[2001:db8:5::7]:443"
	return []foreign{
		{what: "no route in the container v6", from: "web", to: farWeb6, do: "web: ip -6 route del default", undo: "web: ip -6 route add default via fd82::1", verdict: api.Dropped, where: "web route", reason: "web has no route to 2001:db8::1: ENETUNREACH", fix: "network connect NETWORK web", says: unsent + "ENETUNREACH", taps: noPlace(), bpf: noPlace()},
		{what: "no route on the host v6", from: "web", to: far, do: "ip -6 route del default", undo: "ip -6 route add default via 2001:db8::1", verdict: api.Rejected, where: "host route", reason: "host has no route to 2001:db8:5::7", fix: "ip route add 2001:db8:5::7 via GATEWAY", says: "fd82::1 answers: no route", taps: noPlace()},
		{what: "an unreachable route v6", from: "web", to: far, do: "ip route add unreachable 2001:db8:5::/48", undo: "ip route del unreachable 2001:db8:5::/48", verdict: api.Rejected, where: "host route", reason: "is unreachable", fix: "ip route del unreachable 2001:db8:5::/48", says: "fd82::1 answers: no route", taps: noPlace()},
		{what: "a prohibit route v6", from: "web", to: far, do: "ip route add prohibit 2001:db8:5::/48", undo: "ip route del prohibit 2001:db8:5::/48", verdict: api.Rejected, where: "host route", reason: "prohibits it", fix: "ip route del prohibit 2001:db8:5::/48", says: "fd82::1 answers: prohibited by an administrator", taps: noPlace()},
		{what: "a blackhole v6", from: "web", to: far, do: "ip route add blackhole 2001:db8:5::/48", undo: "ip route del blackhole 2001:db8:5::/48", verdict: api.Dropped, where: "host route", reason: "is a blackhole", fix: "ip route del blackhole 2001:db8:5::/48", says: leadsAway},
		{what: "nobody with that address v6", from: "web", to: "[fd82::99]:80", verdict: api.Dropped, where: "web neighbour", reason: "nobody on eth0 answers for fd82::99: EHOSTUNREACH", fix: "ip neigh show dev eth0", says: givenUp6, taps: noPlace()},
		{what: "nobody with that address outside v6", from: "web", to: "[2001:db8::99]:80", verdict: api.Delivered, ends: api.Rejected, where: "host neighbour", nat: natOut6, says: "2001:db8::10 answers: address unreachable", taps: knows{lacks: "place, translation"}, onlyFull: "translation"},
	}
}

// unfitting are packets that are too long or too old, or come back by another way.
func unfitting() []foreign {
	const otherWay = "ip route add 10.82.0.2/32 dev eth0 && sysctl -qw " + bridge + "/rp_filter=1"
	const thisWay = "ip route del 10.82.0.2/32 dev eth0 && sysctl -qw " + bridge + "/rp_filter=0"
	const gateway = "$(ip neigh show 10.82.0.1 | sed 's/ [A-Z].*//')" // and its MAC address
	return []foreign{
		{what: "time to live v6", from: "web", to: farWeb6, ttl: 1, verdict: api.Rejected, where: "host route", reason: "its time to live is over", fix: "ip route get 2001:db8::1", says: "fd82::1 answers: hop limit is over", taps: noPlace()},
		{what: "time to live, given", from: "web", to: farWeb, ttl: 1, verdict: api.Rejected, where: "host route", reason: "its time to live is over", fix: "ip route get 192.0.2.1", says: "10.82.0.1 answers: time to live is over", taps: noPlace()},
		{what: "MTU of the host's link", from: "web", to: farWeb, size: 1500, do: "ip link set eth0 mtu 1400", undo: "ip link set eth0 mtu 1500", alone: true, verdict: api.Rejected, where: "host route", reason: "1500 bytes do not fit the MTU of eth0, 1400", fix: "raise the MTU", says: "10.82.0.1 answers: too big, and may not be cut up", taps: noPlace()},
		{what: "MTU of the host's link v6", from: "web", to: farWeb6, size: 1450, do: "ip link set eth0 mtu 1400", undo: "ip link set eth0 mtu 1500", alone: true, verdict: api.Rejected, where: "host route", reason: "1450 bytes do not fit the MTU of eth0, 1400", fix: "raise the MTU", says: "fd82::1 answers: too big", taps: noPlace()},
		{what: "nobody with that address outside", from: "web", to: "192.0.2.99:80", verdict: api.Delivered, ends: api.Rejected, where: "host neighbour", nat: natOut, says: "192.0.2.10 answers: host unreachable", taps: knows{lacks: "place, translation"}, onlyFull: "translation"},
		{what: "rp_filter", from: "web", to: farWeb, do: "web: ip neigh replace " + gateway + " nud permanent\n" + otherWay, undo: "web: ip neigh del 10.82.0.1 dev eth0\n" + thisWay, verdict: api.Dropped, where: "host route", reason: "rp_filter: the route back to 10.82.0.2 is over eth0", fix: "rp_filter=2", says: "the way back to its source is by another link (rp_filter)"},
	}
}

// tracked are packets that connection tracking is against, and what the rules of
// the old iptables stop. The last ones fill the table of connections.
func tracked() []foreign {
	const round = "db: sysctl -qw net/ipv4/conf/all/accept_redirects=0 net/ipv4/conf/eth0/accept_redirects=0 net/ipv6/conf/eth0/accept_redirects=0 && "
	// Taps do not see who drops it, and no counter rises for it.
	old := knows{verdict: api.Lost, or: api.Dropped, says: "it was seen last at ", lacks: "place, rule"}
	full := knows{says: "; there ConntrackDrop by ", lacks: "place"}
	return []foreign{
		{
			what: "invalid for connection tracking", from: "web", to: "db:5432", do: round + "ip route add 10.82.0.2/32 via 10.82.0.1\n" +
				`nft 'table ip mine { chain c { type filter hook forward priority -10; ct state invalid drop comment "half"; }; }'`, undo: "db: ip route del 10.82.0.2/32\nnft delete table ip mine", alone: true,
			verdict: api.Delivered, where: "host forward", author: "user", rule: "half", reason: "its answer does not come back", fix: "nft delete rule ip mine c handle", whose: "db",
		},
		{
			what: "invalid for connection tracking v6", from: "web", to: "[fd82::3]:5432", do: round + "ip route add fd82::2/128 via fd82::1\n" +
				`nft 'table ip6 mine { chain c { type filter hook forward priority -10; ct state invalid drop comment "half"; }; }'`, undo: "db: ip route del fd82::2/128\nnft delete table ip6 mine", alone: true,
			verdict: api.Delivered, where: "host forward", author: "user", rule: "half", reason: "its answer does not come back", fix: "nft delete rule ip6 mine c handle", whose: "db",
		},
		{what: "the old iptables", from: "web", to: farWeb, do: "iptables-legacy -A FORWARD -s 10.82.0.2 -p tcp --dport 443 -j DROP", undo: "iptables-legacy -D FORWARD 1", verdict: api.Dropped, where: "host forward", author: "user", rule: "10.82.0.2", reason: "ip legacy:filter FORWARD", fix: "iptables-legacy -t filter -D FORWARD 1", says: byHook, taps: old, bpf: knows{lacks: "rule"}, onlyFull: "hook"},
		{what: "the old iptables v6", from: "web", to: farWeb6, do: "ip6tables-legacy -A FORWARD -s fd82::2 -p tcp --dport 443 -j DROP", undo: "ip6tables-legacy -D FORWARD 1", verdict: api.Dropped, where: "host forward", author: "user", rule: "fd82::2", reason: "ip6 legacy:filter FORWARD", fix: "ip6tables-legacy -t filter -D FORWARD 1", says: byHook, taps: old, bpf: knows{lacks: "rule"}, onlyFull: "hook"},
		{what: "a full table of connections", from: "web", to: farWeb, full: true, alone: true, verdict: api.Dropped, where: "host prerouting", reason: "the table of connections of host is full", fix: "nf_conntrack_max", says: byHook, taps: full, onlyFull: "hook"},
		{what: "a full table of connections v6", from: "web", to: farWeb6, full: true, alone: true, verdict: api.Dropped, where: "host prerouting", reason: "the table of connections of host is full", fix: "nf_conntrack_max", says: byHook, taps: full, onlyFull: "hook"},
	}
}

// asleep are packets to a container whose link is down. Who remembers its MAC address
// sends to it, and the bridge has no port for it. Taps do not know that, and the host
// itself drops what it sends to many by that link, as counters tell. Of what a
// container had before its link went down, the kernel keeps no address of IPv6.
func asleep() []foreign {
	const down = "\nweb: ip link set eth0 down"
	const forget = "db: ip neigh flush dev eth0 nud all"
	up := "web: ip link set eth0 up && ip route add default via 10.82.0.1 && ip addr add fd82::2/64 dev eth0 nodad && ip route add default via fd82::1\n" + forget
	know := func(address string) string {
		return "db: busybox ping -c 1 " + address + " && ip neigh replace $(ip neigh show " + address + " | sed 's/ [A-Z].*//') dev eth0 nud permanent"
	}
	elsewhere := knows{says: "no port may send it on"}
	lost := knows{verdict: api.Lost, or: api.Dropped, says: "it was seen last at ", lacks: "place"}
	return []foreign{
		{what: "an interface that is down", from: "db", to: "web:80", do: forget + down, undo: up, alone: true, verdict: api.Dropped, where: "db neighbour", reason: "nobody on eth0 answers for 10.82.0.2 (web has it, but its link eth0 is down): EHOSTUNREACH", fix: "ip link set eth0 up", says: givenUp, taps: noPlace()},
		{what: "an interface that is down v6", from: "db", to: "[fd82::2]:80", do: forget + down, undo: up, alone: true, verdict: api.Dropped, where: "db neighbour", reason: "nobody on eth0 answers for fd82::2: EHOSTUNREACH", fix: "ip neigh show dev eth0", says: givenUp6, taps: noPlace()},
		{what: "an interface that is down, and remembered", from: "db", to: "web:80", do: know("10.82.0.2") + down, undo: up, alone: true, verdict: api.Dropped, where: "host bridge", reason: "(web has it, but its link eth0 is down)", fix: "ip link set eth0 up", taps: lost, bpf: elsewhere},
		{what: "an interface that is down, and remembered v6", from: "db", to: "[fd82::2]:80", do: know("fd82::2") + down, undo: up, alone: true, verdict: api.Dropped, where: "host bridge", reason: "no port of bridge ", fix: "bridge fdb show", taps: lost, bpf: elsewhere},
	}
}
