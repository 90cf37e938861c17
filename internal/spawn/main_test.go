package spawn

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// The test binary plays three more parts, chosen by its first argument.
const (
	// playRun runs the rest of its arguments in a new namespace.
	playRun = "spawn-test-run"
	// playHost runs them in the caller's own.
	playHost = "spawn-test-host"
	// playDetach runs this program in the background with them, and prints what
	// that says.
	playDetach = "spawn-test-detach"
	// playWait prints the signals it gets, and ends with 3 at SIGTERM.
	playWait = "spawn-test-wait"
)

const testResolv = "nameserver 192.0.2.53\n"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case InitArg:
			os.Exit(Init(os.Args[2:]))
		case playRun:
			os.Exit(runHere(newNetns(), os.Args[2:]))
		case playHost:
			os.Exit(runHere(nil, os.Args[2:]))
		case playDetach:
			os.Exit(detachHere(os.Args[2:]))
		case DetachArg:
			os.Exit(inBackground(os.Args[2], os.Args[3:]))
		case playWait:
			os.Exit(waitForSignals())
		}
	}
	os.Exit(testnet.Main(m))
}

// newNetns makes a network namespace that lives as long as its file.
func newNetns() *os.File {
	made := make(chan *os.File)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			panic(err)
		}
		made <- f
	}()
	return <-made
}

func runHere(netns *os.File, argv []string) int {
	code, err := Run(Command{
		Argv: argv, Netns: netns, Hostname: "web", Hosts: "192.0.2.1\tweb\n", Resolv: testResolv,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "towpath:", err)
	}
	return code
}

func detachHere(args []string) int {
	said, code, err := Detach(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "towpath:", err)
	}
	fmt.Printf("said %q\n", said)
	return code
}

// inBackground runs argv on the host, with log for what it prints.
func inBackground(log string, argv []string) int {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	code, err := Run(Command{Argv: argv, Output: f, Running: func() {
		if err := Settle([]byte("it runs"), f); err != nil {
			panic(err)
		}
	}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "towpath:", err)
		return code
	}
	fmt.Println("ended")
	return code
}

func waitForSignals() int {
	got := make(chan os.Signal, 16)
	signal.Notify(got)
	fmt.Println("ready")
	for s := range got {
		switch s {
		case syscall.SIGURG, syscall.SIGCHLD, syscall.SIGCONT:
			continue
		}
		fmt.Println(s)
		if s == syscall.SIGTERM {
			break
		}
	}
	return 3
}

// insideUserns is set where the tests run again in a user namespace.
const insideUserns = "TOWPATH_TEST_USERNS"

// TestInUserNamespace runs the tests again as root of a user namespace.
func TestInUserNamespace(t *testing.T) {
	if os.Getenv(insideUserns) != "" {
		return
	}
	testnet.Require(t, "netns")
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestRun", "-test.v")
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
	t.Logf("%s", out)
}
