//go:build linux

// Package xt reads the kernel's old ip_tables and ip6_tables, which nftables does
// not show: what chain FORWARD of table filter does in short, and all tables in full.
package xt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
)

// Forward is chain FORWARD of table filter.
type Forward struct {
	Policy string // "accept" or "drop"
	Rules  int
}

// Options of getsockopt (linux/netfilter_ipv4/ip_tables.h; the same numbers in
// ip6_tables.h), and the hook.
const (
	getInfo     = 64
	getEntries  = 65
	hookForward = 2
)

// layout is where struct ipt_entry and ip6t_entry keep what is read of them.
type layout struct {
	family, level int
	names         string // the file in /proc/net that names the tables
	targetAt      int    // u16 target_offset, followed by u16 next_offset
}

func layoutOf(ipv6 bool) layout {
	if ipv6 {
		return layout{unix.AF_INET6, unix.IPPROTO_IPV6, "ip6_tables_names", 140}
	}
	return layout{unix.AF_INET, unix.IPPROTO_IP, "ip_tables_names", 88}
}

// ErrMalformed is wrapped by the error of entries that do not hold together.
var ErrMalformed = errors.New("malformed table")

// Reader reads in one namespace, which it keeps alive until it is closed. It
// must not be used concurrently.
type Reader struct {
	ns *os.File
	// names are the lists of tables in /proc/net, IPv4 and IPv6, opened in the
	// namespace: to read them again costs next to nothing. nil: not there yet.
	names [2]*os.File
}

// New makes a Reader for the namespace ns, which must stay open.
func New(ns *os.File) *Reader { return &Reader{ns: ns} }

// Close closes the Reader.
func (r *Reader) Close() error {
	var errs []error
	for _, f := range r.names {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// list opens the list of tables; nil when the kernel has none, which may change
// when the module comes, for all namespaces at once.
func (r *Reader) list(ipv6 bool) (*os.File, error) {
	at := &r.names[0]
	if ipv6 {
		at = &r.names[1]
	}
	path := "/proc/thread-self/net/" + layoutOf(ipv6).names
	if *at != nil {
		return *at, nil
	}
	if _, err := os.Stat(path); err != nil {
		return nil, nil //nolint:nilerr // no such file: no such tables
	}
	err := netns.Do(r.ns, func() (err error) {
		*at, err = os.Open(path)
		return err
	})
	return *at, err
}

// Forward reads the chain; nil if there is no such table. To ask for a table
// that is not there would make the kernel make it, so that /proc is asked first.
func (r *Reader) Forward(ipv6 bool) (*Forward, error) {
	l := layoutOf(ipv6)
	names, err := r.list(ipv6)
	if err != nil {
		return nil, fmt.Errorf("find ip_tables: %w", err)
	}
	there, err := lists(names, "filter")
	if err != nil || !there {
		return nil, err
	}
	var out Forward
	err = netns.Do(r.ns, func() error {
		fd, err := unix.Socket(l.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		in, b, err := fetch(fd, l, "filter")
		if err == nil {
			out, err = l.forward(b, in.HookEntry[hookForward], in.Underflow[hookForward])
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", strings.TrimSuffix(l.names, "_names"), err)
	}
	return &out, nil
}

// lists reports whether a table is among the names; there are five at most.
func lists(names *os.File, table string) (bool, error) {
	if names == nil {
		return false, nil
	}
	buf := make([]byte, 256)
	n, err := names.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.Contains(strings.Fields(string(buf[:n])), table), nil
}

// info is struct ipt_getinfo, less the name before it.
type info struct {
	ValidHooks uint32
	HookEntry  [5]uint32
	Underflow  [5]uint32
	NumEntries uint32
	Size       uint32
}

const (
	nameSize  = 32
	infoSize  = nameSize + 4*13
	entriesAt = 40      // in struct ipt_get_entries: name, size, padding
	maxSize   = 1 << 24 // of a table that is still read
)

// fetch asks for a table that is there.
func fetch(fd int, l layout, table string) (info, []byte, error) {
	var in info
	request := append([]byte(table), make([]byte, infoSize-len(table))...)
	if err := getsockopt(fd, l.level, getInfo, request); err != nil {
		return in, nil, err
	}
	if err := binary.Read(bytes.NewReader(request[nameSize:]), binary.NativeEndian, &in); err != nil {
		return in, nil, err
	}
	if in.Size > maxSize {
		return in, nil, fmt.Errorf("%d bytes of rules: %w", in.Size, unix.E2BIG)
	}
	request = append([]byte(table), make([]byte, entriesAt+int(in.Size)-len(table))...)
	binary.NativeEndian.PutUint32(request[nameSize:], in.Size)
	if err := getsockopt(fd, l.level, getEntries, request); err != nil {
		return in, nil, err
	}
	return in, request[entriesAt:], nil
}

// forward counts the rules from the first of the chain to its policy, which is
// the last.
func (l layout) forward(table []byte, first, policy uint32) (Forward, error) {
	var f Forward
	for at := first; at != policy; f.Rules++ {
		_, next, ok := l.offsets(table, at)
		if !ok || next == 0 || at > policy {
			return f, ErrMalformed
		}
		at += next
	}
	target, _, ok := l.offsets(table, policy)
	const verdictAt = 32 // behind struct xt_entry_target
	at := int(policy) + int(target) + verdictAt
	if !ok || at+4 > len(table) {
		return f, ErrMalformed
	}
	// A verdict is kept as -verdict-1: NF_DROP is 0, NF_ACCEPT 1.
	switch v := int32(binary.NativeEndian.Uint32(table[at:])); v {
	case -1:
		f.Policy = "drop"
	case -2:
		f.Policy = "accept"
	default:
		return f, fmt.Errorf("policy %d: %w", v, ErrMalformed)
	}
	return f, nil
}

// offsets gives where the target of an entry and the next entry begin.
func (l layout) offsets(table []byte, at uint32) (target, next uint32, ok bool) {
	end := uint64(at) + uint64(l.targetAt) + 4
	if end > uint64(len(table)) {
		return 0, 0, false
	}
	b := table[int(at)+l.targetAt:]
	return uint32(binary.NativeEndian.Uint16(b)), uint32(binary.NativeEndian.Uint16(b[2:])), true
}

func getsockopt(fd, level, name int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(unsafe.Pointer(&size)), 0)
	runtime.KeepAlive(b)
	if errno != 0 {
		return errno
	}
	return nil
}
