package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/firewall"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

func checkMTU(e *exam) {
	s := e.host()
	way := 0 // the smallest of the ways out
	var narrow *machine.Link
	for _, l := range uplinks(s) {
		if l.MTU > 0 && (way == 0 || l.MTU < way) {
			way, narrow = l.MTU, l
		}
	}
	for _, n := range e.nets {
		for _, m := range n.members {
			e.ends(n, m)
			if m.end == nil || n.inward || way == 0 || m.end.MTU <= way {
				continue
			}
			e.find(api.Finding{
				Severity: api.Risk, Summary: fmt.Sprintf("%s of %s sends up to %d bytes, and the way out by %s takes %d", m.end.Name, e.title(m.space), m.end.MTU, narrow.Name, way),
				Consequence: "larger packets pass only as long as ICMP errors reach the sender", Fix: e.enter(m.space, fmt.Sprintf("ip link set %s mtu %d", m.end.Name, way)),
				Ours: n.ours,
			}, "ip link show "+m.end.Name, fmt.Sprintf("mtu %d", m.end.MTU), "ip link show "+narrow.Name, fmt.Sprintf("mtu %d", way))
		}
	}
	for i := range e.Machine.Spaces {
		for j := range e.Machine.Spaces[i].Links {
			e.tunnel(&e.Machine.Spaces[i], &e.Machine.Spaces[i].Links[j])
		}
	}
}

// ends compares the two ends of a pair and their bridge.
func (e *exam) ends(n network, m member) {
	if m.end == nil || m.port.MTU == 0 || m.end.MTU == 0 {
		return
	}
	switch {
	case m.port.MTU != m.end.MTU:
		e.find(api.Finding{
			Severity: api.Fault, Summary: fmt.Sprintf("the two ends of %s differ: %d bytes at %s, %d in %s", m.port.Name, m.port.MTU, m.port.Name, m.end.MTU, e.title(m.space)),
			Consequence: "a pair drops what is larger than the other end takes", Fix: e.enter(m.space, fmt.Sprintf("ip link set %s mtu %d", m.end.Name, m.port.MTU)), Ours: n.ours,
		}, "ip link show "+m.port.Name, fmt.Sprintf("mtu %d", m.port.MTU), e.enter(m.space, "ip link show "+m.end.Name), fmt.Sprintf("mtu %d", m.end.MTU))
	case n.link.MTU != 0 && m.port.MTU > n.link.MTU:
		e.find(api.Finding{
			Severity: api.Fault, Summary: fmt.Sprintf("%s takes %d bytes, its bridge %s only %d", m.port.Name, m.port.MTU, n.link.Name, n.link.MTU),
			Consequence: "the bridge drops larger frames", Fix: fmt.Sprintf("ip link set %s mtu %d", n.link.Name, m.port.MTU), Ours: n.ours,
		}, "ip link show "+m.port.Name, fmt.Sprintf("mtu %d", m.port.MTU), "ip link show "+n.link.Name, fmt.Sprintf("mtu %d", n.link.MTU))
	}
}

// tunnel compares a vxlan with the link its packets leave by: the outer headers
// take 50 bytes over IPv4, 70 over IPv6.
func (e *exam) tunnel(s *machine.Space, l *machine.Link) {
	if l.VXLAN == nil {
		return
	}
	under := s.Link(l.Parent)
	if up := uplinks(s); under == nil && len(up) > 0 {
		under = up[0]
	}
	head := 50
	if l.VXLAN.Local.Is6() && !l.VXLAN.Local.Is4In6() || l.VXLAN.Remote.Is6() && !l.VXLAN.Remote.Is4In6() {
		head = 70
	}
	if under == nil || under.MTU == 0 || l.MTU <= under.MTU-head {
		return
	}
	e.find(api.Finding{
		Severity: api.Fault, Summary: fmt.Sprintf("vxlan %s takes %d bytes, and with its headers %s has room for %d", l.Name, l.MTU, under.Name, under.MTU-head),
		Consequence: "large packets are cut up or lost between the hosts", Fix: e.enter(s, fmt.Sprintf("ip link set %s mtu %d", l.Name, under.MTU-head)),
	}, "ip link show "+l.Name, fmt.Sprintf("mtu %d", l.MTU), "ip link show "+under.Name, fmt.Sprintf("mtu %d, less %d", under.MTU, head))
}

func checkPMTU(e *exam) {
	s := e.host()
	up := uplinks(s)
	if len(up) == 0 {
		return
	}
	rules := nft.NewRuleset(s.Filters()...)
	tooBig := []byte{3, 4, 0, 0, 0, 0, 5, 120} // destination unreachable, fragmentation needed (RFC 1191)
	for _, n := range e.routed() {
		for _, m := range n.members {
			to := address(m, n, false)
			if !to.IsValid() {
				continue
			}
			p := probe(s, up[0].Name, n.link.Name, nft.ProtoICMP, netip.AddrPortFrom(documentation, 0), netip.AddrPortFrom(to, 0), slices.Clone(tooBig))
			p.CT.State = nft.StateRelated
			if o := rules.Hook("forward", p); o.Verdict == nft.Drop {
				e.find(api.Finding{
					Severity: api.Fault, Summary: "ICMP errors about packets that are too big do not reach " + n.name,
					Consequence: "connections open, and hang when the first large packet is sent", Fix: "let what is related to a connection pass: " + passRelated(o.By),
				}, listing(o.By), ruleText(o.By))
			}
			break
		}
	}
	if v, _ := number(s, "net/ipv4/ip_no_pmtu_disc"); v != 0 {
		f := api.Finding{Severity: api.Risk, Summary: "the host does not look for the MTU of a path", Consequence: "its packets are cut up on the way, where that is allowed at all"}
		f.Set, f.Fix = set("net/ipv4/ip_no_pmtu_disc", "0")
		e.find(f, "/proc/sys/net/ipv4/ip_no_pmtu_disc", fmt.Sprint(v))
	}
}

func chainOf(r nft.Ref) string { return fmt.Sprintf("%s %s %s", r.Family, r.Table, r.Chain) }

// listing is the command that shows a rule with its number.
func listing(r nft.Ref) string {
	if table, legacy := strings.CutPrefix(r.Table, nft.LegacyTable); legacy {
		return fmt.Sprintf("%s -t %s -nvL %s --line-numbers", firewall.Legacy(r.Family), table, r.Chain)
	}
	return "nft -a list chain " + chainOf(r)
}

// passRelated is the command that lets ICMP errors through a chain.
func passRelated(r nft.Ref) string {
	if table, legacy := strings.CutPrefix(r.Table, nft.LegacyTable); legacy {
		return fmt.Sprintf("%s -t %s -I %s -m conntrack --ctstate RELATED -j ACCEPT", firewall.Legacy(r.Family), table, r.Chain)
	}
	return "nft insert rule " + chainOf(r) + " ct state related accept"
}

func ruleText(r nft.Ref) string {
	if r.Index < 0 {
		return "the policy of the chain"
	}
	return fmt.Sprintf("%s (handle %d)", r.Text, r.Handle)
}

func checkConntrack(e *exam) {
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		count, ok1 := number(s, "net/netfilter/nf_conntrack_count")
		limit, ok2 := number(s, "net/netfilter/nf_conntrack_max")
		if !ok1 || !ok2 || limit == 0 {
			continue
		}
		turned := s.Counters["ConntrackDrop"] + s.Counters["ConntrackEarlyDrop"]
		f := api.Finding{Consequence: "new connections are dropped when it is full"}
		switch {
		case count*100 >= limit*95:
			f.Severity, f.Summary = api.Fault, "is full"
		case count*100 >= limit*80:
			f.Severity, f.Summary = api.Risk, "is nearly full"
		case turned > 0:
			f.Severity, f.Summary = api.Risk, "was full"
		default:
			continue
		}
		f.Summary = fmt.Sprintf("the table of tracked connections of %s %s: %d of %d", e.title(s), f.Summary, count, limit)
		f.Set, f.Fix = set("net/netfilter/nf_conntrack_max", fmt.Sprint(limit*2))
		e.find(f, "/proc/sys/net/netfilter/nf_conntrack_count", fmt.Sprint(count), "/proc/sys/net/netfilter/nf_conntrack_max", fmt.Sprint(limit),
			"conntrack -S: drop, early_drop", fmt.Sprint(turned), "conntrack -S: insert_failed", fmt.Sprint(s.Counters["ConntrackInsertFailed"]))
	}
}

// checkNeighbours adds up all namespaces: the kernel has one table a family.
func checkNeighbours(e *exam) {
	for _, family := range []string{"ipv4", "ipv6"} {
		used := 0
		for i := range e.Machine.Spaces {
			for _, n := range e.Machine.Spaces[i].Neighbours {
				// Those that are permanent or need no question are not collected.
				if n.IP.Is4() == (family == "ipv4") && n.State&(machine.NeighbourPermanent|machine.NeighbourNoARP) == 0 {
					used++
				}
			}
		}
		name := "net/" + family + "/neigh/default/gc_thresh3"
		limit, ok := number(e.host(), name)
		if !ok || used*100 < limit*80 {
			continue
		}
		f := api.Finding{
			Severity: api.Risk, Summary: fmt.Sprintf("the neighbour table of %s is nearly full: %d of %d", family, used, limit),
			Consequence: "when it is full no further address on a link is found (\"neighbour table overflow\" in the log)",
		}
		if used >= limit*95/100 {
			f.Severity = api.Fault
		}
		f.Set, f.Fix = set(name, fmt.Sprint(limit*4))
		e.find(f, "/proc/sys/"+name, fmt.Sprint(limit), "ip neighbour, in all namespaces", fmt.Sprint(used))
	}
}

func checkGateway(e *exam) {
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		for _, r := range s.Routes {
			if r.Dst.Bits() != 0 || !r.Via.IsValid() || r.Table != machine.TableMain {
				continue
			}
			j := slices.IndexFunc(s.Neighbours, func(n machine.Neighbour) bool {
				return n.IP == r.Via && n.Dev == r.Dev && n.State == machine.NeighbourFailed
			})
			if j < 0 {
				continue
			}
			e.find(api.Finding{
				Severity: api.Fault, Summary: fmt.Sprintf("the router %s of %s does not answer on %s", r.Via, e.title(s), r.Dev),
				Consequence: "nothing outside is reached", Fix: e.enter(s, "ip neighbour get "+r.Via.String()+" dev "+r.Dev) + "   # is it up, on this link, and is this its address?",
			}, "ip neighbour show dev "+r.Dev, r.Via.String()+" FAILED", "ip route", "default via "+r.Via.String()+" dev "+r.Dev)
		}
	}
}
