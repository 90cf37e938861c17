//go:build linux

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An Entry is one file of a directory of namespaces.
type Entry struct {
	Name string
	// Mounted is false for a file that no namespace is mounted on: what a
	// crash between making the file and mounting leaves, or a foreign file.
	Mounted bool
}

// Create makes a network namespace and mounts it on path. The directory is made
// if needed, and made a mount point of its own with shared propagation, as
// `ip netns add` does: only then does an unmount here reach the mount namespaces
// that were copied from this one, where the copy would keep the network
// namespace alive. An empty file that is already there (a crash came between
// file and mount) is used; a mounted namespace is an fs.ErrExist.
func Create(path string) error {
	f, err := New()
	if err != nil {
		return fmt.Errorf("create network namespace %s: %w", path, err)
	}
	defer f.Close()
	if err := mountAt(f, path); err != nil {
		return fmt.Errorf("create network namespace %s: %w", path, err)
	}
	return nil
}

// Bind mounts the namespace that is open as fd on path, by the same rules as
// Create. The mount keeps the namespace alive after its processes have ended.
func Bind(fd int, path string) error {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bind network namespace %s: %w", path, err)
	}
	f := os.NewFile(uintptr(dup), "netns")
	defer f.Close()
	if err := check(f); err != nil {
		return fmt.Errorf("bind network namespace %s: %w", path, err)
	}
	if err := mountAt(f, path); err != nil {
		return fmt.Errorf("bind network namespace %s: %w", path, err)
	}
	return nil
}

// mountAt mounts ns on path while it holds the lock of the directory, so that
// two callers cannot both find the file free and mount one over the other.
func mountAt(ns *os.File, path string) error {
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	if err := shareDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := makeFile(path); err != nil {
		return err
	}
	src := fmt.Sprintf("/proc/self/fd/%d", ns.Fd())
	if err := unix.Mount(src, path, "", unix.MS_BIND, ""); err != nil {
		os.Remove(path)
		return &os.PathError{Op: "mount", Path: path, Err: err}
	}
	return nil
}

// Remove unmounts and unlinks path; the kernel drops the namespace when nothing
// else holds it. The unmount is lazy, because a reader of the file is no reason
// to fail. What is not there is no error; a file with content, a directory or a
// namespace of another type is refused.
func Remove(path string) error {
	state, err := fileState(path)
	for err == nil && state == mounted {
		err = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == nil {
			// Mounts can be stacked: look again.
			state, err = fileState(path)
		}
	}
	if err == nil && state == empty {
		err = os.Remove(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace %s: %w", path, err)
	}
	return nil
}

// List returns the files of dir in order of name. A directory that is not there
// has none.
func List(dir string) ([]Entry, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	out := make([]Entry, 0, len(files))
	for _, f := range files {
		state, err := fileState(filepath.Join(dir, f.Name()))
		out = append(out, Entry{Name: f.Name(), Mounted: err == nil && state == mounted})
	}
	return out, nil
}

// state is what is found at the path of a namespace.
type state int

const (
	empty   state = iota // an empty regular file
	mounted              // a network namespace
)

// fileState looks at path without following a symbolic link.
func fileState(path string) (state, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return empty, err
	}
	if !fi.Mode().IsRegular() {
		return empty, &os.PathError{Op: "use", Path: path, Err: errors.New("not a regular file")}
	}
	f, err := Open(path)
	if err == nil {
		f.Close()
		return mounted, nil
	}
	if errors.Is(err, ErrNotNetns) && fi.Size() == 0 && !onNSFS(path) {
		return empty, nil
	}
	return empty, err
}

// onNSFS tells a mounted namespace of another type from a plain file.
func onNSFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// makeFile makes the empty file to mount on, or takes one that is there.
func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	found, err := fileState(path)
	if err == nil && found == mounted {
		err = &os.PathError{Op: "mount", Path: path, Err: unix.EEXIST}
	}
	return err
}

// lockDir makes dir and takes an exclusive lock on it. The file system under it
// is locked, not a mount on top: shareDir mounts while the lock is held, and
// flock belongs to the inode, which a bind mount of dir on itself shares.
func lockDir(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		d.Close()
		return nil, &os.PathError{Op: "flock", Path: dir, Err: err}
	}
	return func() { d.Close() }, nil
}

// shareDir makes dir a shared mount point. MS_SHARED on a directory that is not
// a mount point is EINVAL: bind it on itself, once, and share it with all that is
// in it. Later mounts are shared as their parent is; to say so of each again
// would cost as much as there are.
func shareDir(dir string) error {
	err := unix.Mount("", dir, "", unix.MS_SHARED, "")
	if errors.Is(err, unix.EINVAL) {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return &os.PathError{Op: "bind mount", Path: dir, Err: err}
		}
		err = unix.Mount("", dir, "", unix.MS_SHARED|unix.MS_REC, "")
	}
	if err != nil {
		return &os.PathError{Op: "share mount", Path: dir, Err: err}
	}
	return nil
}
