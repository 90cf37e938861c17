//go:build linux

// Package xt reads the kernel's old ip_tables and ip6_tables, which nftables does
// not show.
package xt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
)

// Options of getsockopt (linux/netfilter_ipv4/ip_tables.h; the same numbers in
// ip6_tables.h).
const (
	getInfo    = 64
	getEntries = 65
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

// index is that of a family in a Reader.
func (l layout) index() int {
	if l.family == unix.AF_INET6 {
		return 1
	}
	return 0
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
	// seen are the tables with a chain at hook forward, as Forward read them last.
	seen [2]map[string]*seen
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
func (r *Reader) list(l layout) (*os.File, error) {
	at := &r.names[l.index()]
	path := "/proc/thread-self/net/" + l.names
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

// ask asks about a table that is there.
func ask(fd int, l layout, table string) (info, error) {
	var in info
	request := append([]byte(table), make([]byte, infoSize-len(table))...)
	if err := getsockopt(fd, l.level, getInfo, request); err != nil {
		return in, err
	}
	err := binary.Read(bytes.NewReader(request[nameSize:]), binary.NativeEndian, &in)
	return in, err
}

// fetch asks for a table that is there. Its rules are in what is returned behind
// entriesAt; that is spare where it is large enough.
func fetch(fd int, l layout, table string, spare []byte) (info, []byte, error) {
	in, err := ask(fd, l, table)
	if err != nil {
		return in, nil, err
	}
	if in.Size > maxSize {
		return in, nil, fmt.Errorf("%d bytes of rules: %w", in.Size, unix.E2BIG)
	}
	request := slices.Grow(spare[:0], entriesAt+int(in.Size))[:entriesAt+int(in.Size)]
	clear(request) // the kernel leaves out what is behind the end of a name
	copy(request, table)
	binary.NativeEndian.PutUint32(request[nameSize:], in.Size)
	if err := getsockopt(fd, l.level, getEntries, request); err != nil {
		return in, nil, err
	}
	return in, request, nil
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
