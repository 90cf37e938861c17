package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// TestKilledRun: when `run` is killed, so is its command, and the daemon removes
// the sandbox: at once, or when it starts again if it was killed as well.
func TestKilledRun(t *testing.T) {
	for name, daemonToo := range map[string]bool{"alone": false, "with the daemon": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.start()
			w.must("network", "create", "front", "--ipv6")
			w.nothingLeaked()
			cmd := w.command(t.Context(), "run", "--name", "job", "--network", "front", "--", "sh", "-c", "echo up; exec cat")
			stdin, err := cmd.StdinPipe() // stays open: cat does not end by itself
			w.check(err)
			defer stdin.Close()
			stdout, err := cmd.StdoutPipe()
			w.check(err)
			w.check(stdout.(*os.File).SetReadDeadline(time.Now().Add(2 * patience)))
			w.check(w.host.Start(cmd))
			if _, err := io.ReadFull(stdout, make([]byte, len("up\n"))); err != nil {
				t.Fatalf("the command does not run: %v", err)
			}
			if len(w.commands()) == 0 {
				t.Error("a command that runs is not found")
			}

			if daemonToo {
				w.kill()
			}
			w.check(cmd.Process.Kill())
			// All that held the other end are gone when it ends.
			if _, err := io.Copy(io.Discard, stdout); err != nil {
				t.Errorf("the command lives on: %v", err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("run was killed and says that all went well")
			}
			if daemonToo {
				w.start()
			}
			w.vanishes("job")
			if left := w.must("sandbox", "ls", "-q"); left != "" {
				t.Errorf("sandboxes are left: %s", left)
			}
			w.clean()
			w.nothingLeaked()
		})
	}
}

// TestTerm: a daemon that is asked to end leaves the network up, and the next
// one finds nothing to do.
func TestTerm(t *testing.T) {
	w := newWorld(t)
	w.settle()
	before := w.snapshot()
	w.start()
	w.must("network", "create", "front", "--ipv6")
	w.must("sandbox", "create", "web", "--network", "front")
	web, _ := w.sandbox("web")
	ping4, err := web.EchoEvery(t.Context(), outside4(), 5*time.Millisecond)
	w.check(err)
	ping6, err := web.EchoEvery(t.Context(), outside6(), 5*time.Millisecond)
	w.check(err)
	w.settle()
	up := w.snapshot()
	w.term()
	reaches(w, web, w.outside, outside4())
	reaches(w, web, w.outside, outside6())
	w.start()
	w.clean()
	w.nothingLeaked()
	w.same(up)
	for _, r := range []testnet.Report{ping4.Stop(patience), ping6.Stop(patience)} {
		if len(r.Probes) == 0 || len(r.Lost()) > 0 {
			t.Errorf("a ping that ran meanwhile: %s", r)
		}
	}
	w.kill()
	w.takeDown(before)
}

// TestTermWithVerbs: verbs that are under way when the daemon is asked to end are
// done all the same; what comes later is not begun, and told so.
func TestTermWithVerbs(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "front", "--ipv6")
	const clients, each = 8, 10
	results := make(chan result, clients*each)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				results <- w.towpath("sandbox", "create", fmt.Sprintf("s%d-%d", c, i), "--network", "front")
			}
		})
	}
	for range clients {
		if r := <-results; r.code != 0 {
			t.Fatalf("exit %d: %s", r.code, r.stderr)
		}
	}
	w.term()
	wg.Wait()
	close(results)
	made := clients
	for r := range results {
		switch {
		case r.code == 0:
			made++
		case r.code == 1 && strings.Contains(r.stderr, "went away before it answered"): // it had not begun
		case r.code != 125:
			t.Errorf("a verb under way ended with %d: %s", r.code, r.stderr)
		}
	}
	if made == clients*each {
		t.Error("all verbs were done before the daemon ended: the test shows nothing")
	}
	if w.daemonLogged("level=ERROR") {
		t.Errorf("the daemon complains:\n%s", w.log)
	}
	w.start()
	if got := strings.Count(w.must("sandbox", "ls", "-q"), "\n"); got != made {
		t.Errorf("%d sandboxes are there, %d were made", got, made)
	}
	w.clean()
}

// term asks the daemon to end and waits until it has. A connection that asks for
// nothing, which would tell the same, holds an http.Server up for five seconds.
func (w *world) term() {
	w.Helper()
	fd, err := unix.PidfdOpen(w.daemon.Process.Pid, 0)
	w.check(err)
	defer unix.Close(fd)
	w.check(w.daemon.Process.Signal(unix.SIGTERM))
	ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(ended, int(patience.Milliseconds()))
	for errors.Is(err, unix.EINTR) { // the runtime's own signals
		n, err = unix.Poll(ended, int(patience.Milliseconds()))
	}
	w.check(err)
	if n == 0 {
		w.Fatalf("the daemon does not end\nlog:\n%s", w.log)
	}
}
