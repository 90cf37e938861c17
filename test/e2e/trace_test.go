package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace"
)

// armed counts the tables that make rules tell of packets.
func armed(t *testing.T, ns *testnet.NS) int {
	t.Helper()
	return armedOf(t, ns, rules.FamilyInet)
}

// armedOf counts those of one family.
func armedOf(t *testing.T, ns *testnet.NS, f rules.Family) int {
	t.Helper()
	c, err := nft.Dial(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // only read
	list, err := c.Tables(t.Context(), f)
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

// attached are the programs of BPF that a process holds, and the links that make
// them run, by the kernel's numbers for them.
func attached(t *testing.T, pid int) (programs []ebpf.ProgramID, links []link.ID) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, _ := os.ReadFile(file) // it may be closed by now
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			switch {
			case err != nil:
			case key == "prog_id":
				programs = append(programs, ebpf.ProgramID(n))
			case key == "link_id":
				links = append(links, link.ID(n))
			}
		}
	}
	return programs, links
}

// alive counts those that the kernel still has.
func alive(programs []ebpf.ProgramID, links []link.ID) (n int) {
	for _, id := range programs {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			n++
			_ = p.Close()
		}
	}
	for _, id := range links {
		if l, err := link.NewFromID(id); err == nil {
			n++
			_ = l.Close()
		}
	}
	return n
}

// TestTraceLeavesNothing: while it is traced, there is a table, and at a level with
// BPF there are programs; when the daemon is killed, or the client goes, there is
// nothing, as before.
func TestTraceLeavesNothing(t *testing.T) {
	for level, feature := range map[string]string{"taps": "netns", "tracepoints": "bpf-types", "full": "bpf-hooks"} {
		t.Run(level, func(t *testing.T) {
			testnet.Require(t, "netns", feature)
			traceLeavesNothing(t, level)
		})
	}
}

func traceLeavesNothing(t *testing.T, level string) {
	w := newWorld(t)
	w.start()
	w.must("sandbox", "create", "web")
	nothing := func(when string) {
		programs, links := attached(t, w.daemon.Process.Pid)
		if n := armed(t, w.host); n+len(programs)+len(links) != 0 {
			t.Errorf("%s: %d tables, programs %v, links %v", when, n, programs, links)
		}
	}
	nothing("before a trace")
	begin := func() (stop func()) {
		cmd := w.command(t.Context(), "trace", "--level", level)
		errs, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.host.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(errs).ReadString('\n'); err != nil || !strings.HasPrefix(line, "tracing: level "+level+" namespaces ") {
			t.Fatalf("%q, %v", line, err)
		}
		return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	}
	stop := begin()
	programs, links := attached(t, w.daemon.Process.Pid)
	if n := armed(t, w.host); n != 1 || (len(programs) == 0) != (level == "taps") || (len(links) == 0) != (level == "taps") {
		t.Errorf("with a trace %d tables, programs %v, links %v", n, programs, links)
	}
	stop()
	gone := func() bool { return armed(t, w.host)+alive(programs, links) == 0 }
	w.eventually("everything goes with the client", gone)
	nothing("after the trace")
	stop = begin()
	programs, links = attached(t, w.daemon.Process.Pid)
	w.kill()
	w.eventually("everything goes with the daemon", gone)
	stop()
	w.start()
	nothing("after the next start")
	w.clean()
}

// TestTraceSeesNewSandboxes: a namespace that comes while a trace goes on is watched
// too, after a moment, and of others nothing is told twice.
func TestTraceSeesNewSandboxes(t *testing.T) {
	for level, feature := range map[string]string{"taps": "netns", "tracepoints": "bpf-types", "full": "bpf-hooks"} {
		t.Run(level, func(t *testing.T) {
			testnet.Require(t, "netns", feature)
			w := newWorld(t)
			w.start()
			w.must("sandbox", "create", "early")
			paths := w.follows(level)
			w.must("sandbox", "create", "late")
			to := w.outside.ListenTCP(t, netip.AddrPortFrom(outside4(), 0)).Addr().String()
			w.eventually("what late sends is seen in it", func() bool {
				w.must("probe", "late", to)
				return paths("late") > 0
			})
			w.must("sandbox", "create", "later") // the trace changes over meanwhile
			flows := map[uint16]bool{}           // a port may come twice, which is no new flow
			for range 20 {
				var p api.Probe
				w.check(json.Unmarshal([]byte(w.must("probe", "early", to, "--json")), &p))
				flows[p.Actual.Flow.Sport] = true
			}
			if len(flows) < 2 {
				t.Errorf("probes had the ports %v", flows)
			}
			w.eventually("each flow is told of", func() bool { return paths("early") >= len(flows) })
			last := paths("late")
			w.eventually("one that was sent later is told of", func() bool {
				w.must("probe", "late", to)
				return paths("late") > last
			})
			if n := paths("early"); n != len(flows) {
				t.Errorf("%d flows were begun, %d paths told", len(flows), n)
			}
			w.must("sandbox", "rm", "late", "later", "early")
		})
	}
}

// follows starts a trace, and gives a count of the answered paths that it has told
// of a sandbox from the first hop on.
func (w *world) follows(level string) (paths func(sandbox string) int) {
	w.Helper()
	cmd := w.command(w.Context(), "trace", "--level", level, "--json")
	out, err := cmd.StdoutPipe()
	w.check(err)
	errs, err := cmd.StderrPipe()
	w.check(err)
	w.check(w.host.Start(cmd))
	w.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(errs).ReadString('\n'); err != nil || !strings.HasPrefix(line, "tracing: level "+level) {
		w.Fatalf("%q, %v", line, err)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	var others []string
	w.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		if w.Failed() {
			w.Logf("answered: %v; told besides:\n%s", seen, strings.Join(others, "\n"))
		}
	})
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Buffer(nil, 1<<20); lines.Scan(); {
			var p api.Path
			whole := json.Unmarshal(lines.Bytes(), &p) == nil && len(p.Hops) > 0 && p.Verdict == api.Answered && p.Hops[0].NS == p.From.Name
			mu.Lock()
			if whole {
				seen[p.From.Name]++
			} else {
				others = append(others, lines.Text())
			}
			mu.Unlock()
		}
	}()
	return func(sandbox string) int {
		mu.Lock()
		defer mu.Unlock()
		return seen[sandbox]
	}
}

// TestProbeFromOutsideLeavesNothing: while it waits for an answer that does not
// come, tables keep it from leaving; when the daemon is killed, there is nothing.
func TestProbeFromOutsideLeavesNothing(t *testing.T) {
	testnet.Require(t, "netns", "root", "bpf")
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed %v", killed), func(t *testing.T) {
			w := newWorld(t)
			w.start()
			w.must("sandbox", "create", "web", "-p", "8053:53/udp")
			web, _ := w.sandbox("web")
			web.ListenUDP(t, netip.MustParseAddrPort("0.0.0.0:53")) // which does not answer
			cmd := w.command(t.Context(), "probe", "outside", "host:8053/udp", "--json")
			var out bytes.Buffer
			cmd.Stdout = &out
			w.check(w.host.Start(cmd))
			tables := func() int { return armedOf(t, w.host, rules.FamilyInet) + armedOf(t, w.host, rules.FamilyNetdev) }
			w.eventually("tables keep it from leaving", func() bool { return tables() == 2 })
			programs, links := attached(t, w.daemon.Process.Pid)
			if killed {
				w.kill()
			}
			err := cmd.Wait()
			if want := `"verdict":"delivered"`; err == nil || killed == strings.Contains(strings.ReplaceAll(out.String(), " ", ""), want) {
				t.Errorf("%v: %s", err, out.String())
			}
			w.eventually("everything is gone", func() bool { return tables()+alive(programs, links) == 0 })
			if len(programs) == 0 {
				t.Error("no program was there to put the packet in")
			}
			if killed {
				w.start()
			}
			w.clean()
		})
	}
}
