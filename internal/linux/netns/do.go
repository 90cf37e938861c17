//go:build linux

package netns

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Panic carries a panic of a function that ran under Do to Do's caller, with
// the stack of the goroutine in which it happened.
type Panic struct {
	Value any
	Stack []byte
}

// String prints the value and the stack it was raised on.
func (p Panic) String() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Do runs fn on a thread that is inside the namespace f, and returns its error.
//
// fn runs in a goroutine of its own, locked to its thread. The thread goes back
// to the scheduler only after it is seen to be back in the namespace it came
// from; otherwise the goroutine ends locked and the runtime ends the thread. A
// panic of fn is raised again in the caller as a Panic, runtime.Goexit (as
// testing.T.FailNow uses it) ends the caller too.
//
// Goroutines that fn starts run on other threads, outside f. Sockets and files
// that fn opens keep f alive until they are closed.
func Do(f *os.File, fn func() error) error {
	done := make(chan outcome, 1)
	go offLeader(func() { runInside(f, fn, done) })
	out := <-done
	runtime.KeepAlive(f)
	switch {
	case out.panic != nil:
		panic(*out.panic)
	case out.exited:
		runtime.Goexit()
	}
	return out.err
}

// offLeader locks the goroutine to its thread and runs fn, on any thread but the
// first of the process. Where that one is, is where others see the process
// (/proc/PID/ns/net), among them who kills what is in a namespace; and it outlives a
// goroutine that ends locked to it, since the runtime cannot end it.
func offLeader(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		fn()
		return
	}
	done := make(chan struct{})
	go func() { // another thread, as long as this one is locked
		defer close(done)
		runtime.LockOSThread()
		fn()
	}()
	<-done
	runtime.UnlockOSThread()
}

// outcome is how one run of fn ended.
type outcome struct {
	err    error
	panic  *Panic
	exited bool // by runtime.Goexit
}

// runInside is the goroutine of Do, locked to its thread. It sends exactly one outcome.
func runInside(f *os.File, fn func() error, done chan<- outcome) {
	home, err := os.Open(threadNS)
	if err != nil {
		runtime.UnlockOSThread()
		done <- outcome{err: fmt.Errorf("open own network namespace: %w", err)}
		return
	}
	defer home.Close()
	// A refused setns leaves the thread where it was.
	if err := setns(f); err != nil {
		runtime.UnlockOSThread()
		done <- outcome{err: fmt.Errorf("enter network namespace %s: %w", f.Name(), err)}
		return
	}
	// Deferred, because Goexit runs nothing else.
	out := outcome{exited: true}
	defer func() {
		if r := recover(); r != nil {
			out = outcome{panic: &Panic{Value: r, Stack: debug.Stack()}}
		}
		if setns(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- out
	}()
	err = fn()
	out = outcome{err: err}
}

// setns moves the calling thread into f.
func setns(f *os.File) error {
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}
