package differential

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// send sends all shots of a namespace, and leaves goroutines that wait for what
// comes back until the sockets are closed.
func (w *world) send(r *record, ns *testnet.NS, shots []shot) []*os.File {
	w.Helper()
	var open []*os.File
	ns.Do(w, func() error {
		for _, s := range shots {
			f, err := fire(s)
			if f != nil {
				open = append(open, f)
			}
			switch {
			case err != nil:
				r.comesBack(s.id, backOf(err))
			case f == nil: // no socket waits
			case s.proto == "udp":
				go awaitDatagram(r, s, f)
			case s.proto == "tcp":
				go awaitConnection(r, s, f)
			}
		}
		return nil
	})
	return open
}

// backOf is what an error tells a sender.
func backOf(err error) back {
	if errors.Is(err, unix.ECONNREFUSED) {
		return refusal
	}
	return failure
}

// fire sends a shot from the namespace of the thread.
func fire(s shot) (*os.File, error) {
	if s.src.IsValid() {
		return nil, forge(s)
	}
	domain, level, v6 := unix.AF_INET, unix.IPPROTO_IP, s.dst.Addr().Is6()
	if v6 {
		domain, level = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	typ, proto := unix.SOCK_STREAM, 0
	switch {
	case s.proto == "udp":
		typ = unix.SOCK_DGRAM
	case s.proto == "icmp" && v6:
		typ, proto = unix.SOCK_RAW, unix.IPPROTO_ICMPV6
	case s.proto == "icmp":
		typ, proto = unix.SOCK_RAW, unix.IPPROTO_ICMP
	}
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if s.proto == "icmp" {
		err = unix.Sendto(fd, echoRequest(s.id, v6), 0, sockaddr(s.dst))
		return nil, errors.Join(os.NewSyscallError("sendto", err), unix.Close(fd))
	}
	// Without it errors of the way, such as "no route", are not told to UDP.
	err = unix.SetsockoptInt(fd, level, map[bool]int{false: unix.IP_RECVERR, true: unix.IPV6_RECVERR}[v6], 1)
	if err == nil {
		err = connect(fd, s)
	}
	// A file is registered for events: not before connect, of which it would
	// report that the socket is not connected.
	return os.NewFile(uintptr(fd), s.String()), err
}

// forge sends a datagram with a header of its own making.
func forge(s shot) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	b := make([]byte, 28)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	src, dst := s.src.As4(), s.dst.Addr().As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	binary.BigEndian.PutUint16(b[20:], s.id)
	binary.BigEndian.PutUint16(b[22:], s.dst.Port())
	binary.BigEndian.PutUint16(b[24:], 8) // the length; no checksum
	err = unix.Sendto(fd, b, 0, sockaddr(netip.AddrPortFrom(s.dst.Addr(), 0)))
	return errors.Join(os.NewSyscallError("sendto", err), unix.Close(fd))
}

// connect binds to the port of the shot, connects, and sends a datagram.
func connect(fd int, s shot) error {
	unspecified := netip.IPv4Unspecified()
	if s.dst.Addr().Is6() {
		unspecified = netip.IPv6Unspecified()
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(unspecified, s.id))); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if s.proto == "tcp" {
		// No FIN at the end, and nothing that lingers.
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	err := unix.Connect(fd, sockaddr(s.dst))
	if err == nil && s.proto == "udp" {
		_, err = unix.Write(fd, []byte("shot"))
	}
	if errors.Is(err, unix.EINPROGRESS) {
		return nil
	}
	return err
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// echoRequest is the message. The kernel fills the checksum of ICMPv6 in.
func echoRequest(id uint16, v6 bool) []byte {
	b := make([]byte, 8)
	b[0] = 128
	binary.BigEndian.PutUint16(b[4:], id)
	if !v6 {
		b[0] = 8
		sum := uint32(8<<8) + uint32(id)
		binary.BigEndian.PutUint16(b[2:], ^uint16(sum+sum>>16))
	}
	return b
}

func awaitDatagram(r *record, s shot, f *os.File) {
	switch _, err := f.Read(make([]byte, 64)); {
	case err == nil:
		r.comesBack(s.id, answer)
	case !errors.Is(err, os.ErrClosed):
		r.comesBack(s.id, backOf(err))
	}
}

func awaitConnection(r *record, s shot, f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	var errno int
	werr := raw.Write(func(fd uintptr) bool {
		errno, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if errno != 0 || err != nil {
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil // ENOTCONN: not yet
	})
	switch {
	case werr != nil: // closed
	case errno != 0:
		r.comesBack(s.id, backOf(unix.Errno(errno)))
	case err == nil:
		r.comesBack(s.id, answer)
	}
}
