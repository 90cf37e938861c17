package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withoutArg is the first argument of this program when it is to become a
// command that finds no netlink family for filters.
const withoutArg = "without-nfnetlink"

// without becomes a command for which the kernel has no NETLINK_NETFILTER, as
// one that is built without it: socket(2) says EPROTONOSUPPORT.
func without(argv []string) error {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unless := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: k}
	}
	// struct seccomp_data: the number of the call at 0, arguments of 8 bytes from 16 on.
	filter := []unix.SockFilter{
		load(0), unless(unix.SYS_SOCKET, 5), load(16), unless(unix.AF_NETLINK, 3), load(16 + 2*8), unless(unix.NETLINK_NETFILTER, 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	runtime.LockOSThread()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
	}
	if err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	return syscall.Exec(argv[0], argv, os.Environ())
}

// TestKernelWithoutNftables: the daemon says what the kernel lacks, and does
// nothing.
func TestKernelWithoutNftables(t *testing.T) {
	w := newWorld(t)
	w.settle()
	before := w.snapshot()
	self, err := os.Executable()
	w.check(err)
	cmd := exec.CommandContext(t.Context(), self, withoutArg, filepath.Join(binDir, "towpathd"), "--run-dir", w.run, "--state-dir", w.state)
	r := w.finish(cmd)
	want := "the running kernel has no nf_tables, it needs CONFIG_NF_TABLES"
	if r.code != 1 || !strings.Contains(r.stderr, want) {
		t.Errorf("exit %d, want 1: %s", r.code, r.stderr)
	}
	w.same(before)
}
