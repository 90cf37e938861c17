package doctor

import (
	"fmt"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

func checkDrops(e *exam) {
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		before := e.before(s)
		if before == nil {
			continue
		}
		for _, l := range losses {
			was, now := before.Counters[l.counter], s.Counters[l.counter]
			if now > was {
				e.drop(s, fmt.Sprintf("%s: %s (%s)", l.reason, plural(int(now-was), "packet", "packets"), l.counter), l.means, e.enter(s, l.fix), "nstat -az "+l.counter, was, now)
			}
		}
		for _, l := range s.Links {
			if old := before.Link(l.Name); old != nil {
				e.linkDrops(s, old, &l)
			}
		}
		e.ruleDrops(s, before)
	}
}

func (e *exam) drop(s *machine.Space, what, means, fix, where string, before, now uint64) {
	e.find(api.Finding{
		Severity: api.Fault, Summary: e.title(s) + " loses packets now: " + what, Consequence: means, Fix: fix,
	}, e.enter(s, where), fmt.Sprintf("%d, then %d", before, now))
}

func (e *exam) linkDrops(s *machine.Space, old, now *machine.Link) {
	for _, c := range []struct {
		name        string
		before, now uint64
	}{{"received", old.Stats.RxDropped, now.Stats.RxDropped}, {"sent", old.Stats.TxDropped, now.Stats.TxDropped}} {
		// What the kernel itself announces on a bridge that nobody is on goes nowhere, as it must.
		alone := c.name == "sent" && now.Type == "bridge" && now.NoCarrier
		if c.now > c.before && !alone {
			e.drop(s, fmt.Sprintf("interface %s dropped %s to be %s", now.Name, plural(int(c.now-c.before), "packet", "packets"), c.name),
				"they are lost on the link: its other end is down or takes less (MTU), or a queue is full",
				e.enter(s, "ip -s -s link show "+now.Name)+"   # why: errors by kind; then: ip link set, up or with the MTU of the other end", "ip -s link show "+now.Name, c.before, c.now)
		}
	}
}

// ruleDrops compares the counters of rules that drop.
func (e *exam) ruleDrops(s, before *machine.Space) {
	type place struct {
		table, chain string
		handle       uint64
	}
	old := map[place]uint64{}
	each := func(s *machine.Space, do func(place, nft.Rule, uint64)) {
		for _, t := range s.Tables {
			for _, c := range t.Chains {
				for _, r := range c.Rules {
					if n, drops := dropped(r); drops {
						do(place{t.Family.String() + " " + t.Name, c.Name, r.Handle}, r, n)
					}
				}
			}
		}
	}
	each(before, func(p place, _ nft.Rule, n uint64) { old[p] = n })
	each(s, func(p place, r nft.Rule, n uint64) {
		was, known := old[p]
		if !known || n <= was {
			return
		}
		who := author.Of(author.Rule{Table: strings.Fields(p.table)[1], Chain: p.chain, Comment: r.AnyComment()})
		e.drop(s, fmt.Sprintf("rule %q of %s dropped %s", r.String(), who, plural(int(n-was), "packet", "packets")),
			"what the rule forbids is sent, and does not arrive", e.letPass(s, p.table, p.chain, who),
			fmt.Sprintf("nft -a list chain %s %s, handle %d", p.table, p.chain, p.handle), was, n)
	})
}

// letPass says how what a rule drops is let through: by whose rule it is.
func (e *exam) letPass(s *machine.Space, table, chain, who string) string {
	if who == author.Towpath {
		return "towpath trace --drops   # who sends what; a network in common, or a policy, lets it pass"
	}
	return e.enter(s, fmt.Sprintf("nft -a list chain %s %s", table, chain)) + "   # change it by way of " + who + ", if it should arrive; who sends what: towpath trace --drops"
}

// dropped is the counter of a rule that drops.
func dropped(r nft.Rule) (packets uint64, drops bool) {
	counts := false
	for _, x := range r.Exprs {
		switch x := x.(type) {
		case nft.Counter:
			packets, counts = x.Packets, true
		case nft.Verdict:
			drops = drops || x.Code == nft.Drop
		case nft.Reject:
			drops = true
		}
	}
	return packets, counts && drops
}

// losses are the counters of a namespace that count lost packets; those of
// connection tracking are of a check of their own. A fix is a command, with what
// to do by what it shows.
var losses = []struct{ counter, reason, means, fix string }{
	{"TcpExtIPReversePathFilter", "reverse path filter", "what comes in by another way than the one back to its sender is dropped without a word", "sysctl -w net.ipv4.conf.all.rp_filter=2"},
	{"IpInAddrErrors", "destination is not ours and is not forwarded", "what is sent to addresses that nobody here has does not arrive, nor does anything, if forwarding is off", "sysctl -w net.ipv4.ip_forward=1   # if it is to be forwarded; else correct who sends"},
	{"IpExtInNoRoutes", "no route for what is to be forwarded", "what is sent by way of this namespace does not arrive", "ip route add DESTINATION via ROUTER   # or correct who sends; what there is: ip route"},
	{"IpOutNoRoutes", "no route", "a program here sends to where no route leads, and is refused", "ip route add DESTINATION via ROUTER   # what there is: ip route"},
	{"IpInHdrErrors", "bad header or time to live over", "packets go round between routers until they die, or were damaged on the way", "ip route   # two routers whose routes lead to each other make a loop: correct one"},
	{"IpFragFails", "too big, and not to be cut up", "large packets do not arrive, unless their sender heeds the ICMP error", "ip link set DEV mtu MTU   # that of the way out, at who sends; what it is: ip link"},
	{"IpReasmFails", "fragments missing", "packets that were cut up on the way do not arrive", "ip link set DEV mtu MTU   # at who sends, so that nothing is cut up; lost in time: nstat -az IpReasmTimeout"},
	{"Ip6InNoRoutes", "no route for what is to be forwarded (IPv6)", "what is sent by way of this namespace does not arrive", "ip -6 route add DESTINATION via ROUTER   # or correct who sends; what there is: ip -6 route"},
	{"Ip6OutNoRoutes", "no route (IPv6)", "a program here sends to where no route leads, and is refused", "ip -6 route add DESTINATION via ROUTER   # what there is: ip -6 route"},
	{"Ip6InAddrErrors", "destination is not ours (IPv6)", "what is sent to addresses that nobody here has does not arrive, nor does anything, if forwarding is off", "sysctl -w net.ipv6.conf.all.forwarding=1   # if it is to be forwarded; else correct who sends"},
	{"Ip6InHdrErrors", "bad header or hop limit over (IPv6)", "packets go round between routers until they die, or were damaged on the way", "ip -6 route   # two routers whose routes lead to each other make a loop: correct one"},
	{"Ip6InTooBigErrors", "too big (IPv6)", "large packets do not arrive, unless their sender heeds the ICMPv6 error", "ip link set DEV mtu MTU   # that of the way out, at who sends; what it is: ip link"},
	{"Ip6ReasmFails", "fragments missing (IPv6)", "packets that their sender cut up do not arrive", "ip link set DEV mtu MTU   # at who sends, so that nothing is cut up; lost in time: nstat -az Ip6ReasmTimeout"},
	{"UdpRcvbufErrors", "receive buffer of a UDP socket full", "datagrams are lost: a program reads more slowly than they come", "sysctl -w net.core.rmem_max=8388608   # and have the program ask for more (SO_RCVBUF); which: ss -uamp"},
	{"Udp6RcvbufErrors", "receive buffer of a UDP socket full (IPv6)", "datagrams are lost: a program reads more slowly than they come", "sysctl -w net.core.rmem_max=8388608   # and have the program ask for more (SO_RCVBUF); which: ss -uamp"},
	{"UdpNoPorts", "nothing listens (UDP)", "what is sent to a port that nobody has open is refused", "ss -ulnp   # start the program that is missing, or correct who sends"},
	{"Udp6NoPorts", "nothing listens (UDP over IPv6)", "what is sent to a port that nobody has open is refused", "ss -ulnp   # start the program that is missing, or correct who sends"},
	{"TcpExtListenDrops", "queue of a listener full", "clients wait and try again: a program accepts connections more slowly than they come", "sysctl -w net.core.somaxconn=8192   # and start the program anew, with a longer queue (backlog); which: ss -tlnp"},
	{"TcpExtTCPBacklogDrop", "backlog of a socket full", "segments are sent again: a program is too slow for what comes", "sysctl -w net.core.rmem_max=8388608   # which: ss -tmp"},
}
