package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/server/servertest"
	"github.com/towpath/towpath/internal/testnet"
)

func TestMain(m *testing.M) {
	testscript.Main(testnet.Isolated{Runner: m}, map[string]func(){"towpath": main})
}

// makeNetns makes a network namespace that lives as long as a thread of this
// process, so that nothing is left mounted.
func makeNetns(string) (path string, remove func(), err error) {
	type made struct {
		path string
		err  error
	}
	ready, end := make(chan made), make(chan struct{})
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		ready <- made{fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()), err}
		<-end
	}()
	m := <-ready
	return m.path, func() { close(end) }, m.err
}

// scripts runs the scripts that match a glob, each against an engine of its own
// that makes namespaces by netns.
func scripts(t *testing.T, glob string, netns func(string) (string, func(), error)) {
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts at %s: %v", glob, err)
	}
	testscript.Run(t, testscript.Params{
		Files: files,
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "tp")
			if err != nil {
				return err
			}
			socket := filepath.Join(dir, "towpath.sock")
			engine := servertest.New()
			engine.MakeNetns = netns
			stop, err := servertest.Serve(socket, engine)
			if err != nil {
				return err
			}
			env.Setenv("TOWPATH_SOCKET", socket)
			env.Values[drift] = engine
			env.Defer(func() {
				if err := errors.Join(stop(), os.RemoveAll(dir)); err != nil {
					t.Error(err)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "drift": setDrift},
	})
}

// drift is the key of the engine in a script's values.
const drift = "engine"

// setDrift is `drift LINE...`: what diff answers from now on.
func setDrift(ts *testscript.TestScript, _ bool, args []string) {
	engine, ok := ts.Value(drift).(*servertest.Engine)
	if !ok {
		ts.Fatalf("no engine")
	}
	engine.SetDrift(args...)
}

// exits is `exits CODE PROGRAM [ARG]...`.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func TestScripts(t *testing.T) { scripts(t, "testdata/*.txtar", nil) }

func TestRunScripts(t *testing.T) {
	testnet.Require(t, "netns")
	scripts(t, "testdata/netns/*.txtar", makeNetns)
}

// insideUserns is set where the tests run again in a user namespace.
const insideUserns = "TOWPATH_TEST_USERNS"

func TestRunScriptsInUserNamespace(t *testing.T) {
	if os.Getenv(insideUserns) != "" {
		return
	}
	testnet.Require(t, "netns")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestRunScripts$", "-test.v")
	cmd.Env = append(os.Environ(), insideUserns+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Skipf("needs user namespaces: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// A run whose daemon is gone when the command ends keeps the command's code.
func TestRunOutlivesDaemon(t *testing.T) {
	testnet.Require(t, "netns")
	engine := servertest.New()
	engine.MakeNetns = makeNetns
	path := filepath.Join(servertest.SocketDir(t), "towpath.sock")
	stop, err := servertest.Serve(path, engine)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("towpath", "--socket", path, "run", "--", "sh", "-c", "echo ready; read line; exit 5")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	_ = stdin.Close()
	_ = cmd.Wait()
	if cmd.ProcessState.ExitCode() != 5 || !strings.Contains(stderr.String(), "is still there") {
		t.Errorf("code %d: %s", cmd.ProcessState.ExitCode(), stderr.String())
	}
	all, err := engine.Sandboxes(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%v %v", all, err)
	}
	if _, err := engine.RemoveSandbox(t.Context(), all[0].Name, api.Caller{}, false, false); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the daemon still answers")
	}
}
