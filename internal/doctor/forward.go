package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/owner"
)

// routed are the networks that the host forwards for: those in use, and ours.
func (e *exam) routed() []network {
	var out []network
	for _, n := range e.nets {
		if (len(n.members) > 0 || n.ours) && !n.inward && len(n.subnets) > 0 {
			out = append(out, n)
		}
	}
	return out
}

func checkForwarding(e *exam) {
	s := e.host()
	for _, n := range e.routed() {
		if n.has(false) {
			e.forwards4(s, n)
		}
		if n.has(true) {
			e.forwards6(s, n)
		}
	}
}

// forwards4 asks the switch of the host first: it sets those of all interfaces.
func (e *exam) forwards4(s *machine.Space, n network) {
	name, why := "net/ipv4/ip_forward", "nothing that comes in is forwarded"
	if v, ok := sysctl(s, name); ok && v == "1" {
		name = ""
		for _, dev := range append(ways(s), n.link.Name) {
			key := "net/ipv4/conf/" + dev + "/forwarding"
			if v, ok := sysctl(s, key); ok && v == "0" {
				name, why = key, "what comes in by "+dev+" is not forwarded"
			}
		}
	} else if !ok {
		e.cannot("%s: no %s", e.title(s), name)
		return
	}
	if name == "" || e.told(name) {
		return
	}
	f := api.Finding{
		Severity: api.Fault, Summary: "IPv4 of " + n.name + " is not forwarded: " + why,
		Consequence: "containers reach nobody outside, and published ports are not reached", Ours: n.ours,
	}
	f.Set, f.Fix = set(name, "1")
	e.find(f, "/proc/sys/"+name, "0")
}

// told reports whether a finding names a parameter already.
func (e *exam) told(name string) bool {
	return slices.ContainsFunc(e.findings, func(f api.Finding) bool {
		return slices.ContainsFunc(f.Set, func(s api.Setting) bool { return s.Name == name })
	})
}

// forwards6 asks for IPv6, where the switch of one interface counts for nothing
// but force_forwarding (6.17).
func (e *exam) forwards6(s *machine.Space, n network) {
	all, ok := sysctl(s, "net/ipv6/conf/all/forwarding")
	if !ok || all == "1" {
		return
	}
	forced := true
	for _, dev := range append(ways(s), n.link.Name) {
		v, _ := sysctl(s, "net/ipv6/conf/"+dev+"/force_forwarding")
		forced = forced && v == "1"
	}
	if v, _ := sysctl(s, "net/ipv6/conf/all/force_forwarding"); forced || v == "1" || e.told("net/ipv6/conf/all/forwarding") {
		return
	}
	f := api.Finding{
		Severity: api.Fault, Summary: "IPv6 of " + n.name + " is not forwarded",
		Consequence: "containers reach nobody outside over IPv6, and nobody reaches them", Ours: n.ours,
	}
	f.Set, f.Fix = set("net/ipv6/conf/all/forwarding", "1")
	e.find(f, "/proc/sys/net/ipv6/conf/all/forwarding", all)
}

// ways are the names of the uplinks.
func ways(s *machine.Space) []string {
	var out []string
	for _, l := range uplinks(s) {
		out = append(out, l.Name)
	}
	return out
}

// bridged reports whether frames within a bridge pass the hooks of IP.
func bridged(s *machine.Space, n network) bool {
	v, _ := sysctl(s, "net/bridge/bridge-nf-call-iptables")
	return v == "1" || n.link.NFCall4
}

func checkBridgeNF(e *exam) {
	s := e.host()
	for _, n := range e.nets {
		if len(n.members) < 2 || !bridged(s, n) {
			continue
		}
		var chains []string
		for _, t := range s.Filters() {
			for _, c := range t.Chains {
				if c.Hook == "prerouting" || c.Hook == "forward" || c.Hook == "postrouting" {
					chains = append(chains, fmt.Sprintf("%s %s %s", t.Family, t.Name, c.Name))
				}
			}
		}
		if len(chains) == 0 {
			continue
		}
		e.find(api.Finding{
			Severity: api.Remark, Summary: "frames within " + n.name + " pass the packet filter of IP",
			Consequence: "rules meant for routed packets may drop or translate what two containers of one network say, and each packet costs more",
			Fix:         "sysctl -w net.bridge.bridge-nf-call-iptables=0   # unless Docker or kube-proxy rely on it",
		}, "/proc/sys/net/bridge/bridge-nf-call-iptables", "1", "chains they traverse", strings.Join(chains, ", "))
	}
}

// probe is a packet in a new connection between two devices.
func probe(s *machine.Space, in, out string, proto uint8, src, dst netip.AddrPort, transport []byte) *nft.Packet {
	p := nft.NewPacket(proto, src, dst, transport)
	p.IIf, p.OIf = device(s, in), device(s, out)
	return p
}

func device(s *machine.Space, name string) *nft.Device {
	l := s.Link(name)
	if l == nil {
		return nil
	}
	return &nft.Device{Index: l.Index, Name: l.Name, Type: 1, Group: l.Group}
}

// documentation is an address that is nobody's (RFC 5737).
var documentation = netip.MustParseAddr("198.51.100.1")

func checkMasquerade(e *exam) {
	s := e.host()
	rules := nft.NewRuleset(s.Filters()...)
	for _, n := range e.routed() {
		if n.engine == "" || n.engine == owner.Towpath {
			continue
		}
		for _, m := range n.members {
			src := address(m, n, false)
			if !src.IsValid() || !src.IsPrivate() || len(uplinks(s)) == 0 {
				continue
			}
			p := probe(s, n.link.Name, uplinks(s)[0].Name, nft.ProtoTCP, netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(documentation, 443), nil)
			o := rules.Hook("postrouting", p)
			switch {
			case len(o.NAT) > 0, o.Verdict == nft.Undecided && strings.Contains(o.By.Text, "xt target"):
			case o.Verdict == nft.Undecided:
				e.cannot("%s: %s", n.name, o.Reason)
			default:
				e.find(api.Finding{
					Severity: api.Risk, Summary: fmt.Sprintf("what leaves %s by %s keeps its private address", n.name, p.OIf.Name),
					Consequence: "no answer comes back, unless the routers outside know a way to " + src.String(),
					Fix:         fmt.Sprintf("nft add table ip nat; nft 'add chain ip nat postrouting { type nat hook postrouting priority srcnat; }'; nft add rule ip nat postrouting ip saddr %s oifname %s masquerade", n.subnets[0].Masked(), p.OIf.Name),
				}, "nft list ruleset", fmt.Sprintf("no rule at postrouting translates %s on its way to %s", src, p.OIf.Name))
			}
			break
		}
	}
}

// address is one of a member within its network.
func address(m member, n network, v6 bool) netip.Addr {
	for _, a := range m.space.Addresses {
		if m.end == nil || a.Dev != m.end.Name || a.Prefix.Addr().Is6() != v6 {
			continue
		}
		for _, s := range n.subnets {
			if s.Contains(a.Prefix.Addr()) && !a.Prefix.Addr().IsLinkLocalUnicast() {
				return a.Prefix.Addr()
			}
		}
	}
	return netip.Addr{}
}

func checkRPFilter(e *exam) {
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		lost := s.Counters["TcpExtIPReversePathFilter"]
		all, _ := number(s, "net/ipv4/conf/all/rp_filter")
		for j := range s.Links {
			l := &s.Links[j]
			own, _ := number(s, "net/ipv4/conf/"+l.Name+"/rp_filter")
			other := e.better(s, l)
			// The kernel takes the larger of the two; 2 is loose.
			if max(all, own) != 1 || l.Type == "loopback" || other == "" {
				continue
			}
			f := api.Finding{
				Severity: api.Risk, Summary: fmt.Sprintf("%s: what comes in by %s is dropped, since the way back is %s", e.title(s), l.Name, other),
				Consequence: "the reverse path filter is strict and drops it without a word",
			}
			f.Set, f.Fix = set("net/ipv4/conf/"+l.Name+"/rp_filter", "2")
			f.Fix = e.enter(s, f.Fix)
			if s.Name != machine.HostName {
				f.Set = nil
			}
			if lost > 0 {
				f.Severity = api.Fault
			}
			e.find(f, fmt.Sprintf("/proc/sys/net/ipv4/conf/%s/rp_filter", l.Name), fmt.Sprintf("%d (all: %d)", own, all),
				"ip route", "the better default route is over "+other, "nstat -az TcpExtIPReversePathFilter", fmt.Sprint(lost))
		}
	}
}

// better is the link with a better default route than one over l, if both have
// one; with rules of its own a namespace chooses by more than that.
func (e *exam) better(s *machine.Space, l *machine.Link) string {
	if len(s.Rules) > 5 || slices.ContainsFunc(s.Rules, func(r machine.Rule) bool {
		return !r.IPv6 && r.Priority != 0 && r.Priority != 32766 && r.Priority != 32767
	}) {
		return ""
	}
	var own, best *machine.Route
	for i := range s.Routes {
		r := &s.Routes[i]
		if r.Table != machine.TableMain || r.Type != machine.Unicast || r.Dst.Bits() != 0 || r.Dst.Addr().Is6() || len(r.Hops) > 1 {
			continue
		}
		if r.Dev == l.Name {
			own = r
		}
		if best == nil || r.Metric < best.Metric {
			best = r
		}
	}
	if own == nil || best == nil || best.Dev == own.Dev {
		return ""
	}
	return best.Dev
}

func checkAcceptRA(e *exam) {
	s := e.host()
	for _, l := range s.Links {
		forwards, _ := number(s, "net/ipv6/conf/"+l.Name+"/forwarding")
		ra, ok := number(s, "net/ipv6/conf/"+l.Name+"/accept_ra")
		if !ok || forwards != 1 || ra != 1 {
			continue
		}
		i := slices.IndexFunc(s.Routes, func(r machine.Route) bool {
			return r.Dev == l.Name && r.Dst.Addr().Is6() && r.Protocol == protoRA
		})
		if i < 0 {
			continue
		}
		f := api.Finding{
			Severity:    api.Fault,
			Summary:     fmt.Sprintf("%s forwards IPv6 and has routes by router advertisements, which it now ignores", l.Name),
			Consequence: "the route " + s.Routes[i].Dst.String() + " expires and is not made again",
		}
		f.Set, f.Fix = set("net/ipv6/conf/"+l.Name+"/accept_ra", "2")
		e.find(f, "/proc/sys/net/ipv6/conf/"+l.Name+"/forwarding", "1", "/proc/sys/net/ipv6/conf/"+l.Name+"/accept_ra", "1",
			"ip -6 route show proto ra", s.Routes[i].Dst.String()+" dev "+l.Name)
	}
}

// protoRA is RTPROT_RA.
const protoRA = 9
