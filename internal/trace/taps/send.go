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
	shot    Shot
	got     bool
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

// Got reports whether the socket has got an answer, or its connection is made.
func (s *Sent) Got() bool {
	for _, fd := range s.fds {
		if s.stream {
			_, err := unix.Getpeername(fd)
			return err == nil
		}
		b := make([]byte, headers)
		for !s.got {
			n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			s.got = s.shot.answeredBy(b[:n])
		}
	}
	return s.got
}

// answeredBy reports whether what a socket got is an answer. A raw one gets all
// of its protocol that comes from the destination, also what it sent to itself,
// and of IPv4 with the header. One of UDP is connected: it gets nothing else.
func (o Shot) answeredBy(b []byte) bool {
	if o.Proto == "udp" {
		return true
	}
	if !o.v6() && len(b) > 0 {
		b = b[min(len(b), int(b[0]&0xf)*4):]
	}
	switch {
	case len(b) < 8:
		return false
	case o.Proto == "tcp":
		return binary.BigEndian.Uint16(b) == o.Dst.Port() && binary.BigEndian.Uint16(b[2:]) == uint16(o.Mark)
	}
	const reply4, reply6 = 0, 129
	return (b[0] == reply4 && !o.v6() || b[0] == reply6 && o.v6()) && binary.BigEndian.Uint16(b[4:]) == uint16(o.Mark)
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

// Shot is a packet to send: a SYN, a datagram, or an echo request.
type Shot struct {
	Proto string
	Dst   netip.AddrPort
	Mark  trace.Mark
	// Connect makes a whole handshake of TCP.
	Connect bool
	// Size is how many bytes it has, headers and all, and that it may not be cut
	// up; 0: as few as may be. The least is SmallestSize.
	Size int
	// TTL is its time to live; 0: the kernel's.
	TTL int
	// Source is where it says it comes from, own address or not; zero: the
	// kernel chooses.
	Source netip.Addr
}

func (o Shot) v6() bool { return o.Dst.Addr().Is6() }

// SmallestSize is that of a packet without anything in it: the header of IP, and
// synLength or eight bytes.
func (o Shot) SmallestSize() int {
	n := 8
	if o.Proto == "tcp" {
		n = synLength
	}
	if o.v6() {
		return n + 40
	}
	return n + 20
}

// filling is what the packet carries, so that it has its size.
func (o Shot) filling() []byte { return make([]byte, max(o.Size-o.SmallestSize(), 0)) }

// Put is a packet that has come in by a link, put there by somebody else: who has
// sent it is outside, and no socket gets the answer.
func Put(o Shot) *Sent { return &Sent{Src: o.Source, shot: o, got: true} }

// Send sends one packet.
func Send(ns *os.File, o Shot) (*Sent, error) {
	s := &Sent{shot: o}
	err := netns.Do(ns, func() error {
		switch {
		case o.Proto == "tcp" && o.Connect:
			return s.socket(unix.SOCK_STREAM, o)
		case o.Proto == "tcp":
			return s.raw(unix.IPPROTO_TCP, o)
		case o.Proto == "udp":
			return s.socket(unix.SOCK_DGRAM, o)
		case o.Proto == "icmp" && !o.v6():
			return s.raw(unix.IPPROTO_ICMP, o)
		case o.Proto == "icmp":
			return s.raw(unix.IPPROTO_ICMPV6, o)
		}
		return fmt.Errorf("protocol %q: %w", o.Proto, errors.ErrUnsupported)
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
func (s *Sent) socket(typ int, o Shot) error {
	fd, err := unix.Socket(family(o.v6()), typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %s", err) //nolint:errorlint // that is no refusal to send
	}
	s.fds = append(s.fds, fd)
	if err := o.prepare(fd, uint16(o.Mark)); err != nil {
		return err
	}
	if err := unix.Connect(fd, sockaddr(o.Dst, o.v6())); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	s.name(fd)
	if s.stream = typ == unix.SOCK_STREAM; s.stream {
		return nil
	}
	_, err = unix.Write(fd, o.filling())
	return err
}

// prepare sets what the shot asks for, and binds the socket to a port. What fails
// here is no refusal of the packet, and so carries no errno.
func (o Shot) prepare(fd int, port uint16) error {
	level, ttl, discover, transparent := unix.SOL_IP, unix.IP_TTL, unix.IP_MTU_DISCOVER, unix.IP_TRANSPARENT
	if o.v6() {
		level, ttl, discover, transparent = unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_MTU_DISCOVER, unix.IPV6_TRANSPARENT
	}
	set := func(name string, option, value int) error {
		if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
			return fmt.Errorf("set %s: %s", name, err) //nolint:errorlint // no refusal
		}
		return nil
	}
	var errs []error
	if o.TTL != 0 {
		errs = append(errs, set("time to live", ttl, o.TTL))
	}
	if o.Size != 0 {
		// Not IP_PMTUDISC_DO: what an earlier packet taught of the path is not to
		// keep this one from being sent.
		errs = append(errs, set("that it may not be cut up", discover, unix.IP_PMTUDISC_PROBE))
	}
	from := o.Source
	switch {
	case from.IsValid(): // the kernel lets no other socket send from where it is not
		errs = append(errs, set("source", transparent, 1))
	case o.v6():
		from = netip.IPv6Unspecified()
	default:
		from = netip.IPv4Unspecified()
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, port), o.v6())); err != nil {
		return fmt.Errorf("bind to %s: %s", netip.AddrPortFrom(from, port), err) //nolint:errorlint // no refusal
	}
	return nil
}

// name notes the source that the kernel chose.
func (s *Sent) name(fd int) {
	if name, err := unix.Getsockname(fd); err == nil {
		s.Src = addrPort(name).Addr()
	}
}

// raw sends a segment or message made here, over a raw socket: the kernel's own
// TCP does not know of it, and answers an answer with a reset.
func (s *Sent) raw(proto int, o Shot) error {
	fd, err := unix.Socket(family(o.v6()), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return fmt.Errorf("raw socket: %s", err) //nolint:errorlint // that is no refusal to send
	}
	s.fds = append(s.fds, fd)
	if err := o.prepare(fd, 0); err != nil {
		return err
	}
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(o.Dst.Addr(), 0), o.v6())); err != nil {
		return err
	}
	s.name(fd)
	var b []byte
	switch proto {
	case unix.IPPROTO_TCP:
		b = syn(s.Src, o)
	case unix.IPPROTO_ICMP:
		b = echo(8, o)
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	default: // the kernel fills in the checksum of ICMPv6 (RFC 3542, 3.1)
		b = echo(128, o)
	}
	_, err = unix.Write(fd, b)
	return err
}

// echo is an echo request.
func echo(typ uint8, o Shot) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16([]byte{typ, 0, 0, 0}, uint16(o.Mark)), 1)
	return append(b, o.filling()...)
}

// synLength is that of a SYN's header with an option for the size of segments,
// as most have.
const synLength = 24

// syn is a SYN.
func syn(src netip.Addr, o Shot) []byte {
	b := append(make([]byte, synLength), o.filling()...)
	o.segment(b, 0, synLength/4, 0x02)
	binary.BigEndian.PutUint16(b[14:], 64240)
	copy(b[20:], []byte{2, 4, 0x05, 0xb4})
	o.Source = src
	binary.BigEndian.PutUint16(b[16:], o.checksum(unix.IPPROTO_TCP, b))
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
