//go:build linux

package testnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443) messages.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// ErrNoEcho says that no answer came in time.
var ErrNoEcho = errors.New("no echo reply")

// Echo sends one ICMP or ICMPv6 echo request from inside and waits for the
// answer. It needs no program and no ping_group_range: a raw socket does. No
// answer in time is an ErrNoEcho, a refusal by this namespace the kernel's error.
func (n *NS) Echo(dst netip.Addr, timeout time.Duration) error {
	e, err := n.openEcho(dst)
	if err != nil {
		return err
	}
	defer e.close()
	if err := e.send(1); err != nil {
		return fmt.Errorf("echo %s to %s: %w", n.Name, dst, err)
	}
	if err := e.f.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err = e.receive(); errors.Is(err, os.ErrDeadlineExceeded) {
		err = ErrNoEcho
	}
	if err != nil {
		return fmt.Errorf("echo %s to %s: %w", n.Name, dst, err)
	}
	return nil
}

// echoSocket is a raw ICMP or ICMPv6 socket that asks one address. Its
// identifier tells its answers from those of others.
type echoSocket struct {
	f   *os.File
	raw syscall.RawConn
	to  unix.Sockaddr
	is4 bool
	id  uint16
	buf []byte
}

// openEcho opens the socket inside.
func (n *NS) openEcho(dst netip.Addr) (*echoSocket, error) {
	e, err := inside(n, func() (*echoSocket, error) { return newEcho(dst) })
	if err != nil {
		return nil, fmt.Errorf("open echo socket in namespace %s: %w", n.Name, err)
	}
	return e, nil
}

// newEcho opens the socket in the namespace of the calling thread. The number of
// its descriptor is the identifier: no other socket of this process has it.
func newEcho(dst netip.Addr) (*echoSocket, error) {
	is4 := dst.Is4() || dst.Is4In6()
	domain, proto := unix.AF_INET6, unix.IPPROTO_ICMPV6
	if is4 {
		domain, proto = unix.AF_INET, unix.IPPROTO_ICMP
	}
	to, err := sockaddr(dst)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "icmp")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &echoSocket{f: f, raw: raw, to: to, is4: is4, id: uint16(fd), buf: make([]byte, 1<<16)}, nil
}

// sockaddr gives the kernel's form of an address. The zone of a link-local one
// is a name in the namespace of the calling thread.
func sockaddr(a netip.Addr) (unix.Sockaddr, error) {
	if a.Is4() || a.Is4In6() {
		return &unix.SockaddrInet4{Addr: a.Unmap().As4()}, nil
	}
	sa := &unix.SockaddrInet6{Addr: a.As16()}
	if a.Zone() != "" {
		link, err := net.InterfaceByName(a.Zone())
		if err != nil {
			return nil, err
		}
		sa.ZoneId = uint32(link.Index)
	}
	return sa, nil
}

func (e *echoSocket) close() error { return e.f.Close() }

// send sends the request number seq, the whole of which is in the payload. The
// kernel fills the checksum of ICMPv6 in, that of ICMP is ours.
func (e *echoSocket) send(seq int) error {
	b := make([]byte, 16)
	b[0] = echoRequest6
	binary.BigEndian.PutUint16(b[4:], e.id)
	binary.BigEndian.PutUint16(b[6:], uint16(seq))
	binary.BigEndian.PutUint64(b[8:], uint64(seq))
	if e.is4 {
		b[0] = echoRequest4
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	var err error
	werr := e.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, e.to)
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(werr, os.NewSyscallError("sendto", err))
}

// receive waits for an answer to this socket, until the read deadline, and
// returns its number. The socket is given all ICMP that arrives.
func (e *echoSocket) receive() (int, error) {
	for {
		n, err := e.f.Read(e.buf)
		if err != nil {
			return 0, err
		}
		if seq, ok := e.answer(e.buf[:n]); ok {
			return seq, nil
		}
	}
}

// answer reads a packet. A raw IPv4 socket gives the IP header too.
func (e *echoSocket) answer(b []byte) (seq int, ok bool) {
	want := byte(echoReply6)
	if e.is4 {
		want = echoReply4
		if len(b) == 0 || len(b) < int(b[0]&0xf)*4 {
			return 0, false
		}
		b = b[int(b[0]&0xf)*4:]
	}
	if len(b) < 16 || b[0] != want || binary.BigEndian.Uint16(b[4:]) != e.id {
		return 0, false
	}
	return int(binary.BigEndian.Uint64(b[8:])), true
}

// checksum is the internet checksum (RFC 1071) of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
