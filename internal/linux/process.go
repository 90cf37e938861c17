//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// StartTime is when a process started, in clock ticks since boot (proc(5),
// /proc/PID/stat field 22): with the number it identifies the process.
func StartTime(pid int) (uint64, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("identify process %d: %w", pid, err)
	}
	// Field 2 is the command in parentheses and may hold anything.
	i := strings.LastIndexByte(string(raw), ')')
	f := strings.Fields(string(raw[i+1:]))
	if i < 0 || len(f) < 20 {
		return 0, fmt.Errorf("identify process %d: /proc/%d/stat is not as proc(5) says", pid, pid)
	}
	return strconv.ParseUint(f[19], 10, 64)
}

// Exited closes the channel when the process that had this number and start
// time is gone. When ctx ends first, the channel stays open.
func Exited(ctx context.Context, pid int, start uint64) <-chan struct{} {
	gone := make(chan struct{})
	fd, err := unix.PidfdOpen(pid, 0)
	if now, serr := StartTime(pid); err != nil || serr != nil || now != start {
		if err == nil {
			_ = unix.Close(fd)
		}
		close(gone)
		return gone
	}
	// A pidfd becomes readable when its process ends; in the runtime's poller
	// it costs no thread.
	_ = unix.SetNonblock(fd, true)
	f := os.NewFile(uintptr(fd), "pidfd")
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	go func() {
		defer stop()
		if err := waitReadable(f); err == nil {
			close(gone)
		}
		_ = f.Close()
	}()
	return gone
}

func waitReadable(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
	})
}
