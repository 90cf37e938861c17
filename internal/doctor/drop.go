package doctor

import (
	"net/netip"
	"slices"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/firewall"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/topology"
)

// checkForwardDrop asks the chains of others about packets that stand for the
// traffic of each network and published port.
func checkForwardDrop(e *exam) {
	s := e.host()
	chains := firewall.New(kernel.Foreign{Tables: s.Tables, Legacy: s.Legacy}, e.Doors)
	published := e.single
	for _, n := range e.nets {
		if len(n.members) == 0 && !n.ours {
			continue
		}
		seen := firewall.Network{
			Name: n.short, Device: n.link.Name, V4: n.has(false), V6: n.has(true), Subnets: n.subnets, Internal: n.inward,
			Bridged4: bridged(s, n, false) != "", Bridged6: bridged(s, n, true) != "", Ways: ways(s),
		}
		e.passes(n, chains.Network(seen))
		for _, p := range published {
			if !slices.ContainsFunc(n.members, func(m member) bool { return address(m, n, p.To.Addr().Is6()) == p.To.Addr() }) {
				continue
			}
			e.passes(n, chains.Publication(packet(p, seen)))
		}
	}
}

func packet(p topology.Published, n firewall.Network) firewall.Publication {
	out := firewall.Publication{
		Name: port(p), Proto: nft.ProtoTCP, HostPort: p.First, Port: p.To.Port(), Network: n,
		V4: p.To.Addr().Is4(), V6: p.To.Addr().Is6(), To: []netip.Addr{p.To.Addr()},
	}
	if p.Proto == "udp" {
		out.Proto = nft.ProtoUDP
	}
	return out
}

// passes tells of chains that do not let traffic through.
func (e *exam) passes(n network, found []firewall.Finding) {
	for _, f := range found {
		if f.Outcome == firewall.Undecided {
			e.cannot("%s", f)
			continue
		}
		if slices.ContainsFunc(e.findings, func(o api.Finding) bool { return o.Summary == f.String() }) {
			continue
		}
		e.find(api.Finding{
			Severity: api.Fault, Summary: f.String(), Fix: f.Fix,
			Consequence: "it does not get through: each chain of the hook must let a packet pass, so that an accept elsewhere does not help",
		}, listing(f.Rule), ruleText(f.Rule)+", by "+f.Author, "network", n.name)
	}
}
