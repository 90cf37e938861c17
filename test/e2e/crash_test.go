package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
)

// scenario is something during which the daemon dies.
type scenario struct {
	name  string
	first bool       // the daemon has not run before
	setup [][]string // command lines before, with a daemon that lives
	// args is the command line during which it dies. nil: act does it, in the
	// environment given.
	args []string
	act  func(w *world, env string) result
	// again is what a repetition is refused with when the first time did it all.
	// Empty: it can be done any number of times.
	again string
}

func scenarios() []scenario {
	front := []string{"network", "create", "front", "--ipv6"}
	back := []string{"network", "create", "back"}
	web := []string{"sandbox", "create", "web", "--network", "front"}
	join := []string{"network", "connect", "back", "web"}
	return []scenario{
		{name: "first start", first: true, act: firstStart},
		{name: "network create", args: front, again: "network front exists"},
		{name: "sandbox create", setup: [][]string{front}, args: web, again: "sandbox web exists"},
		{name: "network connect", setup: [][]string{front, back, web}, args: join},
		{name: "run", setup: [][]string{front}, args: []string{"run", "--name", "job", "--network", "front", "--", "true"}},
		{name: "network disconnect", setup: [][]string{front, back, web, join}, args: []string{"network", "disconnect", "front", "web"}, again: "not connected"},
		{name: "sandbox rm", setup: [][]string{front, web}, args: []string{"sandbox", "rm", "web"}, again: `sandbox "web" does not exist`},
		{name: "network rm", setup: [][]string{front}, args: []string{"network", "rm", "front"}, again: `network "front" does not exist`},
		{name: "cleanup", setup: [][]string{front, web}, act: cleanup},
	}
}

// TestCrashSweep kills the daemon at every point of every scenario, before and
// after each op and each commit, and starts it again: then the kernel is as the
// plan says, nothing is left over, what was asked for can be asked for again,
// and --cleanup leaves the host as it was before the first start.
func TestCrashSweep(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t)
			w.state = filepath.Join(w.run, "state") // in memory: fsync(2) costs nothing
			// From here on, so that all worlds settle in the same two seconds.
			t.Parallel()
			w.settle()
			before := w.snapshot()
			points := s.record(w)
			if len(points) == 0 {
				t.Fatal("no point was passed")
			}
			for i, name := range points {
				t.Run(strconv.Itoa(i+1), func(t *testing.T) {
					t.Log("the daemon dies " + name)
					at := &world{TB: t, host: w.host, outside: w.outside, run: w.run, state: w.state, log: &logBuffer{}}
					s.dieAt(at, i+1, before)
				})
			}
		})
	}
}

// record does it once and gives the names of the points passed.
func (s scenario) record(w *world) []string {
	w.Helper()
	s.prepare(w)
	file := filepath.Join(w.run, "points")
	if r := s.do(w, "TOWPATHD_FAULT_LOG="+file); r.code != 0 {
		w.Fatalf("exit %d: %s\nlog:\n%s", r.code, r.stderr, w.log)
	}
	w.reset()
	text, err := os.ReadFile(file)
	w.check(err)
	var points []string
	for line := range strings.Lines(string(text)) {
		_, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		points = append(points, name)
	}
	return points
}

// prepare is what comes before.
func (s scenario) prepare(w *world) {
	w.Helper()
	if s.first {
		return
	}
	w.start()
	for _, args := range s.setup {
		w.must(args...)
	}
	w.kill()
}

// do does it, with a daemon in the environment given.
func (s scenario) do(w *world, env string) result {
	w.Helper()
	if s.act != nil {
		return s.act(w, env)
	}
	// It may die before it is ready: a start takes its table back.
	startErr := w.tryStart(env)
	r := w.attempt(s.args...)
	if startErr != nil && r.code != 125 {
		w.Errorf("without a daemon: exit %d", r.code)
	}
	w.told(r)
	return r
}

// dieAt does it with a daemon that dies at point n, and checks what comes of it.
func (s scenario) dieAt(w *world, n int, before string) {
	w.Helper()
	defer w.reset()
	s.prepare(w)
	first := s.do(w, fmt.Sprintf("TOWPATHD_FAULT_AT=%d", n))
	w.dead()

	w.start()
	w.vanishes("job")
	w.clean()
	w.nothingLeaked()
	if s.args != nil {
		s.repeat(w, first.code == 0)
		w.clean()
		w.nothingLeaked()
	}

	w.kill()
	w.takeDown(before)
}

// repeat does it again with a daemon that lives. If it is done already, which
// it must be where the command line said so, the refusal says that.
func (s scenario) repeat(w *world, done bool) {
	w.Helper()
	r := w.attempt(s.args...)
	refused := r.code == 1 && s.again != "" && strings.Contains(r.stderr, s.again)
	if r.code != 0 && !refused {
		w.Errorf("cannot be done again: exit %d: %s\nlog:\n%s", r.code, r.stderr, w.log)
	}
	if done && s.again != "" && !refused {
		w.Errorf("the command line said that it was done, and it was not")
	}
}

// firstStart starts a daemon on a host it has never seen.
func firstStart(w *world, env string) result {
	if err := w.tryStart(env); err != nil {
		return result{stderr: err.Error(), code: 1}
	}
	return result{}
}

// cleanup takes everything of ours down.
func cleanup(w *world, env string) result {
	w.Helper()
	cmd := exec.Command(filepath.Join(binDir, "towpathd"), "--run-dir", w.run, "--state-dir", w.state, "--cleanup")
	cmd.Env = append(os.Environ(), env)
	return w.finish(cmd)
}

// attempt runs the command line, which may fail, but not take for ever.
func (w *world) attempt(args ...string) result {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 2*patience)
	defer cancel()
	cmd := w.command(ctx, args...)
	cmd.WaitDelay = patience // for what it started and left
	return w.finish(cmd)
}

// told checks that a failure was told: by its exit code and one line.
func (w *world) told(r result) {
	w.Helper()
	switch r.code {
	case 0:
	case 1, 125:
		if !strings.HasPrefix(r.stderr, "towpath: ") || strings.Count(r.stderr, "\n") != 1 {
			w.Errorf("exit %d, and not one line that says why:\n%s", r.code, r.stderr)
		}
	default:
		w.Errorf("exit %d, want 0, 1 or 125: %s", r.code, r.stderr)
	}
}

// dead checks that the daemon has died by itself.
func (w *world) dead() {
	w.Helper()
	c, err := net.Dial("unix", filepath.Join(w.run, "towpath.sock"))
	if err != nil {
		return
	}
	defer c.Close()
	w.check(c.SetReadDeadline(time.Now().Add(patience)))
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		w.Fatalf("the daemon did not come to the point and lives\nlog:\n%s", w.log)
	}
}

// takeDown cleans up and checks that the host is as it was.
func (w *world) takeDown(before string) {
	w.Helper()
	if r := cleanup(w, ""); r.code != 0 {
		w.Errorf("cleanup: exit %d: %s", r.code, r.stderr)
	}
	w.same(before)
	if left, err := netns.List(filepath.Join(w.run, "netns")); err != nil || len(left) > 0 {
		w.Errorf("namespaces are left: %v %v", left, err)
	}
}

// reset makes the world one in which no daemon has run.
func (w *world) reset() {
	w.Helper()
	if w.daemon != nil {
		w.kill()
	}
	if r := cleanup(w, ""); r.code != 0 {
		w.Errorf("cleanup: exit %d: %s", r.code, r.stderr)
	}
	w.check(os.RemoveAll(w.state))
}

// vanishes waits until a sandbox that is to go has no namespace any more.
func (w *world) vanishes(sandbox string) {
	w.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	w.check(err)
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()
	dir := filepath.Join(w.run, "netns")
	_, err = unix.InotifyAddWatch(fd, dir, unix.IN_DELETE)
	w.check(err)
	w.check(events.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, 4096)
	for {
		if _, err := os.Lstat(filepath.Join(dir, sandbox)); errors.Is(err, os.ErrNotExist) {
			return
		}
		if _, err := events.Read(buf); err != nil {
			w.Fatalf("sandbox %s is still there: %v\nlog:\n%s", sandbox, err, w.log)
		}
	}
}
