package dns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// swift is a query under way to the first upstream, in the common case: it is
// good, nobody else asks the same, and it answers within the stagger. Then it
// needs no goroutine: the poller that read the query reads the answer too. In any
// other case it becomes a race, with the try as it stands.
type swift struct {
	k    *sockets
	p    *packet
	f    *flight
	try  *try
	list []*upstream // the others
	fd   int

	mu   sync.Mutex
	over bool
}

// swift asks the first upstream, if this is the common case. Then the packet is
// in its hands.
func (s *Server) swift(k *sockets, sc *scope, p *packet) bool {
	now := time.Now()
	list, along, down := sc.order(now, s.cfg.Stagger)
	if !s.direct || !p.q.plain || along != nil || down || list[0].sandbox != "" || s.cache.get(p.key, now) != nil {
		return false
	}
	f, first := s.flights.join(p.key)
	if !first {
		return false
	}
	r := s.newRace(&s.wg, &p.q)
	w := &swift{k: k, p: p, f: f, try: r.newTry(list[0]), list: list[1:]}
	s.wg.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	if w.fd, err = dialDirect(list[0].addr); err == nil {
		if _, err = syscall.Write(w.fd, w.try.asked); err == nil {
			err = k.poll.add(w.fd, w)
		}
	}
	if err != nil {
		w.race(result{try: w.try, err: err, took: time.Since(w.try.began)})
		return true
	}
	k.poll.staggers.add(w, s.cfg.Stagger)
	return true
}

// dialDirect opens a connected UDP socket in the namespace of the process.
func dialDirect(addr netip.AddrPort) (int, error) {
	family, to := syscall.AF_INET6, syscall.Sockaddr(&syscall.SockaddrInet6{Port: int(addr.Port()), Addr: addr.Addr().As16()})
	switch {
	case addr.Addr().Is4():
		family, to = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	case addr.Addr().Zone() != "":
		link, err := net.InterfaceByName(addr.Addr().Zone())
		if err != nil {
			return -1, err
		}
		to.(*syscall.SockaddrInet6).ZoneId = uint32(link.Index)
	}
	fd, err := syscall.Socket(family, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := syscall.Connect(fd, to); err != nil {
		syscall.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// enter and leave need not do anything: what closes the socket holds mu.
func (w *swift) enter() {}
func (w *swift) leave() {}

// ready reads what came, in the poller's goroutine.
func (w *swift) ready(int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	buf := &w.k.poll.answer
	for !w.over {
		n, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM, uintptr(w.fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), syscall.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == syscall.EAGAIN:
			return
		case errno == syscall.EINTR:
		case errno != 0:
			w.race(result{try: w.try, err: os.NewSyscallError("recvfrom", errno), took: time.Since(w.try.began)})
		case matches(buf[:n], w.try.asked, w.try.race.end):
			res := result{try: w.try, msg: slices.Clone(buf[:n]), took: time.Since(w.try.began)}
			if res.good() && !truncated(res.msg) {
				w.win(res)
			} else {
				w.race(res)
			}
		}
	}
}

// win answers all who wait.
func (w *swift) win(res result) {
	w.over = true
	w.k.poll.closed(w.fd)
	s := w.k.s
	w.try.race.seen(res)
	w.f.out = s.keep(string(w.p.key))(res, nil)
	s.flights.land(w.f, w.p.key)
	w.k.deliver(w.p, nil, w.f.out)
	s.wg.Done()
}

// timeout is the end of the stagger.
func (w *swift) timeout() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.race(result{try: w.try, err: os.ErrDeadlineExceeded, took: time.Since(w.try.began)})
	}
}

// race goes on with others, in a goroutine.
func (w *swift) race(first result) {
	w.over = true
	w.k.poll.remove(w.fd)
	s, r := w.k.s, w.try.race
	go func() {
		defer s.wg.Done()
		defer r.begin(s.ctx, len(w.list)+1)()
		if w.fd >= 0 {
			w.try.adopt(w.fd)
		}
		if !errors.Is(first.err, os.ErrDeadlineExceeded) {
			first = w.try.end(first.msg, first.err)
		}
		w.f.out = s.keep(string(w.p.key))(r.goOn(s.ctx, first, w.list))
		s.flights.land(w.f, w.p.key)
		w.k.deliver(w.p, nil, w.f.out)
	}()
}

// adopt makes a socket of the runtime of a descriptor. If that cannot be, the
// try has an error.
func (t *try) adopt(fd int) {
	f := os.NewFile(uintptr(fd), "udp")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.err = err
		return
	}
	t.use(conn)
}

// staggers are the queries that may become late, in the order they were asked,
// which is that of their time. One timer serves them all: a timer for each would
// wake another thread of the runtime for each query.
type staggers struct {
	mu    sync.Mutex
	queue []*swift
	timer *time.Timer
	armed bool
}

// add notes a query that was just asked.
func (l *staggers) add(w *swift, stagger time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, w)
	switch {
	case l.armed: // for an earlier one, also if that has been answered
	case l.timer == nil:
		l.timer = time.AfterFunc(stagger, func() { l.expire(stagger) })
	default:
		l.timer.Reset(stagger)
	}
	l.armed = true
}

// expire tells those whose time is over.
func (l *staggers) expire(stagger time.Duration) {
	now := time.Now()
	l.mu.Lock()
	n := 0
	for n < len(l.queue) && now.Sub(l.queue[n].try.began) >= stagger {
		n++
	}
	due := slices.Clone(l.queue[:n])
	l.queue = slices.Delete(l.queue, 0, n)
	if l.armed = len(l.queue) > 0; l.armed {
		l.timer.Reset(stagger - now.Sub(l.queue[0].try.began))
	} else {
		l.queue = nil
	}
	l.mu.Unlock()
	for _, w := range due {
		w.timeout()
	}
}
