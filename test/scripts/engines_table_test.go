package scripts

import (
	"slices"

	"github.com/towpath/towpath/api"
)

// foreign is a packet on networks that an engine made, what was done to them
// before, what the explanation must say of it, and what a level of tracing.
type foreign struct {
	what, from, to string
	// size is that of the packet, and ttl what it is given; 0: as usual.
	size, ttl int
	// only is the engine that the case is of; "": both.
	only string
	// do and undo are lines of commands on the host. CONTAINER: before a line runs
	// it in that container's namespace. full: the table of connections is filled
	// before, and stays so.
	do, undo string
	full     bool
	// alone: what is done matters for packets of both families, or counts for both.
	alone   bool
	verdict api.Verdict
	// ends is what becomes of it where the explanation cannot know; "": as explained.
	ends api.Verdict
	// where is "NS LAYER" of the hop that ends the packet, or its answer, and if they
	// arrive of one that it must pass; "": none. It has a rule of author that has
	// rule in its text or comment; author "": it has none.
	where, author, rule string
	// nat are the translations of the request: "dnat A -> B, masquerade C -> D".
	nat string
	// reason and fix are parts of what is explained; whose is whose the destination is.
	reason, fix, whose string
	// says is part of the reason of what is seen; "": names the chain of the rule.
	says string
	// taps and bpf are what less is known without programs in the kernel and with
	// them; onlyFull is what level tracepoints lacks beside that.
	taps, bpf knows
	onlyFull  string
	// alsoSent: the machine outside sends it, too.
	alsoSent bool
}

// knows is what a level can know of a packet. The zero value: as much as the
// explanation.
type knows struct {
	verdict api.Verdict // "": what becomes of it
	// or is said as well where counters are all that tells of drops: they rise for
	// packets of others, too. "": that may not be.
	or   api.Verdict
	says string // "": as at the other levels
	// lacks is what cannot be known, and so must not be said: "place" (the hop at
	// which it ends, or that it must pass), "hook" (of the place), "rule", "translation".
	lacks string
}

func foreigners() []foreign {
	return slices.Concat(usual(), stopped(), unrouted4(), usual6(), unrouted6(), unfitting(), asleep(), tracked())
}

const (
	viaDocker, viaPodman = "Docker", "Podman"
	// engines is the author of the rules of the engine that the case is run with.
	engines = "engine"
	inHost  = "192.0.2.10:8080"
	farWeb  = "192.0.2.1:443"
	natOut  = "masquerade 10.82.0.2:49152 -> 192.0.2.10:49152"
	natIn   = "dnat 192.0.2.10:8080 -> 10.82.0.2:80"
	// bridge is where the settings of the bridge of shop are.
	bridge = `net/ipv4/conf/$(ip -o route get 10.82.0.3 | sed 's/.* dev \([^ ]*\).*/\1/')`
)

// What the kernel drops in a hook, and gives no rule for; and what the sender's
// own kernel tells it.
const (
	byHook     = "a hook of the packet filter drops it, and no rule of nftables"
	unsent     = "the sender's own kernel does not send it: "
	givenUp    = "the sender's own kernel gives it up: host unreachable (EHOSTUNREACH)"
	givenUp6   = "the sender's own kernel gives it up: address unreachable (EHOSTUNREACH)"
	leadsAway  = "its route leads nowhere: a blackhole"
	noListener = "start what is to listen on port "
)

// noPlace is of a level that sees nobody end the packet, or take it.
func noPlace() knows { return knows{lacks: "place"} }

// usual are the ways of IPv4.
func usual() []foreign {
	return []foreign{
		{what: "masquerade", from: "web", to: farWeb, verdict: api.Delivered, where: "host postrouting", author: engines, rule: `"MASQUERADE"`, nat: natOut},
		{what: "the way out is let through", from: "web", to: farWeb, verdict: api.Delivered, where: "host forward", author: engines, rule: "accept", nat: natOut},
		{what: "a port that is closed outside", from: "web", to: "192.0.2.1:444", verdict: api.Delivered, ends: api.Refused, nat: natOut, says: "192.0.2.1 answers with a reset: nothing listens on port 444"},
		{what: "echo to outside", from: "web", to: "192.0.2.1", verdict: api.Delivered, where: "host postrouting", author: engines, rule: `"MASQUERADE"`, nat: "masquerade 10.82.0.2 -> 192.0.2.10"},
		{what: "published, from outside", from: "outside", to: inHost, verdict: api.Delivered, where: "host prerouting", author: engines, rule: `"DNAT"`, nat: natIn, whose: "web", alsoSent: true},
		{what: "published, from the host", from: "host", to: inHost, verdict: api.Delivered, where: "host output", author: engines, rule: `"DNAT"`, nat: natIn, whose: "web"},
		// What docker-proxy takes, it sends on as packets of its own.
		{what: "published, from the host's loopback", from: "host", to: "127.0.0.1:8080", only: viaDocker, verdict: api.Delivered, where: "host socket", whose: "host", taps: noPlace(), bpf: noPlace()},
		{what: "published, from the host's loopback", from: "host", to: "127.0.0.1:8080", only: viaPodman, verdict: api.Delivered, where: "host output", author: engines, rule: `"DNAT"`, nat: "dnat 127.0.0.1:8080 -> 10.82.0.2:80, masquerade 127.0.0.1:49152 -> 10.82.0.1:49152", whose: "web"},
		{what: "hairpin", from: "web", to: inHost, only: viaDocker, verdict: api.Delivered, where: "host socket", whose: "host", taps: noPlace(), bpf: noPlace()},
		{what: "hairpin", from: "web", to: inHost, only: viaPodman, verdict: api.Delivered, where: "host prerouting", author: engines, rule: `"DNAT"`, nat: natIn + ", masquerade 10.82.0.2:49152 -> 10.82.0.1:49152", whose: "web"},
		{what: "published, from another container", from: "db", to: inHost, only: viaDocker, verdict: api.Delivered, where: "host socket", whose: "host", taps: noPlace(), bpf: noPlace()},
		{what: "published, from another container", from: "db", to: inHost, only: viaPodman, verdict: api.Delivered, where: "host prerouting", author: engines, rule: `"DNAT"`, nat: natIn + ", masquerade 10.82.0.3:49152 -> 10.82.0.1:49152", whose: "web"},
		{what: "same bridge", from: "web", to: "db:5432", verdict: api.Delivered, where: "host bridge", whose: "db"},
		{what: "from the host", from: "host", to: "web:80", verdict: api.Delivered, where: "web link", whose: "web"},
		{what: "a closed port of tcp", from: "db", to: "web:81", verdict: api.Refused, where: "web socket", reason: "nothing in web listens on tcp port 81", fix: noListener + "81", says: "10.82.0.2 answers with a reset: nothing listens on port 81", whose: "web", taps: noPlace()},
		{what: "a closed port of udp", from: "db", to: "web:53/udp", verdict: api.Refused, where: "web socket", reason: "nothing in web listens on udp port 53", fix: noListener + "53", says: "10.82.0.2 answers that nothing listens on port 53", whose: "web", taps: noPlace()},
		{what: "networks that are not isolated", from: "web", to: "stock:80", only: viaPodman, verdict: api.Delivered, where: "stock link", nat: "masquerade 10.82.0.2:49152 -> 10.83.0.1:49152", whose: "stock"},
	}
}

// stopped are packets of IPv4 that rules are against, or look like it.
func stopped() []foreign {
	return []foreign{
		{what: "isolated networks", from: "web", to: "stock:80", only: viaDocker, verdict: api.Dropped, where: "host forward", author: engines, rule: "drop", reason: "DOCKER-ISOLATION", fix: "docker network connect back web", whose: "stock"},
		{what: "isolated networks", from: "robin", to: "wren:80", only: viaPodman, verdict: api.Dropped, where: "host forward", author: engines, rule: `oifname "podman5" counter drop`, reason: "NETAVARK_ISOLATION", fix: "podman network connect wing robin", whose: "wren"},
		{what: "internal network", from: "bird", to: farWeb, only: viaDocker, verdict: api.Dropped, where: "host forward", author: engines, rule: "drop", reason: "DOCKER-ISOLATION", fix: "docker network connect NETWORK bird"},
		{what: "internal network", from: "bird", to: farWeb, only: viaPodman, verdict: api.Dropped, where: "bird route", reason: "bird has no route to 192.0.2.1: ENETUNREACH", fix: "podman network connect NETWORK bird", says: unsent + "ENETUNREACH", taps: noPlace(), bpf: noPlace()},
		{what: "what the user drops", from: "web", to: farWeb, do: `nft 'table ip mine { chain c { type filter hook forward priority 10; ip saddr 10.82.0.2 drop comment "no web"; }; }'`, undo: "nft delete table ip mine", verdict: api.Dropped, where: "host forward", author: "user", rule: "no web", reason: `rule "no web" of chain ip mine c`, fix: "nft delete rule ip mine c handle"},
		{what: "what the user drops by iptables", from: "web", to: farWeb, do: "iptables -I FORWARD -s 10.82.0.2 -p tcp --dport 443 -j DROP", undo: "iptables -D FORWARD 1", verdict: api.Dropped, where: "host forward", author: "user", rule: "ip saddr 10.82.0.2", reason: "ip filter FORWARD", fix: "nft delete rule ip filter FORWARD handle"},
		{what: "what the user drops in Docker's chain", from: "web", to: farWeb, only: viaDocker, do: "iptables -I DOCKER-USER -s 10.82.0.2 -j DROP", undo: "iptables -D DOCKER-USER -s 10.82.0.2 -j DROP", verdict: api.Dropped, where: "host forward", author: "user", rule: "ip saddr 10.82.0.2", reason: "ip filter DOCKER-USER", fix: "nft delete rule ip filter DOCKER-USER handle"},
		{what: "what the user rejects", from: "web", to: farWeb, do: "iptables -I FORWARD -s 10.82.0.2 -p tcp -j REJECT --reject-with tcp-reset", undo: "iptables -D FORWARD 1", verdict: api.Rejected, where: "host forward", author: "user", rule: "REJECT", reason: "ip filter FORWARD", fix: "nft delete rule ip filter FORWARD handle"},
		{what: "a rule that is not met and cannot be evaluated", from: "web", to: farWeb, do: "iptables -I FORWARD -s 10.82.0.99 -m string --algo bm --string GET -j DROP", undo: "iptables -D FORWARD 1", verdict: api.Delivered, where: "host forward", author: engines, rule: "accept", nat: natOut},
		{what: "a rule that is met and cannot be evaluated", from: "web", to: farWeb, do: "iptables -I FORWARD -s 10.82.0.2 -m string --algo bm --string GET -j DROP", undo: "iptables -D FORWARD 1", verdict: api.Undecided, ends: api.Answered, where: "host forward", author: "user", rule: "string", reason: "string", fix: "towpath probe web 192.0.2.1:443"},
	}
}

// unrouted4 are packets of IPv4 for which there is no way. Between those of which
// the kernel tells the sender, which it does not every time, are others.
func unrouted4() []foreign {
	const far = "198.51.100.7:443"
	return []foreign{
		{what: "no route in the container", from: "web", to: farWeb, do: "web: ip route del default", undo: "web: ip route add default via 10.82.0.1", verdict: api.Dropped, where: "web route", reason: "web has no route to 192.0.2.1: ENETUNREACH", fix: "network connect NETWORK web", says: unsent + "ENETUNREACH", taps: noPlace(), bpf: noPlace()},
		{what: "no route on the host", from: "web", to: far, do: "ip route del default", undo: "ip route add default via 192.0.2.1", verdict: api.Rejected, where: "host route", reason: "host has no route to 198.51.100.7", fix: "ip route add 198.51.100.7 via GATEWAY", says: "10.82.0.1 answers: network unreachable", taps: noPlace()},
		{what: "a blackhole", from: "web", to: far, do: "ip route add blackhole 198.51.100.0/24", undo: "ip route del blackhole 198.51.100.0/24", verdict: api.Dropped, where: "host route", reason: "is a blackhole", fix: "ip route del blackhole 198.51.100.0/24", says: leadsAway},
		{what: "nobody with that address", from: "web", to: "10.82.0.99:80", verdict: api.Dropped, where: "web neighbour", reason: "nobody on eth0 answers for 10.82.0.99: EHOSTUNREACH", fix: "ip neigh show dev eth0", says: givenUp, taps: noPlace()},
		{what: "an unreachable route", from: "web", to: far, do: "ip route add unreachable 198.51.100.0/24", undo: "ip route del unreachable 198.51.100.0/24", verdict: api.Rejected, where: "host route", reason: "is unreachable", fix: "ip route del unreachable 198.51.100.0/24", says: "10.82.0.1 answers: host unreachable", taps: noPlace()},
		{what: "no forwarding from the bridge", from: "web", to: farWeb, do: "sysctl -qw " + bridge + "/forwarding=0", undo: "sysctl -qw " + bridge + "/forwarding=1", verdict: api.Dropped, where: "host route", reason: "host does not forward IPv4 that comes in by ", fix: ".forwarding=1", says: "this namespace does not forward IPv4"},
		{what: "time to live", from: "web", to: farWeb, do: "web: sysctl -qw net.ipv4.ip_default_ttl=1", undo: "web: sysctl -qw net.ipv4.ip_default_ttl=64", verdict: api.Rejected, where: "host route", reason: "its time to live is over", fix: "ip route get 192.0.2.1", says: "10.82.0.1 answers: time to live is over", taps: noPlace()},
		{what: "a prohibit route", from: "web", to: far, do: "ip route add prohibit 198.51.100.0/24", undo: "ip route del prohibit 198.51.100.0/24", verdict: api.Rejected, where: "host route", reason: "prohibits it", fix: "ip route del prohibit 198.51.100.0/24", says: "10.82.0.1 answers: prohibited by an administrator", taps: noPlace()},
	}
}
