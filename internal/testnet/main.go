//go:build linux

// Package testnet has one job: networks for tests. It runs a package's tests in
// namespaces of their own, says in one way why a test cannot run here, makes
// small networks of namespaces, and looks into them with sockets, not programs.
//
// A package uses it by
//
//	func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }
package testnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"golang.org/x/sys/unix"
)

// Environment variables between a test binary and itself.
const (
	// envStage is stageSetUp in the new namespaces, stageReady once they are
	// set up, stagePlain where there are none.
	envStage = "TOWPATH_TESTNET"
	// envReason says why there are none.
	envReason = "TOWPATH_TESTNET_REASON"

	stageSetUp = "set-up"
	stageReady = "ready"
	stagePlain = "plain"
)

// reportFD is where the child says whether it could set its namespaces up.
const reportFD = 3

// Runner is a *testing.M, or what runs one.
type Runner interface{ Run() int }

// Isolated is a Runner that runs another as Main does, for callers that take one
// themselves, such as testscript.Main.
type Isolated struct{ Runner Runner }

// Run runs the tests in new namespaces.
func (i Isolated) Run() int { return Main(i.Runner) }

// Main runs the tests of m and returns their exit code. It executes the test
// binary again in a new network and mount namespace, with private mounts and an
// empty /run, and, for an ordinary user, in a new user namespace in which he is
// root. The child is killed when this process ends, whatever the reason. Where
// namespaces cannot be made, the tests run here, and Require skips those that
// need them.
func Main(m Runner) int {
	switch os.Getenv(envStage) {
	case stageReady, stagePlain:
		return m.Run()
	case stageSetUp:
		return setUpAndRun(m)
	}
	code, err := runIsolated()
	if err == nil {
		return code
	}
	// The test framework's own children inherit the answer.
	if err := errors.Join(os.Setenv(envStage, stagePlain), os.Setenv(envReason, err.Error())); err != nil {
		fmt.Fprintln(os.Stderr, "testnet:", err)
		return 1
	}
	return m.Run()
}

// setUpAndRun is Main in the new namespaces: it sets them up, reports how that
// went (nothing: well), and runs the tests.
func setUpAndRun(m Runner) int {
	report := os.NewFile(reportFD, "report")
	err := errors.Join(setUp(), os.Setenv(envStage, stageReady))
	if err != nil {
		fmt.Fprint(report, err)
	}
	report.Close()
	if err != nil {
		return 1
	}
	return m.Run()
}

// setUp cuts mounts off from the outside, hides its /run and sets lo up.
func setUp() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on /run: %w", err)
	}
	self, err := netns.Self()
	if err != nil {
		return err
	}
	defer self.Close()
	return loopbackUp(self)
}

// runIsolated runs this binary in new namespaces and returns its exit code, or
// why there are none.
func runIsolated() (int, error) {
	// The parent-death signal is sent when the thread ends that forked.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	cmd, err := startIsolated(w)
	w.Close()
	if err != nil {
		return 0, err
	}
	defer forwardSignals(cmd.Process)()
	problem, err := io.ReadAll(r)
	if err == nil && len(problem) > 0 {
		err = errors.New(string(problem))
	}
	werr := cmd.Wait()
	if err != nil {
		return 0, err
	}
	return exitCode(cmd.ProcessState, werr), nil
}

// startIsolated starts this binary in new namespaces: as root without a user
// namespace if the kernel lets it (root in a container may lack the right).
func startIsolated(report *os.File) (*exec.Cmd, error) {
	if os.Geteuid() == 0 {
		if cmd, err := start(report, &syscall.SysProcAttr{}); err == nil {
			return cmd, nil
		}
	}
	return start(report, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	})
}

// start starts this binary with the same arguments in what attr says and in a
// new network and mount namespace.
func start(report *os.File, attr *syscall.SysProcAttr) (*exec.Cmd, error) {
	attr.Cloneflags |= syscall.CLONE_NEWNET | syscall.CLONE_NEWNS
	attr.Pdeathsig = syscall.SIGKILL
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envStage+"="+stageSetUp)
	cmd.ExtraFiles = []*os.File{report}
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, nil
}

// forwardSignals sends on what asks this process to stop, or to show its
// goroutines, until the returned function is called.
func forwardSignals(p *os.Process) func() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	go func() {
		for s := range signals {
			// A child that is gone needs no signal.
			_ = p.Signal(s)
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// exitCode is the child's exit code, or 128 and its signal.
func exitCode(state *os.ProcessState, err error) int {
	status, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case err == nil:
		return 0
	case ok && status.Signaled():
		return 128 + int(status.Signal())
	}
	return max(state.ExitCode(), 1)
}

// loopbackUp sets lo up, whose index is 1 in every namespace.
func loopbackUp(ns *os.File) error {
	c, err := rt.Dial(int(ns.Fd()))
	if err != nil {
		return err
	}
	defer c.Close()
	up := true
	return c.SetLink(context.Background(), loopback, rt.LinkChange{Up: &up})
}
