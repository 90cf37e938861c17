package e2e

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// firewall is another program that filters what is forwarded.
type firewall struct {
	author string
	// tables are what of it is compared before and after.
	tables func() string
	// reload makes it throw away what it does not know of.
	reload func()
	// restart ends it, with all its rules, and begins it again.
	restart func()
	// settle, if not nil, makes it forget what it keeps of the past.
	settle func()
	// publishes says that it lets through what was translated, of itself.
	publishes bool
}

// TestFirewallsOfOthers: each of them drops our traffic and is named, or with
// --cooperate=auto lets it through by the door it made, also after it reloaded;
// and nothing of ours stays behind.
func TestFirewallsOfOthers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		needs []string
		set   func(*world) firewall
	}{
		{"docker", []string{"iptables-nft-binary", "ip6tables-nft-binary"}, docker},
		{"ufw", []string{"root", "ufw-binary", "iptables-nft-binary"}, ufw},
		{"firewalld", []string{"root", "firewalld-binary", "firewall-cmd-binary", "dbus-daemon-binary"}, firewalld},
		{
			"firewalld by iptables",
			[]string{"root", "firewalld-binary", "firewall-cmd-binary", "dbus-daemon-binary", "iptables-nft-binary", "iptables-binary"},
			firewalldIPTables,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testnet.Require(t, append([]string{"netns", "nft-binary"}, tt.needs...)...)
			w := newWorld(t)
			testFirewall(w, tt.set(w))
		})
	}
}

func testFirewall(w *world, f firewall) {
	before := f.tables()
	w.flags = []string{"--cooperate", "off"}
	w.start()
	for what, r := range map[string]result{
		"what leaves network front is": w.towpath("network", "create", "front", "--ipv6"),
		"what leaves network front ":   w.towpath("sandbox", "create", "web", "--network", "front"),
	} {
		if r.code != 0 || !strings.Contains(r.stderr, "towpath: warning: "+what) || !strings.Contains(r.stderr, "("+f.author+")") {
			w.Errorf("exit %d, said %q, want a warning %q of %s", r.code, r.stderr, what, f.author)
		}
	}
	if r := w.towpath("publish", "web", "8080:80"); r.code != 0 || strings.Contains(r.stderr, "("+f.author+")") == f.publishes {
		w.Errorf("publish: exit %d, said %q", r.code, r.stderr)
	}
	web, _ := w.sandbox("web")
	w.tellSource(web, 80)
	w.tellSource(w.outside, 9000)
	w.passes(web, false, !f.publishes)
	if diff := cmp.Diff(before, f.tables()); diff != "" {
		w.Errorf("without being asked (-before +after):\n%s", diff)
	}

	w.kill()
	w.flags = []string{"--cooperate", "auto"}
	w.start()
	w.passes(web, true, false)
	if r := w.towpath("network", "create", "back", "--ipv6"); r.code != 0 || r.stderr != "" {
		w.Errorf("with the door used: exit %d, said %q", r.code, r.stderr)
	}
	w.clean()
	for what, again := range map[string]func(){"reload": f.reload, "restart": f.restart} {
		again()
		w.slowly("after a "+what+" our entries are there again", func() bool {
			return strings.Contains(f.tables(), "tp-front") && w.towpath("diff").stdout == ""
		})
		w.passes(web, true, false)
	}

	w.must("sandbox", "rm", "web")
	w.must("network", "rm", "front", "back")
	if left := f.tables(); strings.Contains(left, "tp-front") || strings.Contains(left, "tp-back") {
		w.Errorf("what is left of removed networks:\n%s", left)
	}
	w.kill()
	w.cleanup()
	if left := f.tables(); strings.Contains(left, "towpath") {
		w.Errorf("after --cleanup there is left:\n%s", left)
	}
	if f.settle != nil {
		f.settle()
	}
	if diff := cmp.Diff(before, f.tables()); diff != "" {
		w.Errorf("after --cleanup (-before +after):\n%s", diff)
	}
}

// passes checks in both families whether a sandbox gets out, and is reached at
// its published port unless that is not to be looked at.
func (w *world) passes(web *testnet.NS, want, outOnly bool) {
	w.Helper()
	wait := patience
	if !want {
		wait = impatience
	}
	for _, a := range []struct {
		what string
		from *testnet.NS
		to   netip.AddrPort
		in   bool
	}{
		{"out", web, netip.AddrPortFrom(outside4(), 9000), false},
		{"out", web, netip.AddrPortFrom(outside6(), 9000), false},
		{"in", w.outside, netip.AddrPortFrom(host4(), 8080), true},
		{"in", w.outside, netip.AddrPortFrom(host6(), 8080), true},
	} {
		for _, proto := range []string{"tcp", "udp"} {
			if a.in && proto == "udp" || a.in && !want && !outOnly {
				continue
			}
			if _, err := ask(w, a.from, proto, a.to, wait); (err == nil) != want {
				w.Errorf("%s to %s %s: %v; passes: want %v", a.what, proto, a.to, err, want)
			}
		}
	}
}

// cleanup runs the daemon with --cleanup.
func (w *world) cleanup() {
	w.Helper()
	cmd := exec.Command(filepath.Join(binDir, "towpathd"), append([]string{"--run-dir", w.run, "--state-dir", w.state, "--cleanup"}, w.flags...)...)
	if r := w.finish(cmd); r.code != 0 {
		w.Errorf("clean up: exit %d: %s", r.code, r.stderr)
	}
}

// program runs a program on the host, with input, and gives its output.
func (w *world) program(stdin string, argv ...string) string {
	w.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	r := w.finish(cmd)
	if r.code != 0 {
		w.Fatalf("%v: exit %d: %s%s", argv, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// listings are the tables of iptables as it lists them, chains by name: their own
// order hangs on how often a program has loaded them.
func (w *world) listings() string {
	return w.program("", "iptables-nft", "-S") + w.program("", "ip6tables-nft", "-S")
}

// filterTables are the tables of iptables without handles and counters, each
// line as nft prints it.
func (w *world) filterTables() string {
	return w.program("", "nft", "-s", "list", "table", "ip", "filter") + w.program("", "nft", "-s", "list", "table", "ip6", "filter") + w.listings()
}

// docker loads what Docker makes of one network, by the program it uses, with
// a rule of the administrator in the chain that is for them.
func docker(w *world) firewall {
	rules := func(subnet string) string {
		return `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-INTERNAL - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-INTERNAL
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-USER -s ` + subnet + ` -j DROP
-A DOCKER-USER -j RETURN
COMMIT
`
	}
	load := func() {
		w.program(rules("203.0.113.0/24"), "iptables-nft-restore")
		w.program(rules("2001:db8:bad::/48"), "ip6tables-nft-restore")
	}
	load()
	restart := func() {
		for _, tool := range []string{"iptables-nft", "ip6tables-nft"} {
			w.program("", tool, "-F")
			w.program("", tool, "-X")
		}
		load()
	}
	return firewall{author: "docker", tables: w.filterTables, reload: load, restart: restart}
}

// ufw enables the program with a copy of its configuration. It is told to leave
// sysctls alone.
func ufw(w *world) firewall {
	dir := w.TempDir()
	w.check(os.Chmod(dir, 0o755))
	for _, part := range []string{"lib/ufw", "etc/default"} {
		w.check(os.MkdirAll(filepath.Join(dir, part), 0o755))
	}
	w.program("", "cp", "-a", "/etc/ufw", filepath.Join(dir, "etc"))
	defaults, err := os.ReadFile("/etc/default/ufw")
	w.check(err)
	defaults = append(defaults, "\nIPT_SYSCTL=\nIPV6=yes\n"...)
	w.check(os.WriteFile(filepath.Join(dir, "etc/default/ufw"), defaults, 0o644))
	run := func(args ...string) {
		w.program("", append([]string{"ufw", "--rootdir=/", "--datadir=" + dir}, args...)...)
	}
	run("--force", "enable")
	run("route", "deny", "from", "203.0.113.0/24")
	// It loads other rules, in another order, when it reloads than when it begins.
	run("reload")
	restart := func() {
		run("disable")
		run("--force", "enable")
		run("reload")
	}
	return firewall{author: "ufw", tables: w.listings, reload: func() { run("reload") }, restart: restart}
}

// busConfig is a message bus that only the test knows of.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=BUS</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
`

// firewalld runs the daemon with its defaults on a bus of its own.
func firewalld(w *world) firewall {
	f := runFirewalld(w, "nftables")
	zones := f.tables
	f.tables = func() string { return zones() + w.program("", "nft", "-s", "list", "table", "inet", "firewalld") }
	return f
}

// firewalldIPTables runs it with its other backend.
func firewalldIPTables(w *world) firewall {
	f := runFirewalld(w, "iptables")
	zones := f.tables
	f.tables = func() string { return zones() + w.listings() }
	return f
}

func runFirewalld(w *world, backend string) firewall {
	dir := shortDir(w)
	bus := filepath.Join(dir, "bus")
	config := filepath.Join(dir, "bus.conf")
	w.check(os.WriteFile(config, []byte(strings.ReplaceAll(busConfig, "BUS", bus)), 0o644))
	w.check(os.Mkdir(filepath.Join(dir, "etc"), 0o755))
	w.program("", "cp", "-a", "/etc/firewalld", filepath.Join(dir, "etc"))
	conf := filepath.Join(dir, "etc/firewalld/firewalld.conf")
	text, err := os.ReadFile(conf)
	w.check(err)
	text = bytes.ReplaceAll(text, []byte("FirewallBackend=nftables"), []byte("FirewallBackend="+backend))
	w.check(os.WriteFile(conf, text, 0o644))
	w.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+bus)
	w.background("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile")
	w.eventually("the bus listens", func() bool { _, err := os.Stat(bus); return err == nil })
	start := func() (end func()) {
		end = w.background("firewalld", "--nofork", "--nopid", "--system-config="+filepath.Join(dir, "etc/firewalld"), "--log-file="+filepath.Join(dir, "log"))
		w.slowly("firewalld answers", func() bool {
			return w.finish(exec.Command("firewall-cmd", "--state")).code == 0
		})
		return end
	}
	end := start()
	// A zone's chains are made when it is first used, and stay, empty, until the
	// next reload.
	tables := func() string {
		return strings.Join(keep(w.program("", "firewall-cmd", "--list-all-zones"), "interfaces:"), "\n")
	}
	reload := func() { w.program("", "firewall-cmd", "--reload") }
	return firewall{author: "firewalld", publishes: true, tables: tables, reload: reload, restart: func() { end(); end = start() }, settle: reload}
}

// keep gives the lines with a word in them.
func keep(text, word string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			out = append(out, line)
		}
	}
	return out
}

// slowly is eventually for programs that take long to begin.
func (w *world) slowly(what string, holds func() bool) {
	w.Helper()
	const most = time.Minute
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(most); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			w.Fatalf("not within %s: %s", most, what)
		}
	}
}

// background runs a program on the host until the test ends or it is told to.
func (w *world) background(argv ...string) (end func()) {
	w.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	w.check(w.host.Start(cmd))
	end = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		late.Stop()
	})
	w.Cleanup(func() {
		end()
		if w.Failed() {
			w.Logf("%s said:\n%s", argv[0], out.String())
		}
	})
	return end
}
