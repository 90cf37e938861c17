//go:build linux

package fdstore

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is where the service manager would listen.
func manager(t *testing.T, max string) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "tp") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	addr := &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}
	c, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", addr.Name)
	t.Setenv("FDSTORE", max)
	return c
}

// hear reads one message: its lines, and how many descriptors came beside it.
func hear(t *testing.T, c *net.UnixConn) (lines []string, descriptors []int) {
	t.Helper()
	b, oob := make([]byte, 4096), make([]byte, 4096)
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			t.Fatal(err)
		}
		descriptors = append(descriptors, fds...)
	}
	return strings.Split(string(b[:n]), "\n"), descriptors
}

func TestKeepAndDrop(t *testing.T) {
	c := manager(t, "3")
	s, before := Open()
	if len(before) != 0 {
		t.Errorf("something was kept: %v", before)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := s.Keep("pipe", r, w); err != nil {
		t.Fatal(err)
	}
	lines, fds := hear(t, c)
	if !slices.Equal(lines, []string{"FDSTORE=1", "FDPOLL=0", "FDNAME=pipe"}) || len(fds) != 2 {
		t.Fatalf("kept by %q with %d descriptors", lines, len(fds))
	}
	// What arrived is what was sent.
	copied := os.NewFile(uintptr(fds[1]), "copy")
	defer copied.Close()
	defer unix.Close(fds[0])
	if _, err := copied.WriteString("x"); err != nil {
		t.Fatal(err)
	}
	if b := make([]byte, 1); true {
		if _, err := r.Read(b); err != nil || b[0] != 'x' {
			t.Errorf("read %q, %v", b, err)
		}
	}

	if err := s.Keep("more", r, w); !errors.Is(err, ErrFull) {
		t.Errorf("beyond what fits: %v", err)
	}
	if err := s.Keep("bad:name", r); err == nil || !strings.Contains(err.Error(), "is no name") {
		t.Errorf("a bad name: %v", err)
	}
	if err := s.Drop("nothing"); err != nil {
		t.Errorf("drop of nothing: %v", err)
	}
	if err := s.Drop("pipe"); err != nil {
		t.Fatal(err)
	}
	if lines, fds := hear(t, c); !slices.Equal(lines, []string{"FDSTOREREMOVE=1", "FDNAME=pipe"}) || len(fds) != 0 {
		t.Errorf("dropped by %q with %d descriptors", lines, len(fds))
	}
	if err := s.Keep("one", r); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	if _, fds := hear(t, c); len(fds) == 1 {
		unix.Close(fds[0])
	}
	if got := s.Names(); !slices.Equal(got, []string{"one"}) {
		t.Errorf("kept are %q", got)
	}
}

// TestNoStore: without a manager, or one that keeps nothing, nothing is sent and
// nothing fails.
func TestNoStore(t *testing.T) {
	for _, max := range []string{"", "0", "many"} {
		c := manager(t, max)
		s, _ := Open()
		if err := errors.Join(s.Keep("stdin", os.Stdin), s.Drop("stdin")); err != nil {
			t.Errorf("FDSTORE=%q: %v", max, err)
		}
		if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 10)); err == nil {
			t.Errorf("FDSTORE=%q: %d bytes were sent", max, n)
		}
	}
}

// TestNamesAreBounded: the manager starts the daemon with a list of all names,
// of which the kernel takes 128 KiB.
func TestNamesAreBounded(t *testing.T) {
	c := manager(t, "32768")
	go func() {
		b, oob := make([]byte, 4096), make([]byte, 4096)
		for {
			_, n, _, _, err := c.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			msgs, _ := unix.ParseSocketControlMessage(oob[:n])
			for _, m := range msgs {
				fds, _ := unix.ParseUnixRights(&m)
				closeAll(fds)
			}
		}
	}()
	s, _ := Open()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	name := func(i int) string { return strings.Repeat("n", 199) + string(rune('a'+i/26)) + string(rune('a'+i%26)) }
	n := 0
	for err == nil {
		if err = s.Keep(name(n), null, null); err == nil {
			n++
		}
	}
	if want := maxNames / (2 * len(name(0)+":")); !errors.Is(err, ErrFull) || n != want {
		t.Errorf("%d names were taken, want %d; then: %v", n, want, err)
	}
	if err := errors.Join(s.Drop(name(0)), s.Settle(), s.Keep(name(0), null, null)); err != nil {
		t.Errorf("in the place of one that was dropped: %v", err)
	}
}
