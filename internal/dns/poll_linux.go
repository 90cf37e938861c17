package dns

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// poller waits for the sockets of many sandboxes in one goroutine: one a socket
// would cost several kilobytes for each sandbox that asks nothing. It has an epoll
// of its own inside of the runtime's, so that nothing of the runtime is blocked
// while it waits. Events are edge-triggered, so a socket is read until it is empty,
// or until others have waited long enough.
type poller struct {
	epoll *os.File
	fd    int // of epoll
	wg    sync.WaitGroup

	mu      sync.RWMutex
	sockets map[int32]waiting // by descriptor

	staggers staggers
	answer   [maxAnswer]byte // of an upstream, for run alone
}

// waiting is whose a socket is.
type waiting interface {
	enter()       // the socket stays open until leave
	ready(fd int) // it has something
	leave()
}

// maxPollers bounds how many processors a server uses for what is local.
const maxPollers = 8

// etIn is EPOLLIN and EPOLLET, which package syscall has as a negative number.
const etIn = syscall.EPOLLIN | 1<<31

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // or the runtime does not wait for it
		syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &poller{epoll: os.NewFile(uintptr(fd), "epoll"), fd: fd, sockets: map[int32]waiting{}}
	raw, err := p.epoll.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, p.epoll.Close())
	}
	p.wg.Go(func() { _ = raw.Read(p.run) }) // it ends when epoll is closed
	return p, nil
}

// newPollers gives one for each processor.
func newPollers() ([]*poller, error) {
	var list []*poller
	for range min(runtime.GOMAXPROCS(0), maxPollers) {
		p, err := newPoller()
		if err != nil {
			for _, p := range list {
				err = errors.Join(err, p.close())
			}
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

func (p *poller) control(op, fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(p.fd, op, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)}))
}

// add begins to wait for a socket.
func (p *poller) add(fd int, k waiting) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.control(syscall.EPOLL_CTL_ADD, fd, etIn); err != nil {
		return err
	}
	p.sockets[int32(fd)] = k
	return nil
}

// remove ends it. Those who are reading the socket go on.
func (p *poller) remove(fds ...int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fd := range fds {
		if p.sockets[int32(fd)] != nil {
			delete(p.sockets, int32(fd))
			_ = p.control(syscall.EPOLL_CTL_DEL, fd, 0) // it is closed next in any case
		}
	}
}

// closed closes a socket, which ends the wait for it too.
func (p *poller) closed(fd int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sockets, int32(fd))
	syscall.Close(fd)
}

// owner gives whose socket it is, and keeps it open until leave.
func (p *poller) owner(fd int32) waiting {
	p.mu.RLock()
	defer p.mu.RUnlock()
	k := p.sockets[fd]
	if k != nil {
		k.enter()
	}
	return k
}

// hold keeps a socket open until leave, if it is open.
func (k *sockets) hold(fd int) bool {
	p := k.poll
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.sockets[int32(fd)] != waiting(k) {
		return false // the number may be another's by now
	}
	k.enter()
	return true
}

func (k *sockets) enter() { k.wg.Add(1) }

func (k *sockets) leave() { k.wg.Done() }

// again makes a socket's event come once more if it is not empty.
func (p *poller) again(fd int) {
	// One that was removed meanwhile needs none.
	_ = p.control(syscall.EPOLL_CTL_MOD, fd, etIn)
}

// run handles the events that are there. It is called again when there are more.
func (p *poller) run(epoll uintptr) bool {
	var events [16]syscall.EpollEvent
	for {
		n, err := syscall.EpollWait(int(epoll), events[:], 0)
		if n == 0 {
			return false
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return true // it has no other error than that it is closed
		}
		for _, e := range events[:max(n, 0)] {
			if k := p.owner(e.Fd); k != nil {
				k.ready(int(e.Fd))
				k.leave()
			}
		}
	}
}

// close ends the goroutine.
func (p *poller) close() error {
	err := p.epoll.Close()
	p.wg.Wait()
	return err
}

// detached takes a descriptor out of Go's own poller: a copy of it stays, and
// the original is closed.
func detached(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	cerr := raw.Control(func(original uintptr) {
		n, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, original, syscall.F_DUPFD_CLOEXEC, 0)
		if errno != 0 {
			err = os.NewSyscallError("fcntl", errno)
			return
		}
		fd = int(n)
	})
	return fd, errors.Join(cerr, err)
}
