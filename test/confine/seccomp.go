//go:build linux

package main

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rule refuses a system call when an argument, as far as the mask reaches, is
// the value; a mask of 0 refuses it always.
type rule struct {
	call        string
	arg         uint32
	mask, value uint32
	errno       unix.Errno
}

// Where things are in struct seccomp_data (linux/seccomp.h); of an argument, the
// low half on machines that have it first.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16
)

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// unless jumps over skip instructions when what was loaded is not k.
func unless(k uint32, skip int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(skip), K: k}
}

// when jumps over skip instructions when what was loaded is k.
func when(k uint32, skip int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(skip), K: k}
}

func answer(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}

func allow() unix.SockFilter { return answer(unix.SECCOMP_RET_ALLOW) }

func refuse(e unix.Errno) unix.SockFilter {
	return answer(unix.SECCOMP_RET_ERRNO | uint32(e))
}

// only lets an argument of a call be one of some values.
func only(call string, arg uint32, values []uint32, e unix.Errno, number map[string]uint32) []unix.SockFilter {
	f := []unix.SockFilter{load(offsetNumber), when(number[call], 1), allow(), load(offsetArgs + 8*arg)}
	for _, v := range values {
		f = append(f, unless(v, 1), allow())
	}
	return append(f, refuse(e))
}

// deny is the filter of the rules. A call that this machine does not have needs
// none.
func (r *reading) deny() []unix.SockFilter {
	var f []unix.SockFilter
	for _, rule := range r.rules {
		n, ok := r.number[rule.call]
		if !ok {
			continue
		}
		mask := unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: rule.mask}
		f = append(f, load(offsetNumber), unless(n, 4),
			load(offsetArgs+8*rule.arg), mask, unless(rule.value, 1), refuse(rule.errno))
	}
	return append(f, allow())
}

// permit is the filter that lets the allowed calls through, of this machine's
// own kind only.
func (r *reading) permit() []unix.SockFilter {
	f := []unix.SockFilter{load(offsetArch), when(native(), 1), refuse(unix.EPERM), load(offsetNumber)}
	for _, call := range slices.Sorted(maps.Keys(r.allow)) {
		if n, ok := r.number["SYS_"+call]; ok {
			f = append(f, unless(n, 1), allow())
		}
	}
	return append(f, refuse(unix.EPERM))
}

// native is how the kernel calls this kind of machine.
func native() uint32 {
	return map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
}

// install adds a filter to those of the calling thread.
func install(f []unix.SockFilter) error {
	if native() == 0 {
		return fmt.Errorf("machines of kind %s are not known here", runtime.GOARCH)
	}
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return err
	}
	runtime.KeepAlive(f)
	return nil
}
