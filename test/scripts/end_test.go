package scripts

import (
	"io"
	"strings"
	"syscall"
	"testing"
)

func TestCommandDiesWithItsCaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.begin("run", "--name", "r", "--", "waiter")
	// The command holds the pipe: its end is the command's end.
	p.end(w, syscall.SIGKILL, "", -1)
	w.awaitGone("r")
	if err := w.clean(); err != nil {
		t.Error(err)
	}
}

// TestWhatACommandLeavesEndsWithIt: the kernel kills the command of a towpath
// that is killed, and the daemon what that command had started; so it is when
// the command ends by itself.
func TestWhatACommandLeavesEndsWithIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	script := `trap "" HUP; (trap "" TERM; sleep 1000) & setsid sleep 1001 & echo ready; wait`
	p := w.begin("run", "--name", "r", "--", "sh", "-c", script)
	// All of them hold the pipe: its end is the end of the last.
	p.end(w, syscall.SIGKILL, "", -1)
	w.awaitGone("r")
	p = w.begin("run", "--name", "r", "--", "sh", "-c", script)
	p.end(w, syscall.SIGTERM, "", 128+int(syscall.SIGTERM))
	// Somebody else ends it.
	p = w.begin("run", "--name", "r", "--", "sh", "-c", script)
	w.must("sandbox", "rm", "-f", "r")
	if rest, err := io.ReadAll(p.out); err != nil || len(rest) > 0 {
		t.Errorf("it prints %q, %v", rest, err)
	}
	_ = p.Wait()
	// Also while no daemon is there to see it: the next one does.
	p = w.begin("run", "--name", "r", "--", "sh", "-c", script)
	w.stop(syscall.SIGKILL)
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(p.out); err != nil || len(rest) > 0 {
		t.Errorf("it prints %q, %v", rest, err)
	}
	_ = p.Wait()
	w.awaitGone("r")
	if err := w.clean(); err != nil {
		t.Error(err)
	}
}

func TestCommandOutlivesTheDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must("sandbox", "create", "web")
	e := w.begin("exec", "web", "--", "waiter")
	r := w.begin("run", "--name", "r", "--", "waiter")
	w.stop(syscall.SIGKILL)
	for _, p := range []*process{e, r} {
		if err := p.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		p.expect(w, syscall.SIGUSR1.String())
		p.end(w, syscall.SIGTERM, "terminated", 3)
	}
	if !strings.Contains(r.stderr.String(), "towpath: warning: sandbox r is still there: no daemon answers") {
		t.Errorf("run does not say that its sandbox is left: %q", r.stderr.String())
	}
	if err := w.start(); err != nil {
		t.Fatal(err)
	}
	w.awaitGone("r")
	if err := w.clean(); err != nil {
		t.Error(err)
	}
}
