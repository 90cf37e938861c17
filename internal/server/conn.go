package server

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"

	"github.com/towpath/towpath/api"
)

// maxFiles is how many descriptors one request may bring. One is needed; the
// rest is room to say that there were too many.
const maxFiles = 4

// conn is a connection that keeps the descriptors which come with the bytes.
type conn struct {
	*net.UnixConn
	pid int

	mu sync.Mutex
	// files came with what was read so far and belong to the next request.
	files []*os.File
	// overflow says that more came than were kept.
	overflow bool
}

// newConn wraps a connection that was just accepted.
func newConn(c *net.UnixConn) *conn { return &conn{UnixConn: c, pid: peerPID(c)} }

// peerPID is the process that connected (SO_PEERCRED), 0 if unknown.
func peerPID(c *net.UnixConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	err = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	if err != nil {
		return 0
	}
	return pid
}

// Read is that of a stream; descriptors beside the bytes are kept. The kernel
// never joins the bytes of two messages with rights in one read (unix(7)), so
// one control buffer is enough. net sets MSG_CMSG_CLOEXEC.
func (c *conn) Read(b []byte) (int, error) {
	var oob [64]byte
	n, oobn, flags, _, err := c.ReadMsgUnix(b, oob[:syscall.CmsgSpace(4*maxFiles)])
	if oobn > 0 {
		c.keep(oob[:oobn])
	}
	if flags&syscall.MSG_CTRUNC != 0 {
		c.mu.Lock()
		c.overflow = true
		c.mu.Unlock()
	}
	if errors.Is(err, io.EOF) {
		// ReadMsgUnix wraps it, which readers of a stream do not expect.
		return n, io.EOF
	}
	// It gives -1 with an error of the kernel, as ECONNRESET; bufio panics at that.
	return max(n, 0), err
}

// keep takes over the descriptors in a control message.
func (c *conn) keep(oob []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		c.overflow = true
		return
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if len(c.files) == maxFiles {
				c.overflow = true
				_ = syscall.Close(fd)
				continue
			}
			c.files = append(c.files, os.NewFile(uintptr(fd), "namespace passed by the caller"))
		}
	}
}

// take hands over what came, and whether more came than was kept.
func (c *conn) take() ([]*os.File, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, overflow := c.files, c.overflow
	c.files, c.overflow = nil, false
	return files, overflow
}

// Close closes the connection and the descriptors no request took.
func (c *conn) Close() error {
	files, _ := c.take()
	closeAll(files)
	return c.UnixConn.Close()
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

type (
	connKey    struct{}
	arrivalKey struct{}
)

// arrival is what came beside the bytes of a request.
type arrival struct {
	files    []*os.File
	overflow bool
	pid      int
}

// withCaller gives each request the descriptors that came with it, and closes
// them when it is done. They come with the request's first bytes, so they are
// here when its headers are.
func withCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := r.Context().Value(connKey{}).(*conn)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		files, overflow := c.take()
		defer closeAll(files)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), arrivalKey{}, arrival{files, overflow, c.pid})))
	})
}

// callerFor is who sent r, with the namespace it passed if adopt says that it
// has to be there.
func callerFor(r *http.Request, adopt bool) (api.Caller, error) {
	came, _ := r.Context().Value(arrivalKey{}).(arrival)
	switch {
	case came.overflow || len(came.files) > 1:
		return api.Caller{}, api.Errorf(api.Invalid, "more than one descriptor came with the request")
	case adopt && len(came.files) == 0:
		return api.Caller{}, api.Errorf(api.Invalid, "adopt is set, and no namespace came with the request").
			WithFix("send its descriptor with the first bytes of the request (SCM_RIGHTS)")
	case !adopt && len(came.files) > 0:
		return api.Caller{}, api.Errorf(api.Invalid, "a descriptor came with the request, and adopt is not set")
	}
	from := api.Caller{PID: came.pid}
	if adopt {
		from.Netns = came.files[0]
	}
	return from, nil
}
