package spawn

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// inSandbox runs argv by Run in a process of its own.
func inSandbox(t *testing.T, part string, argv ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{part}, argv...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestRunExitCodes(t *testing.T) {
	testnet.Require(t, "netns")
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o644); err != nil {
		t.Fatal(err)
	}
	noFormat := filepath.Join(t.TempDir(), "format")
	if err := os.WriteFile(noFormat, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{playRun, playHost} {
		for _, c := range []struct {
			name   string
			argv   []string
			code   int
			stderr string
		}{
			{"done", []string{"true"}, 0, ""},
			{"its own", []string{"sh", "-c", "exit 7"}, 7, ""},
			{"a signal", []string{"sh", "-c", "kill -KILL $$"}, 137, ""},
			{"a file that is no program", []string{plain}, 126, "permission denied"},
			{"a format the kernel does not know", []string{noFormat}, 126, "exec format error"},
			{"a directory", []string{"/"}, 126, "permission denied"},
			{"not in PATH", []string{"no-such-command"}, 127, `"no-such-command": not found in PATH`},
			{"no such file", []string{"/no/such/file"}, 127, "no such file"},
			{"nothing", []string{""}, 127, "not found"},
		} {
			code, _, stderr := inSandbox(t, part, c.argv...)
			if code != c.code || !strings.Contains(stderr, c.stderr) || c.stderr == "" && stderr != "" {
				t.Errorf("%s: %s: code %d, %s", part, c.name, code, stderr)
			}
		}
	}
}

func TestRunSeesItsOwn(t *testing.T) {
	testnet.Require(t, "netns")
	host := read(t, "/proc/self/mountinfo")
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	script := `hostname; pwd; tail -n +2 /proc/net/dev | wc -l; cat /etc/hosts /etc/hostname /etc/resolv.conf; umask; ls /proc/self/fd | wc -l`
	code, out, stderr := inSandbox(t, playRun, "sh", "-c", script)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"web", dir, "2", "192.0.2.1\tweb"}
	for path, text := range map[string]string{"/etc/hostname": "web", "/etc/resolv.conf": strings.TrimSpace(testResolv)} {
		if _, err := os.Stat(path); err == nil {
			want = append(want, text)
		}
	}
	// As many descriptors as any other child of this process has.
	count, err := exec.Command("sh", "-c", "ls /proc/self/fd | wc -l").Output()
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, strings.TrimSpace(string(count)))
	for _, line := range want {
		if !strings.Contains("\n"+out, "\n"+line+"\n") {
			t.Errorf("no line %q in:\n%s", line, out)
		}
	}
	if code != 0 {
		t.Errorf("code %d: %s", code, stderr)
	}
	if now, err := os.Hostname(); err != nil || now != name {
		t.Errorf("the host's own name is %q now (%v)", now, err)
	}
	if now := read(t, "/proc/self/mountinfo"); now != host {
		t.Errorf("the host's own mounts changed:\n%s", now)
	}
}

func TestRunSysIsTheSandboxes(t *testing.T) {
	// Others may see a part of /sys only, and are not allowed a new one then.
	testnet.Require(t, "netns", "root")
	_, out, _ := inSandbox(t, playRun, "sh", "-c", "ls /sys/class/net; echo; ls /sys/fs/cgroup | sort | head -n 3")
	cgroup, err := exec.Command("sh", "-c", "ls /sys/fs/cgroup | sort | head -n 3").Output()
	if err != nil {
		t.Fatal(err)
	}
	if out != "lo\n\n"+string(cgroup) {
		t.Errorf("got:\n%s", out)
	}
}

func TestRunFollowsSymlink(t *testing.T) {
	testnet.Require(t, "netns")
	// A mount namespace in which resolv.conf is a link that leads below the
	// place where own files are staged.
	script := `mount --make-rprivate / && mount -t tmpfs t /etc && mount -t tmpfs t /sys &&
		echo old >/sys/stub && ln -s ../sys/stub /etc/resolv.conf && exec "$0" ` + playRun + ` sh -c 'cat /etc/resolv.conf; ls -A /etc'`
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", script, self)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != testResolv+"resolv.conf\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRunKeepsInheritedFiles(t *testing.T) {
	testnet.Require(t, "netns")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("from outside"); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	cmd := exec.Command("/proc/self/exe", playRun, "sh", "-c", "cat <&3")
	cmd.ExtraFiles = []*os.File{r}
	out, err := cmd.Output()
	if err != nil || string(out) != "from outside" {
		t.Errorf("%q %v", out, err)
	}
	_ = r.Close()
}

// waiting starts a command that prints the signals it gets, and waits until it
// is ready.
func waiting(t *testing.T, stdout io.Reader, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	if line, err := out.ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		t.Fatalf("%q %v", line, err)
	}
	return out
}

func waitCommand(t *testing.T) (*exec.Cmd, io.Reader) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, playRun, self, playWait)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

func TestRunForwardsSignals(t *testing.T) {
	testnet.Require(t, "netns")
	cmd, stdout := waitCommand(t)
	// A session of its own has no terminal.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out := waiting(t, stdout, cmd)
	for _, s := range forwarded() {
		if s == syscall.SIGTERM {
			continue
		}
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if line, err := out.ReadString('\n'); err != nil || strings.TrimSpace(line) != s.String() {
			t.Errorf("%v: %q %v", s, line, err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("code %d", cmd.ProcessState.ExitCode())
	}
}

func TestRunDiesWithItsParent(t *testing.T) {
	testnet.Require(t, "netns")
	cmd, stdout := waitCommand(t)
	out := waiting(t, stdout, cmd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The command holds the pipe: its end is the command's end.
	if rest, err := io.ReadAll(out); err != nil || len(rest) != 0 {
		t.Errorf("%q %v", rest, err)
	}
	_ = cmd.Wait()
}

func TestRunGetsOneInterruptFromTheTerminal(t *testing.T) {
	testnet.Require(t, "netns")
	ptm, pts := openTerminal(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, playRun, self, playWait)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = pts, pts, pts
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	out := waiting(t, ptm, cmd)
	if _, err := ptm.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	line, err := out.ReadString('\n')
	if err != nil || !strings.Contains(line, "interrupt") {
		t.Errorf("%q %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	line, err = out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "terminated" {
		t.Errorf("after the interrupt: %q %v", line, err)
	}
	_ = cmd.Wait()
}

// openTerminal makes a pseudo-terminal (pty(7)).
func openTerminal(t *testing.T) (ptm, pts *os.File) {
	t.Helper()
	ptm, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { _ = ptm.Close() })
	if err := unix.IoctlSetPointerInt(int(ptm.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ptm.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	pts, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("needs pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { _ = pts.Close() })
	return ptm, pts
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
