//go:build linux

// Package ct has one job: connection tracking. It reads the entries that the
// kernel keeps of connections in one network namespace as plain data, and
// deletes those that nobody would make any more.
//
// Translation is decided by the first packet of a connection and kept in its
// entry: after a change of what is published, entries made before go on
// translating as they did, or go on not being translated at all.
package ct

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/towpath/towpath/internal/linux/netns"
	"golang.org/x/sys/unix"
)

// UnsupportedError says that the kernel cannot be asked for connections.
type UnsupportedError struct {
	Err error // what the kernel answered
}

// Error names the options a kernel needs.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("kernel without connection tracking, it needs CONFIG_NF_CONNTRACK and CONFIG_NF_CT_NETLINK: %v", e.Err)
}

// Unwrap gives the kernel's answer.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// Is matches errors.ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// Conn reaches the connections of one network namespace, which it keeps alive
// until it is closed. Its methods may be called concurrently: each has a socket
// of its own, so that a listing that was given up leaves nothing to the next.
type Conn struct {
	ns *os.File
}

// Dial reaches the connections of the namespace of nsfd, or, when nsfd is not
// positive, of the namespace of the calling thread. nsfd is not needed after
// Dial. A kernel without connection tracking is an UnsupportedError.
func Dial(nsfd int) (*Conn, error) {
	ns, err := keep(nsfd)
	if err != nil {
		return nil, fmt.Errorf("dial conntrack: %w", err)
	}
	sock, err := open(ns)
	if err == nil {
		err = probe(sock, unix.NFNL_SUBSYS_CTNETLINK)
		sock.Close()
	}
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("dial conntrack: %w", err)
	}
	return &Conn{ns: ns}, nil
}

// keep gives a descriptor of the namespace that is ours.
func keep(nsfd int) (*os.File, error) {
	if nsfd <= 0 {
		return netns.Self()
	}
	fd, err := unix.FcntlInt(uintptr(nsfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return os.NewFile(uintptr(fd), "netns"), nil
}

// open opens a socket in a namespace.
func open(ns *os.File) (*netlink.Conn, error) {
	sock, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(ns.Fd())})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, &UnsupportedError{err}
	}
	if err != nil {
		return nil, err
	}
	for _, o := range []netlink.ConnOption{netlink.ExtendedAcknowledge, netlink.CapAcknowledge} {
		if err := sock.SetOption(o, true); err != nil {
			sock.Close()
			return nil, err
		}
	}
	return sock, nil
}

// probe asks a subsystem for statistics. nfnetlink answers EINVAL where nobody
// registered for the subsystem.
func probe(sock *netlink.Conn, subsystem int) error {
	_, err := sock.Execute(message{typ: msgGetStats}.netlink(subsystem, netlink.Dump))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return &UnsupportedError{err}
	}
	return err
}

// Close lets go of the namespace.
func (c *Conn) Close() error {
	if err := c.ns.Close(); err != nil {
		return fmt.Errorf("close conntrack: %w", err)
	}
	return nil
}

// with runs fn on a socket, and cuts it short when ctx ends.
func (c *Conn) with(ctx context.Context, fn func(*netlink.Conn) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	sock, err := open(c.ns)
	if err != nil {
		return err
	}
	defer sock.Close()
	stop := context.AfterFunc(ctx, func() {
		// A socket that is closed already needs no deadline.
		_ = sock.SetDeadline(time.Unix(1, 0))
	})
	defer stop()
	err = fn(sock)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}
