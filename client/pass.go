package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
)

// passingConn is a connection whose first bytes carry a descriptor.
type passingConn struct {
	*net.UnixConn
	// pass is nil once it is sent. Only the goroutine that writes touches it.
	pass *os.File
}

// dialPassing connects to socket; the first write sends pass along.
func dialPassing(ctx context.Context, socket string, pass *os.File) (net.Conn, error) {
	c, err := dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connect to %s: not a Unix socket", socket), c.Close())
	}
	return &passingConn{u, pass}, nil
}

// Write sends b, and the descriptor beside its first bytes. The kernel may
// take a part of b only; the descriptor goes with the first byte of it.
func (c *passingConn) Write(b []byte) (int, error) {
	if c.pass == nil || len(b) == 0 {
		return c.UnixConn.Write(b)
	}
	n, _, err := c.WriteMsgUnix(b, syscall.UnixRights(int(c.pass.Fd())), nil)
	runtime.KeepAlive(c.pass)
	if err != nil {
		return n, err
	}
	c.pass = nil
	if n == len(b) {
		// A write of nothing is still a system call, which fails with EPIPE when
		// the daemon has answered and closed already.
		return n, nil
	}
	rest, err := c.UnixConn.Write(b[n:])
	return n + rest, err
}
