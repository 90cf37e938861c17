//go:build linux

package taps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/trace"
)

// Sent is a packet on its way. What holds its port is closed at the end.
type Sent struct {
	Src netip.Addr // that the kernel chose
	// Refusal is the errno with which the kernel did not send it; 0: it did.
	Refusal unix.Errno
	fds     []int
	stream  bool
}

// Close lets go of the port.
func (s *Sent) Close() error {
	var errs []error
	for _, fd := range s.fds {
		errs = append(errs, unix.Close(fd))
	}
	s.fds = nil
	return errors.Join(errs...)
}

// Got reports whether the socket has got something: an answer, or that its
// connection is made.
func (s *Sent) Got() bool {
	for _, fd := range s.fds {
		if s.stream {
			_, err := unix.Getpeername(fd)
			return err == nil
		}
		if _, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT); err == nil {
			return true
		}
	}
	return false
}

// Port finds a port that is free in a namespace for a protocol, and holds it: the
// packet is to be known by it. An echo needs none, but an identifier like it.
func Port(ns *os.File, v6 bool) (trace.Mark, func(), error) {
	var port trace.Mark
	fd := -1
	err := netns.Do(ns, func() error {
		var err error
		fd, err = unix.Socket(family(v6), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		if err := unix.Bind(fd, sockaddr(netip.AddrPort{}, v6)); err != nil {
			return os.NewSyscallError("bind", err)
		}
		name, err := unix.Getsockname(fd)
		if err != nil {
			return os.NewSyscallError("getsockname", err)
		}
		port = trace.Mark(addrPort(name).Port())
		return nil
	})
	if err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return 0, nil, fmt.Errorf("find a free port: %w", err)
	}
	return port, func() { _ = unix.Close(fd) }, nil
}

// Send sends one packet: a SYN, an empty datagram, or an echo request. With
// connect TCP makes a whole handshake.
func Send(ns *os.File, proto string, dst netip.AddrPort, mark trace.Mark, connect bool) (*Sent, error) {
	s := &Sent{}
	err := netns.Do(ns, func() error {
		switch {
		case proto == "tcp" && connect:
			return s.socket(unix.SOCK_STREAM, dst, mark)
		case proto == "tcp":
			return s.raw(unix.IPPROTO_TCP, dst, mark)
		case proto == "udp":
			return s.socket(unix.SOCK_DGRAM, dst, mark)
		case proto == "icmp" && dst.Addr().Is4():
			return s.raw(unix.IPPROTO_ICMP, dst, mark)
		case proto == "icmp":
			return s.raw(unix.IPPROTO_ICMPV6, dst, mark)
		}
		return fmt.Errorf("protocol %q: %w", proto, errors.ErrUnsupported)
	})
	var errno unix.Errno
	if errors.As(err, &errno) && s.fds != nil {
		s.Refusal, err = errno, nil
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("send packet: %w", err), s.Close())
	}
	return s, nil
}

// socket sends by an ordinary socket with the mark as its port.
func (s *Sent) socket(typ int, dst netip.AddrPort, mark trace.Mark) error {
	v6 := dst.Addr().Is6()
	fd, err := unix.Socket(family(v6), typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %s", err) //nolint:errorlint // that is no refusal to send
	}
	s.fds = append(s.fds, fd)
	any := netip.IPv4Unspecified()
	if v6 {
		any = netip.IPv6Unspecified()
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(any, uint16(mark)), v6)); err != nil {
		return fmt.Errorf("bind to port %d: %s", mark, err) //nolint:errorlint // as above
	}
	if err := unix.Connect(fd, sockaddr(dst, v6)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	s.name(fd)
	if s.stream = typ == unix.SOCK_STREAM; s.stream {
		return nil
	}
	_, err = unix.Write(fd, nil)
	return err
}

// name notes the source that the kernel chose.
func (s *Sent) name(fd int) {
	if name, err := unix.Getsockname(fd); err == nil {
		s.Src = addrPort(name).Addr()
	}
}

// raw sends a segment or message made here, over a raw socket: the kernel's own
// TCP does not know of it, and answers an answer with a reset.
func (s *Sent) raw(proto int, dst netip.AddrPort, mark trace.Mark) error {
	v6 := dst.Addr().Is6()
	fd, err := unix.Socket(family(v6), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return fmt.Errorf("raw socket: %s", err) //nolint:errorlint // that is no refusal to send
	}
	s.fds = append(s.fds, fd)
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(dst.Addr(), 0), v6)); err != nil {
		return err
	}
	s.name(fd)
	var b []byte
	switch proto {
	case unix.IPPROTO_TCP:
		b = syn(s.Src, dst, uint16(mark))
	case unix.IPPROTO_ICMP:
		b = echo(8, uint16(mark))
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	default: // the kernel fills in the checksum of ICMPv6 (RFC 3542, 3.1)
		b = echo(128, uint16(mark))
	}
	_, err = unix.Write(fd, b)
	return err
}

// echo is an echo request.
func echo(typ uint8, id uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16([]byte{typ, 0, 0, 0}, id), 1)
}

// syn is a SYN with an option for the size of segments, as most have.
func syn(src netip.Addr, dst netip.AddrPort, port uint16) []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint16(b, port)
	binary.BigEndian.PutUint16(b[2:], dst.Port())
	binary.BigEndian.PutUint32(b[4:], uint32(port)<<16|uint32(dst.Port()))
	b[12], b[13] = 6<<4, 0x02
	binary.BigEndian.PutUint16(b[14:], 64240)
	copy(b[20:], []byte{2, 4, 0x05, 0xb4})
	pseudo := append(src.AsSlice(), dst.Addr().AsSlice()...)
	pseudo = binary.BigEndian.AppendUint16(append(pseudo, 0, unix.IPPROTO_TCP), uint16(len(b)))
	binary.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
	return b
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 != 0 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func family(v6 bool) int {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func sockaddr(a netip.AddrPort, v6 bool) unix.Sockaddr {
	if v6 {
		out := &unix.SockaddrInet6{Port: int(a.Port())}
		if a.Addr().IsValid() {
			out.Addr = a.Addr().As16()
		}
		return out
	}
	out := &unix.SockaddrInet4{Port: int(a.Port())}
	if a.Addr().IsValid() {
		out.Addr = a.Addr().As4()
	}
	return out
}

func addrPort(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr).Unmap(), uint16(s.Port))
	}
	return netip.AddrPort{}
}
