//go:build linux

package linux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
)

const (
	// killPasses bounds how often those that were started meanwhile are looked for.
	killPasses = 20
	// deathTime is how long killed processes may take to end.
	deathTime = 2 * time.Second
)

// Kill kills the process that had this number and start time, unless it is gone.
func Kill(pid int, start uint64) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return endError(pid, err)
	}
	defer unix.Close(fd)
	if now, err := StartTime(pid); err != nil || now != start {
		return nil
	}
	return endError(pid, unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0))
}

func endError(pid int, err error) error {
	if err == nil || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return fmt.Errorf("end process %d: %w", pid, err)
}

// KillIn kills the processes whose network namespace is the one bound at path,
// unless that is the daemon's own, and waits until they are gone. Once the
// namespace is open, still is asked whether it is the one that is meant.
func KillIn(path string, still func() bool) error {
	ns, err := netns.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	self, err := netns.Self()
	if err != nil {
		return err
	}
	defer self.Close()
	if same, err := netns.Same(ns, self); err != nil || same || !still() {
		return err
	}
	for range killPasses {
		n, err := killOnce(ns)
		if n == 0 || err != nil {
			return err
		}
	}
	return fmt.Errorf("end processes in %s: others are started all the time", path)
}

// killOnce kills those that are there now, and reports how many there were.
func killOnce(ns *os.File) (int, error) {
	want, err := ns.Stat()
	if err != nil {
		return 0, err
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	var killed []int
	defer func() {
		for _, fd := range killed {
			_ = unix.Close(fd)
		}
	}()
	for _, dir := range processes {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() || !within(dir, want) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it ended
		}
		killed = append(killed, fd)
		// The number cannot pass to another any more; it may have done so before.
		if !within(dir, want) {
			continue
		}
		if err := endError(pid, unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)); err != nil {
			return 0, err
		}
	}
	return len(killed), awaitEnds(killed)
}

// within reports whether a process, by its directory in /proc, is in a network
// namespace with all its threads. One that others of its threads are not in has
// sent a thread there for a while: the daemon itself does so.
func within(dir string, ns os.FileInfo) bool {
	if is, err := os.Stat(dir + "/ns/net"); err != nil || !os.SameFile(ns, is) {
		return false
	}
	threads, err := filepath.Glob(dir + "/task/[0-9]*/ns/net")
	if err != nil {
		return false
	}
	for _, link := range threads {
		if is, err := os.Stat(link); err == nil && !os.SameFile(ns, is) {
			return false
		}
	}
	return true
}

// awaitEnds waits until the processes have ended; a pidfd is readable then.
func awaitEnds(fds []int) error {
	end := time.Now().Add(deathTime)
	for _, fd := range fds {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for n := 0; n == 0; {
			var err error
			left := time.Until(end)
			if left <= 0 {
				return fmt.Errorf("end processes: one did not end within %s", deathTime)
			}
			n, err = unix.Poll(p, int(left.Milliseconds())+1)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("wait for the end of a process: %w", err)
			}
			n = max(n, 0)
		}
	}
	return nil
}
