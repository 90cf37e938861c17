//go:build linux

// Package sysctl has one job: reading and writing kernel parameters, those below
// net/ in a network namespace of choice.
//
// A key is written with slashes, as below /proc/sys: net/ipv4/conf/eth0.10/forwarding.
// The form with dots is taken too; see Path.
package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/towpath/towpath/internal/linux/netns"
	"golang.org/x/sys/unix"
)

// root is the directory of the parameters. What is below net/ is that of the
// namespace of the task that opens it, whatever /proc was mounted.
const root = "/proc/sys/"

// UnsupportedError says that this kernel, or this namespace, has no such
// parameter. It is an errors.ErrUnsupported.
type UnsupportedError struct {
	Key string // with slashes
}

// Error names the parameter.
func (e *UnsupportedError) Error() string {
	return "this kernel has no parameter " + e.Key
}

// Is makes errors.Is(err, errors.ErrUnsupported) true.
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// Read reads a parameter, without the newline at its end, in the namespace ns,
// or in that of the calling thread when ns is nil. A parameter that the kernel
// does not have is an *UnsupportedError; one of an interface that is not there
// is an fs.ErrNotExist.
func Read(ns *os.File, key string) (string, error) {
	p, err := Path(key)
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	var b []byte
	err = inside(ns, func() error {
		var err error
		b, err = os.ReadFile(root + p)
		return explain(p, err)
	})
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", p, err)
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

// Write sets a parameter, in the namespace ns, or in that of the calling thread
// when ns is nil. Errors are those of Read, and the kernel's word on the value.
func Write(ns *os.File, key, value string) error {
	p, err := Path(key)
	if err != nil {
		return fmt.Errorf("write sysctl: %w", err)
	}
	err = inside(ns, func() error { return explain(p, write(root+p, value)) })
	if err != nil {
		return fmt.Errorf("write sysctl %s=%s: %w", p, value, err)
	}
	return nil
}

// write writes a value in one call: the kernel takes each write for a value. No
// file is made, or the error of a parameter that is missing would be EACCES.
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value + "\n")
	return errors.Join(err, f.Close())
}

// inside runs fn in ns, or here when ns is nil.
func inside(ns *os.File, fn func() error) error {
	if ns == nil {
		return fn()
	}
	return netns.Do(ns, fn)
}

// explain gives the errors that have a reason behind their number.
func explain(p string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist) && interfaceMissing(p):
		return fmt.Errorf("no interface %s: %w", strings.Split(p, "/")[3], fs.ErrNotExist)
	case errors.Is(err, fs.ErrNotExist):
		return &UnsupportedError{Key: p}
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("/proc/sys is mounted read-only here (a container?): %w", err)
	}
	return err
}

// interfaceMissing tells whether p is below the directory of an interface that
// is not there, where its family's directory is.
func interfaceMissing(p string) bool {
	parts := strings.Split(p, "/")
	if !perInterface(parts) {
		return false
	}
	if _, err := os.Stat(root + path.Join(parts[:3]...)); err != nil {
		return false
	}
	_, err := os.Stat(root + path.Join(parts[:4]...))
	return errors.Is(err, fs.ErrNotExist)
}

// Path gives a key's form with slashes. As in sysctl(8), the separator that
// comes first decides: after a dot, a slash stands for a dot in a name
// (net.ipv4.conf.eth0/10.forwarding). Beyond that, the dots of an interface name
// need no such care: net.ipv4.conf.eth0.10.forwarding has one reading, because
// no parameter of an interface has a dot.
func Path(key string) (string, error) {
	p := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		p = strings.Map(swap, key)
		if parts := strings.Split(p, "/"); perInterface(parts) {
			name := strings.Join(parts[3:len(parts)-1], ".")
			p = path.Join(path.Join(parts[:3]...), name, parts[len(parts)-1])
		}
	}
	parts := strings.Split(p, "/")
	if len(parts) < 2 || slices.ContainsFunc(parts, func(s string) bool { return s == "" || s == "." || s == ".." }) {
		return "", fmt.Errorf("key %q: %w", key, unix.EINVAL)
	}
	return p, nil
}

// swap exchanges the two separators.
func swap(r rune) rune {
	switch r {
	case '.':
		return '/'
	case '/':
		return '.'
	}
	return r
}

// perInterface tells whether parts are net/FAMILY/conf/NAME/PARAMETER, or the
// same with neigh.
func perInterface(parts []string) bool {
	return len(parts) >= 5 && parts[0] == "net" && (parts[2] == "conf" || parts[2] == "neigh")
}
