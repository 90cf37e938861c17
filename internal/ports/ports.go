//go:build linux

// Package ports has one job: to hold host ports. The kernel's translation of a
// published port needs no socket and wins over any; the socket held here is for
// other programs, which get EADDRINUSE, and for the collision with one that has
// the port already, which is told by name.
//
// A held port costs one descriptor: no goroutine, no thread, nothing in the
// runtime's poller. The socket drops every packet by a filter, so that it is
// silent and its queues stay empty.
package ports

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Port is a port of the host. The address decides what is held of it: [::] is
// the port on all addresses of both families, 0.0.0.0 on all of IPv4, and any
// other is that one, which may be down or not there yet.
type Port struct {
	Proto string // tcp, udp or sctp
	Addr  netip.AddrPort
}

// String is "tcp [::]:8080".
func (p Port) String() string { return p.Proto + " " + p.Addr.String() }

// compare orders by protocol, address and port.
func (p Port) compare(q Port) int {
	return cmp.Or(cmp.Compare(p.Proto, q.Proto), p.Addr.Compare(q.Addr))
}

// Holder holds ports in the network namespace of the threads that call it. Its
// methods may be called concurrently.
type Holder struct {
	mu   sync.Mutex
	held map[Port]int // descriptors
}

// New gives a Holder that holds nothing.
func New() *Holder { return &Holder{held: map[Port]int{}} }

// Hold holds a port until Release or Close. A port held already is no error. One
// that another program has is a *TakenError.
func (h *Holder) Hold(proto string, addr netip.AddrPort) error {
	return h.HoldAll([]Port{{proto, addr}})
}

// HoldAll holds all of the ports, or none more than before. Too few descriptors
// for them are a *LimitError before anything is opened.
func (h *Holder) HoldAll(ports []Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	missing := h.missing(ports)
	if err := descriptors(len(missing)); err != nil {
		return fmt.Errorf("hold %s: %w", describe(missing), err)
	}
	for i, p := range missing {
		fd, err := open(p)
		if err != nil {
			// The first error is what is told; to close what was just opened
			// cannot fail in a way that keeps the port.
			_ = h.drop(missing[:i])
			return err
		}
		h.held[p] = fd
	}
	return nil
}

// missing gives those of the ports that are not held, each once.
func (h *Holder) missing(ports []Port) []Port {
	var out []Port
	seen := map[Port]bool{}
	for _, p := range ports {
		if _, held := h.held[p]; !held && !seen[p] {
			out = append(out, p)
			seen[p] = true
		}
	}
	return out
}

// describe names one port, or says how many there are.
func describe(ports []Port) string {
	if len(ports) == 1 {
		return ports[0].String()
	}
	return fmt.Sprintf("%d ports", len(ports))
}

// Free holds a port that the kernel chooses out of ip_local_port_range, and
// returns it with the address.
func (h *Holder) Free(proto string, addr netip.Addr) (netip.AddrPort, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := Port{proto, netip.AddrPortFrom(addr, 0)}
	if err := descriptors(1); err != nil {
		return netip.AddrPort{}, fmt.Errorf("hold %s: %w", p, err)
	}
	fd, err := open(p)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if p.Addr, err = bound(fd, addr); err != nil {
		unix.Close(fd)
		return netip.AddrPort{}, err
	}
	h.held[p] = fd
	return p.Addr, nil
}

// Release lets go of a port. One that is not held is no error.
func (h *Holder) Release(proto string, addr netip.AddrPort) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := Port{proto, addr}
	if _, held := h.held[p]; !held {
		return nil
	}
	return h.drop([]Port{p})
}

// drop closes the sockets of ports that are held.
func (h *Holder) drop(ports []Port) error {
	var errs []error
	for _, p := range ports {
		if err := unix.Close(h.held[p]); err != nil {
			errs = append(errs, fmt.Errorf("release %s: %w", p, err))
		}
		delete(h.held, p)
	}
	return errors.Join(errs...)
}

// Held lists what is held, sorted.
func (h *Holder) Held() []Port {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Port, 0, len(h.held))
	for p := range h.held {
		out = append(out, p)
	}
	slices.SortFunc(out, Port.compare)
	return out
}

// Close lets go of all ports. The Holder can be used again.
func (h *Holder) Close() error {
	held := h.Held()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.drop(held)
}
