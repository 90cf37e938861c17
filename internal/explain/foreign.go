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

// engineNetwork is a network of another engine; the zero one is none.
type engineNetwork struct{ name, engine string }

func (n engineNetwork) named() string {
	if n.name == "" {
		return ""
	}
	return fmt.Sprintf("network %q (%s)", n.name, n.engine)
}

// foreign is the network of another engine that a device of the host, or the
// bridge that it is a port of, is for.
func (m *Machine) foreign(dev string) engineNetwork {
	host := m.Host.Space(machine.HostName)
	if host == nil || m.Names == nil {
		return engineNetwork{}
	}
	l := host.Link(dev)
	if l != nil && l.Master != "" {
		l = host.Link(l.Master)
	}
	if l == nil {
		return engineNetwork{}
	}
	if n, ok := m.Names.Network(l); ok && n.Engine != owner.Towpath {
		return engineNetwork{n.Name, n.Engine}
	}
	return engineNetwork{}
}

// foreignTo is the network of another engine that an address is in: that on
// whose bridge the host has an address of the same range.
func (m *Machine) foreignTo(a netip.Addr) engineNetwork {
	host := m.Host.Space(machine.HostName)
	if host == nil {
		return engineNetwork{}
	}
	i := slices.IndexFunc(host.Addresses, func(x machine.Address) bool {
		return x.Prefix.Bits() > 0 && x.Prefix.Masked().Contains(a) && m.foreign(x.Dev).name != ""
	})
	if i < 0 {
		return engineNetwork{}
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
	if src.name == "" {
		src = m.foreignTo(h.Before.Src)
	}
	if src.name != "" && dst.name != "" && src != dst {
		return fmt.Sprintf("networks %q and %q", src.name, dst.name)
	}
	if src.name == "" {
		src = dst
	}
	return src.named()
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
	if dst := t.foreignTo(t.hop.Before.Dst); dst.name != "" {
		return t.connect(dst.name)
	}
	return t.connect("NETWORK") + ", one that is not internal"
}
