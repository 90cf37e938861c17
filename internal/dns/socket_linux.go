package dns

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// peer is where a datagram came from, in the kernel's form.
type peer struct {
	addr [syscall.SizeofSockaddrAny]byte
	size uint32
}

// sockets is a sandbox's: which socket a query comes in on says who asks, as
// all of them come from 127.0.0.1.
type sockets struct {
	s       *Server
	sandbox string
	udp     *net.UDPConn
	raw     syscall.RawConn
	tcp     net.Listener
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool

	all      bucket // queries
	forward  bucket // those that go upstream
	flying   atomic.Int32
	lastTold atomic.Int64
	count    counters
}

func newSockets(s *Server, sandbox string, udp *net.UDPConn, tcp net.Listener) (*sockets, error) {
	k := &sockets{s: s, sandbox: sandbox, udp: udp, tcp: tcp}
	if udp != nil {
		var err error
		if k.raw, err = udp.SyscallConn(); err != nil {
			return nil, err
		}
	}
	k.all.rate, k.forward.rate = s.cfg.Rate, s.cfg.ForwardRate
	k.ctx, k.cancel = context.WithCancel(s.ctx)
	return k, nil
}

// serve starts a goroutine a socket.
func (k *sockets) serve() {
	if k.udp != nil {
		k.wg.Go(k.serveUDP)
	}
	if k.tcp != nil {
		k.wg.Go(k.serveTCP)
	}
}

// close closes all and waits: a socket is gone only when the last one who uses
// it lets go of it, and until then it keeps the namespace.
func (k *sockets) close() error {
	k.cancel()
	k.mu.Lock()
	k.closed = true
	for c := range k.conns {
		c.Close()
	}
	k.mu.Unlock()
	err := closeBoth(k.udp, k.tcp)
	k.wg.Wait()
	return err
}

// serveUDP answers until the socket is closed. It waits without a buffer: what
// a silent sandbox costs is this goroutine.
func (k *sockets) serveUDP() {
	var failed syscall.Errno
	err := k.raw.Read(func(fd uintptr) bool {
		failed = k.drain(fd)
		return failed != syscall.EAGAIN
	})
	if err == nil {
		err = os.NewSyscallError("recvfrom", failed)
	}
	if k.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		k.s.cfg.Log.Error("resolver socket failed", "sandbox", k.sandbox, "err", err)
	}
}

// drain answers what is in the queue, and returns why it stopped.
func (k *sockets) drain(fd uintptr) syscall.Errno {
	p := k.s.packet()
	defer func() { k.s.release(p) }()
	for {
		size, errno := receive(fd, p)
		switch errno {
		case 0:
		case syscall.EINTR, syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH:
			continue // an ICMP error for an answer is told with the next call
		default:
			return errno
		}
		answer, m := k.s.local(k, p, size, false)
		switch {
		case answer != nil:
			send(fd, answer, &p.from)
		case m != nil:
			if answer := k.s.external(k, m, p, nil); answer != nil {
				send(fd, answer, &p.from)
			} else {
				p = k.s.packet() // the other went with the query
			}
		}
	}
}

// receive takes one datagram. It has the size that was sent, which may be more
// than there is room for (MSG_TRUNC). The calls of package net would need the
// buffer while they wait.
func receive(fd uintptr, p *packet) (int, syscall.Errno) {
	p.from.size = uint32(len(p.from.addr))
	n, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM, fd,
		uintptr(unsafe.Pointer(&p.in[0])), uintptr(len(p.in)), syscall.MSG_TRUNC|syscall.MSG_DONTWAIT,
		uintptr(unsafe.Pointer(&p.from.addr[0])), uintptr(unsafe.Pointer(&p.from.size)))
	return int(n), errno
}

// send sends one datagram. When that fails, the client's time-out tells: there
// is nobody else to tell.
func send(fd uintptr, b []byte, to *peer) {
	_, _, _ = syscall.Syscall6(syscall.SYS_SENDTO, fd,
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL,
		uintptr(unsafe.Pointer(&to.addr[0])), uintptr(to.size))
}

// reply sends an answer from another goroutine than drain's. The socket may be
// closed by now.
func (k *sockets) reply(answer []byte, to *peer) {
	_ = k.raw.Write(func(fd uintptr) bool {
		send(fd, answer, to)
		return true
	})
}

// bucket limits a rate: a second's worth may come at once.
type bucket struct {
	rate   int // a second; below 1: no limit
	mu     sync.Mutex
	tokens int64 // in nanoseconds of the rate
	at     time.Time
}

// take takes one, if there is one.
func (b *bucket) take(now time.Time) bool {
	if b.rate < 1 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	price := int64(time.Second) / int64(b.rate)
	b.tokens = min(b.tokens+min(now.Sub(b.at), time.Second).Nanoseconds(), int64(time.Second))
	b.at = now
	if b.tokens < price {
		return false
	}
	b.tokens -= price
	return true
}
