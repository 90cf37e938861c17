// Package e2e runs the daemon and the command line as a user would, in network
// namespaces of its own: one is "the host", one the world outside.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/testnet"
)

// Addresses in these tests: the host is .10 on the uplink, the machine outside
// .1 and the host's default gateway (RFC 5737 and RFC 3849 documentation ranges).
const (
	hostLink4, outsideLink4 = "192.0.2.10/24", "192.0.2.1/24"
	hostLink6, outsideLink6 = "2001:db8::10/64", "2001:db8::1/64"
)

func host4() netip.Addr    { return netip.MustParsePrefix(hostLink4).Addr() }
func host6() netip.Addr    { return netip.MustParsePrefix(hostLink6).Addr() }
func outside4() netip.Addr { return netip.MustParsePrefix(outsideLink4).Addr() }
func outside6() netip.Addr { return netip.MustParsePrefix(outsideLink6).Addr() }

// binDir holds the binaries under test, built once for all tests.
var binDir string

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == lookupArg {
		os.Exit(lookup(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == withoutArg {
		fmt.Fprintln(os.Stderr, without(os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(testnet.Main(runner{m}))
}

// runner builds the binaries before the tests.
type runner struct{ m *testing.M }

// Run builds and runs.
func (r runner) Run() int {
	dir, err := os.MkdirTemp("", "towpath-e2e-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binDir = dir
	build := exec.Command("go", "build", "-buildvcs=false", "-o", dir, "../../cmd/towpath", "../../cmd/towpathd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(string(out))
	}
	return r.m.Run()
}

// world is a host with a daemon, and a machine outside.
type world struct {
	testing.TB
	host, outside *testnet.NS
	run, state    string
	daemon        *exec.Cmd
	log           *logBuffer
	flags         []string // of the daemon, besides those of the directories
}

func newWorld(t testing.TB) *world {
	t.Helper()
	testnet.Require(t, "netns")
	w := &world{TB: t, host: testnet.New(t, "host"), outside: testnet.New(t, "outside"), log: &logBuffer{}}
	w.run, w.state = shortDir(t), t.TempDir()
	testnet.Link(t, w.host, w.outside, "eth0", "eth0", prefixes(hostLink4, hostLink6), prefixes(outsideLink4, outsideLink6))
	w.route(w.host, "0.0.0.0/0", outside4())
	w.route(w.host, "::/0", outside6())
	return w
}

// shortDir is a directory whose path leaves room for a socket's name: sun_path
// holds 108 bytes (unix(7)).
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/run", "tp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		entries, err := netns.List(filepath.Join(dir, "netns"))
		if err == nil {
			for _, e := range entries {
				_ = netns.Remove(filepath.Join(dir, "netns", e.Name))
			}
		}
	})
	return dir
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// route adds a route over eth0.
func (w *world) route(ns *testnet.NS, dst string, via netip.Addr) {
	w.Helper()
	c := ns.Conn(w)
	l, err := c.LinkByName(w.Context(), "eth0")
	if err == nil {
		err = c.AddRoute(w.Context(), rt.Route{Dst: netip.MustParsePrefix(dst), Gateway: via, OIF: l.Index})
	}
	if err != nil {
		w.Fatalf("add route to %s: %v", dst, err)
	}
}

// sysctl sets a value on the host.
func (w *world) sysctl(name, value string) {
	w.Helper()
	err := sysctl.Write(w.host.F, name, value)
	if errors.Is(err, errors.ErrUnsupported) {
		w.Skipf("skip: needs %s: %v", name, err)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// start runs the daemon on the host and waits until it says that it is ready.
func (w *world) start(env ...string) {
	w.Helper()
	if err := w.tryStart(env...); err != nil {
		w.Fatalf("the daemon did not get ready: %v\n%s", err, w.log)
	}
}

func (w *world) tryStart(env ...string) error {
	notify := filepath.Join(w.run, "notify")
	_ = os.Remove(notify)
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer sock.Close()
	cmd := exec.Command(filepath.Join(binDir, "towpathd"), append([]string{"--run-dir", w.run, "--state-dir", w.state}, w.flags...)...)
	cmd.Env = append(append(os.Environ(), "NOTIFY_SOCKET="+notify), env...)
	cmd.Stderr = w.log
	if err := w.host.Start(cmd); err != nil {
		return err
	}
	w.daemon = cmd
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); sock.Close(); close(ended) }()
	w.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	_ = sock.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 64)
	n, err := sock.Read(buf)
	if err == nil && string(buf[:n]) != "READY=1" {
		err = errors.New("it said " + string(buf[:n]))
	}
	return err
}

// kill ends the daemon by SIGKILL and waits until it is gone.
func (w *world) kill() {
	w.Helper()
	_ = w.daemon.Process.Kill()
	w.gone()
}

// gone waits until the daemon is gone: its end of the socket's lock is free.
func (w *world) gone() {
	w.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		c, err := net.Dial("unix", filepath.Join(w.run, "towpath.sock"))
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 1)) // ends when the daemon does
		_ = c.Close()
	}
	w.Fatal("the daemon is still there")
}

// result of a command.
type result struct {
	stdout, stderr string
	code           int
}

// towpath runs the command line on the host.
func (w *world) towpath(args ...string) result {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	return w.finish(w.command(ctx, args...))
}

func (w *world) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, "towpath"), args...)
	cmd.Env = append(os.Environ(), "TOWPATH_SOCKET="+filepath.Join(w.run, "towpath.sock"))
	return cmd
}

func (w *world) finish(cmd *exec.Cmd) result {
	w.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := w.host.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// must runs the command line and fails the test unless it exits 0.
func (w *world) must(args ...string) string {
	w.Helper()
	r := w.towpath(args...)
	if r.code != 0 {
		w.Fatalf("towpath %s: exit %d: %s%s\nlog:\n%s", strings.Join(args, " "), r.code, r.stdout, r.stderr, w.log)
	}
	return r.stdout
}

// sandbox gives the namespace and the addresses of a sandbox.
func (w *world) sandbox(name string) (*testnet.NS, api.Sandbox) {
	w.Helper()
	var list []api.Sandbox
	if err := json.Unmarshal([]byte(w.must("sandbox", "inspect", name)), &list); err != nil || len(list) != 1 {
		w.Fatalf("inspect %s: %v", name, err)
	}
	f, err := netns.Open(list[0].Netns)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { f.Close() })
	return &testnet.NS{Name: name, F: f}, list[0]
}

// addresses of the first endpoint: IPv4 and, if it has one, IPv6.
func addresses(s api.Sandbox) (v4, v6 netip.Addr) {
	for _, p := range s.Endpoints[0].Addresses {
		if p.Addr().Is4() {
			v4 = p.Addr()
		} else {
			v6 = p.Addr()
		}
	}
	return v4, v6
}

// clean checks that plan and kernel agree.
func (w *world) clean() {
	w.Helper()
	if r := w.towpath("diff"); r.code != 0 || r.stdout != "" {
		w.Errorf("diff: exit %d\n%s%s\nlog:\n%s", r.code, r.stdout, r.stderr, w.log)
	}
}

// eventually waits until something holds, at most for the patience. The looks
// are ten milliseconds apart: the kernel tells nobody of all that is looked at.
func (w *world) eventually(what string, holds func() bool) {
	w.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			w.Fatalf("not within %s: %s\nlog:\n%s", patience, what, w.log)
		}
	}
}

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }

// refusesTCP checks that no TCP connection gets through.
func refusesTCP(w *world, from, to *testnet.NS, addr netip.Addr) {
	w.Helper()
	l := to.ListenTCP(w, netip.AddrPortFrom(addr, 0))
	defer l.Close()
	ctx, cancel := context.WithTimeout(w.Context(), impatience)
	defer cancel()
	if c, err := from.DialTCP(ctx, netip.MustParseAddrPort(l.Addr().String())); err == nil {
		c.Close()
		w.Errorf("%s opened TCP to %s of %s, which must not be", from.Name, addr, to.Name)
	}
}

// patience and impatience bound waiting for what should come and for what should not.
const (
	patience   = 5 * time.Second
	impatience = 300 * time.Millisecond
)

// reaches checks that a TCP connection can be opened, and gives its far end's
// view of the client's address.
func reaches(w *world, from, to *testnet.NS, addr netip.Addr) netip.Addr {
	w.Helper()
	l := to.ListenTCP(w, netip.AddrPortFrom(addr, 0))
	defer l.Close()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	c, err := from.DialTCP(ctx, netip.AddrPortFrom(addr, port))
	if err != nil {
		w.Errorf("%s cannot open TCP to %s of %s: %v", from.Name, addr, to.Name, err)
		return netip.Addr{}
	}
	defer c.Close()
	_ = l.SetDeadline(time.Now().Add(patience))
	got, err := l.Accept()
	if err != nil {
		w.Errorf("%s does not see the connection of %s: %v", to.Name, from.Name, err)
		return netip.Addr{}
	}
	defer got.Close()
	if err := from.Echo(addr, patience); err != nil {
		w.Errorf("%s cannot ping %s of %s: %v", from.Name, addr, to.Name, err)
	}
	return netip.MustParseAddrPort(got.RemoteAddr().String()).Addr().Unmap()
}

// cut checks that neither TCP nor ping gets through.
func cut(w *world, from, to *testnet.NS, addr netip.Addr) {
	w.Helper()
	refusesTCP(w, from, to, addr)
	if err := from.Echo(addr, impatience); err == nil {
		w.Errorf("%s pinged %s of %s, which must not be", from.Name, addr, to.Name)
	}
}
