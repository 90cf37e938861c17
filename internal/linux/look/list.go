//go:build linux

package look

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
)

const (
	// turns is in how many lists each process is asked for its namespace once, and
	// the directories in which namespaces are bound are read, without a reason.
	turns = 10
	// young is for how many lists a process is asked each time: it may still be on
	// its way into the namespace that it is for.
	young = 10
)

// Lister lists the namespaces again and again, and asks only for what may have
// changed: the directories in which namespaces are bound when the kernel says that
// something was mounted, and the processes that are new, the others in turns. A
// process that goes into a namespace long after it started is seen ten lists later.
type Lister struct {
	config  Config
	mounts  *os.File // nil: it is not known when something is mounted
	round   int
	bound   map[uint64]bool
	running map[int]*running
}

// running is a process.
type running struct {
	inode uint64 // of its namespace; 0: it may not be looked at
	since int    // the list it was new in
	seen  int    // the last list it was in
}

// List prepares lists of the namespaces that a look with the same Config finds.
func List(c Config) *Lister {
	l := &Lister{config: c, running: map[int]*running{}}
	// The runtime must not wait for the file too (as it does with os.Open): what the
	// kernel has said to one is said. Without it directories are read each time.
	if fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		l.mounts = os.NewFile(uintptr(fd), "mountinfo")
	}
	return l
}

// Close ends it.
func (l *Lister) Close() error {
	if l.mounts == nil {
		return nil
	}
	return l.mounts.Close()
}

// Inodes are those of the namespaces that there are, sorted.
func (l *Lister) Inodes() ([]uint64, error) {
	l.round++
	if l.mounted() || l.bound == nil || l.round%turns == 0 {
		l.bound = map[uint64]bool{}
		for dir := range directories(l.config.RunDir) {
			for b := range boundIn(dir) {
				l.bound[b.inode] = true
			}
		}
	}
	found := maps.Clone(l.bound)
	if err := l.given(found); err != nil {
		return nil, err
	}
	l.processes(found)
	return slices.Sorted(maps.Keys(found)), nil
}

// mounted reports whether something was mounted or unmounted since it was asked
// last, which the kernel says of each open file of the mounts (mounts_poll).
func (l *Lister) mounted() bool {
	if l.mounts == nil {
		return true
	}
	fds := []unix.PollFd{{Fd: int32(l.mounts.Fd()), Events: unix.POLLPRI}}
	_, err := unix.Poll(fds, 0)
	return err != nil || fds[0].Revents != 0
}

// given adds the namespaces that are open.
func (l *Lister) given(found map[uint64]bool) error {
	files := slices.Collect(maps.Values(l.config.Named))
	if l.config.Self == nil {
		self, err := netns.Self()
		if err != nil {
			return err
		}
		defer self.Close()
		files = append(files, self)
	} else {
		files = append(files, l.config.Self)
	}
	for _, f := range files {
		inode, err := inodeOf(f)
		if err != nil {
			return err
		}
		found[inode] = true
	}
	return nil
}

// processes adds the namespaces of processes.
func (l *Lister) processes(found map[uint64]bool) {
	for pid := range pids() {
		p := l.running[pid]
		if p == nil {
			p = &running{since: l.round}
			l.running[pid] = p
		}
		if l.round-p.since < young || (pid+l.round)%turns == 0 {
			p.inode = namespaceOf(pid)
		}
		if p.seen = l.round; p.inode != 0 {
			found[p.inode] = true
		}
	}
	maps.DeleteFunc(l.running, func(_ int, p *running) bool { return p.seen != l.round })
}

// namespaceOf is the inode of a process's namespace; 0: it is gone, or another
// user's.
func namespaceOf(pid int) uint64 {
	var st unix.Stat_t
	if unix.Stat(namespacePath(pid), &st) != nil {
		return 0
	}
	return st.Ino
}

func namespacePath(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/ns/net" }

// pids are the processes that there are.
func pids() func(yield func(int) bool) {
	return func(yield func(int) bool) {
		dir, err := os.Open("/proc")
		if err != nil {
			return
		}
		defer dir.Close()
		names, _ := dir.Readdirnames(-1) // of what there is
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil && !yield(pid) {
				return
			}
		}
	}
}

// directories are where namespaces are bound, and whether they are Towpath's.
func directories(runDir string) func(yield func(dir string, ours bool) bool) {
	return func(yield func(string, bool) bool) {
		if runDir != "" && !yield(filepath.Join(runDir, "netns"), true) {
			return
		}
		for _, pattern := range []string{"/run/netns", "/run/docker/netns", "/var/run/netns", "/run/user/*/netns", "/run/*/netns"} {
			dirs, _ := filepath.Glob(pattern) // the patterns are well formed
			for _, dir := range dirs {
				if !yield(dir, false) {
					return
				}
			}
		}
	}
}

// bound is a namespace that is bound to a file.
type bound struct {
	inode      uint64
	name, path string
}

// boundIn are those of a directory; none if it is not there, or not ours to see.
func boundIn(dir string) func(yield func(bound) bool) {
	return func(yield func(bound) bool) {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			var st unix.Stat_t
			var fs unix.Statfs_t
			if unix.Statfs(path, &fs) != nil || fs.Type != unix.NSFS_MAGIC || unix.Stat(path, &st) != nil {
				continue
			}
			if !yield(bound{st.Ino, e.Name(), path}) {
				return
			}
		}
	}
}
