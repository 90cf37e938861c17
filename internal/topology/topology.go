// Package topology makes a map of an observed machine: whose namespaces there
// are, what joins them, what is published and who talks to whom. It is a
// function of plain data, and knows networks of any engine.
package topology

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/owner"
)

// Map draws up a machine.
func Map(h *machine.Host, names *owner.Names) api.Map {
	b := newBuilder(h, names)
	for i := range h.Spaces {
		b.namespace(&h.Spaces[i])
	}
	for i := range h.Spaces {
		b.networks(&h.Spaces[i])
		b.wires(&h.Spaces[i])
	}
	b.publications()
	b.talks()
	b.notes()
	return b.m
}

// builder makes one map.
type builder struct {
	host  *machine.Host
	names *owner.Names
	m     api.Map
	ids   map[string]string // of namespaces by their names in the machine
	at    map[netip.Addr]place
}

// place is where an address is.
type place struct{ space, dev string }

func newBuilder(h *machine.Host, names *owner.Names) *builder {
	b := &builder{host: h, names: names, ids: IDs(h, names), at: map[netip.Addr]place{}}
	b.m = api.Map{
		Schema: api.MapSchema, Namespaces: []api.MapNamespace{}, Networks: []api.MapNetwork{}, Wires: []api.MapWire{},
		Publications: []api.MapPublication{}, Talks: []api.MapTalk{}, Notes: []string{},
	}
	for i := range h.Spaces {
		s := &h.Spaces[i]
		for _, a := range s.Addresses {
			addr := a.Prefix.Addr()
			if _, taken := b.at[addr]; !taken && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() {
				b.at[addr] = place{s.Name, a.Dev}
			}
		}
	}
	return b
}

// IDs gives each namespace a name for people that no other has: its owner's,
// where that is one's alone or a sandbox's, else with its engine before it
// (docker:web); a process's with its number (nginx[4711]); else the machine's own.
func IDs(h *machine.Host, names *owner.Names) map[string]string {
	count := map[string]int{}
	for i := range h.Spaces {
		o := names.Space(&h.Spaces[i])
		count[o.Name]++
		count[o.Qualified()]++
	}
	out := map[string]string{}
	for i := range h.Spaces {
		s := &h.Spaces[i]
		o := names.Space(s)
		alone := o.Name != "" && (count[o.Name] == 1 || o.Kind == owner.Sandbox) && o.Kind != owner.Running
		switch {
		case s.Name == machine.HostName, alone && o.Name != machine.HostName && o.Name != outside:
			out[s.Name] = o.Name
		case s.Name == outside: // the word is for who is in no namespace
			out[s.Name] = fmt.Sprintf("net:[%d]", s.Inode)
		case o.Kind == owner.Container && count[o.Qualified()] == 1:
			out[s.Name] = o.Qualified()
		case o.Kind == owner.Running && api.ValidName("process", o.Name) == nil:
			out[s.Name] = fmt.Sprintf("%s[%d]", o.Name, o.PID)
		default:
			out[s.Name] = s.Name
		}
	}
	return out
}

func (b *builder) namespace(s *machine.Space) {
	o := b.names.Space(s)
	n := api.MapNamespace{
		ID: b.ids[s.Name], Kind: string(o.Kind), Name: o.Name, Engine: o.Engine, Owner: o.String(), Inode: s.Inode,
		Devices: []api.MapDevice{}, Gateways: []netip.Addr{},
	}
	for i := range s.Links {
		if l := &s.Links[i]; l.Type != "loopback" {
			n.Devices = append(n.Devices, b.device(s, l))
		}
	}
	slices.SortFunc(n.Devices, func(x, y api.MapDevice) int {
		return cmp.Or(cmp.Compare(x.Ifindex, y.Ifindex), cmp.Compare(x.Name, y.Name))
	})
	for _, r := range s.Routes {
		if r.Dst.Bits() == 0 && r.Via.IsValid() && r.Table == machine.TableMain && !slices.Contains(n.Gateways, r.Via) {
			n.Gateways = append(n.Gateways, r.Via)
		}
	}
	b.m.Namespaces = append(b.m.Namespaces, n)
}

func (b *builder) device(s *machine.Space, l *machine.Link) api.MapDevice {
	return api.MapDevice{
		Name: l.Name, Kind: cmp.Or(l.Type, "physical"), Ifindex: l.Index, State: state(l), MAC: l.MAC, MTU: l.MTU,
		Addresses: addresses(s, l.Name), Role: b.role(s, l), Detail: detail(l),
	}
}

// state is that of a link as people say it.
func state(l *machine.Link) string {
	switch {
	case !l.Up:
		return "down"
	case l.OperState == "down" || l.OperState == "lowerlayerdown":
		return "no carrier"
	}
	return "up"
}

// detail is what is particular to a kind of link.
func detail(l *machine.Link) string {
	switch {
	case l.VXLAN != nil:
		text := fmt.Sprintf("vni %d", l.VXLAN.VNI)
		if l.VXLAN.Port != 0 && l.VXLAN.Port != 4789 {
			text += fmt.Sprintf(" port %d", l.VXLAN.Port)
		}
		if l.VXLAN.Remote.IsValid() {
			text += " to " + l.VXLAN.Remote.String()
		}
		return text
	case l.VLAN != 0:
		return fmt.Sprintf("%d on %s", l.VLAN, l.Parent)
	case l.Mode != "":
		return l.Mode
	}
	return ""
}

// addresses are those of a link, IPv4 first.
func addresses(s *machine.Space, dev string) []netip.Prefix {
	out := []netip.Prefix{}
	for _, a := range s.Addresses {
		if a.Dev == dev {
			out = append(out, a.Prefix)
		}
	}
	slices.SortStableFunc(out, func(x, y netip.Prefix) int { return cmp.Compare(x.Addr().BitLen(), y.Addr().BitLen()) })
	return out
}

// role tells what a link is there for.
func (b *builder) role(s *machine.Space, l *machine.Link) string {
	isHost := s.Name == machine.HostName
	switch {
	case l.Type == "bridge":
		return api.RoleNetwork
	case !isHost:
		return api.RoleEndpoint
	case l.Master != "":
		return api.RolePort
	case hasDefault(s, l.Name), leadsOut(l):
		return api.RoleUplink
	}
	return api.RoleOther
}

// hasDefault reports whether a default route leads over a link.
func hasDefault(s *machine.Space, dev string) bool {
	return slices.ContainsFunc(s.Routes, func(r machine.Route) bool {
		return r.Dst.Bits() == 0 && r.Dev == dev && r.Table == machine.TableMain
	})
}

// leadsOut reports whether a link of the host is one to other machines by its
// kind: hardware, a tunnel, or a pair whose other end is in no known namespace.
func leadsOut(l *machine.Link) bool {
	switch l.Type {
	case "", "bond", "team", "tun", "wireguard", "vxlan", "gre", "gretap", "ipip", "sit", "ip6tnl", "ppp", "geneve":
		return l.Up
	case "veth":
		return l.Elsewhere
	}
	return false
}

// wires adds what joins a link to others. A pair is told once, from the
// namespace that comes first.
func (b *builder) wires(s *machine.Space) {
	for i := range s.Links {
		l := &s.Links[i]
		here := api.MapEnd{Namespace: b.ids[s.Name], Device: l.Name}
		if l.Peer != "" && !b.told(api.MapEnd{Namespace: b.ids[l.PeerNS], Device: l.Peer}, here) {
			b.m.Wires = append(b.m.Wires, api.MapWire{Kind: "veth", From: here, To: api.MapEnd{Namespace: b.ids[l.PeerNS], Device: l.Peer}})
		}
		if l.Master != "" {
			b.m.Wires = append(b.m.Wires, api.MapWire{Kind: "port", From: here, To: api.MapEnd{Namespace: here.Namespace, Device: l.Master}})
		}
		if l.Parent != "" {
			b.m.Wires = append(b.m.Wires, api.MapWire{Kind: "above", From: here, To: api.MapEnd{Namespace: b.ids[l.ParentNS], Device: l.Parent}})
		}
	}
}

// told reports whether a pair is among the wires, the other way round.
func (b *builder) told(from, to api.MapEnd) bool {
	if from.Namespace != to.Namespace {
		return b.order(from.Namespace) < b.order(to.Namespace)
	}
	return from.Device < to.Device
}

func (b *builder) order(id string) int {
	return slices.IndexFunc(b.m.Namespaces, func(n api.MapNamespace) bool { return n.ID == id })
}

// notes tells what could not be read.
func (b *builder) notes() {
	for _, u := range b.host.Unread {
		b.m.Notes = append(b.m.Notes, fmt.Sprintf("%s: %s", b.names.Unread(u), u.Cause))
	}
	for i := range b.host.Spaces {
		s := &b.host.Spaces[i]
		for _, line := range s.Partial {
			b.m.Notes = append(b.m.Notes, fmt.Sprintf("%s: %s", b.names.Space(s), line))
		}
	}
}
