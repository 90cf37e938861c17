//go:build linux

// Package xdp has one job: to put a frame in at a link as if it had come over the
// wire. It needs BPF_PROG_TEST_RUN with live frames (kernel 5.18), and the right
// to load BPF. Nothing is attached to the link, and nothing stays.
package xdp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
)

// UnsupportedError says that no frame can be put in here.
type UnsupportedError struct {
	What string // was asked of the kernel
	Err  error  // what it answered
}

// Error names what is needed.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("the kernel takes no frame as if it came over the wire: %s: %v; that needs Linux 5.18 with CONFIG_BPF_SYSCALL, and root in the first user namespace", e.What, e.Err)
}

// Unwrap gives the kernel's answer.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// Is matches errors.ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// MostBytes is how long a frame may be: it has to fit a page of 4096 bytes, with
// the kernel's room before it and behind it.
const MostBytes = 3072

// Injector holds the program that passes frames on to the stack, until it is closed.
type Injector struct{ fd int }

// Numbers of linux/bpf.h.
const (
	cmdLoad, cmdRun = 5, 10 // BPF_PROG_LOAD, BPF_PROG_TEST_RUN
	progTypeXDP     = 6
	liveFrames      = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
	xdpPass         = 2
	enotsupp        = unix.Errno(524) // of the kernel alone: the program cannot be run so
)

// Open loads `return XDP_PASS`. What the kernel refuses is an UnsupportedError.
func Open() (*Injector, error) {
	code := []uint64{instruction(0xb7, xdpPass), instruction(0x95, 0)} // r0 = XDP_PASS; exit
	license := []byte("GPL\x00")
	attr := struct {
		typ, count    uint32
		code, license uint64
		rest          [96]byte
	}{
		typ: progTypeXDP, count: uint32(len(code)),
		code: address(&code[0]), license: address(&license[0]),
	}
	fd, err := bpf(cmdLoad, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	runtime.KeepAlive(code)
	runtime.KeepAlive(license)
	if err != nil {
		return nil, &UnsupportedError{"load a program for XDP", err}
	}
	return &Injector{fd}, nil
}

// Close unloads the program.
func (x *Injector) Close() error { return unix.Close(x.fd) }

// instruction is one of BPF, of an operation and a constant for register 0.
func instruction(op uint8, constant int32) uint64 {
	b := binary.NativeEndian.AppendUint32([]byte{op, 0, 0, 0}, uint32(constant))
	return binary.NativeEndian.Uint64(b)
}

// Inject has the link of that index in a namespace take a frame in, Ethernet
// header and all.
func (x *Injector) Inject(ns *os.File, index int, frame []byte) error {
	const size = 24 // of struct xdp_md
	context := binary.NativeEndian.AppendUint32(make([]byte, 4, size), uint32(len(frame)))
	context = binary.NativeEndian.AppendUint32(append(context, 0, 0, 0, 0), uint32(index))
	context = append(context, make([]byte, size-len(context))...)
	attr := struct {
		prog, retval, sizeIn, sizeOut uint32
		in, out                       uint64
		repeat, duration              uint32
		contextIn, contextOut         uint32
		context, contextTo            uint64
		flags, cpu, batch, _          uint32
	}{
		prog: uint32(x.fd), sizeIn: uint32(len(frame)), in: address(&frame[0]), repeat: 1,
		contextIn: size, context: address(&context[0]), flags: liveFrames,
	}
	err := netns.Do(ns, func() error {
		_, err := bpf(cmdRun, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		return err
	})
	runtime.KeepAlive(frame)
	runtime.KeepAlive(context)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.E2BIG) || errors.Is(err, enotsupp) {
		return &UnsupportedError{"run it on a live frame", err}
	}
	if err != nil {
		return fmt.Errorf("put frame in at link %d: %w", index, err)
	}
	return nil
}

// address is that of memory which the caller keeps alive.
func address[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	if errno != 0 {
		return 0, errno
	}
	return int(fd), nil
}
