package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/towpath/towpath/api"
)

// NoDaemon says that no daemon could be reached at a socket.
type NoDaemon struct {
	Socket string
	// Err is what the kernel said to connect(2).
	Err error
}

// Error is one line that ends with what to do.
func (e *NoDaemon) Error() string { return e.detail() + "; " + e.Fix() }

func (e *NoDaemon) detail() string {
	if errors.Is(e.Err, fs.ErrPermission) {
		return fmt.Sprintf("you may not use the socket %s: %v", e.Socket, e.cause())
	}
	return fmt.Sprintf("no daemon answers on %s: %v", e.Socket, e.cause())
}

// cause is the kernel's own text, without the name of the system call.
func (e *NoDaemon) cause() error {
	var errno syscall.Errno
	if errors.As(e.Err, &errno) {
		return errno
	}
	return e.Err
}

// Fix is what the user can do about it.
func (e *NoDaemon) Fix() string {
	switch {
	case errors.Is(e.Err, fs.ErrPermission):
		return "become " + groupOf(e.Socket)
	case errors.Is(e.Err, syscall.EAGAIN):
		return "it is there and busy: try again"
	case e.Socket == DefaultSocket:
		return "start it with: towpathd"
	case filepath.Base(e.Socket) == filepath.Base(DefaultSocket):
		return "start it with: towpathd --run-dir " + filepath.Dir(e.Socket)
	}
	return "start it with: towpathd, and see --socket"
}

// Unwrap gives the kernel's error.
func (e *NoDaemon) Unwrap() error { return e.Err }

// Problem is the document that tells of it.
func (e *NoDaemon) Problem() api.Problem {
	p := api.Errorf(api.Unavailable, "%s", e.detail()).WithFix("%s", e.Fix()).Problem()
	p.Title = "ask towpathd"
	return p
}

// groupOf says who may use the socket, as far as it can be seen.
func groupOf(socket string) string {
	info, err := os.Stat(socket)
	if err != nil {
		return "root"
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Gid == 0 {
		return "root, or start towpathd with --group"
	}
	gid := strconv.FormatUint(uint64(stat.Gid), 10)
	g, err := user.LookupGroupId(gid)
	if err != nil {
		return "root or a member of group " + gid
	}
	return "root or a member of group " + g.Name
}
