//go:build linux

// Package netns has one job: network namespaces as files. It makes them, keeps
// them alive by bind mounts, opens them, tells them apart, and runs code inside
// them without letting a thread of the wrong namespace back into the scheduler.
package netns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// nsGetNSType is NS_GET_NSTYPE, _IO(0xb7, 0x3) of linux/nsfs.h.
	nsGetNSType = 0xb703
	// soNetnsCookie is SO_NETNS_COOKIE of asm-generic/socket.h (Linux 5.14).
	soNetnsCookie = 71
	// threadNS names the calling thread's namespace, not that of the thread
	// group leader, which /proc/self would.
	threadNS = "/proc/thread-self/ns/net"
)

// ErrNotNetns says that a file exists but is not a network namespace.
var ErrNotNetns = errors.New("not a network namespace")

// New makes a network namespace that nothing but the returned file keeps alive.
// It needs CAP_SYS_ADMIN in the caller's user namespace.
func New() (*os.File, error) {
	f, err := onThread(func() (*os.File, error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return nil, err
		}
		return os.Open(threadNS)
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return f, nil
}

// Open opens the namespace that is mounted on path. A file that is not on nsfs,
// or is a namespace of another type, is an ErrNotNetns.
func Open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	if err := check(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return f, nil
}

// OfSocket opens the namespace that a socket is in, which it keeps for life. It
// needs CAP_NET_ADMIN there.
func OfSocket(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open network namespace of socket: %w", err)
	}
	var ns int
	cerr := raw.Control(func(fd uintptr) { ns, err = unix.IoctlRetInt(int(fd), unix.SIOCGSKNS) })
	if err = errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("open network namespace of socket: %w", err)
	}
	return os.NewFile(uintptr(ns), "netns"), nil
}

// Self opens the namespace of the calling thread. The answer means something
// only while the goroutine is locked to its thread, or where no thread of the
// process has left the namespace the process started in.
func Self() (*os.File, error) {
	f, err := os.Open(threadNS)
	if err != nil {
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	return f, nil
}

// Cookie returns the number the kernel gave the namespace when it was made.
// Unlike an inode number it is never used again before the next boot. It needs
// Linux 5.14 and the right to enter the namespace.
func Cookie(f *os.File) (uint64, error) {
	var cookie uint64
	err := Do(f, func() error {
		s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		cookie, err = unix.GetsockoptUint64(s, unix.SOL_SOCKET, soNetnsCookie)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read cookie of network namespace: %w", err)
	}
	return cookie, nil
}

// Same tells whether two files are the same namespace. The answer holds while
// both are open: inode numbers of nsfs are used again.
func Same(a, b *os.File) (bool, error) {
	sa, err := a.Stat()
	if err != nil {
		return false, fmt.Errorf("compare network namespaces: %w", err)
	}
	sb, err := b.Stat()
	if err != nil {
		return false, fmt.Errorf("compare network namespaces: %w", err)
	}
	return os.SameFile(sa, sb), nil
}

// check returns nil when f is a network namespace. The file system is asked
// first, because NS_GET_NSTYPE on any other file is somebody else's ioctl.
func check(f *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return err
	}
	if fs.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("%w: file system %#x is not nsfs", ErrNotNetns, fs.Type)
	}
	typ, err := unix.IoctlRetInt(int(f.Fd()), nsGetNSType)
	if err != nil {
		return err
	}
	if typ != unix.CLONE_NEWNET {
		return fmt.Errorf("%w: namespace type %#x", ErrNotNetns, typ)
	}
	return nil
}

// onThread runs fn on a thread made for it that ends afterwards: fn may change
// whatever belongs to a thread. The runtime starts no thread from a locked one
// (it keeps a template thread for that), so nothing is inherited.
func onThread(fn func() (*os.File, error)) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result, 1)
	go offLeader(func() {
		f, err := fn()
		done <- result{f, err}
	})
	r := <-done
	return r.f, r.err
}
