package explain

import "github.com/towpath/towpath/api"

// fromOutside are packets of somebody outside, put in at the uplink.
func fromOutside() []scenario {
	out := []scenario{
		{name: "published, from outside", to: "host:8080", verdict: api.Delivered, where: "host prerouting", nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80"},
		{name: "published, from outside v6", to: "[2001:db8::10]:8080", verdict: api.Delivered, where: "host prerouting", nat: "dnat [2001:db8::10]:8080 -> [fd00::2]:80"},
		{name: "published, from outside over udp", to: "host:8053/udp", verdict: api.Delivered, where: "host prerouting", nat: "dnat 192.0.2.10:8053 -> 172.20.0.2:53", taps: knows{verdict: api.Answered}, bpf: knows{verdict: api.Answered}},
		{name: "published, from outside over udp v6", to: "[2001:db8::10]:8053/udp", verdict: api.Delivered, where: "host prerouting", nat: "dnat [2001:db8::10]:8053 -> [fd00::2]:53", taps: knows{verdict: api.Answered}, bpf: knows{verdict: api.Answered}},
		{name: "published, from a neighbour of the host", from: "outside:192.0.2.77", to: "host:8080", verdict: api.Delivered, where: "host prerouting", nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80"},
		{name: "published, from a neighbour of the host v6", from: "outside:2001:db8::77", to: "[2001:db8::10]:8080", verdict: api.Delivered, where: "host prerouting", nat: "dnat [2001:db8::10]:8080 -> [fd00::2]:80"},
		{name: "published for some, from one of them", to: "host:8082", source: "203.0.113.9", verdict: api.Delivered, where: "host prerouting", nat: "dnat 192.0.2.10:8082 -> 172.20.0.2:80"},
		{name: "published for some, from another", to: "host:8082", verdict: api.Dropped, where: "host socket", reason: "held for a publication", taps: knows{verdict: api.Lost, says: "it was seen last at eth0 of host", lacks: "place"}, bpf: knows{says: "the socket's filter drops it"}},
		{name: "published for some, from another v6", to: "[2001:db8::10]:8082", verdict: api.Dropped, where: "host socket", reason: "held for a publication", taps: knows{verdict: api.Lost, says: "it was seen last at eth0 of host", lacks: "place"}, bpf: knows{says: "the socket's filter drops it"}},
		{name: "published on the loopback, from outside", to: "host:8083", verdict: api.Refused, where: "host socket", taps: knows{says: "192.0.2.10 answers with a reset: nothing listens on port 8083", lacks: "place"}, bpf: knows{says: "192.0.2.10 answers with a reset: nothing listens on port 8083"}},
		{name: "published, from outside, closed", to: "host:8081", verdict: api.Refused, where: "web socket", nat: "dnat 192.0.2.10:8081 -> 172.20.0.2:81", taps: knows{says: "192.0.2.10 answers with a reset: nothing listens on port 8081", lacks: "place"}, bpf: knows{says: "192.0.2.10 answers with a reset: nothing listens on port 8081"}},
		{name: "published, from outside, closed v6", to: "[2001:db8::10]:8081", verdict: api.Refused, where: "web socket", nat: "dnat [2001:db8::10]:8081 -> [fd00::2]:81", taps: knows{says: "nothing listens on port 8081", lacks: "place"}, bpf: knows{says: "nothing listens on port 8081"}},
		{name: "published, from outside, closed udp", to: "host:8081/udp", verdict: api.Refused, where: "web socket", nat: "dnat 192.0.2.10:8081 -> 172.20.0.2:81", taps: knows{says: "192.0.2.10 answers that nothing listens on port 8081", lacks: "place"}, bpf: knows{says: "192.0.2.10 answers that nothing listens on port 8081"}},
		{name: "published, from outside, closed udp v6", to: "[2001:db8::10]:8081/udp", verdict: api.Refused, where: "web socket", nat: "dnat [2001:db8::10]:8081 -> [fd00::2]:81", taps: knows{says: "answers that nothing listens on port 8081", lacks: "place"}, bpf: knows{says: "answers that nothing listens on port 8081"}},
		{name: "published, from outside, foreign drop", to: "host:8080", change: func(w *world) {
			w.table("host", `table ip f { chain c { type filter hook forward priority 10; policy accept; tcp dport 80 drop comment "no http" } }`)
		}, verdict: api.Dropped, where: "host forward", rule: `"no http"`, nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80", fix: "nft delete rule ip f c handle"},
		{name: "published, from outside, foreign drop v6", to: "[2001:db8::10]:8080", change: func(w *world) {
			w.table("host", `table ip6 f { chain c { type filter hook forward priority 10; policy accept; tcp dport 80 drop comment "no http" } }`)
		}, verdict: api.Dropped, where: "host forward", rule: `"no http"`, fix: "nft delete rule ip6 f c handle"},
		{name: "published, from outside, answer dropped", to: "host:8080", change: func(w *world) {
			w.table("host", `table ip f { chain c { type filter hook forward priority 10; policy accept; tcp sport 80 drop comment "no answers" } }`)
		}, verdict: api.Delivered, where: "host forward", rule: `"no answers"`, reason: "its answer does not come back", fix: "nft delete rule ip f c handle"},
		{name: "published, from outside, foreign reject", to: "host:8080", change: func(w *world) {
			w.table("host", `table inet f { chain c { type filter hook forward priority 10; policy accept; tcp dport 80 reject with icmpx admin-prohibited comment "no http" } }`)
		}, verdict: api.Rejected, where: "host forward", rule: `"no http"`, fix: "nft delete rule inet f c handle"},
		{name: "published, from outside, foreign reset", to: "host:8080", change: func(w *world) {
			w.table("host", `table inet f { chain c { type filter hook forward priority 10; policy accept; tcp dport 80 reject with tcp reset comment "no http" } }`)
		}, verdict: api.Rejected, where: "host forward", rule: `"no http"`, fix: "nft delete rule inet f c handle"},
		{name: "published, from outside, too old", to: "host:8080", ttl: 1, verdict: api.Rejected, where: "host route", reason: "time to live", taps: knows{says: "192.0.2.10 answers: time to live is over", lacks: "place, translation"}, bpf: knows{says: "192.0.2.10 answers: time to live is over"}, onlyFull: "translation"},
		{name: "published, from outside, container down", to: "host:8080", change: func(w *world) { w.down("web", "eth0") }, verdict: api.Rejected, where: "host neighbour", taps: knows{says: "192.0.2.10 answers: host unreachable", lacks: "place"}, bpf: knows{says: "192.0.2.10 answers: host unreachable"}},
		{name: "direct access, from outside", to: "172.20.0.2:80", verdict: api.Dropped, where: "host forward", rule: `"direct access from outside"`, fix: "towpath publish web 80"},
		{name: "direct access, from outside v6", to: "[fd00::2]:80", verdict: api.Dropped, where: "host forward", rule: `"direct access from outside"`, fix: "towpath publish web 80"},
		{name: "the host, from outside", to: "host:80", verdict: api.Delivered, where: "host socket", taps: knows{lacks: "place"}, bpf: knows{lacks: "place"}},
		{name: "the host, from outside v6", to: "[2001:db8::10]:80", verdict: api.Delivered, where: "host socket", taps: knows{lacks: "place"}, bpf: knows{lacks: "place"}},
		{name: "echo from outside", to: "host", verdict: api.Delivered, where: "host socket", taps: knows{lacks: "place"}, bpf: knows{lacks: "place"}},
		{name: "echo from outside v6", to: "[2001:db8::10]", verdict: api.Delivered, where: "host socket", taps: knows{lacks: "place"}, bpf: knows{lacks: "place"}},
	}
	for i := range out {
		if out[i].unsent = true; out[i].from == "" {
			out[i].from = "outside"
		}
	}
	return out
}
