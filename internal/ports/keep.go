//go:build linux

package ports

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Store keeps sockets over a restart of the program, so that nobody else gets a
// port in between.
type Store interface {
	Keep(name string, files ...*os.File) error
	Drop(name string) error
	// Settle waits until what was dropped is closed.
	Settle() error
}

// KeepIn has sockets that are opened from now on kept in a store. Tell is told
// of the first one that it does not take: such a port is held, but not over a
// restart.
func (h *Holder) KeepIn(s Store, tell func(error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.store, h.tell = s, tell
}

// name is what a socket is kept under: "tcp-80" on all addresses of both
// families, "tcp6-80" on those of IPv6 alone, else "tcp-80-192.0.2.9". A colon is not allowed, and many names have
// to be short together.
func (s slot) name() string {
	proto := map[byte]string{'t': "tcp", 'u': "udp", 's': "sctp"}[s.proto]
	if s.v6only {
		proto += "6"
	}
	name := fmt.Sprintf("%s-%d", proto, s.port)
	if s.addr == netip.IPv6Unspecified() {
		return name
	}
	addr, zone, zoned := strings.Cut(s.addr.String(), "%")
	name += "-" + strings.ReplaceAll(addr, ":", "_")
	if zoned {
		name += "%" + zone
	}
	return name
}

// parseName reads a name; other names are not of ports.
func parseName(name string) (p Port, ok bool) {
	proto, rest, _ := strings.Cut(name, "-")
	number, addr, specific := strings.Cut(rest, "-")
	port, err := strconv.ParseUint(number, 10, 16)
	if _, kerr := kindOf(proto); kerr != nil || err != nil || port == 0 {
		return Port{}, false
	}
	a := netip.IPv6Unspecified()
	if specific {
		addr, zone, _ := strings.Cut(addr, "%")
		if a, err = netip.ParseAddr(strings.ReplaceAll(addr, "_", ":")); err != nil {
			return Port{}, false
		}
		a = a.WithZone(zone)
	}
	p = Port{Proto: proto, Addr: netip.AddrPortFrom(a, uint16(port))}
	return p, p.slot().name() == name
}

// keep puts a socket that was opened into the store.
func (h *Holder) keep(p Port, fd int) {
	if h.store == nil {
		return
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		f := os.NewFile(uintptr(dup), p.String())
		err = errors.Join(h.store.Keep(p.slot().name(), f), f.Close())
	}
	if err != nil && !h.told && h.tell != nil {
		h.tell(fmt.Errorf("keep %s over a restart: %w", p, err))
	}
	h.told = err != nil
}

// forget takes sockets that were closed out of the store, which would hold their
// ports.
func (h *Holder) forget(slots []slot) error {
	if h.store == nil || len(slots) == 0 {
		return nil
	}
	var errs []error
	for _, s := range slots {
		errs = append(errs, h.store.Drop(s.name()))
	}
	return errors.Join(append(errs, h.store.Settle())...)
}

// Kept reports whether a name is one that ports are kept under.
func Kept(name string) bool {
	_, ok := parseName(name)
	return ok
}

// Resume takes a socket over that was kept under a name. The port is held from
// now on, for whoever asks for it before Discard.
func (h *Holder) Resume(name string, f *os.File) error {
	p, ok := parseName(name)
	if !ok {
		return fmt.Errorf("resume port: %q is not the name of one", name)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("resume %s: %w", p, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, there := h.sockets[p.slot()]; there {
		return fmt.Errorf("resume %s: it is held already", p)
	}
	fd := -1
	cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(cerr, err); err != nil {
		return fmt.Errorf("resume %s: %w", p, err)
	}
	if err = isHeldBy(fd, p); err == nil {
		// It may have let clients in, of whom nobody knows yet where they belong.
		err = attach(fd, silent())
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("resume %s: %w", p, err)
	}
	h.sockets[p.slot()] = shared{fd: int32(fd)}
	return nil
}

var errOther = errors.New("the descriptor is not the socket that holds it")

// isHeldBy checks that a socket holds a port as open makes it.
func isHeldBy(fd int, p Port) error {
	k, err := kindOf(p.Proto)
	if err != nil {
		return err
	}
	proto, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	ways, err := p.forms()
	if err != nil {
		return err
	}
	for _, f := range ways {
		if proto == k.proto && (listens == 1) == k.listens && sameAddress(f.addr, sa) && f.sameFamilies(fd) {
			return nil
		}
	}
	return errOther
}

func sameAddress(a, b unix.Sockaddr) bool {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		b, is := b.(*unix.SockaddrInet4)
		return is && a.Port == b.Port && a.Addr == b.Addr
	case *unix.SockaddrInet6:
		b, is := b.(*unix.SockaddrInet6)
		return is && a.Port == b.Port && a.Addr == b.Addr && a.ZoneId == b.ZoneId
	}
	return false
}

// sameFamilies reports whether a socket of all addresses has the families that
// it is to have.
func (f form) sameFamilies(fd int) bool {
	if !f.dual && !f.v6only {
		return true
	}
	only, err := unix.GetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY)
	return err == nil && (only == 1) == f.v6only
}

// Discard lets go of what was resumed and nobody has asked for.
func (h *Holder) Discard() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.discard()
}

func (h *Holder) discard() error {
	var errs []error
	var closed []slot
	for s, socket := range h.sockets {
		if socket.users > 0 {
			continue
		}
		delete(h.sockets, s)
		closed = append(closed, s)
		if err := unix.Close(int(socket.fd)); err != nil {
			errs = append(errs, fmt.Errorf("release %s: %w", s.name(), err))
		}
	}
	return errors.Join(append(errs, h.forget(closed))...)
}
