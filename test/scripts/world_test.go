package scripts

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
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/client"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

// patience bounds waiting for what should come, impatience for what should not.
const (
	patience   = 10 * time.Second
	impatience = 300 * time.Millisecond
)

// The machine outside is the host's default gateway, on the documentation
// ranges of RFC 5737 and RFC 3849.
const (
	outside4, outside6 = "192.0.2.1", "2001:db8::1"
	host4, host6       = "192.0.2.10", "2001:db8::10"
)

// world is a host with a daemon, and a machine outside.
type world struct {
	testing.TB
	host, outside *testnet.NS
	// dir is the run directory, state that of the store.
	dir, state string
	daemon     *exec.Cmd
	// under is the command line that the daemon is started by; empty: none.
	under []string
	// gone is closed when the daemon has ended.
	gone chan struct{}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	testnet.Require(t, "netns")
	w := &world{TB: t, host: testnet.New(t, "host"), outside: testnet.New(t, "outside"), state: t.TempDir()}
	testnet.Link(t, w.host, w.outside, "eth0", "eth0",
		[]netip.Prefix{netip.MustParsePrefix(host4 + "/24"), netip.MustParsePrefix(host6 + "/64")},
		[]netip.Prefix{netip.MustParsePrefix(outside4 + "/24"), netip.MustParsePrefix(outside6 + "/64")})
	for dst, via := range map[string]string{"0.0.0.0/0": outside4, "::/0": outside6} {
		c := w.host.Conn(t)
		l, err := c.LinkByName(t.Context(), "eth0")
		if err == nil {
			err = c.AddRoute(t.Context(), rt.Route{Dst: netip.MustParsePrefix(dst), Gateway: netip.MustParseAddr(via), OIF: l.Index})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// Not t.TempDir: sun_path holds 108 bytes (unix(7)).
	dir, err := os.MkdirTemp("/run", "tp")
	if err != nil {
		t.Fatal(err)
	}
	w.dir = dir
	t.Cleanup(w.leave)
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) socket() string { return filepath.Join(w.dir, "towpath.sock") }

// start starts the daemon on the host and waits until it says that it is ready.
func (w *world) start() error {
	notify := filepath.Join(w.dir, "notify")
	_ = os.Remove(notify)
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer sock.Close()
	log, err := os.OpenFile(w.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	argv := append(slices.Clone(w.under), filepath.Join(os.Getenv(binariesEnv), "towpathd"), "--run-dir", w.dir, "--state-dir", w.state)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	cmd.Stderr = log
	if err := w.host.Start(cmd); err != nil {
		return err
	}
	gone := make(chan struct{})
	w.daemon, w.gone = cmd, gone
	go func() {
		_ = cmd.Wait()
		close(gone)
		_ = sock.Close()
	}()
	_ = sock.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 64)
	n, err := sock.Read(buf)
	if err == nil && string(buf[:n]) == "READY=1" {
		return nil
	}
	text, _ := os.ReadFile(w.log())
	return fmt.Errorf("the daemon did not get ready: %q %w\n%s", buf[:n], err, text)
}

func (w *world) log() string { return filepath.Join(w.dir, "log") }

// stop ends the daemon by a signal.
func (w *world) stop(s syscall.Signal) {
	_ = w.daemon.Process.Signal(s)
	<-w.gone
}

// leave ends what still runs. Commands in the background are ended by the end
// of the process that their sandbox goes with.
func (w *world) leave() {
	c := client.New(w.socket())
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), patience)
	defer cancel()
	all, err := c.Sandboxes(ctx)
	for _, s := range all {
		if s.Process != nil {
			_ = syscall.Kill(s.Process.PID, syscall.SIGKILL)
		}
	}
	w.stop(syscall.SIGKILL)
	if w.Failed() {
		text, _ := os.ReadFile(w.log())
		w.Logf("the end of the daemon's log (%v):\n%s", err, text[max(0, len(text)-4096):])
	}
	dir := filepath.Join(w.dir, "netns")
	entries, err := netns.List(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.Error(err)
	}
	for _, e := range entries {
		if err := netns.Remove(filepath.Join(dir, e.Name)); err != nil {
			w.Error(err)
		}
	}
}

// environ is what a command line on the host is started with.
func (w *world) environ() []string {
	return []string{
		"TOWPATH_SOCKET=" + w.socket(),
		hostEnv + "=" + fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), w.host.FD()),
	}
}

// command is `towpath ARGS` on the host.
func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(w.Context(), "towpath", args...)
	cmd.Env = append(os.Environ(), w.environ()...)
	return cmd
}

// must runs `towpath ARGS`, which must exit with 0, and returns what it printed.
func (w *world) must(args ...string) string {
	w.Helper()
	cmd := w.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		w.Fatalf("towpath %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// clean checks that plan and kernel agree.
func (w *world) clean() error {
	out, err := w.command("diff").CombinedOutput()
	if err != nil || len(out) > 0 {
		return fmt.Errorf("diff: %w\n%s", err, out)
	}
	return nil
}

// place is a namespace by name: host, outside, or a sandbox's, with the
// addresses that it has.
func (w *world) place(name string) (ns *testnet.NS, addrs []netip.Addr, err error) {
	switch name {
	case "host":
		return w.host, []netip.Addr{netip.MustParseAddr(host4), netip.MustParseAddr(host6)}, nil
	case "outside":
		return w.outside, []netip.Addr{netip.MustParseAddr(outside4), netip.MustParseAddr(outside6)}, nil
	}
	out, err := w.command("sandbox", "inspect", name).Output()
	var all []api.Sandbox
	if err == nil {
		err = json.Unmarshal(out, &all)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("inspect %s: %w", name, err)
	}
	f, err := netns.Open(all[0].Netns)
	if err != nil {
		return nil, nil, err
	}
	w.Cleanup(func() { f.Close() })
	for _, e := range all[0].Endpoints {
		for _, a := range e.Addresses {
			addrs = append(addrs, a.Addr())
		}
	}
	return &testnet.NS{Name: name, F: f}, addrs, nil
}

// soon repeats until holds, and reports whether it came to that. What is waited
// for tells of itself by nothing that a stranger could listen to.
func soon(holds func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if holds() {
			return true
		}
	}
	return false
}
