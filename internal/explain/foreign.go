package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/owner"
)

// foreignText names a network of another engine; "" for none.
func foreignText(n owner.Network) string {
	if n.Name == "" {
		return ""
	}
	return fmt.Sprintf("network %q (%s)", n.Name, n.Engine)
}

// foreign is the network of another engine that a device of the host, or the
// bridge that it is a port of, is for; the zero one: of none.
func (m *Machine) foreign(dev string) owner.Network {
	host := m.Host.Space(machine.HostName)
	if host == nil || m.Names == nil {
		return owner.Network{}
	}
	l := host.Link(dev)
	if l != nil && l.Master != "" {
		l = host.Link(l.Master)
	}
	if l == nil {
		return owner.Network{}
	}
	if n, ok := m.Names.Network(l); ok && n.Engine != owner.Towpath {
		return n
	}
	return owner.Network{}
}

// foreignTo is the network of another engine that an address is in: that on
// whose bridge the host has an address of the same range.
func (m *Machine) foreignTo(a netip.Addr) owner.Network {
	host := m.Host.Space(machine.HostName)
	if host == nil {
		return owner.Network{}
	}
	i := slices.IndexFunc(host.Addresses, func(x machine.Address) bool {
		return x.Prefix.Bits() > 0 && x.Prefix.Masked().Contains(a) && m.foreign(x.Dev).Name != ""
	})
	if i < 0 {
		return owner.Network{}
	}
	return m.foreign(host.Addresses[i].Dev)
}

// apart says what a rule of an engine keeps apart: of two networks the second
// stage of Docker's chains, of a network without a way out the first
// (libnetwork's iptables), and those that netavark calls so.
func (m *Machine) apart(h *api.Hop) string {
	if !keepsApart(h.Rule) || h.Before == nil || h.Action != "drop" {
		return ""
	}
	src, dst := m.foreign(h.Device), m.foreignTo(h.Before.Dst)
	if src.Name == "" {
		src = m.foreignTo(h.Before.Src)
	}
	if src.Name != "" && dst.Name != "" && src != dst {
		return fmt.Sprintf("networks %q and %q", src.Name, dst.Name)
	}
	if src.Name == "" {
		src = dst
	}
	return foreignText(src)
}

// keepsApart reports whether a rule is one by which an engine isolates networks.
func keepsApart(r *api.Rule) bool {
	return (r.Author == author.Docker || r.Author == author.Podman) && strings.Contains(r.Chain, "ISOLATION")
}

// connect is the command of an engine that puts one of its containers on another
// of its networks; "" where the packet's sender is no container of that engine.
func (t *trouble) connect(network string) string {
	s := t.Host.Space(t.from.space)
	if s == nil || t.Names == nil {
		return ""
	}
	o := t.Names.Space(s)
	if o.Kind != owner.Container || o.Engine != owner.Docker && o.Engine != owner.Podman {
		return ""
	}
	return fmt.Sprintf("%s network connect %s %s", strings.ToLower(o.Engine), network, o.Name)
}

// isolated: an engine keeps its networks apart.
func (t *trouble) isolated() string {
	if dst := t.foreignTo(t.hop.Before.Dst); dst.Name != "" {
		return t.connect(dst.Name)
	}
	return t.connect("NETWORK") + ", one that is not internal"
}

// hasChain reports whether the table of a rule has a chain.
func (t *trouble) hasChain(r *api.Rule, name string) bool {
	for i := range t.space.Tables {
		d := &t.space.Tables[i]
		if d.Name == r.Table && d.Family.String() == r.Family && d.Chain(name) != nil {
			return true
		}
	}
	return false
}

// tooBig: a packet does not fit a link on its way.
func (t *trouble) tooBig() string {
	how := ""
	if t.from.sandbox != nil || t.to.sandbox != nil {
		how = " (towpath network create --mtu)"
	}
	return fmt.Sprintf(`send packets that fit, or raise the MTU of every link on the way%s; TCP needs ICMP "too big" to get back to %s`, how, t.hop.Before.Src)
}
