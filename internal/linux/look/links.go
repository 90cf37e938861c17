//go:build linux

package look

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/machine"
)

// reading is a namespace that is being read.
type reading struct {
	*candidate
	file  *os.File
	space machine.Space
	links []rt.Link
	names map[int]string // of links, by index
	ids   map[uint32]int // indexes of listeners, by socket inode
	old   bool           // there are tables of iptables-legacy
	kept  bool           // it was not read, but taken over from an earlier look
	// before is what an earlier look found of the machine's own; nil: nothing.
	before *machine.Space
}

// part notes what could not be read of a namespace, or not whole; what counts is
// what could.
func (r *reading) part(what string, err error) {
	switch {
	case err == nil, errors.Is(err, errors.ErrUnsupported):
	default:
		r.space.Partial = append(r.space.Partial, fmt.Sprintf("%s: %v", what, err))
	}
}

// readAll reads the namespace. Only links are needed for it to count as read.
func (r *reading) readAll(ctx context.Context, limits Limits) error {
	c, err := rt.Dial(int(r.file.Fd()))
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing was written
	c.LimitLists(limits.Objects)
	r.links, err = c.Links(ctx, rt.LinkFilter{Stats: true})
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return err
	}
	r.part("links", err)
	r.addLinks()
	r.part("addresses", r.addresses(ctx, c))
	r.part("routes", r.routes(ctx, c, limits.Objects))
	r.part("rules", r.rules(ctx, c))
	r.part("neighbours", r.neighbours(ctx, c, limits.Objects))
	r.part("forwarding database", r.forwarding(ctx, c, limits.Objects))
	r.part("packet filter", r.tables(ctx, limits.Objects))
	r.part("sockets", r.listeners(ctx, limits.Objects))
	r.part("parameters", r.inside(ctx))
	r.part("packet filter of iptables-legacy", r.legacyRules())
	r.part("connections", r.connections(ctx, limits.Connections))
	return nil
}

// addLinks takes the links over, but for what is in other namespaces.
func (r *reading) addLinks() {
	r.names = map[int]string{}
	for _, l := range r.links {
		r.names[l.Index] = l.Name
	}
	for _, l := range r.links {
		m := machine.Link{
			Index: l.Index, Name: l.Name, AltNames: l.AltNames, Alias: l.Alias, Type: l.Kind, MTU: l.MTU, Group: l.Group,
			Up: l.Up, OperState: operState(l.OperState), Promisc: l.Flags&unix.IFF_PROMISC != 0, Master: r.names[l.Master],
			NoCarrier: l.Up && l.Flags&unix.IFF_LOWER_UP == 0, VLAN: l.VLAN, Table: l.Table, Mode: mode(l),
		}
		if !l.MAC.IsZero() {
			m.MAC = l.MAC.String()
		}
		if l.Flags&unix.IFF_LOOPBACK != 0 {
			m.Type = "loopback"
		}
		details(&m, l)
		r.space.Links = append(r.space.Links, m)
	}
}

// details takes over what only some kinds of links have.
func details(m *machine.Link, l rt.Link) {
	if p := l.Port; p != nil {
		m.Hairpin, m.Isolated, m.Locked, m.Learning, m.NeighSuppress = p.Hairpin, p.Isolated, p.Locked, p.Learning, p.NeighSuppress
	}
	if b := l.Bridge; b != nil {
		m.NFCall4, m.NFCall6 = b.NFCallIPTables, b.NFCallIP6Tables
		m.VLANFiltering, m.STP, m.McastSnooping = b.VLANFiltering, b.STP, b.McastSnooping
	}
	if v := l.VXLAN; v != nil {
		m.VXLAN = &machine.VXLAN{VNI: v.VNI, Local: v.Local, Remote: v.Remote, Port: v.Port, Learning: v.Learning}
	}
	if s := l.Stats; s != nil {
		m.Stats = machine.Stats(*s)
	}
}

// operState is the word that ip(8) has for a state of RFC 2863.
func operState(s rt.OperState) string {
	words := [...]string{"unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"}
	if int(s) >= len(words) {
		return ""
	}
	return words[s]
}

// mode is the word for the mode of a macvlan or ipvlan.
func mode(l rt.Link) string {
	switch l.Kind {
	case "macvlan", "macvtap":
		return map[uint32]string{1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}[l.Mode]
	case "ipvlan", "ipvtap":
		return map[uint32]string{0: "l2", 1: "l3", 2: "l3s"}[l.Mode]
	}
	return ""
}

// follow reads the namespaces that the links of one lead to, and notes the other
// ends in both. A namespace knows others by ids of its own (RTM_GETNSID).
func (l *looker) follow(ctx context.Context, r *reading) {
	ctx, cancel := context.WithTimeout(ctx, l.Limits.PerSpace)
	defer cancel()
	byID := l.identify(ctx, r)
	for i, link := range r.links {
		if link.PeerIndex == 0 {
			link.PeerIndex = lower(link)
		}
		if link.PeerIndex == 0 {
			continue
		}
		m := &r.space.Links[i]
		far := r
		if link.PeerNSID != rt.NoNSID {
			far = byID[link.PeerNSID]
		}
		if far != nil && link.Kind == "veth" {
			l.doubt(ctx, far, link.PeerIndex, r.space.Name, link.Name)
		}
		if far == nil || far.names[link.PeerIndex] == "" {
			m.Elsewhere = true
			continue
		}
		if link.Kind == "veth" {
			m.PeerNS, m.Peer = far.space.Name, far.names[link.PeerIndex]
		} else {
			m.ParentNS, m.Parent = far.space.Name, far.names[link.PeerIndex]
		}
	}
}

// lower is the link a VXLAN is told to send by.
func lower(l rt.Link) int {
	if l.VXLAN == nil {
		return 0
	}
	return l.VXLAN.Link
}

// identify finds the namespaces that the links of one refer to, and reads them.
// Those that were read already are asked about first: a sandbox is linked to the
// host as a rule, so that this is one question.
func (l *looker) identify(ctx context.Context, r *reading) map[int]*reading {
	open := map[int]bool{}
	for _, link := range r.links {
		if link.PeerIndex != 0 && link.PeerNSID != rt.NoNSID {
			open[link.PeerNSID] = true
		}
	}
	found := map[int]*reading{}
	if len(open) == 0 {
		return found
	}
	c, err := rt.Dial(int(r.file.Fd()))
	if err != nil {
		r.part("ids of namespaces", err)
		return found
	}
	defer c.Close() //nolint:errcheck // nothing was written
	for _, other := range l.nearest() {
		if len(open) == 0 || ctx.Err() != nil {
			break
		}
		id, err := l.idOf(ctx, c, other)
		if err != nil || !open[id] {
			continue
		}
		delete(open, id)
		l.want(ctx, other)
		if found[id] = l.read[other.inode]; found[id] == nil {
			delete(found, id)
		}
	}
	return found
}

// nearest are all namespaces, those that were read first.
func (l *looker) nearest() []*candidate {
	var out, rest []*candidate
	for _, c := range l.list {
		if l.read[c.inode] != nil {
			out = append(out, c)
		} else {
			rest = append(rest, c)
		}
	}
	return append(out, rest...)
}

// idOf asks for the id of a namespace, which need not have been read.
func (l *looker) idOf(ctx context.Context, c *rt.Conn, other *candidate) (int, error) {
	if r := l.read[other.inode]; r != nil {
		return c.NSID(ctx, int(r.file.Fd()))
	}
	f, err := other.open()
	if err != nil {
		return rt.NoNSID, err
	}
	defer f.Close()
	return c.NSID(ctx, int(f.Fd()))
}
