package spawn

import (
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// DetachArg is the first argument of the program when it is the background
// part of Detach.
const DetachArg = "towpath-spawn-detached"

// Detach executes this program again with args behind DetachArg, in a session
// of its own, where no terminal reaches it. It waits until that process settles,
// and returns what it said with that; or until it ends, and returns its exit
// code. Until then its standard error is the caller's.
func Detach(args []string) (said []byte, code int, err error) {
	answer, theirs, err := os.Pipe()
	if err != nil {
		return nil, CodeFailed, fmt.Errorf("make pipe: %w", err)
	}
	defer func() { _ = answer.Close() }()
	// What the caller opened for its children (a lock, a pipe somebody reads to
	// its end) is not to be held for as long as the background process lives.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		_ = theirs.Close()
		return nil, CodeFailed, fmt.Errorf("keep descriptors from background process: %w", err)
	}
	cmd := exec.Command("/proc/self/exe", append([]string{DetachArg}, args...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = theirs, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return nil, CodeFailed, fmt.Errorf("start background process: %w", err)
	}
	said, err = io.ReadAll(answer)
	if err == nil && len(said) > 0 {
		return said, 0, cmd.Process.Release()
	}
	if werr := wait(cmd); werr != nil {
		return nil, CodeFailed, fmt.Errorf("wait for background process: %w", werr)
	}
	return nil, exitCode(cmd.ProcessState), err
}

// Settle is the background process's part: it says something to Detach, and
// puts log in the place of its standard output and error, which were the
// caller's.
func Settle(said []byte, log *os.File) error {
	_, err := os.Stdout.Write(said)
	for _, fd := range []int{unix.Stdout, unix.Stderr} {
		if derr := unix.Dup3(int(log.Fd()), fd, 0); derr != nil && err == nil {
			err = derr
		}
	}
	if err != nil {
		return fmt.Errorf("settle in background: %w", err)
	}
	return nil
}
