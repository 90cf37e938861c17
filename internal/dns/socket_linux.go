package dns

import (
	"context"
	"errors"
	"fmt"
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
	s        *Server
	sandbox  string
	udp, tcp int // descriptors, -1 for none
	poll     *poller
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup // those who use the descriptors

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool

	all      bucket // queries
	forward  bucket // those that go upstream
	flying   atomic.Int32
	lastTold atomic.Int64
	count    counters
}

func (s *Server) newSockets(sandbox string) *sockets {
	k := &sockets{s: s, sandbox: sandbox, udp: -1, tcp: -1}
	k.all.rate, k.forward.rate = s.cfg.Rate, s.cfg.ForwardRate
	k.ctx, k.cancel = context.WithCancel(s.ctx)
	return k
}

// open takes the descriptors over and begins to serve.
func (k *sockets) open(udp *net.UDPConn, tcp net.Listener) (err error) {
	if udp != nil {
		if k.udp, err = detached(udp); err != nil {
			return err
		}
	}
	if tcp != nil {
		c, ok := tcp.(syscall.Conn)
		if !ok {
			return fmt.Errorf("%T is no socket of the kernel", tcp)
		}
		if k.tcp, err = detached(c); err != nil {
			return err
		}
	}
	for _, fd := range []int{k.udp, k.tcp} {
		if err == nil && fd >= 0 {
			err = k.poll.add(fd, k)
		}
	}
	return err
}

// close closes all and waits: a socket is gone only when the last one who uses
// it lets go of it, and until then it keeps the namespace.
func (k *sockets) close() error {
	k.cancel()
	if k.poll != nil {
		k.poll.remove(k.udp, k.tcp)
	}
	k.mu.Lock()
	k.closed = true
	for c := range k.conns {
		c.Close()
	}
	k.mu.Unlock()
	k.wg.Wait()
	var errs []error
	for _, fd := range []int{k.udp, k.tcp} {
		if fd >= 0 {
			errs = append(errs, os.NewSyscallError("close", syscall.Close(fd)))
		}
	}
	return errors.Join(errs...)
}

// ready reads a socket that has something.
func (k *sockets) ready(fd int) {
	var err error
	if fd == k.tcp {
		err = k.accept()
	} else {
		err = k.drain()
	}
	if err != nil && k.ctx.Err() == nil {
		k.s.cfg.Log.Error("resolver socket failed", "sandbox", k.sandbox, "err", err)
	}
}

// turn is how many queries are answered before other sandboxes have theirs.
const turn = 64

// drain answers what is in the queue.
func (k *sockets) drain() error {
	p := k.s.packet()
	defer func() { k.s.release(p) }()
	for range turn {
		size, errno := receive(k.udp, p)
		switch errno {
		case 0:
		case syscall.EINTR, syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH:
			continue // an ICMP error for an answer is told with the next call
		case syscall.EAGAIN:
			return nil
		default:
			return os.NewSyscallError("recvfrom", errno)
		}
		answer, m := k.s.local(k, p, size, false)
		if answer == nil && m != nil {
			if answer = k.s.external(k, m, p, nil); answer == nil {
				p = k.s.packet() // the other went with the query
			}
		}
		if answer != nil {
			send(k.udp, answer, &p.from)
		}
	}
	k.poll.again(k.udp)
	return nil
}

// receive takes one datagram. It has the size that was sent, which may be more
// than there is room for (MSG_TRUNC).
func receive(fd int, p *packet) (int, syscall.Errno) {
	p.from.size = uint32(len(p.from.addr))
	n, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(&p.in[0])), uintptr(len(p.in)), syscall.MSG_TRUNC|syscall.MSG_DONTWAIT,
		uintptr(unsafe.Pointer(&p.from.addr[0])), uintptr(unsafe.Pointer(&p.from.size)))
	return int(n), errno
}

// send sends one datagram. When that fails, the client's time-out tells: there
// is nobody else to tell.
func send(fd int, b []byte, to *peer) {
	_, _, _ = syscall.Syscall6(syscall.SYS_SENDTO, uintptr(fd),
		uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL,
		uintptr(unsafe.Pointer(&to.addr[0])), uintptr(to.size))
}

// reply sends an answer from another goroutine than drain's. The socket may be
// closed by now.
func (k *sockets) reply(answer []byte, to *peer) {
	if k.hold(k.udp) {
		send(k.udp, answer, to)
		k.leave()
	}
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
