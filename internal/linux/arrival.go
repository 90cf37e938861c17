//go:build linux

package linux

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/rt"
)

// arrivalTimeout bounds the wait for what may never come: somebody in the sandbox
// can take an address away again, or set a link down.
const arrivalTimeout = 500 * time.Millisecond

// lookAgain is after how long a link is looked at once more.
const lookAgain = time.Millisecond

// arrivals are the IPv6 addresses of a sandbox that are not in use yet. The
// kernel puts an address to use in a work queue (addrconf_dad_work), even one
// without duplicate address detection, and later than the call returns; until
// then it does not answer neighbour solicitations, so that the first packet of
// a new container would wait for their repetition a second later. The
// notification of the address comes after that.
type arrivals struct {
	monitor *rt.Monitor
	open    map[netip.Addr]bool
}

// expect notes what has to come into use before it is made.
func (a *applier) expect(op kernel.Op) {
	if op.Verb != kernel.Create {
		return
	}
	switch o := op.Object.(type) {
	case kernel.Up:
		a.raised = append(a.raised, o)
	case kernel.Address:
		if o.NS != kernel.Host && o.Prefix.Addr().Is6() {
			a.expectAddress(o)
		}
	}
}

// expectAddress listens for an IPv6 address of a sandbox.
func (a *applier) expectAddress(addr kernel.Address) {
	w := a.arrivals[addr.NS]
	if w == nil {
		sp, err := a.spaces.at(addr.NS)
		if err != nil {
			return
		}
		m := sp.news
		sp.news = nil
		if m == nil {
			m, err = rt.Listen(int(sp.file.Fd()), rt.GroupIPv6Address)
		}
		if err != nil {
			return // the address works all the same, a moment later
		}
		w = &arrivals{monitor: m, open: map[netip.Addr]bool{}}
		if a.arrivals == nil {
			a.arrivals = map[string]*arrivals{}
		}
		a.arrivals[addr.NS] = w
	}
	w.open[addr.Prefix.Addr()] = true
}

// settle waits until what was made is in use.
func (a *applier) settle(ctx context.Context) {
	if len(a.arrivals) == 0 && len(a.raised) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, arrivalTimeout)
	defer cancel()
	a.settleLinks(ctx)
	for ns, w := range a.arrivals {
		for key := range a.broken {
			if key.NS == ns {
				clear(w.open) // it failed elsewhere; no use in waiting
			}
		}
		for len(w.open) > 0 {
			e, err := w.monitor.Next(ctx)
			if err != nil {
				return
			}
			if e.Kind == rt.EventAddress && !e.Deleted {
				delete(w.open, e.Address.Prefix.Addr())
			}
			if e.Kind == rt.EventOverrun {
				clear(w.open)
			}
		}
	}
}

// settleLinks waits until packets pass the links that were raised.
//
// When the second end of a pair is raised, both have carrier, and with a port
// that has carrier so has the bridge. All others learn it later, in a work queue
// (linkwatch_event): until then a link drops what it is to send, since it has no
// queue (dev_activate), the bridge forwards nothing to the port
// (br_port_carrier_check), and IPv6 has no route for multicast over it
// (addrconf_dev_config), so that not even neighbours are solicited. The question
// for one link, unlike a dump, does that work first (rtnl_getlink, since 6.8).
func (a *applier) settleLinks(ctx context.Context) {
	ports, masters := map[int]bool{}, map[int]bool{}
	for _, up := range a.raised {
		sp, err := a.spaces.at(up.NS)
		if err != nil || a.broken[up.Key()] != nil {
			continue // it was told, or will be
		}
		index, err := sp.indexOf(ctx, up.Dev)
		switch {
		case err != nil:
		case up.NS == kernel.Host:
			ports[index] = true
		default:
			ports[settleLink(ctx, sp.rt, index).PeerIndex] = true
		}
	}
	for index := range ports {
		masters[settleLink(ctx, a.spaces.host.rt, index).Master] = true
	}
	for index := range masters {
		settleLink(ctx, a.spaces.host.rt, index)
	}
}

// settleLink reads a link, again as long as it is on its way into use.
func settleLink(ctx context.Context, c *rt.Conn, index int) rt.Link {
	for index != 0 { // which stands for none
		l, err := c.LinkByIndex(ctx, index)
		if err != nil || !onItsWay(l) {
			return l
		}
		select {
		case <-ctx.Done():
			return l
		case <-time.After(lookAgain):
		}
	}
	return rt.Link{}
}

// onItsWay says whether a link is up and has carrier, and nobody was told yet.
// What is of another kind than ours may never tell, as a loopback or a tun.
func onItsWay(l rt.Link) bool {
	const raised = unix.IFF_UP | unix.IFF_LOWER_UP
	untold := l.OperState == rt.OperUnknown || l.OperState == rt.OperDown || l.OperState == rt.OperLowerLayerDown
	return untold && l.Flags&raised == raised && (l.Kind == "veth" || l.Kind == "bridge")
}

// hangUp closes the monitors: an open socket keeps its namespace alive.
func (a *applier) hangUp() {
	for _, w := range a.arrivals {
		_ = w.monitor.Close()
	}
}
