package explain

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCopies: a raw socket gets a copy of what comes back to anybody in its
// namespace. What was not read when it is closed the kernel drops (QUEUE_PURGE in
// inet_sock_destruct), which is no end of the packet.
func TestCopies(t *testing.T) {
	for _, c := range []struct {
		scenario      string
		family, proto int
	}{
		{"closed port", unix.AF_INET, unix.IPPROTO_TCP},
		{"closed port v6", unix.AF_INET6, unix.IPPROTO_TCP},
		{"no route on the host", unix.AF_INET, unix.IPPROTO_ICMP},
		{"no route on the host v6", unix.AF_INET6, unix.IPPROTO_ICMPV6},
	} {
		all := scenarios()
		s := all[slices.IndexFunc(all, func(s scenario) bool { return s.name == c.scenario })]
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if s.change != nil {
				s.change(w)
			}
			for _, level := range allLevels() {
				t.Run(string(level), func(t *testing.T) {
					requireLevel(t, level)
					at := *w
					at.T = t
					at.overhear(s.from, c.family, c.proto)
					s.probe(&at, level)
				})
			}
		})
	}
}

// overhear opens a raw socket that is closed as soon as something waits in it.
func (w *world) overhear(ns string, family, proto int) {
	w.Helper()
	fd := -1
	w.spaces[ns].Do(w, func() error {
		var err error
		fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
		return err
	})
	if proto == unix.IPPROTO_ICMPV6 { // no neighbour discovery: a bit for each type that it is not for
		const unreachable = 1
		f := unix.ICMPv6Filter{Data: [8]uint32{^uint32(1 << unreachable), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0)}}
		w.must(unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f))
	}
	closed := make(chan error, 1)
	go func() {
		n, err := 0, error(unix.EINTR)
		for errors.Is(err, unix.EINTR) { // the runtime's own signals
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		}
		if n == 0 && err == nil {
			err = unix.ETIMEDOUT
		}
		_ = unix.Close(fd)
		closed <- err
	}()
	w.Cleanup(func() { w.must(<-closed) })
}
