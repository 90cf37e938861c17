package server_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/server/servertest"
)

const adopting = "POST /v1/sandboxes?dryRun=true HTTP/1.1\r\nHost: x\r\nContent-Length: 42\r\n\r\n" +
	`{"name":"web","adopt":true,"networks":[]} `

// fdSeen records what namespaces the engine was given.
type fdSeen struct {
	inodes []uint64
	pids   []int
}

func (s *fdSeen) see(from api.Caller) {
	s.pids = append(s.pids, from.PID)
	if from.Netns == nil {
		return
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(from.Netns.Fd()), &st); err == nil {
		s.inodes = append(s.inodes, st.Ino)
	}
}

// send writes text with the descriptors beside it, and returns the answer's status.
func send(t *testing.T, c *net.UnixConn, text string, fds ...int) int {
	t.Helper()
	if _, _, err := c.WriteMsgUnix([]byte(text), syscall.UnixRights(fds...), nil); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

func dial(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hasWriter reports whether the pipe that r reads has a writer left: a
// leaked copy in the server keeps it from its end.
func hasWriter(t *testing.T, r *os.File) bool {
	t.Helper()
	_, err := r.Read(make([]byte, 1))
	return err != io.EOF
}

func TestDescriptorReachesTheEngineAndIsClosed(t *testing.T) {
	var seen fdSeen
	engine := servertest.New()
	engine.Seen = seen.see
	socket := servertest.Start(t, engine)
	c := dial(t, socket)
	var readers []*os.File
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if status := send(t, c, adopting, int(w.Fd())); status != 200 {
			t.Fatalf("status %d", status)
		}
		_ = w.Close()
		readers = append(readers, r)
	}
	if len(seen.inodes) != 2 || seen.inodes[0] == seen.inodes[1] || seen.pids[0] != os.Getpid() {
		t.Errorf("seen: %+v", seen)
	}
	// Reads block until the server's copies are gone: no EOF would be a leak,
	// and the test would time out.
	for _, r := range readers {
		if hasWriter(t, r) {
			t.Error("a descriptor outlived its request")
		}
		_ = r.Close()
	}
	_ = c.Close()
}

func TestDescriptorsAreClosedWithTheConnection(t *testing.T) {
	socket := servertest.Start(t, servertest.New())
	c := dial(t, socket)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.WriteMsgUnix([]byte("GET / HT"), syscall.UnixRights(int(w.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	_ = c.Close()
	if hasWriter(t, r) {
		t.Error("a descriptor outlived its connection")
	}
}

func TestDescriptorsThatDoNotFit(t *testing.T) {
	socket := servertest.Start(t, servertest.New())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fd := int(w.Fd())
	plain := strings.Replace(adopting, `"adopt":true`, `"labels":{ }`, 1)
	for _, c := range []struct {
		name, text string
		fds        []int
	}{
		{"two", adopting, []int{fd, fd}},
		{"more than are kept", adopting, []int{fd, fd, fd, fd, fd, fd}},
		{"not asked for", plain, []int{fd}},
	} {
		conn := dial(t, socket)
		if status := send(t, conn, c.text, c.fds...); status != 400 {
			t.Errorf("%s: status %d", c.name, status)
		}
		_ = conn.Close()
	}
	_ = w.Close()
	if hasWriter(t, r) {
		t.Error("a refused descriptor was kept")
	}
}
