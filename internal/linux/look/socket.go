//go:build linux

package look

import (
	"context"
	"net/netip"

	"github.com/towpath/towpath/internal/linux/diag"
	"github.com/towpath/towpath/internal/machine"
)

// listeners reads the sockets that wait for packets. With an error it is not
// known who listens, which is not the same as nobody.
func (r *reading) listeners(ctx context.Context, limit int) error {
	list, err := diag.Listeners(ctx, int(r.file.Fd()), limit)
	if err != nil {
		return err
	}
	r.space.Listeners, r.ids = []machine.Listener{}, map[uint32]int{}
	for _, s := range list {
		if s.Local.Port() == 0 {
			continue // not bound yet
		}
		addr := s.Local.Addr()
		if addr.Is4In6() { // bound to an IPv4 address by the other family
			addr = addr.Unmap()
		}
		if s.Inode != 0 {
			r.ids[s.Inode] = len(r.space.Listeners)
		}
		r.space.Listeners = append(r.space.Listeners, machine.Listener{
			Proto: protoName(s.Proto), Addr: addr, Port: s.Local.Port(), V6Only: s.V6Only && addr == netip.IPv6Unspecified(), Dev: r.names[s.Index],
		})
	}
	return nil
}

// owners finds the processes of all listeners at once: each look at a process
// serves all namespaces.
func (l *looker) owners(ctx context.Context) {
	inodes := map[uint32]bool{}
	for _, r := range l.order {
		for inode := range r.ids {
			inodes[inode] = true
		}
	}
	found := diag.Owners(ctx, inodes, l.Limits.Descriptors)
	for _, r := range l.order {
		for inode, at := range r.ids {
			if who, ok := found[inode]; ok {
				s := &r.space.Listeners[at]
				s.PID, s.Command = who.PID, who.Command
			}
		}
	}
}
