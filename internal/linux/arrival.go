//go:build linux

package linux

import (
	"context"
	"net/netip"
	"time"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/rt"
)

// arrivalTimeout bounds the wait for an address: its link may never get carrier.
const arrivalTimeout = 500 * time.Millisecond

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

// expect notes an IPv6 address of a sandbox before it is made.
func (a *applier) expect(op kernel.Op) {
	addr, ok := op.Object.(kernel.Address)
	if !ok || op.Verb != kernel.Create || addr.NS == kernel.Host || addr.Prefix.Addr().Is4() {
		return
	}
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

// settle waits until the addresses that were made are in use.
func (a *applier) settle(ctx context.Context) {
	if len(a.arrivals) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, arrivalTimeout)
	defer cancel()
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

// hangUp closes the monitors: an open socket keeps its namespace alive.
func (a *applier) hangUp() {
	for _, w := range a.arrivals {
		_ = w.monitor.Close()
	}
}
