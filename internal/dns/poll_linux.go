package dns

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// poller waits for all sandboxes' sockets at once, in a few threads: a goroutine
// a socket would cost several kilobytes for each sandbox that asks nothing. Events
// are edge-triggered, so a socket is read until it is empty, or until others have
// waited long enough.
type poller struct {
	epoll, wake int
	wg          sync.WaitGroup

	mu      sync.RWMutex
	sockets map[int32]*sockets // by descriptor
}

// maxPollers bounds the threads.
const maxPollers = 8

// etIn is EPOLLIN and EPOLLET, which package syscall has as a negative number.
const etIn = syscall.EPOLLIN | 1<<31

func newPoller() (*poller, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, _, errno := syscall.RawSyscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		syscall.Close(epoll)
		return nil, os.NewSyscallError("eventfd2", errno)
	}
	p := &poller{epoll: epoll, wake: int(wake), sockets: map[int32]*sockets{}}
	// Level-triggered and never read: it wakes every thread.
	if err := p.control(syscall.EPOLL_CTL_ADD, p.wake, syscall.EPOLLIN); err != nil {
		syscall.Close(p.wake)
		syscall.Close(epoll)
		return nil, err
	}
	for range min(runtime.GOMAXPROCS(0), maxPollers) {
		p.wg.Go(p.run)
	}
	return p, nil
}

func (p *poller) control(op, fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(p.epoll, op, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)}))
}

// add begins to wait for a socket.
func (p *poller) add(fd int, k *sockets) error {
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

// owner gives whose socket it is, and keeps it open until leave.
func (p *poller) owner(fd int32) *sockets {
	p.mu.RLock()
	defer p.mu.RUnlock()
	k := p.sockets[fd]
	if k != nil {
		k.wg.Add(1)
	}
	return k
}

// enter keeps a socket open until leave, if it is open.
func (k *sockets) enter(fd int) bool {
	p := k.s.poll
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.sockets[int32(fd)] != k {
		return false // the number may be another's by now
	}
	k.wg.Add(1)
	return true
}

func (k *sockets) leave() { k.wg.Done() }

// again makes a socket's event come once more if it is not empty.
func (p *poller) again(fd int) {
	// One that was removed meanwhile needs none.
	_ = p.control(syscall.EPOLL_CTL_MOD, fd, etIn)
}

// run handles events until close.
func (p *poller) run() {
	var events [16]syscall.EpollEvent
	for {
		// syscall.EpollWait has a time-out in its name's sense only.
		n, err := syscall.EpollWait(p.epoll, events[:], -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == p.wake {
				return
			}
			if k := p.owner(e.Fd); k != nil {
				k.ready(int(e.Fd))
				k.leave()
			}
		}
	}
}

// close ends the threads.
func (p *poller) close() error {
	one := uint64(1)
	_, err := syscall.Write(p.wake, unsafe.Slice((*byte)(unsafe.Pointer(&one)), 8))
	p.wg.Wait()
	return errors.Join(os.NewSyscallError("write", err), syscall.Close(p.wake), syscall.Close(p.epoll))
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
