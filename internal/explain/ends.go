package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
)

// outside is who is beyond the host's uplink.
const outside = "outside"

// End finds who is meant by a name: a namespace, "" for the outside, and the
// address if it is one.
func (m *Machine) End(name string) (space string, addr netip.Addr, err error) {
	p, err := m.source(name)
	return p.space, p.addr, err
}

// source finds who sends.
func (m *Machine) source(s string) (party, error) {
	if rest, ok := strings.CutPrefix(s, outside); ok && (rest == "" || rest[0] == ':') {
		p := party{name: outside}
		if rest == "" {
			return p, nil
		}
		a, err := netip.ParseAddr(strings.Trim(rest[1:], "[]"))
		if err != nil {
			return p, api.Errorf(api.Invalid, "%q is no address outside", rest[1:]).WithFix("write outside, or outside:192.0.2.1")
		}
		p.addr = a.Unmap()
		return p, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		a = a.Unmap()
		sp := m.holder(a)
		if sp == nil {
			return party{}, api.Errorf(api.NotFound, "no namespace of this machine has the address %s", a).
				WithFix("for an address outside write outside:%s", a)
		}
		return party{name: sp.Name, space: sp.Name, sandbox: m.sandbox(sp.Name), addr: a}, nil
	}
	sp := m.space(s)
	if sp == nil {
		return party{}, m.nobody(s)
	}
	return party{name: s, space: sp.Name, sandbox: m.sandbox(sp.Name)}, nil
}

// nobody is the error about a name that is no namespace's.
func (m *Machine) nobody(name string) error {
	if m.sandbox(name) != nil {
		return api.Errorf(api.Unavailable, "sandbox %q has no namespace now", name).WithFix("towpath sandbox inspect %s", name)
	}
	var known []string
	for i := range m.Host.Spaces {
		if n := m.Host.Spaces[i].Name; !strings.HasPrefix(n, "net:[") {
			known = append(known, n)
		}
	}
	slices.Sort(known)
	return api.Errorf(api.NotFound, "there is no sandbox or container %q", name).
		WithFix("there are %s; or give an address, host or outside", strings.Join(known[:min(len(known), 12)], ", "))
}

// space finds a namespace by its name or by that of whose it is.
func (m *Machine) space(name string) *machine.Space {
	if s := m.Host.Space(name); s != nil {
		return s
	}
	if m.Names == nil {
		return nil
	}
	var found *machine.Space
	for i := range m.Host.Spaces {
		s := &m.Host.Spaces[i]
		o := m.Names.Space(s)
		if o.Name == name || o.Qualified() == name || len(name) >= 6 && strings.HasPrefix(o.ID, name) {
			if found != nil {
				return nil // of two, neither is meant
			}
			found = s
		}
	}
	return found
}

// holder is the namespace that has an address, the host before others.
func (m *Machine) holder(a netip.Addr) *machine.Space {
	for i := range m.Host.Spaces {
		s := &m.Host.Spaces[i]
		if !a.IsLoopback() && slices.ContainsFunc(s.Addresses, func(x machine.Address) bool { return x.Prefix.Addr() == a }) {
			return s
		}
	}
	return nil
}

func (m *Machine) sandbox(name string) *api.Sandbox {
	i := slices.IndexFunc(m.Sandboxes, func(s api.Sandbox) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &m.Sandboxes[i]
}

// destination finds who is meant, and the address to send to.
func (m *Machine) destination(t Target, from party, family int) (party, string, error) {
	p := party{name: t.Host, addr: t.Addr}
	switch {
	case t.Addr.IsValid():
		if t.Addr.IsUnspecified() && from.space != "" {
			p.addr, p.name, p.space, p.sandbox = itself(from, t.Addr), from.space, from.space, from.sandbox
		}
		if sp := m.holder(t.Addr); sp != nil && t.Host == "" {
			p.name, p.space, p.sandbox = sp.Name, sp.Name, m.sandbox(sp.Name)
		}
		if wrong(t.Addr, family) {
			return p, "", api.Errorf(api.Invalid, "%s is not an address of IPv%d", t.Addr, family)
		}
		return p, "", nil
	case t.Host == outside:
		v6 := family == 6
		host := m.Host.Space(machine.HostName)
		if _, p.addr = host.Uplink(v6); !p.addr.IsValid() {
			p.addr = host.Stranger(v6)
		}
		if !p.addr.IsValid() {
			return p, "", nobodyOutside()
		}
		return p, "", nil
	}
	sp := m.space(t.Host)
	line, addrs := m.lookUp(from, t.Host)
	switch {
	case len(addrs) == 0 && sp == nil:
		return p, line, m.nobody(t.Host)
	case sp != nil:
		p.space, p.sandbox = sp.Name, m.sandbox(sp.Name)
		addrs = append(addrs, m.addresses(sp, from)...)
	}
	i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return !wrong(a, family) && m.sends(from, a) })
	if i < 0 {
		i = slices.IndexFunc(addrs, func(a netip.Addr) bool { return !wrong(a, family) })
	}
	if i < 0 {
		return p, line, api.Errorf(api.Invalid, "%s has no address%s to send to", t.Host, of(family)).
			WithFix("connect it to a network, or give an address")
	}
	p.addr = addrs[i]
	if holder := m.holder(p.addr); sp == nil && holder != nil {
		p.space, p.sandbox = holder.Name, m.sandbox(holder.Name)
	}
	return p, line, nil
}

// itself is where the kernel sends what has no destination: to the sender
// (ip_route_output_key_hash_rcu, ip6_datagram_connect).
func itself(from party, to netip.Addr) netip.Addr {
	switch {
	case to.Is6():
		return netip.IPv6Loopback()
	case from.addr.Is4():
		return from.addr
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

func of(family int) string {
	if family == 0 {
		return ""
	}
	return fmt.Sprintf(" of IPv%d", family)
}

// wrong reports whether an address is not of the family that is asked for.
func wrong(a netip.Addr, family int) bool {
	return family == 4 && !a.Is4() || family == 6 && a.Is4()
}

// sends reports whether the sender has an address of the destination's family.
func (m *Machine) sends(from party, a netip.Addr) bool {
	sp := m.Host.Space(from.space)
	return sp == nil || slices.ContainsFunc(sp.Addresses, func(x machine.Address) bool {
		own := x.Prefix.Addr()
		return own.Is4() == a.Is4() && !own.IsLoopback() && !own.IsLinkLocalUnicast()
	})
}

// addresses are those of a namespace, best first: for the sender itself its
// loopback, then those on a link with the sender, IPv4 first.
func (m *Machine) addresses(sp *machine.Space, from party) []netip.Addr {
	if sp.Name == from.space {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	near := func(a machine.Address) bool {
		other := m.Host.Space(from.space)
		return other != nil && slices.ContainsFunc(other.Addresses, func(x machine.Address) bool {
			return x.Prefix.Masked() == a.Prefix.Masked() && x.Prefix.Bits() > 0
		})
	}
	up, _ := sp.Uplink(false)
	rank := func(a machine.Address) int {
		n := 0
		if a.Prefix.Addr().Is6() {
			n++
		}
		if !near(a) {
			n += 2
		}
		if from.space == "" && a.Dev != up {
			n += 4
		}
		return n
	}
	var list []machine.Address
	for _, a := range sp.Addresses {
		if addr := a.Prefix.Addr(); !addr.IsLoopback() && !addr.IsLinkLocalUnicast() && !a.Tentative && !a.DADFailed {
			list = append(list, a)
		}
	}
	slices.SortStableFunc(list, func(a, b machine.Address) int { return rank(a) - rank(b) })
	var out []netip.Addr
	for _, a := range list {
		out = append(out, a.Prefix.Addr())
	}
	return out
}

// lookUp asks for a name as the sender would, if it has a resolver of ours.
func (m *Machine) lookUp(from party, name string) (line string, addrs []netip.Addr) {
	if from.sandbox == nil || name == machine.HostName {
		return "", nil
	}
	var networks []string
	for _, mine := range from.sandbox.Endpoints {
		for i := range m.Sandboxes {
			for _, e := range m.Sandboxes[i].Endpoints {
				if e.Network != mine.Network || !strings.EqualFold(m.Sandboxes[i].Name, name) && !contains(e.Aliases, name) {
					continue
				}
				networks = append(networks, fmt.Sprintf("%q", e.Network))
				for _, a := range e.Addresses {
					addrs = append(addrs, a.Addr())
				}
			}
		}
	}
	// What is no sandbox's name may be asked of a server outside. To ask for one
	// that is not to be seen from here would only take time.
	if m.Resolve != nil && (len(addrs) > 0 || m.space(name) == nil) {
		if a := m.Resolve(from.sandbox.Name, name); a.Line != "" {
			return a.Line, a.Addresses
		}
	}
	if len(addrs) == 0 {
		if m.sandbox(name) == nil {
			return "", nil
		}
		return fmt.Sprintf("%s does not resolve in %s: they have no network in common; its address is taken", name, from.sandbox.Name), nil
	}
	return fmt.Sprintf("%s is %s by the resolver of %s, on network %s", name, texts(addrs), from.sandbox.Name, strings.Join(networks, ", ")), addrs
}

func contains(names []string, name string) bool {
	return slices.ContainsFunc(names, func(s string) bool { return strings.EqualFold(s, name) })
}

func texts(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}
