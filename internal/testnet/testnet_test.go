//go:build linux

package testnet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// pair is two namespaces joined by a veth pair.
func pair(t *testing.T) (a, b *testnet.NS) {
	t.Helper()
	a, b = testnet.New(t, "a"), testnet.New(t, "b")
	testnet.Link(t, a, b, "eth0", "eth0",
		[]netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd09::1/64")},
		[]netip.Prefix{netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd09::2/64")})
	return a, b
}

func TestMainIsolates(t *testing.T) {
	testnet.Require(t, "netns")
	self, err := netns.Self()
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	c, err := rt.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	links, err := c.Links(t.Context(), rt.LinkFilter{Kind: ""})
	if err != nil {
		t.Fatal(err)
	}
	if lo := links[0]; lo.Name != "lo" || !lo.Up {
		t.Errorf("first link %+v, want lo up", lo)
	}
	for _, l := range links {
		if l.Kind == "" && l.Name != "lo" && !strings.HasPrefix(l.Name, "ifb") {
			t.Errorf("link %s of hardware in a new namespace", l.Name)
		}
	}
	files, err := os.ReadDir("/run")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 0 {
		t.Errorf("/run holds %v, want nothing", files)
	}
}

// TestChildDiesWithParent starts this binary as go test does, kills it once its
// child runs, and waits for the child's end by the end of its output.
func TestChildDiesWithParent(t *testing.T) {
	testnet.Require(t, "netns")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=TestBlockForParent", "-test.v")
	cmd.Env = append(cleanEnv(), "TOWPATH_TESTNET_BLOCK=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	b := make([]byte, 4096)
	killed := false
	for {
		n, err := out.Read(b)
		all.Write(b[:n])
		if err != nil {
			break // the child's end of the pipe is closed: it is dead
		}
		if !killed && strings.Contains(all.String(), "blocking") {
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // says "killed"
	if !killed {
		t.Fatalf("child never ran:\n%s", all.String())
	}
}

// TestBlockForParent is the child of TestChildDiesWithParent.
func TestBlockForParent(t *testing.T) {
	if os.Getenv("TOWPATH_TESTNET_BLOCK") == "" {
		return
	}
	fmt.Println("blocking")
	<-t.Context().Done()
}

// TestExitCode starts this binary with a test that fails.
func TestExitCode(t *testing.T) {
	testnet.Require(t, "netns")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=TestFailForParent")
	cmd.Env = append(cleanEnv(), "TOWPATH_TESTNET_FAIL=1")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("got %v, want exit code 1:\n%s", err, out)
	}
}

// TestFailForParent is the child of TestExitCode.
func TestFailForParent(t *testing.T) {
	if os.Getenv("TOWPATH_TESTNET_FAIL") != "" {
		t.Fatal("as asked")
	}
}

// TestRequire runs a skipping test where the environment demands what it
// needs.
func TestRequire(t *testing.T) {
	for _, tc := range []struct{ require, want string }{
		{"", "skip: needs no-such-program-binary"},
		{"root,no-such-program-binary", "--- FAIL"},
		{"all", "--- FAIL"},
	} {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=TestSkipForParent", "-test.v")
		cmd.Env = append(os.Environ(), "TOWPATH_TESTNET_SKIP=1", "TOWPATH_REQUIRE="+tc.require)
		out, _ := cmd.CombinedOutput()
		if !bytes.Contains(out, []byte(tc.want)) {
			t.Errorf("TOWPATH_REQUIRE=%s gave\n%s\nwant %q", tc.require, out, tc.want)
		}
	}
}

// TestSkipForParent is the child of TestRequire.
func TestSkipForParent(t *testing.T) {
	if os.Getenv("TOWPATH_TESTNET_SKIP") != "" {
		testnet.Require(t, "no-such-program-binary")
	}
}

// cleanEnv is the environment without Main's own variables.
func cleanEnv() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "TOWPATH_TESTNET") {
			out = append(out, kv)
		}
	}
	return out
}

func TestLinkAndEcho(t *testing.T) {
	a, b := pair(t)
	for _, dst := range []string{"10.9.0.2", "fd09::2"} {
		if err := a.Echo(netip.MustParseAddr(dst), 5*time.Second); err != nil {
			t.Error(err)
		}
	}
	if err := b.Echo(netip.MustParseAddr("127.0.0.1"), 5*time.Second); err != nil {
		t.Errorf("lo is not up: %v", err)
	}
	err := a.Echo(netip.MustParseAddr("10.9.0.3"), 50*time.Millisecond)
	if !errors.Is(err, testnet.ErrNoEcho) {
		t.Errorf("echo to nobody: %v, want %v", err, testnet.ErrNoEcho)
	}
	if err := a.Echo(netip.MustParseAddr("192.0.2.1"), time.Second); err == nil {
		t.Error("echo without a route: no error")
	}
}

func TestTCPAndUDP(t *testing.T) {
	a, b := pair(t)
	for _, host := range []string{"10.9.0.2", "fd09::2"} {
		tcp, err := a.DialTCP(t.Context(), b.ServeTCP(t, netip.AddrPortFrom(netip.MustParseAddr(host), 0)))
		if err != nil {
			t.Fatal(err)
		}
		udp, err := a.DialUDP(t.Context(), b.ServeUDP(t, netip.AddrPortFrom(netip.MustParseAddr(host), 0)))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []interface {
			Read([]byte) (int, error)
			Write([]byte) (int, error)
			Close() error
		}{tcp, udp} {
			got := make([]byte, 8)
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(got); err != nil || string(got[:n]) != "hello" {
				t.Errorf("%T to %s: %q, %v", c, host, got[:n], err)
			}
			c.Close()
		}
	}
}

func TestEchoEveryCountsLosses(t *testing.T) {
	a, b := pair(t)
	p, err := a.EchoEvery(t.Context(), netip.MustParseAddr("10.9.0.2"), 2*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	wait, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	<-wait.Done()
	r := p.Stop(5 * time.Second)
	if len(r.Probes) < 5 || len(r.Lost()) != 0 {
		t.Errorf("undisturbed: %s", r)
	}

	p, err = a.EchoEvery(t.Context(), netip.MustParseAddr("10.9.0.2"), 2*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	c := b.Conn(t)
	l, err := c.LinkByName(t.Context(), "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetLink(t.Context(), l.Index, rt.LinkChange{Up: new(bool)}); err != nil {
		t.Fatal(err)
	}
	wait, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	<-wait.Done()
	if r = p.Stop(50 * time.Millisecond); len(r.Lost()) == 0 {
		t.Errorf("link down: %s, want losses", r)
	}
}

func TestStartAndOutput(t *testing.T) {
	ns := testnet.New(t, "a")
	want, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ns.Output(t.Context(), "readlink", "/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(got) != want {
		t.Errorf("program ran in %s, want %s", got, want)
	}
	if _, err := ns.Output(t.Context(), "ls", "/no/such/file"); err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("error %v, want the program's own words", err)
	}
}
