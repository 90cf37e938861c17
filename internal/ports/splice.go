//go:build linux

package ports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of what is passed on by sockets, since families cannot be translated
// into each other by the kernel. A run of ports counts as one port.
const (
	maxEach   = 256  // connections, or UDP clients, of one port
	maxAll    = 2048 // of all
	copySize  = 16 << 10
	dialTime  = 10 * time.Second
	udpIdle   = 2 * time.Minute // nf_conntrack_udp_timeout_stream
	backlog   = 128
	burst     = 64 // taken at once from one socket, before others have their turn
	keepAlive = 30 * time.Second
)

// Traffic counts what was passed on.
type Traffic struct {
	Open    int // connections and UDP clients now
	Total   int // since the start
	Refused int // for want of room
}

// errTo says that a port cannot be passed on.
var errTo = errors.New("only tcp and udp are passed on")

// splice is what passes on the clients of a port, or of a run of ports.
type splice struct {
	Port
	v4     bool // serves IPv4 clients, else IPv6
	from   []netip.Prefix
	ctx    context.Context // ends what is open
	cancel context.CancelFunc
	open   int
	udp    map[client]*session
}

// door is a socket that a splice takes clients from.
type door struct {
	*splice
	fd int
	to netip.AddrPort
}

// newSplice checks what a port says.
func newSplice(p Port) (*splice, error) {
	s := &splice{Port: p, v4: p.To.Addr().Is6(), udp: map[client]*session{}}
	if p.base() != "tcp" && p.base() != "udp" {
		return nil, errTo
	}
	for text := range strings.SplitSeq(p.From, ",") {
		if text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("sources: %w", err)
		}
		if prefix.Addr().Is4() == s.v4 {
			s.from = append(s.from, prefix)
		}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// serve opens the sockets of a port to clients of the other family. The sockets
// are held already.
func (h *Holder) serve(p Port) error {
	s, err := newSplice(p)
	if err == nil {
		err = h.watch()
	}
	if err != nil {
		return err
	}
	for one := range p.each() {
		fd := int(h.sockets[one.slot()].fd)
		d := &door{splice: s, fd: fd, to: netip.AddrPortFrom(p.To.Addr(), p.To.Port()+one.Addr.Port()-p.Addr.Port())}
		if err := h.unlock(d); err != nil {
			h.shut(s)
			return err
		}
		h.doors[fd] = d
	}
	h.splices[p.bare()] = s
	return nil
}

// unlock makes a socket one that takes clients.
func (h *Holder) unlock(d *door) error {
	if err := unix.SetNonblock(d.fd, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if d.base() == "tcp" {
		if err := unix.Listen(d.fd, backlog); err != nil {
			return os.NewSyscallError("listen", err)
		}
	} else if err := tellDestination(d.fd); err != nil {
		return err
	}
	if err := attach(d.fd, only(d.v4, d.from)); err != nil {
		return err
	}
	err := unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, d.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(d.fd)})
	if errors.Is(err, unix.EEXIST) {
		err = nil // it was another's
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// shut ends what a splice has open, and makes its sockets silent again.
func (h *Holder) shut(s *splice) {
	s.cancel()
	for _, client := range s.udp {
		h.end(client)
	}
	for one := range s.each() {
		fd := int(h.sockets[one.slot()].fd)
		if d := h.doors[fd]; d == nil || d.splice != s {
			continue
		}
		delete(h.doors, fd)
		// A socket that is closed next needs none of this, and one that stays is
		// at worst not answered: nobody looks at it any more.
		_ = attach(fd, silent())
		_ = unix.EpollCtl(h.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	}
	if h.splices[s.bare()] == s {
		delete(h.splices, s.bare())
	}
}

// watch begins to wait for clients, once. All sockets are in one epoll set, and
// that is in the runtime's own: no thread waits for it.
func (h *Holder) watch() error {
	if h.epoll != 0 {
		return nil
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	f := os.NewFile(uintptr(fd), "epoll")
	raw, err := f.SyscallConn()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	h.epoll, h.watching, h.buf = fd, f, make([]byte, datagramSize)
	go func() {
		events := make([]unix.EpollEvent, burst)
		for n := 0; ; {
			err := raw.Read(func(fd uintptr) bool {
				n, _ = unix.EpollWait(int(fd), events, 0)
				return n > 0
			})
			if err != nil {
				return // closed
			}
			for _, e := range events[:max(n, 0)] {
				h.ready(int(e.Fd))
			}
		}
	}()
	return nil
}

// ready takes what came to a socket.
func (h *Holder) ready(fd int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	take := func() bool { return false } // closed meanwhile
	if d := h.doors[fd]; d != nil && d.base() == "tcp" {
		take = func() bool { return h.accept(d) }
	} else if d != nil {
		take = func() bool { return h.receive(d) }
	} else if s := h.sessions[fd]; s != nil {
		take = func() bool { return h.answer(s) }
	}
	for range burst {
		if !take() {
			return
		}
	}
}

// admit reports whether there is room for one more, and counts it.
func (h *Holder) admit(s *splice) bool {
	if s.open >= maxEach || h.traffic.Open >= maxAll || descriptors(2) != nil {
		h.traffic.Refused++
		return false
	}
	h.count(s, 1)
	h.traffic.Total++
	return true
}

// count counts what is open.
func (h *Holder) count(s *splice, n int) {
	s.open += n
	h.traffic.Open += n
}

// leave gives the room of a connection back.
func (h *Holder) leave(s *splice) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count(s, -1)
}

// Traffic tells what was passed on.
func (h *Holder) Traffic() Traffic {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.traffic
}

// accept takes a connection, and reports whether there may be more.
func (h *Holder) accept(d *door) bool {
	fd, _, err := unix.Accept4(d.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		// Out of descriptors the connection stays in the queue, and is found
		// again at once: the reserve of descriptors() is there to prevent that.
		return errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED)
	}
	if !h.admit(d.splice) {
		// Reset, not closed: the client is told at once that it is in vain.
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		unix.Close(fd)
		return true
	}
	go func() {
		defer h.leave(d.splice)
		h.relay(d.ctx, fd, d.to)
	}()
	return true
}

// relay passes a connection on until both ends have had their say.
func (h *Holder) relay(ctx context.Context, fd int, to netip.AddrPort) {
	f := os.NewFile(uintptr(fd), "client")
	near, err := net.FileConn(f)
	_ = f.Close() // near is a duplicate
	if err != nil {
		return
	}
	defer near.Close() //nolint:errcheck // both directions are done
	far, err := h.dial(ctx, to)
	if err != nil {
		_ = near.(*net.TCPConn).SetLinger(0) // refused there is refused here
		return
	}
	defer far.Close() //nolint:errcheck // both directions are done
	stop := context.AfterFunc(ctx, func() { _, _ = near.Close(), far.Close() })
	defer stop()
	_ = near.(*net.TCPConn).SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlive})
	done := make(chan struct{})
	go func() {
		defer close(done)
		pass(near, far)
	}()
	pass(far, near)
	<-done
}

// pass copies one direction, and passes its end on. What goes wrong there ends
// both directions: a client that was reset must not wait for an answer.
func pass(to, from net.Conn) {
	// Neither end's own way of copying, which takes a pipe a direction.
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, copySize))
	if err == nil {
		err = to.(interface{ CloseWrite() error }).CloseWrite()
	}
	if err != nil {
		_, _ = to.Close(), from.Close()
	}
}

// dial connects to a server, where the ports are held.
func (h *Holder) dial(ctx context.Context, to netip.AddrPort) (far net.Conn, err error) {
	d := net.Dialer{Timeout: dialTime, KeepAlive: keepAlive}
	err = h.inside(func() (err error) {
		far, err = d.DialContext(ctx, "tcp", to.String())
		return err
	})
	return far, err
}
