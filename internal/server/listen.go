package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// maxPath is the longest path of a socket in bytes: sun_path less its zero (unix(7)).
const maxPath = 107

// socketMode: who may write to the socket may do with the network what root may.
const socketMode = 0o660

// Listen makes the daemon's socket, for root and, unless it is empty, for the
// group of that name or number. A socket that nobody answers on is replaced.
func Listen(path, group string) (net.Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("listen on %s: the path is over %d bytes, which the kernel does not allow", path, maxPath)
	}
	gid, err := lookupGroup(group)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// A socket takes its mode from the descriptor that is bound, so this leaves
	// no moment in which others may connect, whatever the umask.
	cfg := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var mode error
		err := raw.Control(func(fd uintptr) { mode = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, mode)
	}}
	l, err := cfg.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := share(path, gid); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// share opens the socket to the group; -1 leaves its group alone.
func share(path string, gid int) error {
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("give socket to group: %w", err)
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return fmt.Errorf("open socket to group: %w", err)
	}
	return nil
}

// lookupGroup finds a group by name or number; none is -1.
func lookupGroup(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if gid, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, fmt.Errorf("find group: %w; make it, or leave out --group", err)
	}
	return strconv.Atoi(g.Gid)
}

// removeStale takes away a socket that a daemon left behind when it was
// killed, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("listen on %s: something that is not a socket is there; move it away, or give another --run-dir", path)
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("listen: another towpathd answers on %s; stop that one, or give another --run-dir", path), c.Close())
	}
	// Only a refusal proves that nobody listens: a full backlog is EAGAIN.
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen on %s: ask who is there: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}
