//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
)

// liveLimit bounds what is read of a sandbox for a person to read.
const liveLimit = 256

// Live is what the kernel shows of a sandbox, both sides, one line an object.
type Live struct {
	Links, Addresses, Routes, Neighbours, Chains []string
}

// Live reads a sandbox, and of the host what its packets meet there: the other
// ends of its links, the bridges they are plugged into, and the routes. With a
// limit and a deadline, since what is in a sandbox is its tenant's.
func (k *Kernel) Live(ctx context.Context, sandbox string, hostLinks []string) (*Live, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s := k.spaces()
	defer s.close()
	l := &Live{Links: []string{}, Addresses: []string{}, Routes: []string{}, Neighbours: []string{}, Chains: []string{}}
	sp, err := s.at(sandbox)
	if err != nil {
		return nil, fmt.Errorf("read sandbox %s: %w", sandbox, err)
	}
	links, err := sp.rt.Links(ctx, rt.LinkFilter{})
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return nil, err
	}
	if err := l.addInside(ctx, sandbox, sp, links[:min(len(links), liveLimit)]); err != nil {
		return nil, err
	}
	if err := l.addHost(ctx, s.host, hostLinks, links); err != nil {
		return nil, err
	}
	if l.Chains, err = chainLines(ctx, s.host, kernel.Host, hostLinks); err != nil {
		return nil, err
	}
	inside, err := chainLines(ctx, sp, sandbox, nil)
	if err != nil && !errors.Is(err, nft.ErrTooMuch) {
		return nil, err
	}
	l.Chains = append(l.Chains, inside[:min(len(inside), liveLimit)]...)
	return l, nil
}

func linkLine(ns string, l rt.Link) string {
	state := "DOWN"
	switch {
	case l.Up && l.Running:
		state = "UP"
	case l.Up:
		state = "NO-CARRIER"
	}
	kind := l.Kind
	switch {
	case kind != "":
	case l.Flags&unix.IFF_LOOPBACK != 0:
		kind = "loopback"
	default:
		kind = "physical"
	}
	return fmt.Sprintf("%s: %d: %s %s state %s mtu %d address %s", ns, l.Index, l.Name, kind, state, l.MTU, l.MAC)
}

// addInside adds what is in the sandbox, with the tables that our rules lead to.
func (l *Live) addInside(ctx context.Context, ns string, sp *space, links []rt.Link) error {
	for _, link := range links {
		l.Links = append(l.Links, linkLine(ns, link))
	}
	side := side{ns: ns, sp: sp, names: namesOf(links)}
	if err := l.addAddresses(ctx, side, 0); err != nil {
		return err
	}
	if err := l.addRoutes(ctx, side, rt.RouteFilter{Table: unix.RT_TABLE_MAIN}, func(rt.Route) bool { return true }); err != nil {
		return err
	}
	all, err := sp.rt.Rules(ctx, unix.AF_UNSPEC)
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return err
	}
	for _, r := range all {
		if r.Protocol != protocol || !r.Src.IsValid() {
			continue
		}
		l.Routes = append(l.Routes, fmt.Sprintf("%s: rule %d from %s lookup %d", ns, r.Priority, r.Src, r.Table))
		if err := l.addRoutes(ctx, side, rt.RouteFilter{Family: r.Family, Table: r.Table}, func(rt.Route) bool { return true }); err != nil {
			return err
		}
	}
	return l.addNeighbours(ctx, side, 0, func(rt.Neighbour) bool { return true })
}

// addHost adds the links that lead to a sandbox and their bridges, with the
// routes over these and out of the host, and whom of the sandbox the host knows.
func (l *Live) addHost(ctx context.Context, host *space, hostLinks []string, inside []rt.Link) error {
	var links, bridges []rt.Link
	for _, name := range hostLinks {
		link, err := host.rt.LinkByName(ctx, name)
		if err != nil {
			continue // it is gone; what is there is shown
		}
		links = append(links, link)
		if slices.ContainsFunc(bridges, func(b rt.Link) bool { return b.Index == link.Master }) || link.Master == 0 {
			continue
		}
		if bridge, err := host.rt.LinkByIndex(ctx, link.Master); err == nil {
			bridges = append(bridges, bridge)
		}
	}
	for _, link := range append(links, bridges...) {
		l.Links = append(l.Links, linkLine(kernel.Host, link))
	}
	side := side{ns: kernel.Host, sp: host, names: namesOf(bridges)}
	for _, b := range bridges {
		err := errors.Join(
			l.addAddresses(ctx, side, b.Index),
			l.addRoutes(ctx, side, rt.RouteFilter{Table: unix.RT_TABLE_MAIN, OIF: b.Index}, func(rt.Route) bool { return true }),
			l.addNeighbours(ctx, side, b.Index, func(n rt.Neighbour) bool {
				return slices.ContainsFunc(inside, func(link rt.Link) bool { return link.MAC == n.MAC })
			}))
		if err != nil {
			return err
		}
	}
	// The kernel dumps a table with the shortest prefixes first.
	out := func(r rt.Route) bool { return r.Dst.Bits() == 0 && side.learn(ctx, r.OIF) }
	return l.addRoutes(ctx, side, rt.RouteFilter{Table: unix.RT_TABLE_MAIN}, out)
}

// side is one of the two namespaces, with the names of its links by index.
type side struct {
	ns    string
	sp    *space
	names map[int]string
}

func namesOf(links []rt.Link) map[int]string {
	names := map[int]string{}
	for _, link := range links {
		names[link.Index] = link.Name
	}
	return names
}

// learn finds the name of a link, and reports whether it has one.
func (s side) learn(ctx context.Context, index int) bool {
	if _, known := s.names[index]; known {
		return true
	}
	link, err := s.sp.rt.LinkByIndex(ctx, index)
	if err == nil {
		s.names[index] = link.Name
	}
	return err == nil
}

// addAddresses adds those of one link, 0: of all.
func (l *Live) addAddresses(ctx context.Context, s side, index int) error {
	addrs, err := s.sp.rt.Addresses(ctx, index)
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return err
	}
	for _, a := range addrs[:min(len(addrs), liveLimit)] {
		l.Addresses = append(l.Addresses, fmt.Sprintf("%s: %s dev %s", s.ns, a.Prefix, s.names[a.Index]))
	}
	return nil
}

// addRoutes adds the unicast routes of a table that are asked for.
func (l *Live) addRoutes(ctx context.Context, s side, f rt.RouteFilter, asked func(rt.Route) bool) error {
	f.Type = unix.RTN_UNICAST
	routes, err := s.sp.rt.Routes(ctx, f, liveLimit)
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return err
	}
	for _, r := range routes {
		if !asked(r) {
			continue
		}
		words := []string{s.ns + ":", r.Dst.String()}
		if r.Dst.Bits() == 0 {
			words[1] = "default"
		}
		if r.Gateway.IsValid() {
			words = append(words, "via", r.Gateway.String())
		}
		for _, h := range r.Hops {
			words = append(words, "nexthop via", h.Gateway.String(), "dev", s.names[h.OIF])
		}
		if len(r.Hops) == 0 {
			words = append(words, "dev", s.names[r.OIF])
		}
		if r.Table != unix.RT_TABLE_MAIN {
			words = append(words, fmt.Sprintf("table %d", r.Table))
		}
		l.Routes = append(l.Routes, strings.Join(words, " "))
	}
	return nil
}

// addNeighbours adds those on one link, 0: on all, that are asked for.
func (l *Live) addNeighbours(ctx context.Context, s side, index int, asked func(rt.Neighbour) bool) error {
	neighbours, err := s.sp.rt.Neighbours(ctx, rt.NeighbourFilter{Index: index}, liveLimit)
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return err
	}
	for _, n := range neighbours {
		if n.MAC != (rt.MAC{}) && !n.IP.IsMulticast() && asked(n) {
			l.Neighbours = append(l.Neighbours, fmt.Sprintf("%s: %s lladdr %s dev %s", s.ns, n.IP, n.MAC, s.names[n.Index]))
		}
	}
	return nil
}
