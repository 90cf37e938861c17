package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
)

// A peer is this program again, in another namespace: a server that answers each
// byte with one, or a client that measures how long that takes. All peers are
// pinned to one processor, so that a packet's whole way is measured, and not how
// processors wake each other. They block in system calls without telling the Go
// scheduler, which would otherwise have a share in the times.

// envPeer names what a peer is: "server PORT", "server6 PORT" or "client".
const envPeer = "TOWPATH_BENCH_PEER"

// Servers listen in one family.
const (
	roleServer  = "server"
	roleServer6 = "server6"
)

// What a server does with a byte.
const (
	goOn  = 'r' // answers, and waits for the next
	hangU = 'c' // answers and hangs up
)

// beAPeer is the main function of a peer.
func beAPeer(role string) int {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	if err := pin(); err != nil {
		return tell(err)
	}
	what, port, _ := strings.Cut(role, " ")
	if what == roleServer || what == roleServer6 {
		return tell(serve(port, what == roleServer6))
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		took, err := measureLine(lines.Text())
		if err != nil {
			return tell(err)
		}
		fmt.Println(took.Nanoseconds())
	}
	return 0
}

func tell(err error) int {
	fmt.Fprintf(os.Stderr, "bench peer: %v\n", err)
	return 1
}

// pin keeps the thread on the last processor that it may use.
func pin() error {
	var may, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	for i := range len(may) * int(unsafe.Sizeof(may[0])) * 8 {
		if may.IsSet(i) {
			one.Zero()
			one.Set(i)
		}
	}
	return os.NewSyscallError("sched_setaffinity", unix.SchedSetaffinity(0, &one))
}

// call is a system call that the scheduler does not know of; one that a signal
// interrupts is made again.
func call(name string, nr, a, b, c uintptr) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(nr, a, b, c)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, os.NewSyscallError(name, errno)
		}
	}
}

func read(fd int, b *[1]byte) (int, error) {
	return call("read", unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(b)), 1)
}

func write(fd int, b *[1]byte) error {
	_, err := call("write", unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(b)), 1)
	return err
}

// socket opens a TCP socket whose calls end at last.
func socket(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	limit := unix.Timeval{Sec: 5}
	for _, opt := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, opt, &limit); err != nil {
			return -1, os.NewSyscallError("setsockopt", err)
		}
	}
	return fd, os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1))
}

// serve takes one connection after the other until it is killed.
func serve(port string, six bool) error {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	family, any := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(n)})
	if six {
		family, any = unix.AF_INET6, &unix.SockaddrInet6{Port: int(n)}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil && six {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, any)
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		return fmt.Errorf("listen on port %s: %w", port, err)
	}
	fmt.Println("ready")
	for {
		c, err := call("accept", unix.SYS_ACCEPT4, uintptr(fd), 0, 0)
		if err != nil {
			return err
		}
		answer(c)
	}
}

// answer serves one connection.
func answer(fd int) {
	defer unix.Close(fd)
	var b [1]byte
	for {
		if n, err := read(fd, &b); n != 1 || err != nil {
			return
		}
		if write(fd, &b) != nil || b[0] == hangU {
			return
		}
	}
}

// measureLine carries out "request ADDR N" or "connection ADDR N", and gives the
// median of what one took.
func measureLine(line string) (time.Duration, error) {
	f := strings.Fields(line)
	if len(f) != 3 {
		return 0, fmt.Errorf("%q is not `WHAT ADDRESS COUNT`", line)
	}
	to, err := netip.ParseAddrPort(f[1])
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(f[2])
	if err != nil {
		return 0, err
	}
	sa := newSockaddr(to)
	if f[0] == "request" {
		return requests(sa, n)
	}
	return connections(sa, n)
}

// sockaddr is an address as connect(2) takes it.
type sockaddr struct {
	family int
	raw    unsafe.Pointer
	size   uintptr
}

func newSockaddr(to netip.AddrPort) sockaddr {
	port := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, to.Port()))
	if to.Addr().Is4() {
		sa := &unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.Addr().As4(), Port: port}
		return sockaddr{unix.AF_INET, unsafe.Pointer(sa), unsafe.Sizeof(*sa)}
	}
	sa := &unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16(), Port: port}
	return sockaddr{unix.AF_INET6, unsafe.Pointer(sa), unsafe.Sizeof(*sa)}
}

func connect(sa sockaddr) (int, error) {
	fd, err := socket(sa.family)
	if err == nil {
		_, err = call("connect", unix.SYS_CONNECT, uintptr(fd), uintptr(sa.raw), sa.size)
	}
	return fd, err
}

// requests sends n bytes over one connection, each after the answer to the one
// before.
func requests(sa sockaddr, n int) (time.Duration, error) {
	fd, err := connect(sa)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	times := make([]time.Duration, 0, n)
	b := [1]byte{goOn}
	for i := range n + n/10 { // the first tenth warms up
		began := time.Now()
		if err := write(fd, &b); err != nil {
			return 0, err
		}
		if _, err := read(fd, &b); err != nil {
			return 0, err
		}
		if i >= n/10 {
			times = append(times, time.Since(began))
		}
	}
	return middle(times), nil
}

// connections opens n connections, one after the other: each is opened, sends a
// byte, gets one, and sees the server hang up.
func connections(sa sockaddr, n int) (time.Duration, error) {
	times := make([]time.Duration, n)
	for i := range times {
		began := time.Now()
		fd, err := connect(sa)
		if err != nil {
			return 0, err
		}
		b := [1]byte{hangU}
		err = write(fd, &b)
		for got := 1; got == 1 && err == nil; {
			got, err = read(fd, &b)
		}
		unix.Close(fd)
		if err != nil {
			return 0, err
		}
		times[i] = time.Since(began)
	}
	return middle(times), nil
}

func middle(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// peer is a child that is one.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// newPeer starts a peer in a namespace.
func newPeer(ctx context.Context, ns *os.File, role string) (*peer, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), envPeer+"="+role, "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := netns.Do(ns, cmd.Start); err != nil {
		return nil, fmt.Errorf("start peer: %w", err)
	}
	return &peer{cmd, in, bufio.NewReader(out)}, nil
}

// newServer starts a server, and returns when it listens.
func newServer(ctx context.Context, ns *os.File, role string, port uint16) (*peer, error) {
	p, err := newPeer(ctx, ns, fmt.Sprintf("%s %d", role, port))
	if err != nil {
		return nil, err
	}
	if _, err := p.out.ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("start server: %w", err), p.close())
	}
	return p, nil
}

// ask lets a client measure.
func (p *peer) ask(what string, to netip.AddrPort, n int) (time.Duration, error) {
	if _, err := fmt.Fprintln(p.in, what, to, n); err != nil {
		return 0, fmt.Errorf("measure %s to %s: %w", what, to, err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("measure %s to %s: %w", what, to, err)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return time.Duration(ns), err
}

// close ends the peer.
func (p *peer) close() error {
	_ = p.in.Close()
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // killed
	return nil
}
