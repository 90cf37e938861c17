package dns

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// The files of a host.
const (
	ResolvConf = "/etc/resolv.conf"
	// ResolvedConf is where systemd-resolved writes what its stub asks.
	ResolvedConf = "/run/systemd/resolve/resolv.conf"
)

// HostConf is the host's resolv.conf as it is now: a change holds with the next
// query. While the file is not there or names no server, the last one that did
// holds: it may be in the middle of being replaced.
type HostConf struct {
	file, resolved string
	changed        func(Conf)
	events         *os.File
	raw            syscall.RawConn  // of events
	watched        map[int32]string // folders, by the number of their watch
	names          map[string]bool  // files and folders that matter, by path
	now            atomic.Pointer[hostConf]
	done           chan struct{}
}

type hostConf struct {
	conf      Conf
	upstreams []netip.AddrPort
}

// WatchHostConf reads and watches a resolv.conf, and the file with what a stub
// of systemd-resolved asks. The function is called after each change, and may be nil.
func WatchHostConf(file, resolved string, changed func(Conf)) (*HostConf, error) {
	if changed == nil {
		changed = func(Conf) {}
	}
	fd, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", file, os.NewSyscallError("inotify_init1", err))
	}
	h := &HostConf{
		file: file, resolved: resolved, changed: changed, done: make(chan struct{}),
		events: os.NewFile(uintptr(fd), "inotify"), watched: map[int32]string{},
	}
	h.now.Store(&hostConf{})
	if h.raw, err = h.events.SyscallConn(); err == nil {
		_, err = h.read()
	}
	if err != nil {
		h.events.Close()
		return nil, fmt.Errorf("watch %s: %w", file, err)
	}
	go h.follow()
	return h, nil
}

// Upstreams gives the servers, best first. It is not changed: another list is
// another slice.
func (h *HostConf) Upstreams() []netip.AddrPort { return h.now.Load().upstreams }

// Conf is what the file says.
func (h *HostConf) Conf() Conf { return h.now.Load().conf }

// Close ends the watch. The last state stays.
func (h *HostConf) Close() error {
	err := h.events.Close()
	<-h.done
	return err
}

// follow reads events until the watch is closed.
func (h *HostConf) follow() {
	defer close(h.done)
	b := make([]byte, 16<<10)
	for {
		n, err := h.events.Read(b)
		if err != nil {
			return
		}
		if !h.concerns(b[:n]) {
			continue
		}
		// A watch that cannot be set is set with the next event of its parents.
		if news, err := h.read(); err == nil && news {
			h.changed(h.Conf())
		}
	}
}

// concerns tells whether one of the events is about a file or folder that matters.
func (h *HostConf) concerns(b []byte) bool {
	found := false
	for len(b) >= syscall.SizeofInotifyEvent {
		e := (*syscall.InotifyEvent)(unsafe.Pointer(&b[0]))
		end := min(syscall.SizeofInotifyEvent+int(e.Len), len(b))
		name := string(bytes.TrimRight(b[syscall.SizeofInotifyEvent:end], "\x00"))
		b = b[end:]
		switch dir, known := h.watched[e.Wd]; {
		case e.Mask&(syscall.IN_Q_OVERFLOW|syscall.IN_DELETE_SELF|syscall.IN_MOVE_SELF) != 0:
			found = true
		case e.Mask&syscall.IN_IGNORED != 0:
			delete(h.watched, e.Wd)
		case known && h.names[filepath.Join(dir, name)]:
			found = true
		}
	}
	return found
}

// read sets the watches and then reads the files, in this order, so that no
// change is missed. It tells whether the configuration is another.
func (h *HostConf) read() (news bool, err error) {
	h.names = map[string]bool{}
	keep := map[int32]string{}
	if err := h.watch(h.file, keep); err != nil {
		return false, err
	}
	conf, err := readConf(h.file)
	if err == nil && conf.stub() {
		if err := h.watch(h.resolved, keep); err != nil {
			return false, err
		}
		if real, err := readConf(h.resolved); err == nil && len(real.Nameservers) > 0 {
			conf.Nameservers = real.Nameservers
		}
	}
	for wd := range h.watched {
		if _, kept := keep[wd]; !kept {
			// One whose folder has gone has gone with it.
			_ = h.raw.Control(func(fd uintptr) { _, _ = syscall.InotifyRmWatch(int(fd), uint32(wd)) })
		}
	}
	h.watched = keep
	old := h.now.Load()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if err != nil || len(conf.Nameservers) == 0 || old.conf.equal(conf) {
		return false, nil
	}
	h.now.Store(&hostConf{conf, conf.Upstreams()})
	return true, nil
}

func readConf(file string) (Conf, error) {
	text, err := os.ReadFile(file)
	return ParseConf(string(text)), err
}

// watch watches the folders in which a change can give the file another content:
// that of the file, and of each link on the way to it. Where one does not exist
// yet it is the nearest that does. A folder that is a link itself is followed.
func (h *HostConf) watch(file string, keep map[int32]string) error {
	const maxLinks = 40 // as the kernel
	for range maxLinks {
		if err := h.watchFolder(file, keep); err != nil {
			return err
		}
		target, err := os.Readlink(file)
		if err != nil {
			return h.watchFile(file, keep) // the end of the chain
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(file), target)
		}
		file = filepath.Clean(target)
	}
	return nil
}

// watchFile watches the file itself: what is written to one that is mounted here
// from elsewhere is no event of this folder.
func (h *HostConf) watchFile(file string, keep map[int32]string) error {
	wd, err := h.add(file, syscall.IN_CLOSE_WRITE)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err == nil {
		keep[wd], h.names[file] = file, true
	}
	return err
}

// add adds a watch, or changes the one that is there.
func (h *HostConf) add(path string, mask uint32) (int32, error) {
	var wd int
	var err error
	cerr := h.raw.Control(func(fd uintptr) { wd, err = syscall.InotifyAddWatch(int(fd), path, mask) })
	return int32(wd), errors.Join(cerr, os.NewSyscallError("inotify_add_watch", err))
}

// watchFolder watches the folder that a file is in, or is to be.
func (h *HostConf) watchFolder(file string, keep map[int32]string) error {
	const mask = syscall.IN_CLOSE_WRITE | syscall.IN_CREATE | syscall.IN_MOVED_TO | syscall.IN_MOVED_FROM | syscall.IN_DELETE |
		syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF | syscall.IN_ONLYDIR
	for {
		dir := filepath.Dir(file)
		// One folder has one watch, by whatever name it is reached.
		real, err := filepath.EvalSymlinks(dir)
		var wd int32
		if err == nil {
			wd, err = h.add(real, mask)
		}
		if err == nil {
			keep[wd] = real
			h.names[filepath.Join(real, filepath.Base(file))] = true
			return nil
		}
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR) || dir == file {
			return err
		}
		file = dir
	}
}

// equal tells whether two say the same.
func (c Conf) equal(d Conf) bool {
	text := func(c Conf) string {
		var b strings.Builder
		for _, a := range c.Nameservers {
			b.WriteString(a.String() + " ")
		}
		return b.String() + "\n" + strings.Join(c.Search, " ") + "\n" + strings.Join(c.Options, " ")
	}
	return text(c) == text(d)
}
