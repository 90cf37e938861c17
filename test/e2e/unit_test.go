package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// confined are the words before a command line that put it under the settings
// of the installed unit, as far as they hold without systemd. The groups of
// system calls are those of the oldest systemd in use: later ones allow more.
func confined(t testing.TB) []string {
	t.Helper()
	dir := t.TempDir()
	unit := filepath.Join(install(t), "usr/local/lib/systemd/system/towpathd.service")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", dir, "../confine")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build confine: %v\n%s", err, out)
	}
	constants := strings.TrimSpace(typed(t, "../confine", "go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix"))
	return []string{filepath.Join(dir, "confine"), unit, "testdata/systemd-252-syscall-filter.txt", constants}
}

// startAs starts the daemon by a command line that ends in its own, as systemd
// would, and gives what it says. It is ready when this returns.
func (w *world) startAs(words ...string) <-chan string {
	w.Helper()
	notify := filepath.Join(w.run, "notify")
	if err := os.Remove(notify); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.Fatal(err)
	}
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	w.check(err)
	words = append(words, filepath.Join(binDir, "towpathd"), "--run-dir", w.run, "--state-dir", w.state)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify, "WATCHDOG_USEC="+strconv.Itoa(int((300*time.Millisecond).Microseconds())))
	cmd.Stdout, cmd.Stderr = w.log, w.log
	w.check(w.host.Start(cmd))
	w.daemon = cmd
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); sock.Close(); close(ended) }()
	w.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	said := make(chan string, 1000) // none waits for a reader
	go func() {
		defer close(said)
		buf := make([]byte, 64)
		for {
			n, err := sock.Read(buf)
			if err != nil {
				return
			}
			said <- string(buf[:n])
		}
	}()
	w.hears(said, "READY=1")
	return said
}

// hears waits until something is said, past other things.
func (w *world) hears(said <-chan string, want string) {
	w.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for {
		select {
		case s, ok := <-said:
			switch {
			case !ok:
				w.Fatalf("the daemon ended and did not say %s\nlog:\n%s", want, w.log)
			case s == want:
				return
			}
		case <-limit.C:
			w.Fatalf("the daemon does not say %s\nlog:\n%s", want, w.log)
		}
	}
}

// TestUnit: under the settings of its unit the daemon does all its verbs, what
// it mounts is seen outside, it says that it lives and that it stops, and a
// restart loses no packet.
func TestUnit(t *testing.T) {
	w := newWorld(t)
	words := confined(t)
	w.settle()
	before := w.snapshot()
	said := w.startAs(words...)
	w.isConfined()

	w.must("network", "create", "front", "--ipv6")
	w.must("network", "create", "back")
	w.must("sandbox", "create", "web", "--network", "front", "-p", "80:80")
	w.must("network", "connect", "back", "web")
	guest := testnet.New(t, "guest")
	guestCommand := exec.CommandContext(t.Context(), "cat")
	stdin, err := guestCommand.StdinPipe() // stays open: cat does not end by itself
	w.check(err)
	w.check(guest.Start(guestCommand))
	defer func() { stdin.Close(); _ = guestCommand.Wait() }()
	w.must("sandbox", "create", "guest", "--pid", strconv.Itoa(guestCommand.Process.Pid), "--network", "front")
	if out := w.must("run", "--network", "front", "--", "cat", "/proc/net/dev"); !strings.Contains(out, "eth0:") {
		t.Errorf("run: the command is not on a network:\n%s", out)
	}
	if out := w.must("exec", "web", "--", "cat", "/proc/net/dev"); !strings.Contains(out, "eth1:") {
		t.Errorf("exec: the command is not in the sandbox:\n%s", out)
	}
	// Opened by this process, as anybody would: the mount is not the daemon's alone.
	web, _ := w.sandbox("web")
	reaches(w, web, w.outside, outside4())
	reaches(w, web, w.outside, outside6())
	taken := w.host.ListenTCP(t, netip.AddrPortFrom(host4(), 0))
	defer taken.Close()
	r := w.towpath("publish", "web", fmt.Sprintf("%s:80", taken.Addr()))
	if holder := fmt.Sprintf("(pid %d)", os.Getpid()); r.code != 1 || !strings.Contains(r.stderr, holder) {
		t.Errorf("a port that is taken: exit %d, and not a word of %s: %s", r.code, holder, r.stderr)
	}
	w.traces(t, "web")
	w.clean()
	w.nothingLeaked()
	w.hears(said, "WATCHDOG=1")

	ping, err := web.EchoEvery(t.Context(), outside4(), 5*time.Millisecond)
	w.check(err)
	w.term()
	w.hears(said, "STOPPING=1")
	reaches(w, web, w.outside, outside6())
	w.startAs(words...)
	w.clean()
	w.nothingLeaked()
	if r := ping.Stop(patience); len(r.Probes) == 0 || len(r.Lost()) > 0 {
		t.Errorf("a ping that ran while the daemon was restarted: %s", r)
	}
	w.must("network", "disconnect", "back", "web")
	w.must("sandbox", "rm", "web", "guest")
	w.must("network", "rm", "front", "back")
	w.clean()
	w.nothingLeaked()
	w.kill()
	w.takeDown(before)
}

// traces probes from a sandbox, and traces, at every level that this kernel has.
func (w *world) traces(t *testing.T, sandbox string) {
	for level, feature := range map[string]string{"taps": "netns", "tracepoints": "bpf-types", "full": "bpf-hooks"} {
		t.Run("traces at level "+level, func(t *testing.T) {
			testnet.Require(t, feature)
			for _, words := range [][]string{{"probe", sandbox, outside4().String(), "--level", level}, {"trace", "--duration", "1ms", "--level", level}} {
				if r := w.towpath(words...); r.code != 0 {
					t.Errorf("%v: exit %d: %s%s", words, r.code, r.stdout, r.stderr)
				}
			}
		})
	}
}

// isConfined checks that the settings took hold of the daemon, and that its
// mount namespace is this one.
func (w *world) isConfined() {
	w.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.daemon.Process.Pid))
	w.check(err)
	caps := uint64(1)<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_BROADCAST | 1<<unix.CAP_CHOWN |
		1<<unix.CAP_NET_BIND_SERVICE | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_KILL | 1<<unix.CAP_NET_RAW
	for _, line := range []string{
		"NoNewPrivs:\t1", fmt.Sprintf("Seccomp:\t%d", unix.SECCOMP_MODE_FILTER),
		fmt.Sprintf("CapBnd:\t%016x", caps), fmt.Sprintf("CapEff:\t%016x", caps),
	} {
		if !strings.Contains(string(text), line+"\n") {
			w.Errorf("the daemon's status has no line %q:\n%s", line, text)
		}
	}
	own, err := os.Readlink("/proc/self/ns/mnt")
	w.check(err)
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", w.daemon.Process.Pid))
	w.check(err)
	if own != theirs {
		w.Errorf("the daemon has a mount namespace of its own: %s", theirs)
	}
}

// TestUnitRefuses: the settings forbid what the daemon has no use for.
func TestUnitRefuses(t *testing.T) {
	testnet.Require(t, "netns", "unshare-binary", "setpriv-binary", "chroot-binary")
	words := confined(t)
	for line, allowed := range map[string]bool{
		"unshare --net true":                    true,
		"unshare --uts true":                    false,
		"unshare --mount true":                  false,
		"unshare --user true":                   false,
		"chroot / true":                         false,
		"setpriv --reuid=1 --clear-groups true": false,
		"setarch --addr-no-randomize true":      false,
	} {
		argv := append(words[:len(words):len(words)], strings.Fields(line)...)
		out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
		if (err == nil) != allowed {
			t.Errorf("%s: allowed is %t, want %t: %v %s", line, err == nil, allowed, err, out)
		}
	}
}

// TestUnitUnknown: a setting that this test cannot apply is found, and with it
// each that would give the daemon a mount namespace.
func TestUnitUnknown(t *testing.T) {
	words := confined(t)
	text, err := os.ReadFile(words[1])
	must(t, err)
	for _, setting := range []string{
		"ProtectSystem=strict", "PrivateTmp=yes", "RuntimeDirectory=towpath",
		"CapabilityBoundingSet=CAP_NONE", "SystemCallFilter=@none", "RestrictAddressFamilies=AF_NONE",
		"RestrictNamespaces=none", "NoNewPrivileges=no", "nothing",
	} {
		unit := filepath.Join(t.TempDir(), "towpathd.service")
		must(t, os.WriteFile(unit, append([]byte(setting+"\n"), text...), 0o644))
		out, err := exec.CommandContext(t.Context(), words[0], unit, words[2], words[3], "true").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "towpathd.service: ") || !strings.Contains(string(out), setting) {
			t.Errorf("%s: %v: %s", setting, err, out)
		}
	}
}
