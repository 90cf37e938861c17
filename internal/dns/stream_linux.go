package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Limits of TCP. RFC 7766 lets a server close what is idle for a few seconds.
const (
	maxConns  = 64 // of one sandbox
	idle      = 10 * time.Second
	writeTime = 5 * time.Second
)

// stream is a TCP connection of a client. Answers may come in any order.
type stream struct {
	conn net.Conn
	mu   sync.Mutex
}

// write sends an answer. A client that does not read it is hung up on.
func (c *stream) write(answer []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeTime))
	both := net.Buffers{binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer}
	if _, err := both.WriteTo(c.conn); err != nil {
		c.conn.Close()
	}
}

// accept takes the connections that wait. When descriptors have run out it looks
// again a moment later.
func (k *sockets) accept() error {
	for {
		fd, _, err := syscall.Accept4(k.tcp, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		switch {
		case err == nil:
		case errors.Is(err, syscall.EAGAIN):
			return nil
		case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.ECONNABORTED):
			continue
		default:
			time.AfterFunc(100*time.Millisecond, func() {
				if k.hold(k.tcp) {
					k.poll.again(k.tcp)
					k.leave()
				}
			})
			return os.NewSyscallError("accept4", err)
		}
		f := os.NewFile(uintptr(fd), "tcp")
		conn, err := net.FileConn(f)
		f.Close()
		if err != nil {
			return err
		}
		if !k.admit(conn) {
			conn.Close()
			continue
		}
		k.wg.Go(func() { k.serveConn(conn) })
	}
}

// admit takes a connection, if there are not too many.
func (k *sockets) admit(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || len(k.conns) >= maxConns {
		return false
	}
	if k.conns == nil {
		k.conns = map[net.Conn]bool{}
	}
	k.conns[c] = true
	return true
}

// serveConn answers the queries of a connection until it ends or is idle.
func (k *sockets) serveConn(conn net.Conn) {
	defer func() {
		k.mu.Lock()
		delete(k.conns, conn)
		k.mu.Unlock()
		conn.Close()
	}()
	c := &stream{conn: conn}
	var length [2]byte
	for {
		if err := conn.SetReadDeadline(time.Now().Add(idle)); err != nil {
			return
		}
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		if !k.serveStream(c, int(binary.BigEndian.Uint16(length[:]))) {
			return
		}
	}
}

// serveStream reads and answers one query, and tells whether there may be more:
// after one that is too long or no query at all, nothing that follows is trusted.
func (k *sockets) serveStream(c *stream, size int) bool {
	p := k.s.packet()
	more := size <= maxQuery
	if _, err := io.ReadFull(c.conn, p.in[:min(size, maxQuery)]); err != nil {
		k.s.release(p)
		return false
	}
	answer, m := k.s.local(k, p, size, true)
	if answer == nil && m != nil {
		if answer = k.s.external(k, m, p, c); answer == nil {
			return more
		}
	}
	if answer == nil {
		more = false
	} else {
		c.write(answer)
	}
	k.s.release(p)
	return more
}

// limited tells of a limit that was reached, once a minute.
func (k *sockets) limited(format string, limit int) {
	now, last := time.Now(), k.lastTold.Load()
	if now.UnixNano()-last < int64(time.Minute) || !k.lastTold.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	k.s.cfg.Tell(Event{Sandbox: k.sandbox, Kind: LimitReached, Detail: fmt.Sprintf(format, limit)})
}
