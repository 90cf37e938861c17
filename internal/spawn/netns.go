package spawn

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
)

// OpenNetns opens the network namespace at path. What is something else is
// refused before it is opened in earnest, which might block or have effects.
func OpenNetns(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	var stat unix.Statfs_t
	if err := unix.Fstatfs(fd, &stat); err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", path, err)
	}
	if stat.Type != unix.NSFS_MAGIC {
		return nil, notNetns(path)
	}
	ns, err := unix.Open(fdPath(fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, openError(path, err)
	}
	kind, err := unix.IoctlRetInt(ns, unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		_ = unix.Close(ns)
		return nil, notNetns(path)
	}
	return os.NewFile(uintptr(ns), path), nil
}

// OpenPIDNetns opens the network namespace of a process. A descriptor of the
// process proves that the number did not pass to another meanwhile.
func OpenPIDNetns(pid int) (*os.File, error) {
	proc, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, processError(pid, err)
	}
	defer func() { _ = unix.Close(proc) }()
	f, err := OpenNetns(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	if err := unix.PidfdSendSignal(proc, 0, nil, 0); err != nil && !errors.Is(err, unix.EPERM) {
		_ = f.Close()
		return nil, processError(pid, err)
	}
	return f, nil
}

func notNetns(path string) error {
	return api.Errorf(api.Invalid, "%s is not a network namespace", path).
		WithFix("name one, as in /run/netns/NAME or /proc/PID/ns/net")
}

func openError(path string, err error) error {
	code := api.Failed
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		code = api.NotFound
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		code = api.Denied
	}
	e := api.Errorf(code, "open namespace %s: %w", path, err)
	switch code {
	case api.NotFound:
		return e.WithFix("see what there is: ls /run/netns")
	case api.Denied:
		return e.WithFix("who passes a namespace must be able to open it; become root")
	}
	return e
}

func processError(pid int, err error) error {
	switch {
	case errors.Is(err, unix.ESRCH):
		return api.Errorf(api.NotFound, "no process has the number %d: %w", pid, err).WithFix("it has ended; see ps")
	case errors.Is(err, unix.EINVAL):
		return api.Errorf(api.Invalid, "%d is not the number of a process: %w", pid, err).WithFix("it is 1 or more; see ps")
	}
	return api.Errorf(api.Failed, "open process %d: %w", pid, err)
}
