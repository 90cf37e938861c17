package scripts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// waiter is a command for sandboxes: it prints "ready" and then the signals it
// gets, and ends with 3 at SIGTERM.
func waiter() {
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
			os.Exit(3)
		}
	}
}

// process is a command line that runs, and what it prints.
type process struct {
	*exec.Cmd
	out    *bufio.Reader
	stderr bytes.Buffer
}

// begin starts `towpath ARGS` in a session of its own, where no terminal sends
// it signals, and waits until its command is ready.
func (w *world) begin(args ...string) *process {
	w.Helper()
	p := &process{Cmd: w.command(args...)}
	out, err := p.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	p.out, p.Stderr = bufio.NewReader(out), &p.stderr
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = p.Process.Kill() })
	p.expect(w, "ready")
	return p
}

// expect reads a line.
func (p *process) expect(w *world, want string) {
	w.Helper()
	if line, err := p.out.ReadString('\n'); err != nil || strings.TrimSpace(line) != want {
		w.Fatalf("got %q, want %q: %v\n%s", line, want, err, p.stderr.String())
	}
}

// end sends a signal and checks what the command prints of it, and the exit
// code that follows.
func (p *process) end(w *world, s syscall.Signal, prints string, code int) {
	w.Helper()
	if err := p.Process.Signal(s); err != nil {
		w.Fatal(err)
	}
	rest, err := io.ReadAll(p.out)
	if err != nil || strings.TrimSpace(string(rest)) != prints {
		w.Errorf("after %v: %q %v", s, rest, err)
	}
	_ = p.Wait()
	if got := p.ProcessState.ExitCode(); got != code {
		w.Errorf("after %v: exit code %d, want %d\n%s", s, got, code, p.stderr.String())
	}
}

// awaitGone waits until the daemon has removed a sandbox.
func (w *world) awaitGone(name string) {
	w.Helper()
	if !soon(func() bool { return !slices.Contains(strings.Fields(w.must("sandbox", "ls", "-q")), name) }) {
		w.Errorf("sandbox %s is still there", name)
	}
}

func TestCommandSeesItsOwnFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paths := []string{"/proc/self/mountinfo", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"}
	before := contents(t, paths)
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	w.must("network", "create", "--subnet", "10.5.0.0/24", "front")
	w.must("sandbox", "create", "web", "--network", "front,ip=10.5.0.9", "--hostname", "web.example.org")
	script := "hostname; cat /etc/hosts /etc/hostname /etc/resolv.conf"
	for _, args := range [][]string{
		{"exec", "web", "--", "sh", "-c", script},
		{"run", "--name", "run1", "--hostname", "web.example.org", "--network", "front", "--", "sh", "-c", script},
	} {
		out := "\n" + w.must(args...)
		want := []string{"web.example.org", "127.0.0.1\tlocalhost", "nameserver 127.0.0.11"}
		if args[0] == "exec" {
			want = append(want, "10.5.0.9\tweb.example.org web")
		}
		for line := range strings.Lines(before["/etc/resolv.conf"]) {
			if strings.HasPrefix(line, "search ") {
				want = append(want, strings.TrimSuffix(line, "\n"))
			}
		}
		for _, line := range want {
			if !strings.Contains(out, "\n"+line+"\n") {
				t.Errorf("towpath %s: no line %q in:%s", args[0], line, out)
			}
		}
	}
	if now, err := os.Hostname(); err != nil || now != name {
		t.Errorf("the host's own name is %q now: %v", now, err)
	}
	now := contents(t, paths)
	// The mounts of namespaces come and go; those of files must not come.
	for _, path := range paths[1:] {
		if now[path] != before[path] {
			t.Errorf("%s changed", path)
		}
	}
	if strings.Contains(now[paths[0]], " /etc/") != strings.Contains(before[paths[0]], " /etc/") {
		t.Errorf("mounts were left:\n%s", now[paths[0]])
	}
}

// contents reads files; one that is not there is empty.
func contents(t *testing.T, paths []string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		out[path] = string(data)
	}
	return out
}

func TestCommandKeepsTheCallersThings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("sandbox", "create", "web")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"run"}, {"exec", "web"}, {"run", "--network", "host"}, {"run", "--network", "container:web"}} {
		cmd := w.command(append(args, "--", "sh", "-c", `pwd; umask; id -u; echo "$GREETING"; cat; cat <&3; exit 9`)...)
		cmd.Dir = dir
		cmd.Env = append(cmd.Env, "GREETING=hello  there")
		// More than a pipe holds.
		cmd.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
		r, wr, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(wr, "from descriptor 3")
		wr.Close()
		cmd.ExtraFiles = []*os.File{r}
		umask, err := exec.Command("sh", "-c", "umask").Output()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.Output()
		r.Close()
		want := fmt.Sprintf("%s\n%s%d\nhello  there\n%sfrom descriptor 3", dir, umask, os.Getuid(), strings.Repeat("x", 1<<20))
		if string(out) != want {
			t.Errorf("%q: got %d bytes %.300q, want %d (%v)", args, len(out), out, len(want), err)
		}
		if code := cmd.ProcessState.ExitCode(); code != 9 {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
}

func TestSignalsGoToTheCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("sandbox", "create", "web")
	for _, args := range [][]string{{"run", "--name", "r"}, {"exec", "web"}, {"run", "--network", "host"}} {
		p := w.begin(append(args, "--", "waiter")...)
		for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH} {
			if signal.Ignored(s) {
				continue // by whoever runs the tests (nohup); that stays so
			}
			if err := p.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
			p.expect(w, s.String())
		}
		p.end(w, syscall.SIGTERM, "terminated", 3)
	}
	// One that does not expect it ends by it.
	p := w.begin("run", "--name", "s", "--", "sh", "-c", "echo ready; exec sleep 1000")
	p.end(w, syscall.SIGTERM, "", 128+int(syscall.SIGTERM))
	if names := w.must("sandbox", "ls", "-q"); names != "web\n" {
		t.Errorf("sandboxes left: %q", names)
	}
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("sandbox", "create", "web")
	for _, args := range [][]string{{"run"}, {"exec", "web"}} {
		ptm, pts := openTerminal(t)
		if err := unix.IoctlSetWinsize(int(ptm.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77}); err != nil {
			t.Fatal(err)
		}
		cmd := w.command(append(args, "--", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && stty size && exec waiter")...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = pts, pts, pts
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p := &process{Cmd: cmd, out: bufio.NewReader(ptm)}
		p.expect(w, "33 77")
		p.expect(w, "ready")
		// Ctrl-C is for the command, once; what ends it is the next.
		if _, err := ptm.WriteString("\x03"); err != nil {
			t.Fatal(err)
		}
		p.expect(w, "^Cinterrupt")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		p.expect(w, "terminated")
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 3 {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
}

// openTerminal makes a pseudo-terminal (pty(7)).
func openTerminal(t *testing.T) (ptm, pts *os.File) {
	t.Helper()
	ptm, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ptm.Close() })
	if err := unix.IoctlSetPointerInt(int(ptm.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ptm.Fd()), unix.TIOCGPTN)
	if err == nil {
		pts, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pts.Close() })
	return ptm, pts
}

// TestBackground: what run -d starts holds nothing of its caller's but his
// directory and environment.
func TestBackground(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := w.command("run", "-d", "--name", "job", "--", "sh", "-c", `pwd; echo "$GREETING"; readlink /proc/self/fd/0; exec waiter`)
	cmd.Dir, cmd.Env = dir, append(cmd.Env, "GREETING=hello", "XDG_STATE_HOME="+dir)
	cmd.ExtraFiles = []*os.File{wr}
	// It ends while the command runs: nobody holds the streams.
	out, err := cmd.CombinedOutput()
	wr.Close()
	log := filepath.Join(dir, "towpath", "job.log")
	if want := "towpath: its output goes to " + log + "\njob\n"; err != nil || string(out) != want {
		t.Fatalf("%v\n%s", err, out)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("descriptor 3: %q %v", rest, err)
	}
	text := func() string { b, _ := os.ReadFile(log); return string(b) }
	if !soon(func() bool { return text() == dir+"\nhello\n/dev/null\nready\n" }) {
		t.Errorf("the output is %q", text())
	}
	if info, err := os.Stat(log); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the output is there for others: %v %v", info.Mode(), err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(w.must("sandbox", "inspect", "--format", "{{.Process.PID}}", "job")))
	if err != nil {
		t.Fatal(err)
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("process %d is in session %d: %v", pid, sid, err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.awaitGone("job")
	if !strings.HasSuffix(text(), "terminated\n") {
		t.Errorf("the output is %q", text())
	}
}

// TestBackgroundPlaces: run -d goes wherever run goes.
func TestBackgroundPlaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("sandbox", "create", "web")
	dir := t.TempDir()
	for _, c := range []struct{ network, want string }{
		{"host", "towpath0"}, {"none", "lo"}, {"container:web", "eth0"}, {"bridge", "eth0"},
	} {
		cmd := w.command("run", "-d", "--json", "--name", "job", "--network", c.network, "--", "ls", "/proc/sys/net/ipv4/conf")
		cmd.Env = append(cmd.Env, "XDG_STATE_HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte(`"output": "`+dir)) {
			t.Errorf("%s: %v\n%s", c.network, err, out)
		}
		if !soon(func() bool {
			b, _ := os.ReadFile(filepath.Join(dir, "towpath", "job.log"))
			return strings.Contains("\n"+string(b), "\n"+c.want+"\n")
		}) {
			t.Errorf("%s: no %s in its output", c.network, c.want)
		}
		w.awaitGone("job")
	}
	if names := w.must("sandbox", "ls", "-q"); names != "web\n" {
		t.Errorf("sandboxes left: %q", names)
	}
}
