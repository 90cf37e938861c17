//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/rt"
)

// link makes, changes or removes one link.
func (a *applier) link(ctx context.Context, sp *space, op kernel.Op, o kernel.Link) error {
	switch op.Verb {
	case kernel.Delete:
		return removeLink(ctx, sp, o.Name)
	case kernel.Create:
		if o.PeerOf != "" { // came with the host's end
			return a.changeLink(ctx, sp, o)
		}
		if err := a.addLink(ctx, sp, o); err != nil {
			return err
		}
	}
	return a.changeLink(ctx, sp, o)
}

func removeLink(ctx context.Context, sp *space, name string) error {
	sp.know(name, 0)
	l, err := sp.rt.LinkByName(ctx, name)
	if err == nil {
		err = sp.rt.DelLink(ctx, l.Index)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// addLink makes a bridge, or a whole veth pair, down. Where one of ours has the
// name it is a leftover: a pair outlives its namespace for a moment.
func (a *applier) addLink(ctx context.Context, sp *space, o kernel.Link) error {
	err := a.tryAddLink(ctx, sp, o)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	l, lerr := sp.rt.LinkByName(ctx, o.Name)
	switch {
	case errors.Is(lerr, unix.ENODEV): // it was this moment; or the name is taken inside
	case lerr != nil:
		return lerr
	case !ours(l):
		return &kernel.TakenError{Name: o.Name, Kind: l.Kind, Alias: l.Alias, Err: err}
	default:
		sp.know(o.Name, 0)
		if derr := sp.rt.DelLink(ctx, l.Index); derr != nil && !errors.Is(derr, unix.ENODEV) {
			return derr
		}
	}
	err = a.tryAddLink(ctx, sp, o)
	if errors.Is(err, unix.EEXIST) && o.Peer != "" {
		return fmt.Errorf("the namespace of sandbox %s has an interface %s already: %w", o.PeerNS, o.Peer, err)
	}
	return err
}

func (a *applier) tryAddLink(ctx context.Context, sp *space, o kernel.Link) error {
	spec, err := a.linkSpec(ctx, sp, o)
	if err != nil {
		return err
	}
	switch o.Type {
	case "bridge":
		// A bridge takes its MTU from its ports, unless it was set after it was
		// made (br_change_mtu): without a port it would go back to 1500.
		spec.MTU = 0
		// Without a querier the kernel floods multicast whether it snoops or not
		// (br_multicast_querier_exists), and a snooping bridge arms timers of all
		// its ports whenever one of them comes or goes (br_port_state_selection,
		// br_multicast_enable_port): at a thousand ports that is most of the cost
		// of a port.
		return lacking(sp.rt.AddBridge(ctx, rt.BridgeSpec{LinkSpec: spec}), "bridges", "CONFIG_BRIDGE")
	case "veth":
		peer, err := a.peerSpec(o)
		if err != nil {
			return err
		}
		return lacking(sp.rt.AddVeth(ctx, rt.VethSpec{LinkSpec: spec, Peer: peer}), "veth pairs", "CONFIG_VETH")
	default:
		return fmt.Errorf("no way to make a link of type %q", o.Type)
	}
}

// lacking names what the kernel has not: a kind of link that it does not know is
// an EOPNOTSUPP.
func lacking(err error, what, option string) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		return &kernel.MissingError{What: what, Option: option, Err: err}
	}
	return err
}

func (a *applier) linkSpec(ctx context.Context, sp *space, o kernel.Link) (rt.LinkSpec, error) {
	spec := rt.LinkSpec{Name: o.Name, MTU: o.MTU, Group: linkGroup}
	if o.MAC != "" {
		mac, err := rt.ParseMAC(o.MAC)
		if err != nil {
			return spec, err
		}
		spec.MAC = mac
	}
	if o.Master != "" {
		master, err := sp.masterOf(ctx, o.Master)
		if err != nil {
			return spec, err
		}
		spec.Master = master
	}
	return spec, nil
}

// peerSpec is the end in the sandbox, as the op for it wants it: made with its
// name, address and MTU in the namespace where it belongs, it never has to be
// moved or renamed, which costs some 20 ms of RCU grace periods.
func (a *applier) peerSpec(o kernel.Link) (rt.LinkSpec, error) {
	spec := rt.LinkSpec{Name: o.Peer, MTU: o.MTU}
	peer, ok := a.made[kernel.Link{NS: o.PeerNS, Name: o.Peer}.Key()].(kernel.Link)
	if ok && peer.MAC != "" {
		mac, err := rt.ParseMAC(peer.MAC)
		if err != nil {
			return spec, err
		}
		spec.MAC, spec.MTU = mac, peer.MTU
	}
	inner, err := a.spaces.at(o.PeerNS)
	if err != nil {
		return spec, err
	}
	spec.NSFD = int(inner.file.Fd())
	return spec, nil
}

// changeLink sets what of a link differs from what is wanted.
func (a *applier) changeLink(ctx context.Context, sp *space, o kernel.Link) error {
	l, err := sp.rt.LinkByName(ctx, o.Name)
	if err != nil {
		return err
	}
	sp.read(l)
	if o.NS != kernel.Host {
		a.k.hear(ctx, o.NS, sp, l)
	} else if !ours(l) {
		return &kernel.TakenError{Name: o.Name, Kind: l.Kind, Alias: l.Alias}
	}
	var ch rt.LinkChange
	if o.MTU != 0 && o.MTU != l.MTU {
		ch.MTU = &o.MTU
	}
	if o.MAC != "" && o.MAC != l.MAC.String() {
		mac, err := rt.ParseMAC(o.MAC)
		if err != nil {
			return err
		}
		ch.MAC = &mac
	}
	if o.NS == kernel.Host {
		if o.Mark != l.Alias {
			ch.Alias = &o.Mark
		}
		// A port of a bridge has no address of its own, and says nothing.
		if none := true; o.Master != "" && !l.AddrGenNone && a.k.ipv6 {
			ch.AddrGenNone = &none
		}
		if err := a.changePort(ctx, sp, o, l, &ch); err != nil {
			return err
		}
	}
	if ch == (rt.LinkChange{}) {
		return nil
	}
	return sp.rt.SetLink(ctx, l.Index, ch)
}

// changePort adds to ch what a link is as a port of a bridge.
func (a *applier) changePort(ctx context.Context, sp *space, o kernel.Link, l rt.Link, ch *rt.LinkChange) error {
	master := 0
	if o.Master != "" {
		var err error
		if master, err = sp.masterOf(ctx, o.Master); err != nil {
			return err
		}
	}
	if master != l.Master {
		ch.Master = &master
	}
	has := rt.Port{Learning: true}
	if l.Port != nil && ch.Master == nil {
		has = *l.Port
	}
	learning := !o.Locked
	if want := (rt.Port{Hairpin: o.Hairpin, Isolated: o.Isolated, Locked: o.Locked, Learning: learning, NeighSuppress: has.NeighSuppress}); master != 0 && has != want {
		ch.Port = &rt.PortChange{Hairpin: &o.Hairpin, Isolated: &o.Isolated, Locked: &o.Locked, Learning: &learning}
	}
	return nil
}

// removeLinks removes many links by one message: one by one each waits for its
// own RCU grace period.
func (a *applier) removeLinks(ctx context.Context, ops []kernel.Op) error {
	names := make([]string, len(ops))
	for i, op := range ops {
		names[i] = op.Object.Key().Name
		a.spaces.host.know(names[i], 0)
	}
	found := false
	for _, err := range a.k.rt.SetGroups(ctx, names, trashGroup) {
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
		found = found || err == nil
	}
	if !found {
		return nil
	}
	if err := a.k.rt.DelGroup(ctx, trashGroup); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}
