//go:build linux

package linux

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/rt"
)

// readNeighbours reads the permanent entries of neighbour tables that are wanted.
func (o *observer) readNeighbours(ctx context.Context, sp *space, ns string) error {
	for _, w := range wanted[kernel.Neighbour](o, ns) {
		if !w.IP.IsValid() {
			continue
		}
		l, there := o.links[ns][w.Dev]
		if !there {
			var err error
			if l, err = sp.rt.LinkByName(ctx, w.Dev); err != nil {
				continue
			}
		}
		found, err := sp.rt.Neighbours(ctx, rt.NeighbourFilter{Index: l.Index}, sandboxRoutes)
		if err != nil {
			return err
		}
		for _, n := range found {
			if n.IP == w.IP && n.MAC.String() == w.MAC && n.State&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0 {
				o.add(w)
			}
		}
	}
	return nil
}

// readForwarding reads the static entries of bridges about ports of ours: on a
// sweep all, by one list a bridge, since one more would let its port send with
// a MAC address that is not its own; else those of the ports asked for.
func (o *observer) readForwarding(ctx context.Context, sp *space, ns string) error {
	var filters []rt.NeighbourFilter
	if o.sweep && ns == kernel.Host {
		for _, l := range o.links[ns] {
			if ours(l) && l.Kind == "bridge" {
				filters = append(filters, rt.NeighbourFilter{Family: unix.AF_BRIDGE, Master: l.Index})
			}
		}
	} else {
		for _, w := range wanted[kernel.Neighbour](o, ns) {
			if l, err := sp.rt.LinkByName(ctx, w.Dev); err == nil && !w.IP.IsValid() {
				filters = append(filters, rt.NeighbourFilter{Family: unix.AF_BRIDGE, Index: l.Index})
			}
		}
	}
	for _, f := range filters {
		found, err := sp.rt.Neighbours(ctx, f, 0)
		if err != nil {
			return err
		}
		for _, n := range found {
			if err := o.addForwarding(ctx, sp, ns, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// addForwarding adds an entry that somebody has set (NUD_NOARP) for a port of
// ours. Those of the links' own addresses are permanent.
func (o *observer) addForwarding(ctx context.Context, sp *space, ns string, n rt.Neighbour) error {
	if n.State&unix.NUD_NOARP == 0 || n.State&unix.NUD_PERMANENT != 0 || n.Master == 0 || n.Index == n.Master {
		return nil
	}
	names := [2]string{}
	for i, index := range []int{n.Index, n.Master} {
		l, known := o.linkAt(ns, index)
		if !known {
			var err error
			if l, err = sp.rt.LinkByIndex(ctx, index); err != nil {
				return nil // gone this moment
			}
		}
		if i == 0 && !ours(l) {
			return nil
		}
		names[i] = l.Name
	}
	obj := kernel.Neighbour{NS: ns, Dev: names[0], MAC: n.MAC.String(), Master: names[1]}
	if o.sweep || o.wants(obj) {
		o.add(obj)
	}
	return nil
}
