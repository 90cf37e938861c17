//go:build linux

// Package fdstore has one job: to keep descriptors over a restart of the daemon,
// in the descriptor store of the service manager (sd_notify(3), FDSTORE=1). A
// socket that is kept stays open, and what comes meanwhile waits in its queue.
package fdstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Store is the descriptor store of the service manager; without one it keeps
// nothing, which is no error. Its methods may be called concurrently.
type Store struct {
	socket string // of the manager; "": there is none
	max    int

	mu    sync.Mutex
	kept  map[string]int // how many, by name
	used  int
	bytes int // of LISTEN_FDNAMES
}

// maxNames is how long the list of names may be that the manager starts us with.
// The kernel takes no string of an environment above 128 KiB (MAX_ARG_STRLEN):
// the daemon could not be started any more.
const maxNames = 120_000

// ErrFull says that the store takes no more.
var ErrFull = errors.New("the service manager's descriptor store is full (FileDescriptorStoreMax=, or 120 kB of names)")

// Open finds the store, and gives what was kept in it before, by name. It may be
// called once, before the program opens anything.
func Open() (*Store, map[string][]*os.File) {
	before := map[string][]*os.File{}
	for _, f := range activation.Files(true) {
		before[f.Name()] = append(before[f.Name()], f)
	}
	s := &Store{kept: map[string]int{}}
	for name, files := range before {
		s.count(name, len(files))
	}
	// The manager tells since version 254 how much it takes; the unit tells for
	// those before.
	socket := os.Getenv("NOTIFY_SOCKET")
	n, err := strconv.Atoi(os.Getenv("FDSTORE"))
	if err != nil || n < 1 || socket == "" {
		return s, before
	}
	s.max, s.socket = n, socket
	return s, before
}

// Keep puts files into the store under a name, in place of those that it had.
// They stay the caller's, who may close them.
func (s *Store) Keep(name string, files ...*os.File) error {
	if s.socket == "" {
		return nil
	}
	if strings.ContainsAny(name, ":\n") || name == "" || len(name) > 255 {
		return fmt.Errorf("keep descriptors: %q is no name for them", name)
	}
	if err := s.Drop(name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used+len(files) > s.max || s.bytes+listed(name, len(files)) > maxNames {
		return fmt.Errorf("keep %s: %w", name, ErrFull)
	}
	fds, err := duplicates(files)
	defer closeAll(fds)
	if err == nil {
		// FDPOLL=0: an error that waits in a socket is no reason to throw it away.
		err = s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(fds...))
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	s.count(name, len(files))
	return nil
}

// count notes that there are n more under a name, or fewer.
func (s *Store) count(name string, n int) {
	s.used += n
	s.bytes += listed(name, n)
	if s.kept[name] += n; s.kept[name] == 0 {
		delete(s.kept, name)
	}
}

// listed is how long n descriptors make the list of names.
func listed(name string, n int) int { return n * (len(name) + len(":")) }

// duplicates gives numbers to send. File.Fd is not asked, which makes the file
// wait in its calls, and with it the socket that it is a copy of.
func duplicates(files []*os.File) (fds []int, err error) {
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return fds, err
		}
		cerr := raw.Control(func(fd uintptr) {
			var dup int
			if dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); err == nil {
				fds = append(fds, dup)
			}
		})
		if err := errors.Join(cerr, err); err != nil {
			return fds, err
		}
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// Drop takes what has a name out of the store. Nothing of it is no error.
func (s *Store) Drop(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.socket == "" || s.kept[name] == 0 {
		return nil
	}
	if err := s.send("FDSTOREREMOVE=1\nFDNAME="+name, nil); err != nil {
		return fmt.Errorf("drop %s: %w", name, err)
	}
	s.count(name, -s.kept[name])
	return nil
}

// settleTime bounds the wait for the manager, which may be busy with others.
const settleTime = time.Second

// Settle waits until the manager has done what it was told: what was dropped is
// closed then. A manager that does not answer is not waited for any longer than
// a moment (sd_notify(3), BARRIER=1).
func (s *Store) Settle() error {
	if s.socket == "" {
		return nil
	}
	here, there, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("wait for the service manager: %w", err)
	}
	defer here.Close() //nolint:errcheck // nothing was written
	fds, err := duplicates([]*os.File{there})
	if err == nil {
		err = s.send("BARRIER=1", unix.UnixRights(fds...))
	}
	closeAll(fds)
	if err = errors.Join(err, there.Close()); err == nil {
		err = here.SetReadDeadline(time.Now().Add(settleTime))
	}
	if err == nil {
		if _, err = here.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
			return nil // it has closed its end
		}
	}
	return fmt.Errorf("wait for the service manager: %w", err)
}

// Names are those of what is kept, sorted.
func (s *Store) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for name := range s.kept {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// send sends one datagram with descriptors beside it.
func (s *Store) send(text string, rights []byte) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	err = unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: s.socket}, 0)
	return errors.Join(os.NewSyscallError("sendmsg", err), unix.Close(fd))
}
