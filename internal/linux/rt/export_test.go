//go:build linux

package rt

import "golang.org/x/sys/unix"

// Shrink gives a Monitor the smallest receive buffer there is.
func (m *Monitor) Shrink() error {
	var err error
	if cerr := m.sock.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
	}); cerr != nil {
		return cerr
	}
	return err
}
