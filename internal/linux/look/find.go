//go:build linux

package look

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/diag"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/machine"
)

// candidate is a namespace that was found and may be read.
type candidate struct {
	inode   uint64
	name    string
	path    string
	file    *os.File // where there is no path
	ours    bool     // a sandbox, or asked for by name
	failed  bool
	holders []machine.Holder
}

// maxHolders is how many holders of a namespace are noted.
const maxHolders = 16

// find lists the namespaces: the machine's own, those bound in directories, and
// those of processes.
func (l *looker) find() error {
	self := l.Self
	var err error
	if self == nil {
		if self, err = netns.Self(); err != nil {
			return err
		}
		defer self.Close()
	}
	if err := l.given(machine.HostName, self); err != nil {
		return err
	}
	for name, f := range l.Named {
		if err := l.given(name, f); err != nil {
			return err
		}
	}
	for dir, ours := range directories(l.RunDir) {
		for b := range boundIn(dir) {
			c := l.add(&candidate{inode: b.inode, name: b.name, path: b.path, ours: ours})
			c.hold(machine.Holder{Path: b.path})
		}
	}
	l.processes()
	return nil
}

// given adds a namespace that is open.
func (l *looker) given(name string, f *os.File) error {
	kept, err := dup(f)
	if err != nil {
		return err
	}
	inode, err := inodeOf(kept)
	if err != nil {
		return errors.Join(err, kept.Close())
	}
	l.add(&candidate{inode: inode, name: name, file: kept, ours: true})
	return nil
}

// dup gives a descriptor that is closed apart from the one given.
func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func inodeOf(f *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstat", err)
	}
	return st.Ino, nil
}

// add notes a namespace that is new, and gives the one that stands for it.
func (l *looker) add(c *candidate) *candidate {
	if old := l.known[c.inode]; old != nil {
		return old
	}
	for _, other := range l.list {
		if other.name == c.name && !c.ours { // a name is one namespace's
			c.name = unnamed(c.inode)
		}
	}
	l.known[c.inode], l.list = c, append(l.list, c)
	return c
}

// unnamed is what a namespace without a name is called: as the kernel writes the
// link /proc/PID/ns/net.
func unnamed(inode uint64) string { return "net:[" + strconv.FormatUint(inode, 10) + "]" }

func (c *candidate) hold(h machine.Holder) {
	if len(c.holders) < maxHolders {
		c.holders = append(c.holders, h)
	}
}

// processes adds the namespaces of those processes that may be looked at.
func (l *looker) processes() {
	for _, pid := range slices.Sorted(pids()) {
		inode := namespaceOf(pid)
		if inode == 0 {
			continue
		}
		c := l.add(&candidate{inode: inode, name: unnamed(inode), path: namespacePath(pid)})
		if len(c.holders) < maxHolders {
			c.hold(machine.Holder{PID: pid, Command: diag.Command(pid), Cgroup: cgroup(pid)})
		}
	}
}

// cgroup is the path of a process's control group, of version 2 or else the
// first there is.
func cgroup(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	first := ""
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(parts) != 3:
		case parts[0] == "0":
			return parts[2]
		case first == "" || first == "/":
			first = parts[2]
		}
	}
	return first
}

// open opens the namespace, if it is still the one that was found.
func (c *candidate) open() (*os.File, error) {
	if c.file != nil {
		return dup(c.file)
	}
	f, err := netns.Open(c.path)
	if err != nil {
		return nil, err
	}
	if now, err := inodeOf(f); err != nil || now != c.inode {
		return nil, errors.Join(err, f.Close(), fmt.Errorf("%s is another namespace now: %w", c.path, os.ErrNotExist))
	}
	return f, nil
}

// Open opens a namespace that a look with the same Config found, if it is still
// that one; os.ErrNotExist: it is gone.
func (c Config) Open(s *machine.Space) (*os.File, error) {
	for _, f := range append([]*os.File{c.Self}, slices.Collect(maps.Values(c.Named))...) {
		if f == nil {
			continue
		}
		if now, err := inodeOf(f); err == nil && now == s.Inode {
			return dup(f)
		}
	}
	err := fmt.Errorf("open namespace %s: %w", s.Name, os.ErrNotExist)
	for _, h := range s.Holders {
		path := h.Path
		if h.PID != 0 {
			path = namespacePath(h.PID)
		}
		var f *os.File
		if f, err = (&candidate{path: path, inode: s.Inode}).open(); err == nil {
			return f, nil
		}
	}
	return nil, err
}
