package explain

import (
	"net/netip"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/ports"
	"github.com/towpath/towpath/internal/testnet"
)

// holder is a linux.Ports.
type holder struct {
	held *ports.Holder
	host *testnet.NS
}

// Hold takes ports.
func (h holder) Hold(list []kernel.Socket) error {
	var all []ports.Port
	for _, s := range list {
		all = append(all, ports.Of(s))
	}
	return netns.Do(h.host.F, func() error { return h.held.Hold(all...) })
}

// Release lets a port go.
func (h holder) Release(s kernel.Socket) error { return h.held.Release(ports.Of(s)) }

// Holds reports whether a port is held.
func (h holder) Holds(s kernel.Socket) bool { return h.held.Holds(ports.Of(s)) }

// find tells the sockets that hold a port.
func (h holder) find(l machine.Listener) (*machine.Passing, bool) {
	if l.V6Only {
		l.Proto += "6"
	}
	p, held := h.held.Find(ports.Port{Proto: l.Proto, Addr: netip.AddrPortFrom(l.Addr, l.Port)})
	if !held {
		return nil, false
	}
	passes, err := machine.PassedBy(kernel.Socket{To: p.To, From: p.From})
	return passes, err == nil
}
