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
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Port is a port of the host, or a run of ports. The address decides what is
// held of it: [::] is the port on all addresses of both families, 0.0.0.0 on all
// of IPv4, and any other is that one, which may be down or not there yet.
type Port struct {
	Proto string // tcp, udp or sctp
	Addr  netip.AddrPort
	Count uint16 // above 1: so many ports from Addr's on
}

// String is "tcp [::]:8080", or "tcp [::]:8080-8089".
func (p Port) String() string {
	if p.Count <= 1 {
		return p.Proto + " " + p.Addr.String()
	}
	return fmt.Sprintf("%s %s-%d", p.Proto, p.Addr, int(p.Addr.Port())+int(p.Count)-1)
}

// compare orders by protocol, address and port.
func (p Port) compare(q Port) int {
	return cmp.Or(cmp.Compare(p.Proto, q.Proto), p.Addr.Compare(q.Addr), cmp.Compare(p.Count, q.Count))
}

// each gives the single ports.
func (p Port) each() iter.Seq[Port] {
	return func(yield func(Port) bool) {
		for i := range max(p.Count, 1) {
			if !yield(Port{Proto: p.Proto, Addr: netip.AddrPortFrom(p.Addr.Addr(), p.Addr.Port()+i)}) {
				return
			}
		}
	}
}

// Holder holds ports in the network namespace of the threads that call it. Its
// methods may be called concurrently.
type Holder struct {
	mu      sync.Mutex
	held    map[Port]bool   // as they were asked for: one port, or a run
	sockets map[slot]shared // of the single ports
}

// slot is a single port, in few bytes: there may be very many.
type slot struct {
	addr  netip.Addr
	port  uint16
	proto byte
}

// shared is the socket that holds a port, for all that asked for it: while a run
// of ports gives way to one out of its middle, both do.
type shared struct{ fd, users int32 }

func (p Port) slot() slot { return slot{addr: p.Addr.Addr(), port: p.Addr.Port(), proto: p.Proto[0]} }

// New gives a Holder that holds nothing.
func New() *Holder { return &Holder{held: map[Port]bool{}, sockets: map[slot]shared{}} }

// Hold holds all of the ports until Release or Close, or none more than before.
// What is held already is no error. A port that another program has is a
// *TakenError; too few descriptors for them are a *LimitError before anything is
// opened.
func (h *Holder) Hold(ports ...Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	missing := h.missing(ports)
	for _, p := range missing {
		if _, err := kindOf(p.Proto); err != nil {
			return fmt.Errorf("hold %s: %w", p, err)
		}
	}
	n, first := h.needed(missing)
	if err := descriptors(n); err != nil {
		return fmt.Errorf("hold %s: %w", describe(n, first), err)
	}
	for i, p := range missing {
		if err := h.take(p); err != nil {
			// The first error is what is told; to close what was just opened
			// cannot fail in a way that keeps the port.
			_ = h.drop(missing[:i])
			return err
		}
	}
	return nil
}

// missing gives those of the ports that are not held, each once.
func (h *Holder) missing(ports []Port) []Port {
	var out []Port
	seen := map[Port]bool{}
	for _, p := range ports {
		if !h.held[p] && !seen[p] {
			out = append(out, p)
			seen[p] = true
		}
	}
	return out
}

// needed counts the sockets to open, and gives the port of one.
func (h *Holder) needed(ports []Port) (n int, first Port) {
	for _, p := range ports {
		for one := range p.each() {
			if _, open := h.sockets[one.slot()]; open {
				continue
			}
			if n++; n == 1 {
				first = one
			}
		}
	}
	return n, first
}

// describe names one port, or says how many there are.
func describe(n int, first Port) string {
	if n == 1 {
		return first.String()
	}
	return fmt.Sprintf("%d ports", n)
}

// take opens the sockets of a port or a run, or none.
func (h *Holder) take(p Port) error {
	var done []Port
	for one := range p.each() {
		s, there := h.sockets[one.slot()]
		if !there {
			fd, err := open(one)
			if err != nil {
				_ = h.close(done)
				return err
			}
			s.fd = int32(fd)
		}
		s.users++
		h.sockets[one.slot()] = s
		done = append(done, one)
	}
	h.held[p] = true
	return nil
}

// close lets go of the sockets of single ports that nobody else uses.
func (h *Holder) close(ports []Port) error {
	var errs []error
	for _, p := range ports {
		s := h.sockets[p.slot()]
		if s.users--; s.users > 0 {
			h.sockets[p.slot()] = s
			continue
		}
		delete(h.sockets, p.slot())
		if err := unix.Close(int(s.fd)); err != nil {
			errs = append(errs, fmt.Errorf("release %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// Free holds a port that the kernel chooses out of ip_local_port_range, and
// returns it with the address.
func (h *Holder) Free(proto string, addr netip.Addr) (netip.AddrPort, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := Port{Proto: proto, Addr: netip.AddrPortFrom(addr, 0)}
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
	h.held[p], h.sockets[p.slot()] = true, shared{int32(fd), 1}
	return p.Addr, nil
}

// Release lets go of what was held. What is not held is no error.
func (h *Holder) Release(p Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.held[p] {
		return nil
	}
	return h.drop([]Port{p})
}

// drop lets go of what is held.
func (h *Holder) drop(ports []Port) error {
	var errs []error
	for _, p := range ports {
		errs = append(errs, h.close(slices.Collect(p.each())))
		delete(h.held, p)
	}
	return errors.Join(errs...)
}

// Holds reports whether a port, or a run as it was asked for, is held.
func (h *Holder) Holds(p Port) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held[p]
}

// Held lists what is held, sorted.
func (h *Holder) Held() []Port {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Keys(h.held), Port.compare)
}

// Close lets go of all ports. The Holder can be used again.
func (h *Holder) Close() error {
	held := h.Held()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.drop(held)
}
