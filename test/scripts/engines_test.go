package scripts

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/client"
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

// furnish makes networks and containers of an engine, and listens outside.
func (w *world) furnish(e engine) {
	w.Helper()
	e.box()
	// As it is where br_netfilter is not loaded.
	if _, err := w.onHost("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0"); err != nil {
		w.Fatal(err)
	}
	names := []string{"web", "db", "stock", "bird"}
	lines := []string{
		"network create --ipv6 --subnet 10.82.0.0/24 --subnet fd82::/64 shop",
		"network create --ipv6 --subnet 10.83.0.0/24 --subnet fd83::/64 back",
		"network create --ipv6 --subnet 10.84.0.0/24 --subnet fd84::/64 --internal cage",
		"run -d --name web --network shop --ip 10.82.0.2 --ip6 fd82::2 -p 8080:80 box httpd -f -p 80",
		"run -d --name db --network shop --ip 10.82.0.3 --ip6 fd82::3 box httpd -f -p 5432",
		"run -d --name stock --network back --ip6 fd83::2 box httpd -f -p 80",
		"run -d --name bird --network cage box httpd -f -p 80",
	}
	if e.name() == viaPodman { // which isolates only networks that are to be
		names = append(names, "robin", "wren")
		lines = append(lines,
			"network create --ipv6 --subnet 10.85.0.0/24 --subnet fd85::/64 --opt isolate=true nest",
			"network create --ipv6 --subnet 10.86.0.0/24 --subnet fd86::/64 --opt isolate=true wing",
			"run -d --name robin --network nest box httpd -f -p 80",
			"run -d --name wren --network wing --ip6 fd86::2 box httpd -f -p 80",
		)
	}
	w.Cleanup(func() {
		// To rm they would be asked to end first, which takes them ten seconds.
		for _, verb := range []string{"kill", "rm"} {
			if err := e.run(append([]string{verb}, names...)...); err != nil {
				w.Error(err)
			}
		}
	})
	for _, line := range lines {
		if err := e.run(strings.Fields(line)...); err != nil {
			w.Fatal(err)
		}
	}
	for _, at := range []string{"192.0.2.1:443", "[2001:db8::1]:443"} {
		w.outside.ServeTCP(w, netip.MustParseAddrPort(at))
	}
	if !soon(func() bool {
		out, err := w.onHost("ip", "-6", "addr", "show", "tentative")
		return err == nil && out == ""
	}) {
		w.Fatal("addresses are still being examined")
	}
}

// pathsOf asks for the path of every packet of the table.
func (w *world) pathsOf(e engine) {
	t, ok := w.TB.(*testing.T)
	if !ok {
		w.Fatal("not in a test")
	}
	w.furnish(e)
	var lanes [2][]foreign // IPv4, IPv6: what is done for one is nothing to the other
	var alone []foreign
	for _, f := range foreigners() {
		switch {
		case f.only != "" && f.only != e.name():
		case f.alone:
			alone = append(alone, f)
		case strings.Count(f.to, ":") > 1:
			lanes[1] = append(lanes[1], f)
		default:
			lanes[0] = append(lanes[0], f)
		}
	}
	check := func(list []foreign) {
		for _, f := range list {
			t.Run(f.what, func(t *testing.T) { f.check(t, w, e) })
		}
	}
	var wg sync.WaitGroup
	for _, lane := range lanes {
		wg.Go(func() { check(lane) })
	}
	wg.Wait()
	check(alone)
}

func (f foreign) check(t *testing.T, w *world, e engine) {
	c := client.New(w.socket())
	defer c.Close()
	if f.author == engines {
		f.author = strings.ToLower(e.name())
	}
	if f.do != "" {
		w.change(t, e, f.do)
		defer w.change(t, e, f.undo)
	}
	if f.full {
		w.host.FillConntrack(t)
	}
	q := api.PathQuery{From: f.from, To: f.to, Size: f.size, TTL: f.ttl}
	expected, err := c.Explain(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	f.explained(t, expected)
	f.owners(t, e, expected)
	if f.alsoSent {
		got := w.followed(t, c, netip.MustParseAddrPort(f.to))
		f.seen(t, api.LevelFull, api.Probe{Expected: expected, Actual: got})
		f.owners(t, e, got)
	}
	for level, p := range f.probes(t, c, q) {
		f.seen(t, level, p)
		f.owners(t, e, p.Actual)
		if p.FirstDifference != nil && f.ends == "" {
			t.Errorf("it was expected otherwise, from hop %d:\n%s\n%s", *p.FirstDifference, said(t, p.Expected), said(t, p.Actual))
		}
		if p.Verdict != p.Actual.Verdict || p.Answered != (p.Verdict == api.Answered) {
			t.Errorf("verdict %s, answered %v:\n%s", p.Verdict, p.Answered, said(t, p.Actual))
		}
		if f.ends == "" && !strings.Contains(p.Fix, f.fix) {
			t.Errorf("level %s: fix %q, want %q", level, p.Fix, f.fix)
		}
	}
}

// probes sends the packet once for each level, all at once.
func (f foreign) probes(t *testing.T, c *client.Client, q api.PathQuery) map[api.PathLevel]api.Probe {
	t.Helper()
	levels := []api.PathLevel{api.LevelFull, api.LevelTracepoints, api.LevelTaps}
	probes, errs := make([]api.Probe, len(levels)), make([]error, len(levels))
	var wg sync.WaitGroup
	for i, level := range levels {
		wg.Go(func() { probes[i], errs[i] = f.probe(t.Context(), c, api.ProbeQuery{PathQuery: q, Level: level}) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	out := map[api.PathLevel]api.Probe{}
	for i, level := range levels {
		out[level] = probes[i]
	}
	return out
}

// probe sends the packet, again where it was to be rejected and was not: a kernel
// does not send every error, but one in some two seconds to the same host (ip_error
// and icmpv4_xrlim_allow both charge for it).
func (f foreign) probe(ctx context.Context, c *client.Client, q api.ProbeQuery) (api.Probe, error) {
	for left := 3; ; left-- {
		p, err := c.Probe(ctx, q)
		if err != nil || cmp.Or(f.ends, f.verdict) != api.Rejected || p.Verdict == api.Rejected || left == 0 {
			return p, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

// change runs lines of commands on the host, or in containers.
func (w *world) change(t *testing.T, e engine, lines string) {
	t.Helper()
	for line := range strings.SplitSeq(lines, "\n") {
		argv := []string{"sh", "-c", line}
		if in, rest, ok := strings.Cut(line, ": "); ok && !strings.Contains(in, " ") {
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
	from := outside4
	if to.Addr().Is6() {
		from = outside6
	}
	err := c.Trace(ctx, api.TraceQuery{From: from, Port: to.Port()}, begun, func(p api.Path) error {
		seen = &p
		cancel()
		return nil
	})
	if seen == nil {
		t.Fatalf("no path was seen: %v", err)
	}
	return *seen
}
