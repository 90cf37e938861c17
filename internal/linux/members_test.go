//go:build linux

package linux_test

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"testing"

	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/testnet"
)

// TestKillIn: whoever is in the namespace that is meant ends, and nobody else.
func TestKillIn(t *testing.T) {
	testnet.Require(t, "netns")
	ns, other := testnet.New(t, "web"), testnet.New(t, "db")
	begin := func(at *testnet.NS) (*exec.Cmd, io.Reader) {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "trap '' TERM HUP; echo ready; read never")
		stdin, err := cmd.StdinPipe()
		must(t, err)
		t.Cleanup(func() { stdin.Close() })
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, at.Start(cmd))
		r := bufio.NewReader(out)
		if line, err := r.ReadString('\n'); line != "ready\n" {
			t.Fatalf("%q %v", line, err)
		}
		return cmd, r
	}
	victim, out := begin(ns)
	begin(other)
	path := fmt.Sprintf("/proc/self/fd/%d", ns.FD())
	must(t, linux.KillIn(path, func() bool { return false }))
	must(t, linux.KillIn("/run/nobody/is/here", func() bool { return true }))
	// The namespace of this process itself is not even asked about.
	must(t, linux.KillIn("/proc/thread-self/ns/net", func() bool { t.Error("its own is meant"); return true }))
	start, err := linux.StartTime(victim.Process.Pid)
	must(t, err)
	must(t, linux.Kill(victim.Process.Pid, start+1)) // a later one with its number
	if still, err := linux.StartTime(victim.Process.Pid); err != nil || still != start {
		t.Fatalf("it was ended too soon: %v", err)
	}
	must(t, linux.KillIn(path, func() bool { return true }))
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("it said %q, %v", rest, err)
	}
	if _ = victim.Wait(); victim.ProcessState.ExitCode() != -1 {
		t.Errorf("it ended by itself: %v", victim.ProcessState)
	}
}
