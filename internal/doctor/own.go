package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/owner"
)

// most is how many lines of evidence a finding has.
const most = 8

func checkReading(e *exam) {
	for _, u := range e.Machine.Unread {
		e.cannot("%s: %s", e.Names.Unread(u), u.Cause)
	}
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		for _, line := range s.Partial {
			e.cannot("%s: %s", e.title(s), line)
		}
	}
	for _, line := range e.Unread {
		e.cannot("%s", line)
	}
}

func checkDrift(e *exam) {
	if len(e.Drift) == 0 {
		return
	}
	var evidence []string
	for i, line := range e.Drift {
		if i == most {
			evidence = append(evidence, "towpath diff", fmt.Sprintf("and %d more", len(e.Drift)-most))
			break
		}
		evidence = append(evidence, "towpath diff", line)
	}
	e.find(api.Finding{
		Severity: api.Fault, Summary: "Towpath's own things are not as they should be: " + plural(len(e.Drift), "change", "changes") + " to make",
		Consequence: "networks of Towpath do not work as its objects say", Fix: "towpath doctor --fix", Ours: true,
	}, evidence...)
}

// writers are engines that never run a network without rules, and how each is
// told to write them again.
var writers = []struct {
	engine  string
	authors []string
	fix     string
}{
	{owner.Towpath, []string{author.Towpath}, "towpath doctor --fix"},
	{owner.Docker, []string{author.Docker}, "systemctl restart docker"},
	{owner.Podman, []string{author.Podman, author.CNI}, "podman network reload --all"},
	{owner.Libvirt, []string{author.Libvirt}, "systemctl restart libvirtd"},
}

func checkRulesGone(e *exam) {
	s := e.host()
	there, whole := authors(s)
	if !whole {
		return // they may be there
	}
	for _, w := range writers {
		i := slices.IndexFunc(e.nets, func(n network) bool { return n.engine == w.engine && (len(n.members) > 0 || n.ours) })
		if i < 0 || slices.ContainsFunc(w.authors, func(a string) bool { return there[a] }) {
			continue
		}
		e.find(api.Finding{
			Severity: api.Fault, Summary: fmt.Sprintf("the rules of %s are gone, and its networks are in use", w.engine),
			Consequence: "no published port, no translation, no isolation until they are written again", Fix: w.fix, Ours: w.engine == owner.Towpath,
		}, "bridge "+e.nets[i].link.Name, e.nets[i].name+" has "+plural(len(e.nets[i].members), "member", "members"),
			"nft list ruleset", "no chain of "+w.engine+"'s in "+plural(len(s.Filters()), "table", "tables"))
	}
}

// authors are those who have chains in a namespace; whole: every chain could be read.
func authors(s *machine.Space) (out map[string]bool, whole bool) {
	out, whole = map[string]bool{}, true
	for _, t := range s.Filters() {
		for _, c := range t.Chains {
			out[author.Of(author.Rule{Table: t.Name, Chain: c.Name})] = true
			whole = whole && c.Name != machine.UnreadChain
		}
	}
	return out, whole
}

func checkMixed(e *exam) {
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		modern, legacy := working(s.Tables), working(s.Legacy)
		if len(legacy) == 0 || len(modern) == 0 {
			continue
		}
		e.find(api.Finding{
			Severity:    api.Risk,
			Summary:     fmt.Sprintf("%s has tables of iptables-legacy and of nftables", e.title(s)),
			Consequence: "both are asked about every packet and either may drop it, while each tool lists its own only",
			Fix:         e.enter(s, "iptables-legacy-save") + "   # move what is needed to iptables-nft, then: iptables-legacy -F; iptables-legacy -t nat -F; iptables-legacy -P FORWARD ACCEPT",
		}, "/proc/net/ip_tables_names", strings.Join(legacy, ", "), "nft list tables", strings.Join(modern, ", "))
	}
}

// working are the tables that do anything.
func working(tables []nft.TableDef) []string {
	var out []string
	for _, t := range tables {
		rules, drops := 0, false
		for _, c := range t.Chains {
			rules += len(c.Rules)
			drops = drops || c.Policy == "drop"
		}
		if rules > 0 || drops {
			out = append(out, fmt.Sprintf("%s %s (%s)", t.Family, strings.TrimPrefix(t.Name, nft.LegacyTable), plural(rules, "rule", "rules")))
		}
	}
	return out
}

func checkStale(e *exam) {
	s := e.host()
	for i := range s.Links {
		l := &s.Links[i]
		bridge := s.Link(l.Master)
		if l.Type != "veth" || !l.Elsewhere || bridge == nil || bridge.Type != "bridge" {
			continue
		}
		e.find(api.Finding{
			Severity: api.Risk, Summary: fmt.Sprintf("%s on bridge %s leads into a namespace that no process and no file holds", l.Name, l.Master),
			Consequence: "an open socket may keep it; else it is left over, and takes a port and perhaps an address", Fix: "ip link delete " + l.Name,
		}, "ip -d link show "+l.Name, fmt.Sprintf("index %d, state %s, the other end is in none of %s", l.Index, l.OperState, plural(len(e.Machine.Spaces), "namespace", "namespaces")))
	}
	for i := range e.Machine.Spaces {
		e.staleSpace(&e.Machine.Spaces[i])
	}
}

// staleSpace knows a namespace that an engine made and nobody is in: no
// process, no interface but the loopback.
func (e *exam) staleSpace(s *machine.Space) {
	o := e.Names.Space(s)
	if o.Engine == "" || o.Engine == owner.Towpath || len(s.Links) != 1 || len(s.Holders) == 0 {
		return
	}
	for _, h := range s.Holders {
		if h.PID != 0 {
			return
		}
	}
	p := s.Holders[0].Path
	e.find(api.Finding{
		Severity: api.Risk, Summary: fmt.Sprintf("the namespace of %s is empty and nobody is in it", o),
		Consequence: "it is left over of a container that is gone", Fix: fmt.Sprintf("umount %s && rm %s", p, p),
	}, p, "no process, and no interface but the loopback")
}

func checkDrops(e *exam) {
	if e.Earlier == nil {
		return
	}
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		before := e.Earlier.Space(s.Name)
		if before == nil || before.Inode != s.Inode {
			continue
		}
		for _, l := range losses {
			if rise := s.Counters[l.counter] - before.Counters[l.counter]; before.Counters[l.counter] < s.Counters[l.counter] {
				e.drop(s, fmt.Sprintf("%s: %s (%s)", l.reason, plural(int(rise), "packet", "packets"), l.counter), l.means, l.fix, "nstat -az "+l.counter, before.Counters[l.counter], s.Counters[l.counter])
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
		Severity: api.Fault, Summary: e.title(s) + " loses packets now: " + what, Consequence: means, Fix: e.enter(s, fix),
	}, where, fmt.Sprintf("%d, then %d", before, now))
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
				"the other end is down, its MTU is smaller, or a queue is full", "ip -s -s link show "+now.Name, "ip -s link show "+now.Name, c.before, c.now)
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
			"somebody sends what the rule forbids", fmt.Sprintf("nft -a list chain %s %s", p.table, p.chain),
			fmt.Sprintf("nft -a list chain %s %s, handle %d", p.table, p.chain, p.handle), was, n)
	})
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

// losses are the counters of a namespace that count lost packets.
var losses = []struct{ counter, reason, means, fix string }{
	{"TcpExtIPReversePathFilter", "reverse path filter", "packets come in by another way than the one back to their sender", "sysctl -w net.ipv4.conf.all.rp_filter=2"},
	{"IpInAddrErrors", "destination is not ours and is not forwarded", "packets come for addresses that nobody here has, or forwarding is off", "sysctl net.ipv4.ip_forward"},
	{"IpOutNoRoutes", "no route", "somebody sends to where no route leads", "ip route"},
	{"IpInHdrErrors", "bad header or time to live over", "a loop of routes, or damaged packets", "ip route"},
	{"IpFragFails", "too big, and not to be cut up", "the MTU of the way out is smaller than what is sent", "ip link"},
	{"IpReasmFails", "fragments missing", "fragments get lost on the way", "nstat -az IpReasmTimeout"},
	{"Ip6InNoRoutes", "no route (IPv6)", "somebody sends to where no route leads", "ip -6 route"},
	{"Ip6InAddrErrors", "destination is not ours (IPv6)", "packets come for addresses that nobody here has, or forwarding is off", "sysctl net.ipv6.conf.all.forwarding"},
	{"Ip6InTooBigErrors", "too big (IPv6)", "the MTU of the way out is smaller than what is sent", "ip link"},
	{"UdpRcvbufErrors", "receive buffer of a UDP socket full", "a program reads more slowly than packets come", "ss -uam"},
	{"UdpNoPorts", "nothing listens (UDP)", "somebody sends to a port that nobody has open", "ss -uln"},
	{"TcpExtListenDrops", "queue of a listener full", "a program accepts connections more slowly than they come", "ss -tln"},
	{"TcpExtListenOverflows", "queue of a listener full", "a program accepts connections more slowly than they come", "ss -tln"},
	{"TcpExtTCPBacklogDrop", "backlog of a socket full", "a program is too slow for what is sent to it", "ss -tm"},
	{"ConntrackInsertFailed", "connection tracking could not enter a connection", "two connections want one translated address and port", "conntrack -S"},
	{"ConntrackDrop", "table of tracked connections full", "new connections are dropped", "sysctl -w net.netfilter.nf_conntrack_max=524288"},
	{"ConntrackEarlyDrop", "tracked connections thrown out for new ones", "the table of tracked connections is too small", "sysctl -w net.netfilter.nf_conntrack_max=524288"},
}
