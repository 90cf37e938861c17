//go:build linux

package ports

import (
	"errors"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// shelf is a Store in memory.
type shelf struct {
	files map[string]*os.File
	full  bool
}

var errFull = errors.New("full")

func (s *shelf) Keep(name string, files ...*os.File) error {
	if s.full {
		return errFull
	}
	fd, err := unix.FcntlInt(files[0].Fd(), unix.F_DUPFD_CLOEXEC, 0)
	s.files[name] = os.NewFile(uintptr(fd), name)
	return err
}

func (s *shelf) Drop(name string) error {
	f := s.files[name]
	delete(s.files, name)
	if f == nil {
		return nil
	}
	return f.Close()
}

func (s *shelf) Settle() error { return nil }

// TestKeep: what one Holder held another takes over, without a moment in which
// somebody else gets the port.
func TestKeep(t *testing.T) {
	n := newHost(t)
	s := &shelf{files: map[string]*os.File{}}
	var told []error
	n.h.KeepIn(s, func(err error) { told = append(told, err) })
	all := []Port{
		{Proto: "tcp", Addr: at("[::]:80"), Count: 2},
		{Proto: "udp", Addr: at("0.0.0.0:53")},
		{Proto: "tcp6", Addr: at("[::]:90")},
		{Proto: "udp", Addr: at("[2001:db8::9]:53")},
		{Proto: "tcp", Addr: at("192.0.2.9:443")},
	}
	must(t, n.hold(t, all...))
	names := []string{"tcp-443-192.0.2.9", "tcp-80", "tcp-81", "tcp6-90", "udp-53-0.0.0.0", "udp-53-2001_db8__9"}
	if diff := cmp.Diff(names, slices.Sorted(maps.Keys(s.files))); diff != "" {
		t.Fatalf("kept (-want +got):\n%s", diff)
	}
	must(t, n.h.Close())
	r := n.rival(t)
	next := New()
	t.Cleanup(func() { must(t, next.Close()) })
	for name, f := range s.files {
		if got := r.ask(t, "try", all[0].Proto, "[::]:80"); got != unix.EADDRINUSE.Error() {
			t.Errorf("somebody else: %s", got)
		}
		if !Kept(name) {
			t.Errorf("%s is no name of a port", name)
		}
		must(t, next.Resume(name, f))
	}
	if err := next.Resume("tcp-80", s.files["tcp-80"]); err == nil {
		t.Error("a port was resumed twice")
	}
	next.KeepIn(s, func(err error) { told = append(told, err) })
	n.h = next
	must(t, n.hold(t, all[1:]...)) // nobody asks for the first
	must(t, next.Discard())
	if got := r.ask(t, "try", "tcp", "[::]:80"); got != "ok" {
		t.Errorf("what nobody asked for: %s", got)
	}
	if got := r.ask(t, "try", "tcp", "[::]:90 v6only"); got != unix.EADDRINUSE.Error() {
		t.Errorf("what was asked for: %s", got)
	}
	must(t, next.Release(all[2]))
	if got := r.ask(t, "try", "tcp", "[::]:90 v6only"); got != "ok" || s.files["tcp6-90"] != nil {
		t.Errorf("what was released: %s", got)
	}
	s.full = true
	must(t, n.hold(t, Port{Proto: "tcp", Addr: at("[::]:7000"), Count: 9}))
	if len(told) != 1 || !errors.Is(told[0], errFull) {
		t.Errorf("told of a full store %v", told)
	}
}

// TestResumeRefuses: only the socket that its name says.
func TestResumeRefuses(t *testing.T) {
	n := newHost(t)
	s := &shelf{files: map[string]*os.File{}}
	n.h.KeepIn(s, nil)
	must(t, n.hold(t, Port{Proto: "tcp", Addr: at("[::]:80")}))
	must(t, n.h.Close())
	f := s.files["tcp-80"]
	defer f.Close() //nolint:errcheck // of the test
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close() //nolint:errcheck // of the test
	next := New()
	for _, name := range []string{"tcp-81", "udp-80", "tcp6-80", "tcp-80-127.0.0.1", "resolver-web", "tcp-0", "tcp-99999", "tcp-080", "tcp-80-x"} {
		if next.Resume(name, f) == nil {
			t.Errorf("%s was resumed", name)
		}
	}
	if next.Resume("tcp-80", null) == nil {
		t.Error("a file was resumed")
	}
	must(t, next.Resume("tcp-80", f))
	must(t, next.Close())
}

// FuzzParseName: what is read as the name of a port is its name.
func FuzzParseName(f *testing.F) {
	for _, name := range []string{"tcp-80", "udp6-53", "sctp-9-192.0.2.9", "tcp-80-fe80__1%eth0", "resolver-web", "tcp-80-", "-"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if p, ok := parseName(name); ok && (p.slot().name() != name || p.Addr.Port() == 0) {
			t.Errorf("%q is read as %s", name, p)
		}
	})
}
