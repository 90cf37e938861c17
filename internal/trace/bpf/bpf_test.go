//go:build linux

package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace"
)

func TestMain(m *testing.M) {
	if os.Getenv(envHeld) != "" {
		if err := hold(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	os.Exit(testnet.Main(m))
}

// TestObject: the object is what the source compiles to.
func TestObject(t *testing.T) {
	testnet.Require(t, "clang-14-binary", "llvm-strip-14-binary")
	made := filepath.Join(t.TempDir(), "made.o")
	if out, err := exec.CommandContext(t.Context(), "./build.sh", made).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, object) {
		t.Error("trace_bpfel.o is not what trace.bpf.c compiles to: make bpf")
	}
	if !bytes.Contains(object, []byte("Dual BSD/GPL\x00")) {
		t.Error("no licence in the object")
	}
}

// inode is the number of a namespace.
func inode(t *testing.T, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// everything is all that there is to watch of a namespace.
func everything(t *testing.T, ns *testnet.NS, mark trace.Mark) Config {
	return Config{Mark: mark, Proto: unix.IPPROTO_UDP, V4: true, V6: true, Hooks: true, Spaces: []Space{{Name: "ns", Inode: inode(t, ns.F), File: ns.F}}}
}

// send sends an empty datagram to a port where nobody listens, and is the port
// that it was sent from. What open opens watches for it.
func send(t *testing.T, ns *testnet.NS, to string, open func(trace.Mark)) {
	t.Helper()
	ns.Do(t, func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		open(trace.Mark(c.LocalAddr().(*net.UDPAddr).Port))
		_, err = c.Write(nil)
		return err
	})
}

// TestSees: a datagram that nobody takes, on the loopback, in every place it comes
// by, and the reason for its end.
func TestSees(t *testing.T) {
	testnet.Require(t, "netns", "bpf-hooks")
	ns := testnet.New(t, "ns")
	for _, to := range []string{"127.0.0.1:9", "[::1]:9"} {
		var s *Session
		start := time.Now()
		send(t, ns, to, func(m trace.Mark) {
			var err error
			if s, err = Open(everything(t, ns, m)); err != nil {
				t.Error(err)
			}
		})
		if s == nil {
			return
		}
		var w trace.Watch
		wait(t, s, start, &w, func() bool { return len(w.Drops) > 0 && len(w.Sightings) >= 4 && len(w.Crossings) >= 16 })
		if d := w.Drops[0]; d.Reason != "NO_SOCKET" || d.Space != "ns" || d.Link != "lo" || !strings.Contains(d.Symbol, "udp") || d.Flow.Dport != 9 {
			t.Errorf("%s: drop %+v", to, d)
		}
		var hooks []string
		for _, c := range w.Crossings[:8] {
			hooks = append(hooks, fmt.Sprintf("%s %v", c.Hook, c.Left))
		}
		if got := strings.Join(hooks, ", "); got != "output false, output true, postrouting false, postrouting true, prerouting false, prerouting true, input false, input true" {
			t.Errorf("%s: hooks %s", to, got)
		}
		for i, x := range w.Sightings {
			if x.Link != "lo" || x.Space != "ns" || x.Out != (i%2 == 0) || (x.Quoted != nil) != (i >= 2) || x.At < 0 || x.At > time.Since(start) {
				t.Errorf("%s: sighting %d: %+v", to, i, x)
			}
		}
		if w.Lost {
			t.Error("something was lost")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// wait reads until there is enough.
func wait(t *testing.T, s *Session, start time.Time, w *trace.Watch, enough func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !enough(); {
		if time.Now().After(deadline) {
			t.Fatalf("seen: %+v", *w)
		}
		fds := []unix.PollFd{{Fd: int32(s.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		if err := s.Read(start, w, 1000); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOthersAreNotSeen: neither other ports nor other namespaces.
func TestOthersAreNotSeen(t *testing.T) {
	testnet.Require(t, "netns", "bpf-hooks")
	ns, other := testnet.New(t, "ns"), testnet.New(t, "other")
	var s *Session
	start := time.Now()
	send(t, ns, "127.0.0.1:9", func(m trace.Mark) {
		c := everything(t, ns, m)
		var err error
		if s, err = Open(c); err != nil {
			t.Error(err)
		}
	})
	if s == nil {
		return
	}
	defer s.Close()
	var w trace.Watch
	send(t, ns, "127.0.0.1:10", func(trace.Mark) {})
	send(t, other, "127.0.0.1:9", func(trace.Mark) {})
	wait(t, s, start, &w, func() bool { return len(w.Drops) > 0 })
	for _, x := range w.Sightings {
		if x.Space != "ns" || x.Flow.Dport == 10 || x.Flow.Sport == 10 {
			t.Errorf("%+v", x)
		}
	}
}

// TestFloodElsewhere: what happens in a namespace that is not watched uses up
// nothing of what may be told.
func TestFloodElsewhere(t *testing.T) {
	testnet.Require(t, "netns", "bpf-hooks")
	ns, other := testnet.New(t, "ns"), testnet.New(t, "other")
	c := everything(t, ns, 0)
	c.Drops = true
	start := time.Now()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tellings := func() (n uint64) {
		var told []struct{ Second, Events, Lost uint64 }
		if err := s.programs.Maps["tellings"].Lookup(uint32(0), &told); err != nil {
			t.Fatal(err)
		}
		for _, x := range told {
			n += x.Events + x.Lost
		}
		return n
	}
	for range 100 {
		send(t, other, "127.0.0.1:9", func(trace.Mark) {})
	}
	if n := tellings(); n != 0 {
		t.Errorf("told %d times of another namespace", n)
	}
	send(t, ns, "127.0.0.1:9", func(trace.Mark) {})
	var w trace.Watch
	wait(t, s, start, &w, func() bool { return len(w.Drops) > 0 })
	if n := tellings(); n == 0 || w.Drops[0].Space != "ns" {
		t.Errorf("told %d times of the one that is watched: %+v", n, w)
	}
}

// attached are the numbers of the programs and links of a session.
func attached(s *Session) (programs []ebpf.ProgramID, links []link.ID, err error) {
	for _, p := range s.programs.Programs {
		info, err := p.Info()
		if err != nil {
			return nil, nil, err
		}
		id, _ := info.ID()
		programs = append(programs, id)
	}
	for _, l := range s.links {
		info, err := l.Info()
		if err != nil {
			return nil, nil, err
		}
		links = append(links, info.ID)
	}
	return programs, links, nil
}

// gone waits until none of them is there: the kernel lets go of them behind a
// grace period.
func gone(t *testing.T, programs []ebpf.ProgramID, links []link.ID) {
	t.Helper()
	left := func() (out []string) {
		for _, id := range programs {
			if p, err := ebpf.NewProgramFromID(id); err == nil {
				out = append(out, p.String())
				p.Close()
			} else if !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		for _, id := range links {
			if l, err := link.NewFromID(id); err == nil {
				out = append(out, fmt.Sprintf("link %d", id))
				l.Close() //nolint:errcheck // it was only looked at
			} else if !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		return out
	}
	again := time.NewTicker(10 * time.Millisecond) // there is no event for it
	defer again.Stop()
	for deadline := time.After(30 * time.Second); len(left()) > 0; {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("left behind: %v", left())
		}
	}
}

// TestNothingStays: several watch at once, and what they had is gone with them.
func TestNothingStays(t *testing.T) {
	testnet.Require(t, "netns", "bpf-hooks")
	ns := testnet.New(t, "ns")
	for range 3 {
		s, err := Open(everything(t, ns, 40000))
		if err != nil {
			t.Fatal(err)
		}
		programs, links, err := attached(s)
		if err != nil || len(programs) != 5 || len(links) != 3+2*2*5 {
			t.Errorf("%d programs, %d links, %v", len(programs), len(links), err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			gone(t, programs, links)
		})
	}
}

// envHeld makes a process hold a session, and print what it has attached.
const envHeld = "TOWPATH_TEST_HOLD_BPF"

// hold is the process that TestKilled kills.
func hold() error {
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	s, err := Open(Config{V4: true, V6: true, Hooks: true, Spaces: []Space{{Name: "ns", Inode: st.Ino, File: f}}})
	if err != nil {
		return err
	}
	programs, links, err := attached(s)
	if err != nil {
		return err
	}
	fmt.Println("held", len(programs), len(links))
	for _, id := range programs {
		fmt.Println(id)
	}
	for _, id := range links {
		fmt.Println(id)
	}
	select {}
}

// TestKilled: nothing stays of a process that is killed.
func TestKilled(t *testing.T) {
	testnet.Require(t, "netns", "bpf-hooks")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), envHeld+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var n, m int
	if _, err := fmt.Fscanf(out, "held %d %d\n", &n, &m); err != nil {
		t.Errorf("read what is held: %v", err)
	}
	programs, links := make([]ebpf.ProgramID, n), make([]link.ID, m)
	for i := range programs {
		_, err = fmt.Fscanln(out, &programs[i])
	}
	for i := range links {
		_, err = fmt.Fscanln(out, &links[i])
	}
	if err != nil || n != 5 || m != 3+2*2*5 {
		t.Errorf("%d programs, %d links, %v", n, m, err)
	}
	if err := errors.Join(cmd.Process.Kill(), ignoreExit(cmd.Wait())); err != nil {
		t.Error(err)
	}
	gone(t, programs, links)
}

// ignoreExit forgives a process that it was killed.
func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}
