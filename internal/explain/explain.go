// Package explain tells the path that a packet should take through an observed
// machine, in the words of the people who use it: between sandboxes, containers,
// the host and the outside, with the rule that decides, whose it is, and what
// to do when the packet does not arrive. Nothing is sent.
package explain

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/owner"
	"github.com/towpath/towpath/internal/walk"
)

// Machine is what explanations are made of.
type Machine struct {
	// At is when Host was read.
	At   time.Time
	Host machine.Host
	// Names tells whose namespaces are that are not Towpath's; nil: nobody's.
	Names *owner.Names
	// Sandboxes, Networks and Publications are what was asked of Towpath.
	Sandboxes    []api.Sandbox
	Networks     []api.Network
	Publications []api.Publication
	// Port is the source port, of an echo the identifier, that the packet has; 0:
	// one that stands for any.
	Port uint16
	// Resolve asks the resolver of a sandbox for a name; nil, or an answer
	// without a line: what is known of networks decides.
	Resolve func(sandbox, name string) Answer
}

// Answer is what a resolver says to a name.
type Answer struct {
	// Line says who answered what, or why nobody did.
	Line      string
	Addresses []netip.Addr
}

// Explain walks the packet that is asked for.
func (m *Machine) Explain(q api.PathQuery) (api.Path, error) {
	fail := func(err error) (api.Path, error) {
		return api.Path{}, fmt.Errorf("explain %s to %s: %w", q.From, q.To, err)
	}
	target, err := ParseTarget(q.To)
	if err != nil {
		return fail(err)
	}
	p, err := m.plan(q, target)
	if err != nil {
		return fail(err)
	}
	w, err := walk.New(p.host)
	if err != nil {
		return fail(err)
	}
	path, err := w.Walk(p.question)
	if err != nil {
		return fail(api.Errorf(api.Invalid, "%w", err))
	}
	path.Start = m.At
	m.annotate(&path, p)
	return path, nil
}

// planned is a packet that is ready to walk.
type planned struct {
	host     machine.Host
	question walk.Question
	// from and to are the ends; names of nobody are "".
	from, to party
	// resolved is the line about the name of the destination.
	resolved string
}

// party is one end of the packet's way.
type party struct {
	name    string // as it was asked for
	space   string // of the machine; "": outside
	sandbox *api.Sandbox
	addr    netip.Addr
}

// plan finds the ends.
func (m *Machine) plan(q api.PathQuery, t Target) (*planned, error) {
	p := &planned{host: m.Host}
	from, err := m.source(q.From)
	if err != nil {
		return nil, err
	}
	p.from = from
	if q.Source.IsValid() {
		if q.Family, err = familyOf(q); err != nil {
			return nil, err
		}
		p.from.addr = q.Source.Unmap()
	}
	p.to, p.resolved, err = m.destination(t, p.from, q.Family)
	if err != nil {
		return nil, err
	}
	p.question = walk.Question{
		From: from.space, Proto: t.Proto, Size: q.Size, TTL: q.TTL, Dst: netip.AddrPortFrom(p.to.addr, t.Port),
		Src: netip.AddrPortFrom(p.from.addr, m.Port),
	}
	if from.space == "" {
		return p, m.fromOutside(p)
	}
	if p.from.addr.IsValid() && p.from.addr.Is4() != p.to.addr.Is4() {
		// The sender was named by an address, and has others.
		p.question.Src = netip.AddrPortFrom(netip.Addr{}, m.Port)
	}
	return p, nil
}

// familyOf is the family of a question with a source: that of the source.
func familyOf(q api.PathQuery) (int, error) {
	family := 4
	if !q.Source.Unmap().Is4() {
		family = 6
	}
	if q.Family != 0 && q.Family != family {
		return 0, api.Errorf(api.Invalid, "source %s is not of IPv%d", q.Source, q.Family)
	}
	return family, nil
}

// fromOutside makes the packet one that comes in by the uplink, from somebody
// of whom nothing is known, also where the other end of the uplink is.
func (m *Machine) fromOutside(p *planned) error {
	host := p.host.Space(machine.HostName)
	up, _ := host.Uplink(p.to.addr.Is6())
	if up == "" {
		return api.Errorf(api.Invalid, "the host has no route to the outside for packets from there to come in by").
			WithFix("give a sandbox, a container or the host as the source")
	}
	src := p.from.addr
	switch {
	case src.IsValid() && src.Is4() != p.to.addr.Is4():
		return api.Errorf(api.Invalid, "source %s and destination %s are of two families", src, p.to.addr)
	case !src.IsValid():
		src = host.Stranger(p.to.addr.Is6())
	}
	if !src.IsValid() {
		return nobodyOutside()
	}
	p.host = cut(p.host, up)
	p.question.From, p.question.Link, p.question.Src = machine.HostName, up, netip.AddrPortFrom(src, m.Port)
	return nil
}

// nobodyOutside: whoever is to stand for anybody outside is known.
func nobodyOutside() error {
	return api.Errorf(api.Invalid, "there is no address left for somebody outside: the host has routes to all that stand for anybody").
		WithFix("say who it is: outside:ADDRESS")
}

// Uplink is the link of the host by which packets from outside come in, that of
// its default route, and the gateway there; "", or no address: there is none.
func (m *Machine) Uplink(v6 bool) (link string, gateway netip.Addr) {
	return m.Host.Space(machine.HostName).Uplink(v6)
}

// cut is the machine without what is known of the other end of a link of the host.
func cut(h machine.Host, link string) machine.Host {
	spaces := make([]machine.Space, len(h.Spaces))
	copy(spaces, h.Spaces)
	h.Spaces = spaces
	host := h.Space(machine.HostName)
	links := make([]machine.Link, len(host.Links))
	copy(links, host.Links)
	host.Links = links
	if l := host.Link(link); l != nil {
		l.PeerNS, l.Peer = "", ""
	}
	return h
}
