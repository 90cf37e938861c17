//go:build linux

package diag

import (
	"context"
	"os"
	"strconv"
	"strings"
)

// Owner is a process that has a socket open.
type Owner struct {
	PID     int
	Command string // /proc/PID/comm
}

// Owners finds a process for each of the sockets by their inodes, among those
// processes whose descriptors may be read. It looks at no more than limit
// descriptors.
func Owners(ctx context.Context, inodes map[uint32]bool, limit int) map[uint32]Owner {
	out := map[uint32]Owner{}
	entries, err := os.ReadDir("/proc")
	if err != nil || len(inodes) == 0 {
		return out
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		limit = owned(pid, inodes, limit, out)
		if limit <= 0 || len(out) == len(inodes) || ctx.Err() != nil {
			break
		}
	}
	return out
}

// owned notes which of the sockets a process has open, and gives how many more
// descriptors may be looked at.
func owned(pid int, inodes map[uint32]bool, limit int, out map[uint32]Owner) int {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd/"
	fds, err := os.ReadDir(dir)
	if err != nil {
		return limit
	}
	command := ""
	for _, fd := range fds {
		if limit--; limit < 0 {
			break
		}
		inode, ok := socketInode(dir + fd.Name())
		if _, found := out[inode]; !ok || !inodes[inode] || found {
			continue
		}
		if command == "" {
			command = Command(pid)
		}
		out[inode] = Owner{PID: pid, Command: command}
	}
	return limit
}

// socketInode reads the number out of the link "socket:[12345]".
func socketInode(path string) (uint32, bool) {
	to, err := os.Readlink(path)
	if err != nil {
		return 0, false
	}
	text, is := strings.CutPrefix(to, "socket:[")
	n, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 32)
	return uint32(n), is && err == nil
}

// Command is the name of a process; "" when it is gone.
func Command(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}
