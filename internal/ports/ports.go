//go:build linux

// Package ports has one job: to hold host ports. The kernel's translation of a
// published port needs no socket and wins over any; the socket held here is for
// other programs, which get EADDRINUSE, and for the collision with one that has
// the port already, which is told by name.
//
// A held port costs one descriptor: no goroutine, no thread, nothing in the
// runtime's poller. The socket drops every packet by a filter, so that it is
// silent and its queues stay empty. Where a container has no address of a family
// that it is published for, the filter lets that family in, and its clients are
// passed on by hand.
package ports

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
)

// Port is a port of the host, or a run of ports. The address decides what is
// held of it: [::] is the port on all addresses of both families, 0.0.0.0 on all
// of IPv4, and any other is that one, which may be down or not there yet.
type Port struct {
	Proto string // tcp, udp or sctp; with a 6 behind, of IPv6 alone
	Addr  netip.AddrPort
	Count uint16 // above 1: so many ports from Addr's on
	// To is where clients of the other family than To's are led, by the daemon's
	// own hands: the kernel cannot translate families into each other. Of a run,
	// it is that of the first port. Not valid: the port is only held.
	To netip.AddrPort
	// From are the sources that may, prefixes with commas; "" is all.
	From string
}

// Of is what is held for a socket that is planned.
func Of(s kernel.Socket) Port {
	return Port{Proto: s.Proto, Addr: s.Addr, Count: s.Count, To: s.To, From: s.From}
}

// bare is the port without what it is for.
func (p Port) bare() Port { return Port{Proto: p.Proto, Addr: p.Addr, Count: p.Count} }

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
	// inside runs a function where the ports are held.
	inside func(func() error) error

	mu      sync.Mutex
	held    map[Port]Port   // as they were asked for: one port, or a run; by the bare ones
	sockets map[slot]shared // of the single ports

	store Store       // keeps sockets over a restart; nil: nothing does
	tell  func(error) // that the store did not take one
	told  bool

	splices  map[Port]*splice // by the bare ports
	doors    map[int]*door    // by descriptor
	sessions map[int]*session // by descriptor
	reaper   *time.Timer      // of sessions, while there are any
	epoll    int              // of both, 0: there was none yet
	watching *os.File         // the same, in the runtime's poller
	buf      []byte           // for a datagram
	traffic  Traffic
}

// slot is a single port, in few bytes: there may be very many.
type slot struct {
	addr   netip.Addr
	port   uint16
	proto  byte
	v6only bool
}

// shared is the socket that holds a port, for all that asked for it: while a run
// of ports gives way to one out of its middle, both do.
type shared struct{ fd, users int32 }

func (p Port) slot() slot {
	return slot{addr: p.Addr.Addr(), port: p.Addr.Port(), proto: p.Proto[0], v6only: p.v6only()}
}

// v6only reports whether a port is held of IPv6 alone.
func (p Port) v6only() bool { return strings.HasSuffix(p.Proto, "6") }

// base is the protocol, whatever is held of it.
func (p Port) base() string { return strings.TrimSuffix(p.Proto, "6") }

// New gives a Holder that holds nothing.
func New() *Holder {
	return &Holder{
		inside: func(f func() error) error { return f() },
		held:   map[Port]Port{}, sockets: map[slot]shared{},
		splices: map[Port]*splice{}, doors: map[int]*door{}, sessions: map[int]*session{},
	}
}

// Hold holds all of the ports until Release or Close, or none more than before.
// What is held already is no error, and is led to where it is to be led now. A
// port that another program has is a *TakenError; too few descriptors for them
// are a *LimitError before anything is opened.
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
	for _, p := range ports {
		if err := h.lead(p); err != nil {
			_ = h.drop(missing)
			return fmt.Errorf("pass %s on to %s: %w", p, p.To, err)
		}
	}
	return nil
}

// lead makes held sockets pass their clients on, or not any more.
func (h *Holder) lead(p Port) error {
	if h.held[p.bare()] == p {
		return nil
	}
	if s := h.splices[p.bare()]; s != nil {
		h.shut(s)
	}
	h.held[p.bare()] = p.bare()
	if !p.To.IsValid() {
		return nil
	}
	if err := h.serve(p); err != nil {
		return err
	}
	h.held[p.bare()] = p
	return nil
}

// missing gives those of the ports that are not held, each once.
func (h *Holder) missing(ports []Port) []Port {
	var out []Port
	seen := map[Port]bool{}
	for _, p := range ports {
		p = p.bare()
		if _, held := h.held[p]; !held && !seen[p] {
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
			h.keep(one, fd)
		}
		s.users++
		h.sockets[one.slot()] = s
		done = append(done, one)
	}
	h.held[p] = p
	return nil
}

// close lets go of the sockets of single ports that nobody else uses.
func (h *Holder) close(ports []Port) error {
	var errs []error
	var closed []slot
	for _, p := range ports {
		s := h.sockets[p.slot()]
		if s.users--; s.users > 0 {
			h.sockets[p.slot()] = s
			continue
		}
		delete(h.sockets, p.slot())
		closed = append(closed, p.slot())
		if err := unix.Close(int(s.fd)); err != nil {
			errs = append(errs, fmt.Errorf("release %s: %w", p, err))
		}
	}
	return errors.Join(append(errs, h.forget(closed))...)
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
	h.held[p], h.sockets[p.slot()] = p, shared{int32(fd), 1}
	h.keep(p, fd)
	return p.Addr, nil
}

// Release lets go of what was held. What is not held is no error.
func (h *Holder) Release(p Port) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, held := h.held[p.bare()]; !held {
		return nil
	}
	return h.drop([]Port{p.bare()})
}

// drop lets go of what is held.
func (h *Holder) drop(ports []Port) error {
	var errs []error
	for _, p := range ports {
		if s := h.splices[p]; s != nil {
			h.shut(s)
		}
		errs = append(errs, h.close(slices.Collect(p.each())))
		delete(h.held, p)
	}
	return errors.Join(errs...)
}

// Holds reports whether a port, or a run, is held and led as it says.
func (h *Holder) Holds(p Port) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	held, is := h.held[p.bare()]
	return is && held == p
}

// Find gives what the socket of a single port is held for: the port itself or, of
// one whose clients are passed on, the port or the run as it was asked for.
func (h *Holder) Find(one Port) (Port, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, held := h.sockets[one.slot()]
	if d := h.doors[int(s.fd)]; held && d != nil {
		return d.Port, true
	}
	return one.bare(), held
}

// Held lists what is held, sorted.
func (h *Holder) Held() []Port {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.SortedFunc(maps.Values(h.held), Port.compare)
}

// Close lets go of all ports; what a store has of them stays there. The Holder
// can be used again, without the store.
func (h *Holder) Close() error {
	held := h.Held()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.store = nil
	for i := range held {
		held[i] = held[i].bare()
	}
	err := errors.Join(h.drop(held), h.discard())
	if h.watching != nil {
		err = errors.Join(err, h.watching.Close())
		h.epoll, h.watching = 0, nil
	}
	return err
}
