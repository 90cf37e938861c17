//go:build linux

// Command confine runs a command under the settings of a systemd unit that hold
// without systemd: capabilities, system calls, address families, limits. A unit
// with a setting it does not know is refused, so that each new one is applied
// here, or known to need systemd.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	err := fmt.Errorf("usage: confine UNIT GROUPS CONSTANTS COMMAND [ARG]...\n\n" +
		"GROUPS is what `systemd-analyze syscall-filter` prints, CONSTANTS the folder of the source of\n" +
		"golang.org/x/sys/unix, which has the number of each name")
	if len(os.Args) > 4 {
		err = confine(os.Args[1], os.Args[2], os.Args[3], os.Args[4:])
	}
	fmt.Fprintf(os.Stderr, "confine: %v\n", err)
	os.Exit(1)
}

// confine becomes the command. It returns only when it cannot.
func confine(unitFile, groupFile, constantDir string, argv []string) error {
	unit, err := os.ReadFile(unitFile)
	if err != nil {
		return fmt.Errorf("read unit: %w", err)
	}
	list, err := os.ReadFile(groupFile)
	if err != nil {
		return fmt.Errorf("read groups of system calls: %w", err)
	}
	number, err := constants(constantDir)
	if err != nil {
		return fmt.Errorf("read constants: %w", err)
	}
	s, err := parseUnit(string(unit), parseGroups(string(list)), number)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(unitFile), err)
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	// What follows is of a thread, and goes with that thread through execve(2).
	runtime.LockOSThread()
	if err := s.apply(); err != nil {
		return err
	}
	return syscall.Exec(path, argv, os.Environ())
}

// apply confines the calling thread.
func (s settings) apply() error {
	if err := s.applyLimits(); err != nil {
		return err
	}
	for c := range uintptr(64) {
		if s.caps[c] {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) { // the kernel knows no such capability, and none above it
			break
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	for _, f := range s.filters {
		if err := install(f); err != nil {
			return fmt.Errorf("filter system calls: %w", err)
		}
	}
	return nil
}

// applyLimits sets what is of the process. What only root may raise is left as
// it is: then the command has less than under systemd.
func (s settings) applyLimits() error {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		return fmt.Errorf("read limit of descriptors: %w", err)
	}
	limit := min(s.nofile, now.Max)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return fmt.Errorf("limit descriptors: %w", err)
	}
	err := os.WriteFile("/proc/self/oom_score_adj", []byte(s.oom), 0)
	if err != nil && !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("adjust OOM score: %w", err)
	}
	return nil
}
