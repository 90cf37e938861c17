//go:build linux

package ports

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// client is a UDP client, and the address of the host that it speaks to.
type client struct {
	fd   int // of the door
	from netip.AddrPort
	host netip.Addr
}

// session is what a UDP client has to do with a server: a socket of its own, so
// that answers find back.
type session struct {
	*door
	client client
	far    int
	last   time.Time // that something came either way
}

// datagramSize is more than any datagram has.
const datagramSize = 64 << 10

// tellDestination makes a socket tell with each datagram which address of the
// host it was sent to: the answer has to come from there.
func tellDestination(fd int) error {
	six, err := isSix(fd)
	if err != nil {
		return err
	}
	if !six {
		return set(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
	}
	return set(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// isSix reports whether a socket is of IPv6. It may serve IPv4 clients too, whose
// addresses it has as ::ffff:192.0.2.1 (RFC 4291, 2.5.5.2).
func isSix(fd int) (bool, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return domain == unix.AF_INET6, os.NewSyscallError("getsockopt SO_DOMAIN", err)
}

// receive takes a datagram of a client, and reports whether there may be more.
func (h *Holder) receive(d *door) bool {
	var oob [64]byte
	n, oobn, _, from, err := unix.Recvmsg(d.fd, h.buf, oob[:], 0)
	if err != nil {
		return errors.Is(err, unix.EINTR)
	}
	c := client{fd: d.fd, from: addrPort(from), host: destination(oob[:oobn])}
	s := d.udp[c]
	if s == nil {
		if s = h.begin(d, c); s == nil {
			return true
		}
	}
	s.last = time.Now()
	// What is refused or does not fit is lost, as anywhere on the way.
	_, _ = unix.Write(s.far, h.buf[:n])
	return true
}

// begin makes a session, or none when there is no room or no way.
func (h *Holder) begin(d *door, c client) *session {
	if !h.admit(d.splice) {
		return nil
	}
	s := &session{door: d, client: c, far: -1}
	// A UDP socket is connected without a packet, so this does not wait.
	err := h.inside(func() (err error) {
		s.far, err = unix.Socket(domainOf(d.to), unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Connect(s.far, sockaddr(d.to, true))
	})
	if err == nil {
		err = unix.EpollCtl(h.epoll, unix.EPOLL_CTL_ADD, s.far, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.far)})
	}
	if err != nil {
		if s.far >= 0 {
			unix.Close(s.far)
		}
		h.count(d.splice, -1)
		return nil
	}
	d.udp[c], h.sessions[s.far] = s, s
	if h.reaper == nil {
		h.reaper = time.AfterFunc(udpIdle/4, h.reap)
	}
	return s
}

// answer passes on what a server sent, and reports whether there may be more.
func (h *Holder) answer(s *session) bool {
	n, err := unix.Read(s.far, h.buf)
	switch {
	case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNREFUSED): // nobody listens there now
		return true
	case err != nil:
		return false
	}
	s.last = time.Now()
	six, err := isSix(s.fd)
	if err == nil {
		_ = unix.Sendmsg(s.fd, h.buf[:n], source(s.client.host, six), sockaddr(s.client.from, !six), unix.MSG_DONTWAIT)
	}
	return true
}

// end closes a session.
func (h *Holder) end(s *session) {
	delete(s.udp, s.client)
	delete(h.sessions, s.far)
	unix.Close(s.far)
	h.count(s.splice, -1)
}

// reap ends sessions that nothing came over for long.
func (h *Holder) reap() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reaper = nil
	for _, s := range h.sessions {
		if time.Since(s.last) > udpIdle {
			h.end(s)
		}
	}
	if len(h.sessions) > 0 {
		h.reaper = time.AfterFunc(udpIdle/4, h.reap)
	}
}

func domainOf(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addrPort is a socket's address in Go's words, the zone by its number.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// sockaddr is the inverse of addrPort. four says that the socket is of IPv4 if
// the address is.
func sockaddr(a netip.AddrPort, four bool) unix.Sockaddr {
	if a.Addr().Is4() && four {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	zone, _ := zoneIndex(a.Addr().Zone()) // a number, from addrPort
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: zone}
}

// destination reads the address of the host out of the messages that came with a
// datagram (ip(7), ipv6(7)); without one it is that which the socket is bound to.
func destination(oob []byte) netip.Addr {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			a, _ := netip.AddrFromSlice(m.Data[:16])
			return a
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			// ifindex, the address that a route back would take, the header's.
			a, _ := netip.AddrFromSlice(m.Data[8:12])
			return a
		}
	}
	return netip.Addr{}
}

// source is the message that makes a datagram leave from an address of the host.
func source(host netip.Addr, six bool) []byte {
	if !host.IsValid() {
		return nil
	}
	level, typ, data := unix.SOL_IP, unix.IP_PKTINFO, make([]byte, unix.SizeofInet4Pktinfo)
	if six {
		level, typ, data = unix.SOL_IPV6, unix.IPV6_PKTINFO, make([]byte, unix.SizeofInet6Pktinfo)
		a := host.As16()
		copy(data, a[:])
	} else {
		a := host.As4()
		copy(data[4:], a[:])
	}
	out := make([]byte, unix.CmsgSpace(len(data)))
	head := (*unix.Cmsghdr)(unsafe.Pointer(&out[0]))
	head.Level, head.Type = int32(level), int32(typ)
	head.SetLen(unix.CmsgLen(len(data)))
	copy(out[unix.CmsgLen(0):], data)
	return out
}
