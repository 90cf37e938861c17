package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/owner"
	"github.com/towpath/towpath/internal/walk"
)

// annotate adds to a path what people call things: whose rules and namespaces
// are, what a rule was made for, and what to do.
func (m *Machine) annotate(path *api.Path, p *planned) {
	for i := range path.Hops {
		h := &path.Hops[i]
		h.Owner = m.owner(h.NS)
		if h.Rule != nil {
			h.Rule.Author = walk.Author(m.Host.Space(h.NS), h.Rule)
			if h.Rule.Object = m.object(h); h.Rule.Author != author.Towpath {
				h.Rule.Object = m.apart(h)
			}
		}
	}
	if path.Culprit != nil {
		if h := culprit(path); h != nil && h.Rule != nil {
			path.Culprit = h.Rule
		}
	}
	if p.to.name != "" && path.To.Name == "" {
		path.To.Name, path.To.NS = p.to.name, p.to.space
	}
	path.Summary = m.summary(path)
	path.Fix = m.fix(path, p)
	if p.resolved != "" {
		name := api.Hop{
			Direction: api.Request, NS: p.from.space, Layer: api.LayerName, Action: "resolves", Detail: p.resolved,
			Sources: []string{"walk"}, Certain: true,
		}
		path.Hops = append([]api.Hop{name}, path.Hops...)
		for i := range path.Hops {
			path.Hops[i].Index = i
		}
	}
}

// Annotate adds to a path that was seen what people call things, and what to do
// about a rule that ended it.
func (m *Machine) Annotate(path *api.Path) {
	end := func(p api.Party) party {
		return party{name: p.Name, space: p.NS, sandbox: m.sandbox(p.NS), addr: p.Addr}
	}
	m.annotate(path, &planned{host: m.Host, from: end(path.From), to: end(path.To)})
}

// owner says whose a namespace is, if it is neither the host nor a sandbox.
func (m *Machine) owner(space string) string {
	s := m.Host.Space(space)
	if m.Names == nil || s == nil {
		return ""
	}
	o := m.Names.Space(s)
	if o.Kind == owner.Host || o.Kind == owner.Sandbox || o.Kind == owner.Unknown {
		return ""
	}
	return o.String()
}

// object says what one of Towpath's rules was made for.
func (m *Machine) object(h *api.Hop) string {
	if h.Rule.Author != author.Towpath || h.Before == nil {
		return ""
	}
	src, dst := m.of(h.Before.Src), m.of(h.Before.Dst)
	switch c := h.Rule.Comment; {
	case c == "isolation":
		return between(m.onDevice(h.Device), dst)
	case c == "out" || strings.HasPrefix(c, "loopback") && h.Rule.Chain != "postrouting":
		return named(src)
	case h.Rule.Chain == "publish":
		return m.publication(h.Before)
	case c == "published" && h.Before != nil:
		return named(dst)
	case c == "direct access from outside", c == "hairpin", c == "loopback", strings.HasPrefix(c, "ping to"):
		return named(dst)
	}
	return named(m.onDevice(h.Device))
}

func named(n *api.Network) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf("network %q", n.Name)
}

func between(a, b *api.Network) string {
	if a == nil || b == nil {
		return named(a) + named(b)
	}
	return fmt.Sprintf("networks %q and %q", a.Name, b.Name)
}

// of is the network that an address is in.
func (m *Machine) of(a netip.Addr) *api.Network {
	for i := range m.Networks {
		if slices.ContainsFunc(m.Networks[i].Subnets, func(s api.Subnet) bool { return s.Subnet.Contains(a) }) {
			return &m.Networks[i]
		}
	}
	return nil
}

// onDevice is the network of a bridge of the host, or of one of its ports.
func (m *Machine) onDevice(dev string) *api.Network {
	if host := m.Host.Space(machine.HostName); host != nil {
		if l := host.Link(dev); l != nil && l.Master != "" {
			dev = l.Master
		}
	}
	i := slices.IndexFunc(m.Networks, func(n api.Network) bool { return n.Device == dev })
	if i < 0 {
		return nil
	}
	return &m.Networks[i]
}

// publication is the one that translates a packet so.
func (m *Machine) publication(before *api.Flow) string {
	for _, p := range m.Publications {
		last := p.HostPort + max(p.Count, 1) - 1
		if p.Proto == before.Proto && before.Dport >= p.HostPort && before.Dport <= last && (!p.HostIP.IsValid() || p.HostIP.IsUnspecified() || p.HostIP == before.Dst) {
			return fmt.Sprintf("publication %s %d:%d/%s", p.Sandbox, p.HostPort, p.Port, p.Proto)
		}
	}
	return ""
}

// summary is the networks on the way and what was translated.
func (m *Machine) summary(path *api.Path) string {
	var words []string
	add := func(w string) {
		if w != "" && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	for _, h := range path.Hops {
		if h.Direction != api.Request || h.NS != machine.HostName {
			continue
		}
		add(named(m.onDevice(h.Device)))
		add(foreignText(m.foreign(h.Device)))
	}
	for _, h := range path.Hops {
		switch {
		case h.Direction != api.Request:
		case h.Action == "masquerade", h.Action == "snat":
			add("NAT")
		case h.Action == "dnat", h.Action == "redirect":
			add("port " + strconv.Itoa(int(h.Before.Dport)) + " published")
		}
	}
	return strings.Join(words, ", ")
}

// culprit is the hop at which the packet, or its answer, ended; nil: none did.
func culprit(path *api.Path) *api.Hop {
	for i := range path.Hops {
		switch h := &path.Hops[i]; h.Action {
		case "drop", "reject", "refuses", "undecided":
			return h
		}
	}
	return nil
}

// answered is where a path came to its end of which only the answer tells: the
// place where the request was seen last. Nil: that is not known to be the end.
func answered(path *api.Path) *api.Hop {
	for _, h := range slices.Backward(path.Hops) {
		if h.Direction != api.Request || h.Before == nil {
			continue
		}
		h.Rule, h.Detail = nil, path.Reason
		switch {
		case path.Verdict == api.Refused && h.NS == path.To.NS:
			h.Action = "refuses"
		case path.Verdict == api.Rejected:
			h.Action = "reject"
		default:
			return nil
		}
		return &h
	}
	return nil
}
