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
	// The switch of the host is set and kept by the daemon, that of an interface of others is theirs.
	ours := name == "net/ipv4/ip_forward" && slices.ContainsFunc(e.routed(), func(o network) bool { return o.ours })
	if name == "" || e.told(n, name, ours) {
		return
	}
	f := api.Finding{
		Severity: api.Fault, Summary: "IPv4 of " + n.name + " is not forwarded: " + why,
		Consequence: "containers reach nobody outside, and published ports are not reached",
		Ours:        ours,
	}
	f.Set, f.Fix = set(name, "1")
	e.find(f, "/proc/sys/"+name, "0", onNetwork, n.name)
}

// onNetwork is the evidence of what a parameter is needed for.
const onNetwork = "needed by"

// told reports whether a finding names a parameter already, and adds the network
// to what needs it.
func (e *exam) told(n network, name string, ours bool) bool {
	i := slices.IndexFunc(e.findings, func(f api.Finding) bool {
		return f.Ours == ours && slices.ContainsFunc(f.Set, func(s api.Setting) bool { return s.Name == name })
	})
	if i < 0 {
		return false
	}
	f, it := &e.findings[i], api.Evidence{Where: onNetwork, What: n.name}
	if !slices.Contains(f.Evidence, it) && len(f.Evidence) < most {
		f.Evidence = append(f.Evidence, it)
	}
	return true
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
	if v, _ := sysctl(s, "net/ipv6/conf/all/force_forwarding"); forced || v == "1" || e.told(n, "net/ipv6/conf/all/forwarding", n.ours) {
		return
	}
	f := api.Finding{
		Severity: api.Fault, Summary: "IPv6 of " + n.name + " is not forwarded",
		Consequence: "containers reach nobody outside over IPv6, and nobody reaches them", Ours: n.ours,
	}
	f.Set, f.Fix = set("net/ipv6/conf/all/forwarding", "1")
	e.find(f, "/proc/sys/net/ipv6/conf/all/forwarding", all, onNetwork, n.name)
}

// ways are the names of the uplinks.
func ways(s *machine.Space) []string {
	var out []string
	for _, l := range uplinks(s) {
		out = append(out, l.Name)
	}
	return out
}

// bridged is where it says that frames of a family within a bridge pass the hooks
// of IP, for the whole host or for the one bridge; "": they do not.
func bridged(s *machine.Space, n network, v6 bool) string {
	name, own := "nf_call_iptables", n.link.NFCall4
	if v6 {
		name, own = "nf_call_ip6tables", n.link.NFCall6
	}
	key := "net/bridge/bridge-" + strings.ReplaceAll(name, "_", "-")
	switch v, _ := sysctl(s, key); {
	case v == "1":
		return "/proc/sys/" + key
	case own:
		return "ip -d link show " + n.link.Name + ": " + name
	}
	return ""
}

func checkBridgeNF(e *exam) {
	s := e.host()
	for _, n := range e.nets {
		if len(n.members) < 2 {
			continue
		}
		for _, v6 := range []bool{false, true} {
			at, chains := bridged(s, n, v6), traversed(s, v6)
			if at == "" || v6 && !n.has(v6) || len(chains) == 0 {
				continue
			}
			family, fix := "IPv4", "ip link set "+n.link.Name+" type bridge nf_call_iptables 0"
			if v6 {
				family, fix = "IPv6", "ip link set "+n.link.Name+" type bridge nf_call_ip6tables 0"
			}
			if key, all := strings.CutPrefix(at, "/proc/sys/"); all {
				_, fix = set(key, "0")
				fix += "   # unless Docker or kube-proxy rely on it"
			}
			e.find(api.Finding{
				Severity: api.Remark, Summary: "frames of " + family + " within " + n.name + " pass the packet filter of IP",
				Consequence: "rules meant for routed packets may drop or translate what two containers of one network say, and each packet costs more",
				Fix:         fix,
			}, at, "1", "chains they traverse", strings.Join(chains, ", "))
		}
	}
}

// traversed are the chains that a frame of a family within a bridge meets then.
func traversed(s *machine.Space, v6 bool) []string {
	family := nft.FamilyIP
	if v6 {
		family = nft.FamilyIP6
	}
	var out []string
	for _, t := range s.Filters() {
		if t.Family != family && t.Family != nft.FamilyInet {
			continue
		}
		for _, c := range t.Chains {
			if c.Hook == "prerouting" || c.Hook == "forward" || c.Hook == "postrouting" {
				out = append(out, fmt.Sprintf("%s %s %s", t.Family, t.Name, c.Name))
			}
		}
	}
	return out
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

func checkMasquerade(e *exam) {
	s := e.host()
	out := s.Stranger(false)
	if !out.IsValid() {
		return
	}
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
			p := probe(s, n.link.Name, uplinks(s)[0].Name, nft.ProtoTCP, netip.AddrPortFrom(src, 40000), netip.AddrPortFrom(out, 443), nil)
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
			e.find(f, e.enter(s, fmt.Sprintf("sysctl net.ipv4.conf.%s.rp_filter", dotted(l.Name))), fmt.Sprintf("%d (all: %d)", own, all),
				e.enter(s, "ip route"), "the better default route is over "+other, e.enter(s, "nstat -az TcpExtIPReversePathFilter"), fmt.Sprint(lost))
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
