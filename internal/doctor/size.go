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
			}, e.enter(m.space, "ip link show "+m.end.Name), fmt.Sprintf("mtu %d", m.end.MTU), "ip link show "+narrow.Name, fmt.Sprintf("mtu %d", way))
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
	}, e.enter(s, "ip link show "+l.Name), fmt.Sprintf("mtu %d", l.MTU), e.enter(s, "ip link show "+under.Name), fmt.Sprintf("mtu %d, less %d", under.MTU, head))
}

// tooBig is an error that tells a sender of a smaller MTU on the way.
type tooBig struct {
	name    string
	v6      bool
	proto   uint8
	message []byte
}

// tooBigs are destination unreachable, fragmentation needed (RFC 1191), and packet
// too big (RFC 4443), without which IPv6 has no way at all, since nobody cuts up
// packets.
func tooBigs() []tooBig {
	return []tooBig{
		{"ICMP", false, nft.ProtoICMP, []byte{3, 4, 0, 0, 0, 0, 5, 120}},
		{"ICMPv6", true, nft.ProtoICMPv6, []byte{2, 0, 0, 0, 0, 0, 5, 120}},
	}
}

func checkPMTU(e *exam) {
	s := e.host()
	up := uplinks(s)
	if len(up) == 0 {
		return
	}
	rules := nft.NewRuleset(s.Filters()...)
	for _, n := range e.routed() {
		for _, big := range tooBigs() {
			from := s.Stranger(big.v6)
			i := slices.IndexFunc(n.members, func(m member) bool { return address(m, n, big.v6).IsValid() })
			if i < 0 || !from.IsValid() {
				continue
			}
			to := address(n.members[i], n, big.v6)
			p := probe(s, up[0].Name, n.link.Name, big.proto, netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0), slices.Clone(big.message))
			p.CT.State = nft.StateRelated
			if o := rules.Hook("forward", p); o.Verdict == nft.Drop {
				e.find(api.Finding{
					Severity: api.Fault, Summary: big.name + " errors about packets that are too big do not reach " + n.name,
					Consequence: "connections open, and hang when the first large packet is sent", Fix: "let what is related to a connection pass: " + passRelated(o.By),
				}, listing(o.By), ruleText(o.By))
			}
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
				Consequence: "nothing outside is reached by way of it",
				Fix:         e.enter(s, fmt.Sprintf("ip route replace default via ROUTER dev %s", r.Dev)) + "   # with the router's own address; if it is " + r.Via.String() + ", start it or join it to this link",
			}, e.enter(s, "ip neighbour show dev "+r.Dev), r.Via.String()+" FAILED", e.enter(s, "ip route"), "default via "+r.Via.String()+" dev "+r.Dev)
		}
	}
}
