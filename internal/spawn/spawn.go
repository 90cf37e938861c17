// Package spawn runs one command in a sandbox's network namespace as a child
// of the caller: own mount and UTS namespaces with the sandbox's resolv.conf,
// hosts and host name, and else the caller's files, rights and terminal.
//
// A namespace is entered by a thread, and a Go process has many. So the program
// executes itself with InitArg first; that step (Init) enters the namespaces
// and becomes the command.
package spawn

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// InitArg is the first argument of the program when it is to be the init step
// of Run: its main function must call Init then, before anything else.
const InitArg = "towpath-spawn-init"

// The exit codes of env(1), nohup(1) and container engines.
const (
	// CodeFailed: the command was not started, for a reason that is not its own.
	CodeFailed = 125
	// CodeNotExecutable: the command is there and cannot be executed.
	CodeNotExecutable = 126
	// CodeNotFound: there is no such command.
	CodeNotFound = 127
	// codeSignal is added to the number of the signal that ended a command.
	codeSignal = 128
)

// firstPassed is the least number of a descriptor handed to the init step.
// Those of the caller, which the command inherits, are usually lower: shells
// use 0 to 9, and from 63 down for process substitution.
const firstPassed = 100

// Command is what to run, and what it sees.
type Command struct {
	// Argv is the command and its arguments; it is looked for in PATH.
	Argv []string
	// Netns is the network namespace to run in. nil: all namespaces, files and
	// the host name are the caller's, and the rest of this struct is not used.
	Netns *os.File
	// Hostname is set in the command's UTS namespace.
	Hostname string
	// Hosts and Resolv are what /etc/hosts and /etc/resolv.conf read as.
	Hosts, Resolv string
	// Output takes what the command prints; nil: the caller's standard streams.
	Output *os.File
	// Running is called once the command runs, unless nil.
	Running func()
}

// Failure says that the command was not started.
type Failure struct {
	// Code is CodeFailed, CodeNotExecutable or CodeNotFound.
	Code int
	Err  error
}

func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }

// failed makes a Failure with CodeFailed.
func failed(format string, args ...any) *Failure {
	return &Failure{CodeFailed, fmt.Errorf(format, args...)}
}

// report is how the init step tells that it could not become the command.
type report struct {
	Code int    `json:"code"`
	Text string `json:"text"`
}

// Run runs the command with the caller's standard streams and returns its exit
// code, 128 and the number of the signal if one ended it. Signals that the
// caller gets meanwhile go on to the command. Should the caller die first, the
// kernel kills the command. The error is a *Failure.
func Run(c Command) (int, error) {
	// PR_SET_PDEATHSIG is about the thread that forked, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded()...)
	defer signal.Stop(signals)
	cmd, answer, err := start(c)
	if err != nil {
		return CodeFailed, err
	}
	defer func() { _ = answer.Close() }()
	ended := make(chan struct{})
	defer close(ended)
	go forward(signals, cmd.Process, ended)
	failure := readReport(answer)
	if failure == nil && c.Running != nil {
		c.Running()
	}
	if err := wait(cmd); err != nil && failure == nil {
		failure = failed("wait for %s: %w", c.Argv[0], err)
	}
	if failure != nil {
		return failure.Code, failure
	}
	return exitCode(cmd.ProcessState), nil
}

// start executes the init step; the file answers with a report, or ends when
// the command runs.
func start(c Command) (*exec.Cmd, *os.File, error) {
	answer, theirs, err := os.Pipe()
	if err != nil {
		return nil, nil, failed("make pipe: %w", err)
	}
	passed := passing{}
	defer passed.close()
	defer func() { _ = theirs.Close() }()
	cfg := config{Parent: os.Getpid(), Netns: -1, Hostname: c.Hostname, Hosts: c.Hosts, Resolv: c.Resolv}
	cfg.Report, err = passed.add(theirs)
	if c.Netns != nil && err == nil {
		cfg.Netns, err = passed.add(c.Netns)
	}
	if err != nil {
		return nil, nil, &Failure{CodeFailed, errors.Join(err, answer.Close())}
	}
	cmd, err := initStep(cfg, c.Argv)
	if err == nil {
		if c.Output != nil {
			cmd.Stdout, cmd.Stderr = c.Output, c.Output
		}
		err = cmd.Start()
	}
	if err != nil {
		return nil, nil, &Failure{CodeFailed, errors.Join(fmt.Errorf("start init step: %w", err), answer.Close())}
	}
	return cmd, answer, nil
}

// initStep is this program as the init step of argv.
func initStep(cfg config, argv []string) (*exec.Cmd, error) {
	text, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", append([]string{InitArg, string(text)}, argv...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd, nil
}

// passing is copies of descriptors that survive exec(2). They are made by hand,
// because exec.Cmd.ExtraFiles would take the numbers 3, 4, ... away from files
// that the caller opened for the command.
type passing []int

func (p *passing) add(f *os.File) (int, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD, firstPassed)
	runtime.KeepAlive(f)
	if err != nil {
		return -1, fmt.Errorf("copy descriptor: %w", err)
	}
	*p = append(*p, fd)
	return fd, nil
}

func (p *passing) close() {
	for _, fd := range *p {
		_ = unix.Close(fd)
	}
}

// readReport waits until the command runs (nil), or did not come to it.
func readReport(answer io.Reader) *Failure {
	data, err := io.ReadAll(answer)
	if err != nil {
		return failed("read report of the init step: %w", err)
	}
	if len(data) == 0 {
		return nil
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return failed("read report of the init step: %w", err)
	}
	return &Failure{r.Code, errors.New(r.Text)}
}

// wait waits for the end of cmd; an end of any kind is no error.
func wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

func exitCode(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return codeSignal + int(ws.Signal())
	}
	return state.ExitCode()
}
