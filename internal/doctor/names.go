package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/owner"
)

func checkSubnets(e *exam) {
	s := e.host()
	for i, n := range e.nets {
		for _, p := range n.subnets {
			if p.Addr().IsLinkLocalUnicast() {
				continue
			}
			for _, other := range e.nets[i+1:] {
				for _, q := range other.subnets {
					if p.Overlaps(q) && !q.Addr().IsLinkLocalUnicast() {
						e.overlap(n, p, other.name, q.Masked(), "ip address show "+other.link.Name)
					}
				}
			}
			for _, r := range s.Routes {
				foreign := r.Dev != n.link.Name && r.Dst.Bits() > 0 && r.Table == machine.TableMain && r.Type == machine.Unicast
				isNet := slices.ContainsFunc(e.nets, func(o network) bool { return o.link.Name == r.Dev })
				if foreign && !isNet && p.Overlaps(r.Dst) {
					e.overlap(n, p, "the host's route over "+r.Dev, r.Dst, "ip route")
				}
			}
		}
	}
}

func (e *exam) overlap(n network, p netip.Prefix, other string, q netip.Prefix, where string) {
	fix := "make the network anew with other addresses"
	switch n.engine {
	case owner.Towpath, owner.Docker, owner.Podman:
		fix = fmt.Sprintf("%s network create --subnet 10.201.7.0/24 NEW   # and move its containers there", strings.ToLower(n.engine))
	}
	e.find(api.Finding{
		Severity: api.Fault, Summary: fmt.Sprintf("%s and %s have the same addresses: %s, %s", n.name, other, p.Masked(), q),
		Consequence: "packets for one go to the other", Fix: fix,
	}, "ip address show "+n.link.Name, p.String(), where, q.String())
}

func checkLinks(e *exam) {
	for _, n := range e.nets {
		if len(n.members) > 0 && !n.link.Up {
			e.down(n, e.host(), n.link, n.link.Name+" of "+n.name)
		}
		for _, m := range n.members {
			switch {
			case !m.port.Up:
				e.down(n, e.host(), m.port, m.port.Name+" of "+e.title(m.space))
			case m.end != nil && !m.end.Up:
				e.down(n, m.space, m.end, m.end.Name+" of "+e.title(m.space))
			}
		}
	}
}

func (e *exam) down(n network, s *machine.Space, l *machine.Link, what string) {
	e.find(api.Finding{
		Severity: api.Fault, Summary: what + " is down", Consequence: "nothing passes it",
		Fix: e.enter(s, "ip link set "+l.Name+" up"), Ours: n.ours,
	}, e.enter(s, "ip link show "+l.Name), "DOWN")
}

// holding is who has something on a network, and the command that takes it away
// from it or gives it another.
type holding struct{ who, fix string }

func (e *exam) holding(s *machine.Space, dev, fix string) holding {
	who := e.title(s) + " " + dev
	if s.Name == machine.HostName {
		who = "the bridge " + dev
	}
	return holding{who, e.enter(s, fix)}
}

func whoOf(list []holding) []string {
	var out []string
	for _, h := range list {
		out = append(out, h.who)
	}
	return out
}

func checkAddresses(e *exam) {
	for _, n := range e.nets {
		has := map[netip.Addr][]holding{}
		hold := func(s *machine.Space, dev string, p netip.Prefix) {
			has[p.Addr()] = append(has[p.Addr()], e.holding(s, dev, fmt.Sprintf("ip address delete %s dev %s", p, dev)))
		}
		for _, p := range n.subnets {
			hold(e.host(), n.link.Name, p)
		}
		for _, m := range n.members {
			for _, a := range m.space.Addresses {
				if m.end != nil && a.Dev == m.end.Name {
					hold(m.space, a.Dev, a.Prefix)
				}
			}
		}
		for _, a := range sortedKeys(has, netip.Addr.Compare) {
			list := has[a]
			if who := whoOf(list); len(who) > 1 {
				e.find(api.Finding{
					Severity: api.Fault, Summary: fmt.Sprintf("%s is there %d times on %s: %s", a, len(who), n.name, strings.Join(who, ", ")),
					Consequence: "each gets some of the other's packets",
					Fix:         list[len(list)-1].fix + "   # or at the other, and give it one of its own",
				}, "ip address, in the namespaces", a.String()+" at "+strings.Join(who, " and "))
			}
		}
	}
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		for _, a := range s.Addresses {
			if a.DADFailed {
				e.find(api.Finding{
					Severity: api.Fault, Summary: fmt.Sprintf("%s of %s is somebody else's on the link of %s", a.Prefix.Addr(), e.title(s), a.Dev),
					Consequence: "the kernel does not use the address (RFC 4862)", Fix: e.enter(s, "ip address delete "+a.Prefix.String()+" dev "+a.Dev),
				}, e.enter(s, "ip -6 address show dev "+a.Dev), a.Prefix.String()+" dadfailed")
			}
		}
	}
}

func sortedKeys[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	var out []K
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, compare)
	return out
}

func checkMACs(e *exam) {
	for _, n := range e.nets {
		has := map[string][]holding{}
		for _, m := range n.members {
			if m.end != nil && m.end.MAC != "" {
				has[m.end.MAC] = append(has[m.end.MAC], e.holding(m.space, m.end.Name, "ip link set "+m.end.Name+" address NEW"))
			}
		}
		for _, mac := range sortedKeys(has, strings.Compare) {
			list := has[mac]
			if who := whoOf(list); len(who) > 1 {
				e.find(api.Finding{
					Severity: api.Fault, Summary: fmt.Sprintf("%s is the MAC address of %s on %s", mac, strings.Join(who, " and of "), n.name),
					Consequence: "the bridge sends to where it heard the address last, so that one of them loses packets",
					Fix:         list[len(list)-1].fix + "   # one that nobody has, as 02: and five bytes of chance",
				}, "ip link, in the namespaces", mac+" at "+strings.Join(who, " and "))
			}
		}
	}
}

func checkDefaultRoute(e *exam) {
	for _, n := range e.nets {
		if n.inward || len(n.subnets) == 0 {
			continue
		}
		for _, v6 := range []bool{false, true} {
			var without []member
			with := 0
			for _, m := range n.members {
				switch {
				case !address(m, n, v6).IsValid():
				case hasDefault(m.space, v6):
					with++
				default:
					without = append(without, m)
				}
			}
			// Where nobody has one the network is one without a way out, as far as can be seen.
			if n.ours || with > 0 || len(n.members) == 1 && n.engine != "" {
				for _, m := range without {
					e.noDefault(n, m, v6)
				}
			}
		}
	}
}

func (e *exam) noDefault(n network, m member, v6 bool) {
	var gateway netip.Addr
	for _, p := range n.subnets {
		if p.Addr().Is6() == v6 && !p.Addr().IsLinkLocalUnicast() {
			gateway = p.Addr()
		}
	}
	if !gateway.IsValid() {
		return
	}
	family, routes := "IPv4", "ip route"
	if v6 {
		family, routes = "IPv6", "ip -6 route"
	}
	e.find(api.Finding{
		Severity: api.Fault, Summary: fmt.Sprintf("%s has no default route for %s", e.title(m.space), family),
		Consequence: "it reaches its own network only", Fix: e.enter(m.space, fmt.Sprintf("%s add default via %s", routes, gateway)), Ours: n.ours,
	}, e.enter(m.space, routes), "no default", "bridge "+n.link.Name, "gateway "+gateway.String())
}

func hasDefault(s *machine.Space, v6 bool) bool {
	return slices.ContainsFunc(s.Routes, func(r machine.Route) bool {
		return r.Dst.Bits() == 0 && r.Dst.Addr().Is6() == v6 && r.Type == machine.Unicast
	})
}

func checkResolvers(e *exam) {
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		r, ok := e.Resolvers[s.Name]
		isContainer := e.Names.Space(s).Kind != owner.Running && e.Names.Space(s).Kind != owner.Bound
		if !ok || !isContainer {
			continue
		}
		if r.Missing || len(r.Servers) == 0 {
			e.find(api.Finding{
				Severity: api.Risk, Summary: r.Path + " of " + e.title(s) + " names no server",
				Consequence: "the C library then asks 127.0.0.1, where nobody answers as a rule", Fix: "name a server in it: nameserver ADDRESS",
			}, r.Path, "no line nameserver")
			continue
		}
		for _, server := range r.Servers {
			e.server(s, r, server)
		}
	}
}

// server asks whether a name server can be there.
func (e *exam) server(s *machine.Space, r Resolver, server netip.Addr) {
	why := ""
	at := e.holder(server)
	switch {
	case server.IsLoopback():
		at = s
	case !leadsTo(s, server):
		why = "no route leads to it"
	case server.IsUnspecified():
		at = s
	}
	if why == "" && at != nil && at.Listeners != nil && !answers(at, server) {
		why = "nothing listens there"
	}
	if why == "" {
		return
	}
	e.find(api.Finding{
		Severity: api.Fault, Summary: fmt.Sprintf("the name server %s of %s cannot answer: %s", server, e.title(s), why),
		Consequence: "names do not resolve, or only after a wait for the next server", Fix: "name a server in " + r.Path + " that is there, or start it",
	}, r.Path, "nameserver "+server.String())
}

// holder is the namespace that has an address.
func (e *exam) holder(a netip.Addr) *machine.Space {
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		if slices.ContainsFunc(s.Addresses, func(x machine.Address) bool { return x.Prefix.Addr() == a }) {
			return s
		}
	}
	return nil
}

// leadsTo reports whether some route of a namespace leads to an address.
func leadsTo(s *machine.Space, a netip.Addr) bool {
	return slices.ContainsFunc(s.Routes, func(r machine.Route) bool {
		return r.Dst.Contains(a.WithZone("")) && (r.Type == machine.Unicast || r.Type == machine.Local) && !r.Dead
	})
}

// answers reports whether a socket may answer questions about names. That of an
// engine at 127.0.0.11 is on another port, where rules lead to.
func answers(s *machine.Space, server netip.Addr) bool {
	return slices.ContainsFunc(s.Listeners, func(l machine.Listener) bool {
		mine := l.Addr == server || l.Addr.IsUnspecified() && (l.Addr.Is4() == server.Is4() || !l.V6Only)
		return l.Proto == "udp" && mine && (l.Port == 53 || server == embedded)
	})
}

// embedded is where Docker's and Towpath's resolver is in a container.
var embedded = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// ParseResolver reads a resolv.conf (resolv.conf(5)): the C library asks the
// first three servers.
func ParseResolver(path string, data []byte) Resolver {
	r := Resolver{Path: path}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(r.Servers) == 3 {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			r.Servers = append(r.Servers, a)
		}
	}
	return r
}
