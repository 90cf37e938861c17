//go:build linux

package ports

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// reserve is how many descriptors are left for the rest of the process: its
// store, its clients, the kernel. A small limit is left by a quarter.
const reserve = 256

// ownDescriptors is the directory of the descriptors of this process.
const ownDescriptors = "/proc/self/fd"

// LimitError says that there are too few descriptors for the ports. errors.Is
// finds unix.EMFILE in it.
type LimitError struct {
	Needed    int
	Available int
	Limit     int // RLIMIT_NOFILE, as high as this process may set it
}

// Error says what to change.
func (e *LimitError) Error() string {
	return fmt.Sprintf("needs %d file descriptors, %d of the limit of %d are left for ports: raise LimitNOFILE= of the service, or ulimit -n",
		e.Needed, e.Available, e.Limit)
}

// Unwrap gives the error of the socket that would be one too many.
func (e *LimitError) Unwrap() error { return unix.EMFILE }

// descriptors makes sure that n more can be opened.
func descriptors(n int) error {
	limit, err := raiseLimit()
	if err != nil {
		return err
	}
	used, err := used()
	if err != nil {
		return err
	}
	available := max(0, limit-used-min(reserve, limit/4))
	if n > available {
		return &LimitError{Needed: n, Available: available, Limit: limit}
	}
	return nil
}

// raiseLimit raises the soft limit to the hard one, which needs no privilege.
func raiseLimit() (int, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	if l.Cur < l.Max {
		l.Cur = l.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			return 0, os.NewSyscallError("setrlimit", err)
		}
	}
	return int(min(l.Cur, 1<<30)), nil
}

// used counts the open descriptors. Since Linux 6.2 the size of their directory
// is their number, which costs the same for ten as for ten thousand.
func used() (int, error) {
	info, err := os.Stat(ownDescriptors)
	if err == nil && info.Size() > 0 {
		return int(info.Size()), nil
	}
	names, rerr := os.ReadDir(ownDescriptors)
	if rerr != nil {
		return 0, fmt.Errorf("count file descriptors: %w", errors.Join(err, rerr))
	}
	return len(names), nil
}
