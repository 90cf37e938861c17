package draw

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
)

// hostID is the namespace that maps begin with.
const hostID = "host"

// chart is a map with its parts in the order that drawings need.
type chart struct {
	api.Map
	spaces map[string]*api.MapNamespace
	// published are the ports of a namespace in words.
	published map[string][]string
	// on counts the networks a namespace is on.
	on map[string]int
	// ports are the published ports as people count them.
	ports []port
}

// port is a publication that may be one of both families.
type port struct {
	api.MapPublication
	to []netip.AddrPort
}

// ports makes one of publications that differ in nothing but the family.
func ports(all []api.MapPublication) []port {
	var out []port
	for _, p := range all {
		i := slices.IndexFunc(out, func(o port) bool {
			return len(o.to) == 1 && !o.HostIP.IsValid() && !p.HostIP.IsValid() && o.HostPort == p.HostPort && o.Proto == p.Proto &&
				o.Namespace != "" && o.Namespace == p.Namespace && o.Author == p.Author && silent(o.MapPublication) == silent(p) &&
				o.To.Port() == p.To.Port() && o.To.Addr().Is4() != p.To.Addr().Is4()
		})
		if i >= 0 {
			out[i].to = append(out[i].to, p.To)
			continue
		}
		out = append(out, port{p, []netip.AddrPort{p.To}})
	}
	return out
}

// silent reports whether it is known that nobody listens there.
func silent(p api.MapPublication) bool { return p.Listening != nil && !*p.Listening }

func newChart(m api.Map) *chart {
	c := &chart{Map: m, spaces: map[string]*api.MapNamespace{}, published: map[string][]string{}, on: map[string]int{}, ports: ports(m.Publications)}
	for i := range m.Namespaces {
		c.spaces[m.Namespaces[i].ID] = &m.Namespaces[i]
	}
	for _, p := range m.Publications {
		// One of both families is two publications, and one to those who look.
		if words := portWords(p); p.Namespace != "" && !slices.Contains(c.published[p.Namespace], words) {
			c.published[p.Namespace] = append(c.published[p.Namespace], words)
		}
	}
	for _, n := range m.Networks {
		seen := map[string]bool{}
		for _, e := range n.Members {
			if e.Namespace != "" && !seen[e.Namespace] {
				c.on[e.Namespace]++
				seen[e.Namespace] = true
			}
		}
	}
	return c
}

// portWords is a publication as it is shown at who has the port: 8080->80.
func portWords(p api.MapPublication) string {
	text := p.HostPort
	if p.To.Port() != 0 && fmt.Sprint(p.To.Port()) != p.HostPort {
		text += fmt.Sprintf("->%d", p.To.Port())
	}
	if p.Proto != "tcp" {
		text += "/" + p.Proto
	}
	if p.HostIP.IsValid() && p.HostIP.IsLoopback() {
		text += " (loopback)"
	}
	return text
}

// owner is a namespace in words, the id where it is not in the map.
func (c *chart) owner(id string) string {
	if s := c.spaces[id]; s != nil && s.Owner != "" {
		return s.Owner
	}
	return id
}

// uplinks are the devices of the host that lead out of the map.
func (c *chart) uplinks() []api.MapDevice {
	h := c.spaces[hostID]
	if h == nil {
		return nil
	}
	var out []api.MapDevice
	for _, d := range h.Devices {
		if d.Role == api.RoleUplink {
			out = append(out, d)
		}
	}
	return out
}

// others are devices of the host that belong to nothing else.
func (c *chart) others() []api.MapDevice {
	h := c.spaces[hostID]
	if h == nil {
		return nil
	}
	var out []api.MapDevice
	for _, d := range h.Devices {
		if d.Role == api.RoleOther || d.Role == api.RoleEndpoint {
			out = append(out, d)
		}
	}
	return out
}

// apart are namespaces that no network of the map leads to.
func (c *chart) apart() []*api.MapNamespace {
	var out []*api.MapNamespace
	for i := range c.Namespaces {
		if s := &c.Namespaces[i]; s.ID != hostID && c.on[s.ID] == 0 {
			out = append(out, s)
		}
	}
	return out
}

// networkTitle is a network in words: network front (Towpath).
func networkTitle(n api.MapNetwork) string {
	switch {
	case n.Engine == "" && n.Name == n.Device:
		return n.Kind + " " + n.Name
	case n.Engine == "":
		return "network " + n.Name
	}
	return fmt.Sprintf("network %s (%s)", n.Name, n.Engine)
}

// counts says how much is in the map, in one line.
func (c *chart) counts() string {
	holders := 0
	for id := range c.spaces {
		if id != hostID {
			holders++
		}
	}
	parts := []string{count(len(c.Networks), "network", "networks"), count(holders, "namespace", "namespaces")}
	if n := len(c.ports); n > 0 {
		parts = append(parts, count(n, "published port", "published ports"))
	}
	if n := len(c.Talks); n > 0 {
		parts = append(parts, count(n, "conversation", "conversations"))
	}
	return strings.Join(parts, ", ")
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// talkWords is a conversation without who has it: 80/tcp via 192.0.2.10:8080.
func talkWords(t api.MapTalk) string {
	text := t.Proto
	if text != "" && text[0] >= '0' && text[0] <= '9' {
		text = "protocol " + text
	}
	if t.Port != 0 {
		text = fmt.Sprintf("%d/%s", t.Port, t.Proto)
	}
	if t.Via.IsValid() {
		text += " via " + t.Via.String()
	}
	return text
}

// far is the other side of a conversation, with its address where it is outside.
func (c *chart) far(id string, addr netip.Addr) string {
	if c.spaces[id] == nil && addr.IsValid() {
		return id + " " + addr.String()
	}
	return c.owner(id)
}

// ranked are the conversations, the most connections first.
func (c *chart) ranked() []api.MapTalk {
	out := slices.Clone(c.Talks)
	slices.SortStableFunc(out, func(a, b api.MapTalk) int { return cmp.Compare(b.Connections, a.Connections) })
	return out
}

func prefixes(all []netip.Prefix) string {
	words := make([]string, len(all))
	for i, p := range all {
		words[i] = p.String()
	}
	return strings.Join(words, ", ")
}

func addrs(all []netip.Addr) string {
	words := make([]string, len(all))
	for i, a := range all {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}

// global leaves link-local addresses out where there are others.
func global(all []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range all {
		if !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p)
		}
	}
	return out
}
