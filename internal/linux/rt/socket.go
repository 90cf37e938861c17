//go:build linux

package rt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/towpath/towpath/internal/linux/netns"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/lend"
)

// recvBuffer is the largest datagram that rtnetlink sends: netlink_dump fills
// at most 32 KiB however much the reader offers.
const recvBuffer = 32 << 10

// Buffers lends receive buffers to connections.
type Buffers = lend.Buffers[[recvBuffer]byte]

// socket is a non-blocking rtnetlink socket on the runtime's poller. The type of
// mdlayher/netlink is not used, because it drops two things needed here: the
// flags of the final message of a dump, which can be the only one marked
// NLM_F_DUMP_INTR, and the control data that names an event's namespace.
type socket struct {
	f   *os.File
	raw syscall.RawConn
}

// openSocket opens a socket in the namespace of nsfd, or in that of the calling
// thread when nsfd is not positive.
func openSocket(nsfd int) (*socket, error) {
	if nsfd <= 0 {
		return newSocket()
	}
	dup, err := unix.FcntlInt(uintptr(nsfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	ns := os.NewFile(uintptr(dup), "netns")
	defer ns.Close()
	var s *socket
	err = netns.Do(ns, func() error {
		var err error
		s, err = newSocket()
		return err
	})
	return s, err
}

// newSocket opens a socket in the namespace of the calling thread, with the
// kernel's error texts (NETLINK_EXT_ACK), without a copy of the request in each
// acknowledgement (NETLINK_CAP_ACK), and with dump requests checked strictly
// (NETLINK_GET_STRICT_CHK, Linux 4.20): without it the kernel ignores filters.
func newSocket() (*socket, error) {
	const flags = unix.SOCK_RAW | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	fd, err := unix.Socket(unix.AF_NETLINK, flags, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := setUp(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "rtnetlink")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &socket{f: f, raw: raw}, nil
}

// setUp binds the socket to a port of the kernel's choice and sets its options.
func setUp(fd int) error {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1); err != nil {
			return fmt.Errorf("set netlink option %d: %w", opt, err)
		}
	}
	return nil
}

func (s *socket) close() error { return s.f.Close() }

// option sets an integer option of level SOL_NETLINK.
func (s *socket) option(opt, value int) error {
	var err error
	if cerr := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, opt, value)
	}); cerr != nil {
		return cerr
	}
	return err
}

// namespace opens the namespace that the socket is in. It needs CAP_NET_ADMIN
// there, and no descriptor held in reserve.
func (s *socket) namespace() (*os.File, error) {
	var ns int
	var err error
	if cerr := s.raw.Control(func(fd uintptr) {
		ns, err = unix.IoctlRetInt(int(fd), unix.SIOCGSKNS)
	}); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, os.NewSyscallError("ioctl SIOCGSKNS", err)
	}
	return os.NewFile(uintptr(ns), "netns"), nil
}

// send sends one datagram to the kernel.
func (s *socket) send(b []byte) error {
	var err error
	werr := s.raw.Write(func(fd uintptr) bool {
		for {
			err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		return !errors.Is(err, unix.EAGAIN)
	})
	if werr != nil {
		return werr
	}
	return os.NewSyscallError("sendto", err)
}

// recv receives one datagram of the kernel's and its control data, and waits for
// it until the read deadline that until keeps. Datagrams of other senders are
// passed over: whoever has CAP_NET_ADMIN in a namespace that is listened to can
// send to its multicast groups.
func (s *socket) recv(b, oob []byte) (n, oobn int, err error) {
	var flags int
	rerr := s.raw.Read(func(fd uintptr) bool {
		for {
			var from unix.Sockaddr
			n, oobn, flags, from, err = unix.Recvmsg(int(fd), b, oob, 0)
			if !errors.Is(err, unix.EINTR) && (err != nil || fromKernel(from)) {
				break
			}
		}
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case errors.Is(rerr, os.ErrDeadlineExceeded):
		return 0, 0, rerr
	case rerr != nil:
		// The runtime's own error for this has no exported value.
		return 0, 0, os.ErrClosed
	case err != nil:
		return 0, 0, os.NewSyscallError("recvmsg", err)
	case flags&unix.MSG_TRUNC != 0:
		return 0, 0, fmt.Errorf("recvmsg: message longer than %d bytes", len(b))
	}
	return n, oobn, nil
}

// fromKernel tells whether a datagram came from port 0.
func fromKernel(from unix.Sockaddr) bool {
	sa, ok := from.(*unix.SockaddrNetlink)
	return ok && sa.Pid == 0
}

// until makes waiting in recv end when ctx does. The returned function must be
// called before the next use of the socket; it takes the deadline back, and
// gives the error to return: the context's when the context was the cause.
func (s *socket) until(ctx context.Context) func(error) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		// A closed file refuses a deadline, and wakes its readers itself.
		_ = s.f.SetReadDeadline(time.Unix(1, 0))
	})
	return func(err error) error {
		if !stop() {
			<-ended
			_ = s.f.SetReadDeadline(time.Time{})
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return context.Cause(ctx)
		}
		return err
	}
}
