package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

// owned is somebody's namespace with an interface, an address and a route of its own.
type owned struct {
	*testnet.NS
	before []string
}

// newOwned makes the namespace, and notes what is in it.
func newOwned(w *world, name string) *owned {
	w.Helper()
	o := &owned{NS: testnet.New(w, name)}
	c := o.Conn(w)
	err := c.AddBridge(w.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "own0", MAC: rt.MAC{2, 0, 0, 0, 9, 9}}})
	var l rt.Link
	if err == nil {
		l, err = c.LinkByName(w.Context(), "own0")
	}
	if err == nil {
		err = c.AddAddress(w.Context(), rt.Address{Index: l.Index, Prefix: netip.MustParsePrefix("10.55.0.1/24")})
	}
	if err == nil {
		err = c.SetLink(w.Context(), l.Index, rt.LinkChange{Up: new(true)})
	}
	if err == nil {
		err = c.AddRoute(w.Context(), rt.Route{Dst: netip.MustParsePrefix("10.56.0.0/16"), OIF: l.Index})
	}
	if err != nil {
		w.Fatalf("make namespace %s: %v", name, err)
	}
	o.before = o.inventory(w)
	return o
}

// inventory is links, IPv4 addresses and routes. Of IPv6 the kernel adds its own, in its own time.
func (o *owned) inventory(w *world) []string {
	w.Helper()
	c := o.Conn(w)
	links, err := c.Links(w.Context(), rt.LinkFilter{})
	if err != nil {
		w.Fatal(err)
	}
	addrs, err := c.Addresses(w.Context(), 0)
	if err != nil {
		w.Fatal(err)
	}
	routes, err := c.Routes(w.Context(), rt.RouteFilter{Family: 2}, 0)
	if err != nil {
		w.Fatal(err)
	}
	var out []string
	for _, l := range links {
		out = append(out, fmt.Sprintf("link %d %s %s up=%t %s alias=%q group=%d", l.Index, l.Name, l.Kind, l.Up, l.MAC, l.Alias, l.Group))
	}
	for _, a := range addrs {
		if a.Prefix.Addr().Is4() {
			out = append(out, fmt.Sprintf("addr %d %s", a.Index, a.Prefix))
		}
	}
	for _, r := range routes {
		out = append(out, fmt.Sprintf("route %d %s via %s table %d", r.OIF, r.Dst, r.Gateway, r.Table))
	}
	slices.Sort(out)
	return out
}

// untouched checks that the namespace is as its owner had it, beside what is ours.
func (o *owned) untouched(w *world, when string) {
	w.Helper()
	now := o.inventory(w)
	for _, line := range o.before {
		if !slices.Contains(now, line) {
			w.Errorf("%s: the owner's own is gone: %s", when, line)
		}
	}
}

// asBefore checks that nothing of ours is left.
func (o *owned) asBefore(w *world, when string) {
	w.Helper()
	if diff := cmp.Diff(o.before, o.inventory(w)); diff != "" {
		w.Errorf("%s: the namespace is not as before (-before +after):\n%s", when, diff)
	}
}

// bind makes the namespace known by a path, and takes it back in the end.
func (o *owned) bind(w *world, path string) string {
	w.Helper()
	if err := netns.Bind(o.FD(), path); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := netns.Remove(path); err != nil {
			w.Error(err)
		}
	})
	return path
}

// process runs in the namespace until the returned function is called.
func (o *owned) process(w *world) (pid int, end func()) {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), "cat")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = o.Start(cmd)
	}
	if err != nil {
		w.Fatal(err)
	}
	return cmd.Process.Pid, func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
}

// TestAdopt takes somebody's namespace in, by each way to name it, connects it,
// and leaves it as it was.
func TestAdopt(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "front", "--ipv6")
	w.must("network", "create", "back")
	made := newOwned(w, "made")
	elsewhere := newOwned(w, "elsewhere")
	running := newOwned(w, "running")
	pid, end := running.process(w)
	defer end()
	boxes := []struct {
		name string
		ns   *owned
		args []string
	}{
		// Where `ip netns add` puts it, and somewhere else.
		{"byname", made, []string{"--netns", made.bind(w, "/run/netns/tp-made")}},
		{"bypath", elsewhere, []string{"--netns", elsewhere.bind(w, filepath.Join(w.run, "x", "elsewhere"))}},
		{"bypid", running, []string{"--pid", fmt.Sprint(pid)}},
	}
	for _, b := range boxes {
		w.must(append([]string{"sandbox", "create", b.name, "--network", "front"}, b.args...)...)
	}
	check := func(when string) {
		t.Helper()
		for _, b := range boxes {
			_, info := w.sandbox(b.name)
			v4, v6 := addresses(info)
			if info.Origin != api.OriginAdopted || info.Status.State != "ready" {
				t.Errorf("%s: %s is %s, %+v", when, b.name, info.Origin, info.Status)
			}
			reaches(w, b.ns.NS, w.outside, outside4())
			reaches(w, b.ns.NS, w.outside, outside6())
			reaches(w, w.host, b.ns.NS, v4)
			reaches(w, w.host, b.ns.NS, v6)
			b.ns.untouched(w, when)
		}
		w.clean()
	}
	check("adopted")
	_, first := w.sandbox("byname")
	second, _ := addresses(first)
	reaches(w, running.NS, made.NS, second)

	w.must("network", "connect", "back", "byname")
	check("connected to one more")
	w.must("network", "disconnect", "back", "byname")
	made.untouched(w, "disconnected")
	w.kill()
	w.start()
	check("after a new start")

	for _, b := range boxes {
		w.must("sandbox", "rm", b.name)
		b.ns.asBefore(w, "removed")
	}
	w.clean()
	w.must("sandbox", "create", "again", "--netns", "/run/netns/tp-made", "--network", "front")
	reaches(w, made.NS, w.outside, outside4())
	w.must("sandbox", "rm", "again")
	made.asBefore(w, "removed again")
}

// TestAdoptOutlivesOwner: the namespace stays ours when its owner lets it go,
// until the sandbox is removed.
func TestAdoptOutlivesOwner(t *testing.T) {
	w := newWorld(t)
	w.start()
	o := newOwned(w, "brief")
	pid, end := o.process(w)
	w.must("sandbox", "create", "brief", "--pid", fmt.Sprint(pid))
	end()
	w.kill()
	w.start()
	w.clean()
	reaches(w, o.NS, w.outside, outside4())
	w.must("sandbox", "rm", "brief")
	o.asBefore(w, "removed")
	w.clean()
}

// TestAdoptRefuses: what is no namespace of a container is refused with a reason
// and a code, and nothing half-made remains.
func TestAdoptRefuses(t *testing.T) {
	w := newWorld(t)
	w.start()
	file := filepath.Join(w.run, "file")
	if err := os.WriteFile(file, []byte("no namespace"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := newOwned(w, "taken")
	path := o.bind(w, filepath.Join(w.run, "x", "taken"))
	pid, end := o.process(w)
	w.must("sandbox", "create", "taken", "--netns", path)
	end()
	inventory := o.inventory(w)
	for name, tc := range map[string]struct {
		args  []string
		words string
		code  int
	}{
		"the host's own, by path":  {[]string{"--netns", "/proc/self/ns/net"}, "it is the namespace towpathd itself runs in", 1},
		"the host's own, by pid":   {[]string{"--pid", fmt.Sprint(w.daemon.Process.Pid)}, "it is the namespace towpathd itself runs in", 1},
		"a path that is not there": {[]string{"--netns", filepath.Join(w.run, "nowhere")}, "no such file or directory", 1},
		"a regular file":           {[]string{"--netns", file}, "not a network namespace", 1},
		"a directory":              {[]string{"--netns", w.run}, "not a network namespace", 1},
		"a device":                 {[]string{"--netns", "/dev/null"}, "not a network namespace", 1},
		"a namespace of mounts":    {[]string{"--netns", "/proc/self/ns/mnt"}, "not a network namespace", 1},
		"a process that is gone":   {[]string{"--pid", fmt.Sprint(pid)}, "no such process", 1},
		"no process":               {[]string{"--pid", "-4"}, "-4", 1},
		"the same twice":           {[]string{"--netns", path}, "the namespace is sandbox taken already", 1},
		"path and pid":             {[]string{"--netns", path, "--pid", "1"}, "exclude each other", 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := w.towpath(append([]string{"sandbox", "create", "bad"}, tc.args...)...)
			if r.code != tc.code || !strings.Contains(r.stderr, tc.words) || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("exit %d, %q; want %d and one line with %q", r.code, r.stderr, tc.code, tc.words)
			}
		})
	}
	if got := w.must("sandbox", "ls", "-q"); got != "taken\n" {
		t.Errorf("sandboxes %q, want only taken", got)
	}
	if diff := cmp.Diff(inventory, o.inventory(w)); diff != "" {
		t.Errorf("the namespace changed (-before +after):\n%s", diff)
	}
	w.clean()
}

// TestAdoptNameTakenInside: an interface of the owner's stands in the way of
// eth0. The verb fails and says so, and takes back what it began.
func TestAdoptNameTakenInside(t *testing.T) {
	w := newWorld(t)
	w.start()
	o := newOwned(w, "full")
	if err := o.Conn(t).AddBridge(t.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "eth0"}}); err != nil {
		t.Fatal(err)
	}
	o.before = o.inventory(w)
	path := o.bind(w, filepath.Join(w.run, "x", "full"))
	r := w.towpath("sandbox", "create", "full", "--netns", path)
	if r.code != 1 || !strings.Contains(r.stderr, "has an interface eth0 already") {
		t.Errorf("exit %d, %q", r.code, r.stderr)
	}
	o.asBefore(w, "refused")
	w.clean()
	if got := w.must("sandbox", "ls", "-q"); got != "" {
		t.Errorf("sandboxes %q remain", got)
	}
	w.must("sandbox", "create", "full", "--netns", path, "--network", "bridge,ifname=tp0")
	reaches(w, o.NS, w.outside, outside4())
	w.must("sandbox", "rm", "full")
	o.asBefore(w, "removed")
}
