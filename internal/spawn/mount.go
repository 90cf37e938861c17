package spawn

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// overlayFiles binds files with the given texts over those at the paths, in
// this mount namespace. A path that is not there has nothing to be bound over,
// and is left out; a symlink's target is what is replaced.
func overlayFiles(texts map[string]string) error {
	stage, err := stageDir()
	if err != nil {
		return err
	}
	// Open the targets before the stage may hide them; O_PATH follows symlinks.
	targets := map[string]int{}
	defer func() {
		for _, fd := range targets {
			_ = unix.Close(fd)
		}
	}()
	for path := range texts {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		targets[path] = fd
	}
	// The files live in a small file system of their own, which stays for as
	// long as something of it is bound.
	if err := unix.Mount("towpath", stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=4m"); err != nil {
		return fmt.Errorf("mount tmpfs for own files: %w", err)
	}
	for _, path := range slices.Sorted(maps.Keys(targets)) {
		if err := overlay(stage, path, targets[path], texts[path]); err != nil {
			return errors.Join(err, unix.Unmount(stage, unix.MNT_DETACH))
		}
	}
	if err := unix.Unmount(stage, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount tmpfs for own files: %w", err)
	}
	return nil
}

// overlay binds a file with text over target.
func overlay(stage, path string, target int, text string) error {
	source := filepath.Join(stage, filepath.Base(path))
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write own %s: %w", path, err)
	}
	// Whatever the caller's umask is.
	if err := os.Chmod(source, 0o644); err != nil {
		return fmt.Errorf("write own %s: %w", path, err)
	}
	if err := unix.Mount(source, fdPath(target), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind own %s: %w", path, err)
	}
	return nil
}

// stageDir is a directory that may be covered for a moment: nobody but this
// thread looks at this mount namespace yet.
func stageDir() (string, error) {
	for _, dir := range []string{"/sys", "/tmp", "/run"} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
	}
	return "", fmt.Errorf("prepare own files: none of /sys, /tmp and /run is there to mount on")
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// renewSys mounts a new /sys, because /sys/class/net shows the namespace that
// mounted it, and puts back what was mounted below the old one. Where the
// kernel does not allow it (a user namespace without a full view of /sys), the
// old one stays: all but /sys/class/net is the same.
func renewSys() {
	var stat unix.Statfs_t
	if unix.Statfs("/sys", &stat) != nil || stat.Type != unix.SYSFS_MAGIC {
		return
	}
	below := openMounts("/sys")
	defer func() {
		for _, fd := range below {
			_ = unix.Close(fd)
		}
	}()
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if stat.Flags&unix.ST_RDONLY != 0 {
		flags |= unix.MS_RDONLY
	}
	if unix.Mount("sysfs", "/sys", "sysfs", flags, "") != nil {
		return
	}
	for _, path := range slices.Sorted(maps.Keys(below)) {
		_ = unix.Mount(fdPath(below[path]), path, "", unix.MS_BIND|unix.MS_REC, "")
	}
}

// openMounts opens the mounts right below dir, by path: not those below them,
// which go along with them.
func openMounts(dir string) map[string]int {
	out := map[string]int{}
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return out
	}
	for _, path := range mountsBelow(string(text), dir) {
		if fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
			out[path] = fd
		}
	}
	return out
}

// mountsBelow is the mount points below dir that are below no other of them,
// out of proc_pid_mountinfo(5).
func mountsBelow(mountinfo, dir string) []string {
	var all []string
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 4 {
			if path := unescape(f[4]); strings.HasPrefix(path, dir+"/") {
				all = append(all, path)
			}
		}
	}
	slices.Sort(all)
	var top []string
	for _, path := range all {
		if !slices.ContainsFunc(top, func(t string) bool { return path == t || strings.HasPrefix(path, t+"/") }) {
			top = append(top, path)
		}
	}
	return top
}

// unescape undoes the octal escapes of white space and backslash in mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
