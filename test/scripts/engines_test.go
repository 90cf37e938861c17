package scripts

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/client"
	"github.com/towpath/towpath/internal/draw"
	"github.com/towpath/towpath/internal/testnet"
)

// engine is a container engine that is not Towpath.
type engine interface {
	run(args ...string) error
	ask(args ...string) (string, error)
	// box makes the image "box", of busybox.
	box()
	name() string
}

// onHost runs a command in the host's network namespace, and gives what it prints.
func (w *world) onHost(argv ...string) (string, error) {
	// Also when a test ends, and its context has.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := w.host.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%q: %w\n%s", argv, err, errs.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// foreign is a packet on networks that an engine made, what was done to them
// before, and what must be said of it, by the explanation and by what was seen.
type foreign struct {
	what, from, to string
	// only is the engine that the case is of; "": both.
	only string
	// do and undo are commands on the host. CONTAINER: before a command runs it
	// in that container's namespace.
	do, undo string
	verdict  api.Verdict
	// also is what may be seen instead, where it hangs on what neighbours remember.
	also api.Verdict
	// where is "NS LAYER" of a hop that must be there with a rule of author that
	// has rule in its text or comment; "": none.
	where, author, rule string
	// nat is the translation: "dnat A -> B".
	nat string
	// says is part of the reason or the fix; to is whose the destination is.
	says, whose string
	// alsoSent: the machine outside sends it, too.
	alsoSent bool
	// unsure: the explanation cannot know the end.
	unsure bool
}

const (
	viaDocker, viaPodman = "Docker", "Podman"
	inHost               = "192.0.2.10:8080"
	// bridge is where the settings of the bridge of shop are.
	bridge = `net/ipv4/conf/$(ip -o route get 10.82.0.2 | sed 's/.* dev \([^ ]*\).*/\1/')`
)

func foreigners() []foreign {
	return []foreign{
		{what: "masquerade", from: "web", to: "192.0.2.1:443", only: viaDocker, verdict: api.Answered, where: "host postrouting", author: "docker", rule: `"MASQUERADE"`, nat: "masquerade 10.82.0.2:"},
		{what: "masquerade", from: "web", to: "192.0.2.1:443", only: viaPodman, verdict: api.Answered, where: "host postrouting", author: "podman", rule: `"MASQUERADE"`, nat: "masquerade 10.82.0.2:"},
		{what: "the way out is let through", from: "web", to: "192.0.2.1:443", only: viaDocker, verdict: api.Answered, where: "host forward", author: "docker", rule: "accept"},
		{what: "the way out is let through", from: "web", to: "192.0.2.1:443", only: viaPodman, verdict: api.Answered, where: "host forward", author: "podman", rule: "accept"},
		{what: "a port that is closed outside", from: "web", to: "192.0.2.1:444", verdict: api.Refused, unsure: true},
		{what: "echo to outside", from: "web", to: "192.0.2.1", verdict: api.Answered},
		{what: "published, from outside", from: "outside", to: inHost, only: viaDocker, verdict: api.Answered, where: "host prerouting", author: "docker", rule: `"DNAT"`, nat: "dnat 192.0.2.10:8080 -> 10.82.0.2:80", whose: "web", alsoSent: true},
		{what: "published, from outside", from: "outside", to: inHost, only: viaPodman, verdict: api.Answered, where: "host prerouting", author: "podman", rule: `"DNAT"`, nat: "dnat 192.0.2.10:8080 -> 10.82.0.2:80", whose: "web", alsoSent: true},
		{what: "published, from the host", from: "host", to: inHost, only: viaDocker, verdict: api.Answered, where: "host output", author: "docker", rule: `"DNAT"`, nat: "dnat 192.0.2.10:8080 -> 10.82.0.2:80", whose: "web"},
		{what: "published, from the host", from: "host", to: inHost, only: viaPodman, verdict: api.Answered, where: "host output", author: "podman", rule: `"DNAT"`, nat: "dnat 192.0.2.10:8080 -> 10.82.0.2:80", whose: "web"},
		{what: "published, from the host's loopback", from: "host", to: "127.0.0.1:8080", verdict: api.Answered},
		{what: "hairpin", from: "web", to: inHost, only: viaDocker, verdict: api.Answered}, // by docker-proxy
		{what: "hairpin", from: "web", to: inHost, only: viaPodman, verdict: api.Answered, where: "host prerouting", author: "podman", rule: `"DNAT"`, nat: "dnat 192.0.2.10:8080 -> 10.82.0.2:80", whose: "web"},
		{what: "published, from another container", from: "db", to: inHost, verdict: api.Answered},
		{what: "same bridge", from: "web", to: "db:5432", verdict: api.Answered, whose: "db"},
		{what: "from the host", from: "host", to: "web:80", verdict: api.Answered, whose: "web"},
		{what: "a closed port of tcp", from: "db", to: "web:81", verdict: api.Refused, says: "listen on port 81", whose: "web"},
		{what: "a closed port of udp", from: "db", to: "web:53/udp", verdict: api.Refused, says: "listen on port 53", whose: "web"},
		{what: "isolated networks", from: "web", to: "stock:80", only: viaDocker, verdict: api.Dropped, where: "host forward", author: "docker", rule: "drop", says: "docker network connect back web"},
		{what: "networks that are not isolated", from: "web", to: "stock:80", only: viaPodman, verdict: api.Answered, whose: "stock"},
		{what: "internal network", from: "bird", to: "192.0.2.1:443", only: viaDocker, verdict: api.Dropped, where: "host forward", author: "docker", rule: "drop", says: "docker network connect NETWORK bird"},
		{what: "internal network", from: "bird", to: "192.0.2.1:443", only: viaPodman, verdict: api.Dropped, says: "podman network connect NETWORK bird"},
		{what: "what the user drops", from: "web", to: "192.0.2.1:443", do: `nft 'table ip mine { chain c { type filter hook forward priority 10; ip saddr 10.82.0.2 drop comment "no web"; }; }'`, undo: "nft delete table ip mine", verdict: api.Dropped, where: "host forward", author: "user", rule: "no web", says: "nft delete rule ip mine c handle"},
		{what: "what the user drops in Docker's chain", from: "web", to: "192.0.2.1:443", only: viaDocker, do: "iptables -I DOCKER-USER -s 10.82.0.2 -j DROP", undo: "iptables -D DOCKER-USER -s 10.82.0.2 -j DROP", verdict: api.Dropped, where: "host forward", author: "user", rule: "ip saddr 10.82.0.2", says: "ip filter DOCKER-USER"},
		{what: "what the user rejects", from: "web", to: "192.0.2.1:443", do: "iptables -I FORWARD -s 10.82.0.2 -p tcp -j REJECT --reject-with tcp-reset", undo: "iptables -D FORWARD 1", verdict: api.Rejected, where: "host forward", author: "user", rule: "REJECT"},
		{what: "a rule that is not met and cannot be evaluated", from: "web", to: "192.0.2.1:443", do: "iptables -I FORWARD -s 10.82.0.99 -m string --algo bm --string GET -j DROP", undo: "iptables -D FORWARD 1", verdict: api.Answered},
		{what: "a rule that is met and cannot be evaluated", from: "web", to: "192.0.2.1:443", do: "iptables -I FORWARD -s 10.82.0.2 -m string --algo bm --string GET -j DROP", undo: "iptables -D FORWARD 1", verdict: api.Answered, unsure: true},
		{what: "no route in the container", from: "web", to: "192.0.2.1:443", do: "web: ip route del default", undo: "web: ip route add default via 10.82.0.1", verdict: api.Dropped, says: "ENETUNREACH"},
		{what: "no route on the host", from: "web", to: "198.51.100.7:443", do: "ip route add unreachable 198.51.100.0/24", undo: "ip route del unreachable 198.51.100.0/24", verdict: api.Rejected, says: "unreachable"},
		{what: "a blackhole", from: "web", to: "198.51.100.7:443", do: "ip route add blackhole 198.51.100.0/24", undo: "ip route del blackhole 198.51.100.0/24", verdict: api.Lost, says: "ip route del blackhole 198.51.100.0/24"},
		{what: "no forwarding from the bridge", from: "web", to: "192.0.2.1:443", do: "sysctl -qw " + bridge + "/forwarding=0", undo: "sysctl -qw " + bridge + "/forwarding=1", verdict: api.Dropped, says: "forward"},
		{what: "time to live", from: "web", to: "192.0.2.1:443", do: "web: sysctl -qw net.ipv4.ip_default_ttl=1", undo: "web: sysctl -qw net.ipv4.ip_default_ttl=64", verdict: api.Rejected, says: "time to live"},
		{what: "an interface that is down", from: "db", to: "web:80", do: "web: ip link set eth0 down", undo: "web: ip link set eth0 up && ip route add default via 10.82.0.1", verdict: api.Dropped, also: api.Lost, says: "eth0 up"},
		{what: "nobody with that address", from: "web", to: "10.82.0.99:80", verdict: api.Dropped, says: "ip neigh show dev eth0"},
	}
}

func TestPathsOfDocker(t *testing.T) {
	testnet.Require(t, "netns", "root", "dockerd-binary", "docker-binary", "containerd-binary", "runc-binary", "iptables-nft-binary", "nft-binary", "busybox-binary")
	w := newWorld(t)
	w.pathsOf(newDocker(w))
}

func TestPathsOfPodman(t *testing.T) {
	testnet.Require(t, "netns", "root", "podman-binary", "runc-binary", "iptables-nft-binary", "nft-binary", "busybox-binary")
	w := newWorld(t)
	w.pathsOf(newPodman(w))
}

// pathsOf makes networks and containers of an engine, and asks for the path of
// every packet of the table.
func (w *world) pathsOf(e engine) {
	t, ok := w.TB.(*testing.T)
	if !ok {
		w.Fatal("not in a test")
	}
	e.box()
	// As it is where br_netfilter is not loaded.
	if _, err := w.onHost("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0"); err != nil {
		t.Fatal(err)
	}
	names := []string{"web", "db", "stock", "bird"}
	t.Cleanup(func() {
		// To rm they would be asked to end first, which takes them ten seconds.
		for _, verb := range []string{"kill", "rm"} {
			if err := e.run(append([]string{verb}, names...)...); err != nil {
				t.Error(err)
			}
		}
	})
	for _, line := range []string{
		"network create --subnet 10.82.0.0/24 shop",
		"network create --subnet 10.83.0.0/24 back",
		"network create --subnet 10.84.0.0/24 --internal cage",
		"run -d --name web --network shop --ip 10.82.0.2 -p 8080:80 box httpd -f -p 80",
		"run -d --name db --network shop --ip 10.82.0.3 box httpd -f -p 5432",
		"run -d --name stock --network back box httpd -f -p 80",
		"run -d --name bird --network cage box httpd -f -p 80",
	} {
		if err := e.run(strings.Fields(line)...); err != nil {
			t.Fatal(err)
		}
	}
	w.outside.ServeTCP(w, netip.MustParseAddrPort("192.0.2.1:443"))
	for _, f := range foreigners() {
		if f.only == "" || f.only == e.name() {
			t.Run(f.what, func(t *testing.T) { f.check(t, w, e) })
		}
	}
}

func (f foreign) check(t *testing.T, w *world, e engine) {
	c := client.New(w.socket())
	defer c.Close()
	if f.do != "" {
		w.change(t, e, f.do)
		defer w.change(t, e, f.undo)
	}
	q := api.PathQuery{From: f.from, To: f.to}
	expected, err := c.Explain(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	f.judge(t, e, expected)
	if f.alsoSent {
		f.judge(t, e, w.followed(t, c, netip.MustParseAddrPort(f.to)))
	}
	for _, level := range []api.PathLevel{"", api.LevelTaps} { // the best that this kernel has, and the least
		p, err := c.Probe(t.Context(), api.ProbeQuery{PathQuery: q, Level: level})
		if err != nil {
			t.Fatal(err)
		}
		p.Actual.Fix = p.Fix
		f.judge(t, e, p.Actual)
		if p.FirstDifference != nil && !f.unsure {
			t.Errorf("it was expected otherwise, from hop %d:\n%s\n%s", *p.FirstDifference, said(t, p.Expected), said(t, p.Actual))
		}
	}
}

// change runs a command on the host, or in a container.
func (w *world) change(t *testing.T, e engine, line string) {
	t.Helper()
	argv := []string{"sh", "-c", line}
	if in, rest, ok := strings.Cut(line, ": "); ok {
		pid, err := e.ask("inspect", "--format", "{{.State.Pid}}", in)
		if err != nil {
			t.Fatal(err)
		}
		argv = []string{"nsenter", "--net=/proc/" + pid + "/ns/net", "sh", "-c", rest}
	}
	if _, err := w.onHost(argv...); err != nil {
		t.Fatal(err)
	}
}

// followed is the path of a connection from the machine outside, as it is seen.
func (w *world) followed(t *testing.T, c *client.Client, to netip.AddrPort) api.Path {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var seen *api.Path
	begun := func(string) {
		go func() {
			if conn, err := w.outside.DialTCP(ctx, to); err == nil {
				conn.Close()
			}
		}()
	}
	err := c.Trace(ctx, api.TraceQuery{Port: to.Port()}, begun, func(p api.Path) error {
		seen = &p
		cancel()
		return nil
	})
	if seen == nil {
		t.Fatalf("no path was seen: %v", err)
	}
	return *seen
}

// judge compares a path with what must be said of the packet.
func (f foreign) judge(t *testing.T, e engine, p api.Path) {
	t.Helper()
	want := f.verdict
	switch {
	case p.Kind == api.Actual && want == api.Lost && p.Level != api.LevelTaps:
		want = api.Dropped
	case p.Kind == api.Actual:
	case f.unsure:
		return
	case want == api.Answered:
		want = api.Delivered
	case want == api.Lost: // taps do not see the end
		want = api.Dropped
	}
	text := said(t, p)
	if p.Verdict != want && (f.also == "" || p.Verdict != f.also) {
		t.Errorf("verdict %s, want %s:\n%s", p.Verdict, want, text)
	}
	if f.where != "" && !slices.ContainsFunc(p.Hops, f.isAt) {
		t.Errorf("no hop at %s with a rule of %s that has %q:\n%s", f.where, f.author, f.rule, text)
	}
	if f.nat != "" && !slices.ContainsFunc(p.Hops, func(h api.Hop) bool { return strings.HasPrefix(h.Action+" "+h.Detail, f.nat) }) {
		t.Errorf("no %s:\n%s", f.nat, text)
	}
	if !strings.Contains(p.Reason+"\n"+p.Fix, f.says) {
		t.Errorf("it does not say %q:\n%s", f.says, text)
	}
	if f.whose != "" && p.To.Name != f.whose {
		t.Errorf("it goes to %q, want %q:\n%s", p.To.Name, f.whose, text)
	}
	for _, h := range p.Hops {
		if owner := fmt.Sprintf("container %s (%s)", h.NS, e.name()); h.NS != "host" && h.NS != "outside" && h.Owner != owner {
			t.Errorf("a hop in %s is of %q, want %q:\n%s", h.NS, h.Owner, owner, text)
		}
	}
}

func (f foreign) isAt(h api.Hop) bool {
	return h.NS+" "+string(h.Layer) == f.where && h.Rule != nil && h.Rule.Author == f.author &&
		strings.Contains(h.Rule.Text+h.Rule.Comment, f.rule)
}

func said(t *testing.T, p api.Path) string {
	t.Helper()
	var b strings.Builder
	if err := draw.PathText(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
