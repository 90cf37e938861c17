package scripts

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/testnet"
)

// updateJourneys writes the page anew: make journeys.
var updateJourneys = flag.Bool("update-journeys", false, "write docs/journeys.md")

// journey is a packet on its way, to be told on the page of journeys.
type journey struct {
	title, text, command string
	// begin, unless it is "", is where somebody outside connects to while the
	// command, a trace, watches.
	begin string
}

const journeysHead = `# A packet's journey

What a packet passes in each mode of a network. The paths are real ones: ` + "`make journeys`" + `
makes these networks, sends these packets and writes this page, and a test finds the same hops again.
They are seen at level full; where the kernel or your rights allow less, some of the lines are
told by inference or not at all ([trace](trace.md)). Times are those of one run.

` + "    towpath network create --subnet 172.30.0.0/24 front\n    towpath sandbox create web --network front -p 8080:80\n    towpath sandbox create app --network front\n"

func journeys() []journey {
	return []journey{
		{"Bridge, on the way out", "web is behind a bridge of the host, which is its gateway. The host forwards the packet and puts its own\naddress in the place of the sender's; for the answer it undoes that.", "probe web 192.0.2.1:443", ""},
		{"Bridge, in by a published port", "Somebody outside connects to the host, which puts the container's address in the place of its own\nbefore it looks for a route. The sender's address is kept.", "trace --port 8080 --count 1", "192.0.2.10:8080"},
		{"Bridge, between two of one network", "The bridge hands the frame on from port to port: nothing is routed, and no rule of IP is\nmet, unless br_netfilter is on ([doctor](doctor.md)).", "probe web app:80", ""},
		{"Bridge, from the host", "The host has an address on the bridge itself.", "probe host web:80", ""},
		{"Host", "`run --network host` has the host's own interfaces: the packet is the host's, and nothing is translated.", "probe host 192.0.2.1:443", ""},
		{"None", "`run --network none` has a loopback and nothing else. The sender's own kernel refuses.", "probe lonely 192.0.2.1:443", ""},
	}
}

// TestJourneys sends the packets of docs/journeys.md, which must take the ways
// that it shows.
func TestJourneys(t *testing.T) {
	testnet.Require(t, "netns", "bpf-hooks")
	w := newWorld(t)
	for _, name := range []string{"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"} {
		// Without br_netfilter there is no such parameter.
		if err := sysctl.Write(w.host.F, name, "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	w.must("network", "create", "--subnet", "172.30.0.0/24", "front")
	w.must("sandbox", "create", "web", "--network", "front", "-p", "8080:80")
	w.must("sandbox", "create", "app", "--network", "front")
	run := w.begin("run", "--name", "lonely", "--network", "none", "--", "waiter")
	w.outside.ServeTCP(w, netip.MustParseAddrPort("192.0.2.1:443"))
	for _, name := range []string{"web", "app"} {
		at, _, err := w.place(name)
		if err != nil {
			t.Fatal(err)
		}
		at.ServeTCP(w, netip.MustParseAddrPort("0.0.0.0:80"))
	}
	var page strings.Builder
	page.WriteString(journeysHead)
	for _, j := range journeys() {
		page.WriteString("\n## " + j.title + "\n\n" + j.text + "\n\n    $ towpath " + j.command + "\n")
		for line := range strings.Lines(strings.TrimRight(w.journey(j), "\n") + "\n") {
			page.WriteString(strings.TrimRight("    "+line, " \n") + "\n")
		}
	}
	_ = run.Process.Kill()
	path := filepath.Join("..", "..", "docs", "journeys.md")
	if *updateJourneys {
		if err := os.WriteFile(path, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := steady(page.String()), steady(string(want)); got != want {
		t.Errorf("the page shows other ways; see them, and run `make journeys` if they are right:\n%s\nthe page:\n%s", got, want)
	}
}

// journey is what the command prints.
func (w *world) journey(j journey) string {
	cmd := w.command(strings.Fields(j.command)...)
	if j.begin == "" {
		out, _ := cmd.Output() // its exit code is an answer
		return string(out)
	}
	var out strings.Builder
	cmd.Stdout = &out
	said, err := cmd.StderrPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	if _, err := said.Read(make([]byte, 1)); err != nil { // it watches
		w.Fatal(err)
	}
	conn, err := w.outside.DialTCP(w.Context(), netip.MustParseAddrPort(j.begin))
	if err != nil {
		w.Fatal(err)
	}
	conn.Close()
	if err := cmd.Wait(); err != nil {
		w.Fatal(err)
	}
	return out.String()
}
