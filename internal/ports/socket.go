//go:build linux

package ports

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrNoSCTP says that the kernel has no SCTP sockets (CONFIG_IP_SCTP): an sctp
// port cannot be held, nor can another program have it.
var ErrNoSCTP = errors.New("kernel without SCTP sockets (CONFIG_IP_SCTP)")

// ErrProto says that there are no ports of a protocol.
var ErrProto = errors.New("protocol is not tcp, udp or sctp")

var (
	errNoAddress   = errors.New("no address")
	errNoInterface = errors.New("no such interface")
)

// kind is the sort of socket that holds a port of a protocol.
type kind struct {
	typ, proto int
	listens    bool
}

func kindOf(proto string) (kind, error) {
	switch proto {
	case "tcp", "tcp6":
		return kind{unix.SOCK_STREAM, unix.IPPROTO_TCP, true}, nil
	case "sctp", "sctp6":
		return kind{unix.SOCK_STREAM, unix.IPPROTO_SCTP, true}, nil
	case "udp", "udp6":
		return kind{unix.SOCK_DGRAM, unix.IPPROTO_UDP, false}, nil
	}
	return kind{}, fmt.Errorf("%w: %q", ErrProto, proto)
}

// form is one way to bind a socket to an address.
type form struct {
	domain int
	addr   unix.Sockaddr
	dual   bool // an IPv6 socket for both families
	v6only bool // one for IPv6 alone
	exact  bool // one address, which need not be there
}

// forms gives the ways to hold an address, of which the first that the kernel
// has is taken: a kernel without IPv6 holds all addresses by 0.0.0.0.
func forms(a netip.AddrPort) ([]form, error) {
	addr, port := a.Addr().Unmap(), int(a.Port())
	switch {
	case !addr.IsValid():
		return nil, errNoAddress
	case addr.Is4():
		sa := &unix.SockaddrInet4{Port: port, Addr: addr.As4()}
		return []form{{domain: unix.AF_INET, addr: sa, exact: !addr.IsUnspecified()}}, nil
	case addr.IsUnspecified():
		return []form{
			{domain: unix.AF_INET6, addr: &unix.SockaddrInet6{Port: port}, dual: true},
			{domain: unix.AF_INET, addr: &unix.SockaddrInet4{Port: port}},
		}, nil
	}
	zone, err := zoneIndex(addr.Zone())
	if err != nil {
		return nil, err
	}
	sa := &unix.SockaddrInet6{Port: port, Addr: addr.As16(), ZoneId: zone}
	return []form{{domain: unix.AF_INET6, addr: sa, exact: true}}, nil
}

// forms gives the ways to hold a port.
func (p Port) forms() ([]form, error) {
	ways, err := forms(p.Addr)
	if err == nil && p.v6only() && ways[0].dual {
		ways = []form{{domain: unix.AF_INET6, addr: ways[0].addr, v6only: true}}
	}
	return ways, err
}

// zoneIndex gives the index of the interface that a link-local address is of.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	link, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("find interface %s: %w: %w", zone, errNoInterface, err)
	}
	return uint32(link.Index), nil
}

// open opens the socket that holds a port; port 0 is a free one.
func open(p Port) (int, error) {
	fd, err := tryOpen(p)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return -1, taken(p)
	case err != nil:
		return -1, fmt.Errorf("hold %s: %w", p, err)
	}
	return fd, nil
}

// tryOpen is open with the kernel's own errors.
func tryOpen(p Port) (int, error) {
	k, err := kindOf(p.Proto)
	if err != nil {
		return -1, err
	}
	ways, err := p.forms()
	if err != nil {
		return -1, err
	}
	fd, f, err := socket(k, ways)
	if err != nil {
		return -1, err
	}
	if err := f.hold(fd, k, p.Addr.Port() == 0); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// socket opens a socket of the first form that the kernel has.
func socket(k kind, ways []form) (fd int, f form, err error) {
	for _, f = range ways {
		fd, err = unix.Socket(f.domain, k.typ|unix.SOCK_CLOEXEC, k.proto)
		if !errors.Is(err, unix.EAFNOSUPPORT) {
			break
		}
	}
	noProto := errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT)
	if noProto && k.proto == unix.IPPROTO_SCTP {
		return -1, f, ErrNoSCTP
	}
	return fd, f, os.NewSyscallError("socket", err)
}

// hold binds a socket so that no other can be bound beside it, whatever options
// the other has. A listening TCP socket does that with SO_REUSEADDR too, which
// it needs where connections of a former server linger in TIME_WAIT; a UDP
// socket must not have the option. A free port has no past, and then the option
// could give one that another socket is bound to.
func (f form) hold(fd int, k kind, free bool) error {
	if k.listens && !free {
		if err := set(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if err := f.prepare(fd); err != nil {
		return err
	}
	if err := unix.Bind(fd, f.addr); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if k.listens {
		return os.NewSyscallError("listen", unix.Listen(fd, 0))
	}
	return nil
}

// prepare sets what must be set before bind: the filter too, or datagrams could
// be queued before it is there.
func (f form) prepare(fd int) error {
	if f.dual || f.v6only {
		// net.ipv6.bindv6only decides otherwise.
		value := 0
		if f.v6only {
			value = 1
		}
		if err := set(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, value); err != nil {
			return err
		}
	}
	if f.exact {
		level, opt := unix.SOL_IP, unix.IP_FREEBIND
		if f.domain == unix.AF_INET6 {
			level, opt = unix.SOL_IPV6, unix.IPV6_FREEBIND
		}
		if err := set(fd, level, opt, 1); err != nil {
			return err
		}
	}
	return attach(fd, silent())
}

// set sets an integer option.
func set(fd, level, opt, value int) error {
	if err := unix.SetsockoptInt(fd, level, opt, value); err != nil {
		return fmt.Errorf("setsockopt %d of level %d: %w", opt, level, err)
	}
	return nil
}

// bound gives the port that a socket got, with the address that was asked for.
func bound(fd int, addr netip.Addr) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
	}
	port := 0
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		port = sa.Port
	case *unix.SockaddrInet6:
		port = sa.Port
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}
