package topology

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
)

// networks adds those of a namespace: its bridges, the links that others lie
// above, and the pairs that lead straight into a namespace.
func (b *builder) networks(s *machine.Space) {
	links := slices.Clone(s.Links)
	slices.SortFunc(links, func(x, y machine.Link) int {
		return cmp.Or(cmp.Compare(x.Index, y.Index), strings.Compare(x.Name, y.Name))
	})
	var direct []api.MapMember
	for i := range links {
		l := &links[i]
		if l.Type == "bridge" {
			b.m.Networks = append(b.m.Networks, b.bridge(s, l))
		}
		if n, ok := b.above(s, l); ok {
			b.m.Networks = append(b.m.Networks, n)
		}
		if s.Name == machine.HostName && l.Type == "veth" && l.Master == "" && l.Peer != "" && l.PeerNS != s.Name && b.role(s, l) != api.RoleUplink {
			direct = append(direct, b.member(s, l))
		}
	}
	if len(direct) > 0 {
		b.m.Networks = append(b.m.Networks, api.MapNetwork{
			Name: "links that are routed one by one", Kind: "veth", Namespace: b.ids[s.Name], State: "up",
			Subnets: []netip.Prefix{}, Gateways: []netip.Addr{}, Members: direct,
		})
	}
}

// network is one on a link, without members.
func (b *builder) network(s *machine.Space, l *machine.Link, kind string) api.MapNetwork {
	n := api.MapNetwork{
		Name: l.Name, Kind: kind, Namespace: b.ids[s.Name], Device: l.Name, State: state(l),
		Subnets: []netip.Prefix{}, Gateways: []netip.Addr{}, Members: []api.MapMember{},
	}
	if s.Name == machine.HostName {
		if known, ok := b.names.Network(l); ok {
			n.Name, n.Engine = known.Name, known.Engine
		}
	}
	for _, p := range addresses(s, l.Name) {
		if !p.Addr().IsLinkLocalUnicast() {
			n.Subnets, n.Gateways = append(n.Subnets, p.Masked()), append(n.Gateways, p.Addr())
		}
	}
	return n
}

func (b *builder) bridge(s *machine.Space, l *machine.Link) api.MapNetwork {
	n := b.network(s, l, "bridge")
	for i := range s.Links {
		if port := &s.Links[i]; port.Master == l.Name {
			n.Members = append(n.Members, b.member(s, port))
		}
	}
	sortMembers(n.Members)
	return n
}

// above is the network of the macvlans and ipvlans on a link, if it has any.
func (b *builder) above(s *machine.Space, l *machine.Link) (api.MapNetwork, bool) {
	var n api.MapNetwork
	for i := range b.host.Spaces {
		other := &b.host.Spaces[i]
		for j := range other.Links {
			up := &other.Links[j]
			kind := strings.Replace(up.Type, "vtap", "vlan", 1)
			if up.Parent != l.Name || up.ParentNS != s.Name || kind != "macvlan" && kind != "ipvlan" {
				continue
			}
			if n.Kind == "" {
				n = b.network(s, l, kind)
				n.Gateways = []netip.Addr{} // the link's own address is not one to those above it
			}
			n.Members = append(n.Members, api.MapMember{
				Namespace: b.ids[other.Name], Device: up.Name, State: state(up), Addresses: addresses(other, up.Name),
			})
		}
	}
	sortMembers(n.Members)
	return n, n.Kind != ""
}

// member is what is behind a port.
func (b *builder) member(s *machine.Space, port *machine.Link) api.MapMember {
	m := api.MapMember{Port: port.Name, State: state(port), Addresses: []netip.Prefix{}}
	far := b.host.Space(port.PeerNS)
	if port.Peer == "" || far == nil {
		m.Detail = strings.TrimSpace(cmp.Or(port.Type, "physical") + " " + detail(port))
		if port.Elsewhere {
			m.Detail += " into a namespace that is not known"
		}
		return m
	}
	m.Namespace, m.Device = b.ids[far.Name], port.Peer
	m.Addresses = addresses(far, port.Peer)
	if end := far.Link(port.Peer); end != nil && m.State == "up" || end != nil && !end.Up {
		m.State = state(end)
	}
	return m
}

// sortMembers puts them into the order of their addresses, those without last.
func sortMembers(all []api.MapMember) {
	slices.SortStableFunc(all, func(x, y api.MapMember) int {
		switch {
		case len(x.Addresses) == 0 || len(y.Addresses) == 0:
			return cmp.Or(cmp.Compare(len(y.Addresses), len(x.Addresses)), strings.Compare(x.Port, y.Port))
		}
		return cmp.Or(x.Addresses[0].Addr().Compare(y.Addresses[0].Addr()), strings.Compare(x.Port, y.Port))
	})
}
