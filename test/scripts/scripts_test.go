// Package scripts runs the command line against the real daemon: a script a
// verb, to be read as a tutorial, the examples of the help texts, and what a
// command sees that run and exec start. Each test has a host of its own.
package scripts

import (
	"errors"
	"fmt"
	"net/netip"
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

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/testnet"
)

const (
	// binariesEnv names the directory of the binaries under test.
	binariesEnv = "TOWPATH_TEST_BINARIES"
	// hostEnv names the network namespace that a command line is to run in.
	hostEnv = "TOWPATH_TEST_HOST"
)

func TestMain(m *testing.M) {
	testscript.Main(testnet.Isolated{Runner: builder{m}}, map[string]func(){"towpath": onHost, "waiter": waiter})
}

// builder builds the binaries before the tests.
type builder struct{ tests testnet.Runner }

// Run builds and runs.
func (b builder) Run() int {
	dir, err := os.MkdirTemp("", "towpath-scripts-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-buildvcs=false", "-o", dir, "../../cmd/towpath", "../../cmd/towpathd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	if err := os.Setenv(binariesEnv, dir); err != nil {
		panic(err)
	}
	return b.tests.Run()
}

// onHost is `towpath` in scripts: it enters the host's network namespace and
// becomes the binary under test. The thread that executes is the one that stays.
func onHost() {
	runtime.LockOSThread()
	f, err := netns.Open(os.Getenv(hostEnv))
	if err == nil {
		err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	}
	if err == nil {
		binary := filepath.Join(os.Getenv(binariesEnv), "towpath")
		err = unix.Exec(binary, os.Args, os.Environ())
	}
	panic(err)
}

// TestScripts runs a script a verb.
func TestScripts(t *testing.T) {
	testnet.Require(t, "netns")
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			tb, ok := env.T().(testing.TB)
			if !ok {
				return errors.New("the test is no testing.TB")
			}
			w := newWorld(tb)
			env.Vars = append(env.Vars, w.environ()...)
			env.Setenv(binariesEnv, os.Getenv(binariesEnv))
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			env.Values[worldKey] = w
			return nil
		},
		Condition: func(feature string) (bool, error) { return testnet.Has(feature), nil },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "ping": ping, "clean": clean, "await-clean": awaitClean, "daemon": daemon, "let": let, "netns": makeNetns,
			"link": link, "serve": serve, "sysctl": setSysctl, "lab": lab, "at": at, "ruleset": ruleset, "orphan": orphan, "await": await, "gone": gone, "signal": sendSignal,
		},
	})
}

// worldKey is the key of the world in a script's values.
const worldKey = "world"

func of(ts *testscript.TestScript, neg bool, args []string, want int) *world {
	w, ok := ts.Value(worldKey).(*world)
	if !ok || neg || len(args) < want {
		ts.Fatalf("wrong use of a script command, or no world: %q", args)
	}
	return w
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

// ping is `[!] ping FROM TO`: an echo request from one place to another, or to
// an address. Places are host, outside and sandboxes.
func ping(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts, false, args, 2)
	from, _, err := w.place(args[0])
	ts.Check(err)
	addr, err := netip.ParseAddr(args[1])
	if err != nil {
		_, addrs, err := w.place(args[1])
		ts.Check(err)
		addr = addrs[0]
	}
	wait := patience
	if neg {
		wait = impatience
	}
	if err := from.Echo(addr, wait); (err != nil) != neg {
		ts.Fatalf("ping from %s to %s (%s): %v", args[0], args[1], addr, err)
	}
}

// clean is `clean`: plan and kernel agree.
func clean(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(of(ts, neg, args, 0).clean())
}

// awaitClean is `await-clean`: until they do.
func awaitClean(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts, neg, args, 0)
	if !soon(func() bool { return w.clean() == nil }) {
		ts.Check(w.clean())
	}
}

// daemon is `daemon start|stop|kill`.
func daemon(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts, neg, args, 1)
	switch args[0] {
	case "start":
		ts.Check(w.start())
	case "stop":
		w.stop(syscall.SIGTERM)
	case "kill":
		w.stop(syscall.SIGKILL)
	}
}

// let is `let NAME`: a variable gets what the last command printed.
func let(ts *testscript.TestScript, neg bool, args []string) {
	of(ts, neg, args, 1)
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// makeNetns is `netns NAME`: a namespace at /run/netns/NAME, as `ip netns add`
// makes it. It goes with the script.
func makeNetns(ts *testscript.TestScript, neg bool, args []string) {
	of(ts, neg, args, 1)
	path := filepath.Join("/run/netns", args[0])
	ts.Check(netns.Create(path))
	ts.Defer(func() { ts.Check(netns.Remove(path)) })
}

// link is `link add|del NAME`: a bridge on the host that is not Towpath's.
func link(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts, neg, args, 2)
	c, err := rt.Dial(w.host.FD())
	ts.Check(err)
	defer c.Close()
	if args[0] == "add" {
		ts.Check(c.AddBridge(w.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: args[1]}}))
		return
	}
	l, err := c.LinkByName(w.Context(), args[1])
	ts.Check(err)
	ts.Check(c.DelLink(w.Context(), l.Index))
}

// serve is `serve PLACE ADDRESS:PORT`: a TCP server there, until the script ends.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts, neg, args, 2)
	at, _, err := w.place(args[0])
	ts.Check(err)
	addr, err := netip.ParseAddrPort(args[1])
	ts.Check(err)
	at.ServeTCP(w, addr)
}

// setSysctl is `sysctl KEY VALUE` on the host.
func setSysctl(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts, neg, args, 2)
	ts.Check(sysctl.Write(w.host.F, args[0], args[1]))
}

// await is `await FILE TEXT`: until a file holds a text.
func await(ts *testscript.TestScript, neg bool, args []string) {
	of(ts, neg, args, 2)
	path := ts.MkAbs(args[0])
	if !soon(func() bool {
		text, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(text), args[1])
	}) {
		text, err := os.ReadFile(path)
		ts.Fatalf("no %q in %s: %v\n%s", args[1], args[0], err, text)
	}
}

// gone is `gone SANDBOX`: until the daemon has removed it.
func gone(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts, neg, args, 1)
	if !soon(func() bool {
		out, err := w.command("sandbox", "ls", "-q", "--filter", "name=^"+args[0]+"$").Output()
		return err == nil && len(out) == 0
	}) {
		ts.Fatalf("sandbox %s is still there", args[0])
	}
}

// sendSignal is `signal NAME PID`.
func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	of(ts, neg, args, 2)
	pid, err := strconv.Atoi(args[1])
	ts.Check(err)
	s := unix.SignalNum("SIG" + args[0])
	if s == 0 {
		err = fmt.Errorf("no signal %s", args[0])
	}
	ts.Check(errors.Join(err, syscall.Kill(pid, s)))
}
