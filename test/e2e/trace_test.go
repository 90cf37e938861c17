package e2e

import (
	"bufio"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace"
)

// armed counts the tables that make rules tell of packets.
func armed(t *testing.T, ns *testnet.NS) int {
	t.Helper()
	c, err := nft.Dial(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // only read
	list, err := c.Tables(t.Context(), rules.FamilyInet)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, x := range list {
		if strings.HasPrefix(x.Name, trace.Table) {
			n++
		}
	}
	return n
}

// TestTraceLeavesNothing: while it is traced, there is a table; when the daemon
// is killed, or the client goes, there is none.
func TestTraceLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("sandbox", "create", "web")
	if n := armed(t, w.host); n != 0 {
		t.Errorf("%d tables without a trace", n)
	}
	begin := func() (stop func()) {
		cmd := w.command(t.Context(), "trace")
		errs, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.host.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(errs).ReadString('\n'); err != nil || !strings.HasPrefix(line, "tracing: level taps namespaces ") {
			t.Fatalf("%q, %v", line, err)
		}
		return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	}
	stop := begin()
	if n := armed(t, w.host); n != 1 {
		t.Errorf("%d tables with a trace, want 1", n)
	}
	stop()
	w.eventually("the table goes with the client", func() bool { return armed(t, w.host) == 0 })
	stop = begin()
	w.kill()
	w.eventually("the table goes with the daemon", func() bool { return armed(t, w.host) == 0 })
	stop()
	w.start()
	w.clean()
}
