package spawn

import (
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwarded is the signals that go on to the command. One that is ignored
// already (nohup) stays so, for the command too.
func forwarded() []os.Signal {
	all := []os.Signal{
		syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
	}
	return slices.DeleteFunc(all, signal.Ignored)
}

// forward sends signals on to p until ended. That p is gone already is seen
// by who waits for it.
func forward(signals <-chan os.Signal, p *os.Process, ended <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			if !sentByTerminal(s) {
				_ = p.Signal(s)
			}
		case <-ended:
			return
		}
	}
}

// sentByTerminal reports whether the command got s as well: what a terminal
// sends (Ctrl-C, Ctrl-\, a new size) goes to its whole foreground process
// group, and many programs take a second SIGINT for impatience. The sender
// cannot be seen from here, so in the foreground of a terminal these three are
// always taken for its own.
func sentByTerminal(s os.Signal) bool {
	if s != syscall.SIGINT && s != syscall.SIGQUIT && s != syscall.SIGWINCH {
		return false
	}
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(tty) }()
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
