package differential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/linux/look"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/ports"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/walk"
)

// world is a spec come true: the namespaces, and the walker of what was planned.
type world struct {
	*testing.T
	spec   spec
	spaces map[string]*testnet.NS // "host", "outside" and the sandboxes
	walker *walk.Walker
	host   machine.Host
	run    string // directory of the sandboxes' namespaces
	holder holder
	// seen walks through what is there, as it is read back from the kernel.
	seen *walk.Walker
	// senders are sockets for whole frames, by namespace and link.
	senders map[string]*os.File
}

// newWorld makes the namespaces and applies the plan as the daemon does.
func newWorld(t *testing.T, s spec) *world {
	t.Helper()
	w := &world{T: t, spec: s, spaces: map[string]*testnet.NS{}}
	host, outside := testnet.New(t, "host"), testnet.New(t, "outside")
	w.spaces[kernel.Host], w.spaces["outside"] = host, outside
	testnet.Link(t, host, outside, "eth0", "eth0", prefixes(hostLink4, hostLink6), prefixes(outsideLink4, outsideLink6))
	w.route(host, "0.0.0.0/0", outsideLink4)
	w.route(host, "::/0", outsideLink6)
	w.route(outside, "172.20.0.0/16", hostLink4)
	w.route(outside, "fd00::/16", hostLink6)
	common := w.tune(host, s.RPFilter)
	w.tune(outside, 0)
	for name, on := range map[string]bool{"iptables": s.NF4, "ip6tables": s.NF6} {
		// Without br_netfilter there is no such value, and it is as if it were 0.
		if _, err := sysctl.Read(host.F, "net/bridge/bridge-nf-call-"+name); err == nil {
			common = append(common, w.set(host, "net/bridge/bridge-nf-call-"+name, map[bool]string{false: "0", true: "1"}[on]))
		}
	}
	w.apply(common)
	return w
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// route adds a route over eth0 to the machine with the address via.
func (w *world) route(ns *testnet.NS, dst, via string) {
	w.Helper()
	c := ns.Conn(w)
	l, err := c.LinkByName(w.Context(), "eth0")
	w.must(err)
	w.must(c.AddRoute(w.Context(), rt.Route{Dst: netip.MustParsePrefix(dst), Gateway: netip.MustParsePrefix(via).Addr(), OIF: l.Index}))
}

// set sets a sysctl, and gives it as the walk shall know it.
func (w *world) set(ns *testnet.NS, name, value string) kernel.Object {
	w.Helper()
	w.must(sysctl.Write(ns.F, name, value))
	return kernel.Sysctl{NS: ns.Name, Name: name, Value: value}
}

// tune sets what the test must have: errors unlimited, and the filter of
// sources. Sysctls of all interfaces are in force at once.
func (w *world) tune(ns *testnet.NS, filter int) []kernel.Object {
	w.Helper()
	for name, value := range map[string]string{
		"net/ipv4/icmp_ratelimit": "0", "net/ipv6/icmp/ratelimit": "0",
		"net/ipv4/icmp_msgs_per_sec": "1000000", "net/ipv4/icmp_msgs_burst": "100000",
	} {
		err := sysctl.Write(ns.F, name, value)
		// Older kernels have the last two for the machine alone, where they are not ours to change.
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			w.Fatal(err)
		}
	}
	return []kernel.Object{w.set(ns, "net/ipv4/conf/all/rp_filter", strconv.Itoa(filter))}
}

// apply plans, applies, and makes the walker of the same state.
func (w *world) apply(more []kernel.Object) {
	w.Helper()
	w.run, w.holder = w.runDir(), w.newHolder()
	var k *linux.Kernel
	w.spaces[kernel.Host].Do(w, func() error {
		var err error
		k, err = linux.Open(linux.Config{RunDir: w.run, Ports: w.holder, Log: slog.New(slog.DiscardHandler), Pass: func(string) {}})
		return err
	})
	w.Cleanup(func() { k.Close() })
	facts, err := k.Facts(w.Context())
	w.must(err)
	want, err := w.spec.plan(facts)
	w.must(err)
	m, err := rt.Listen(w.spaces[kernel.Host].FD(), rt.GroupIPv6Address)
	w.must(err)
	defer m.Close()
	for _, f := range k.Apply(w.Context(), kernel.Diff(nil, want)) {
		w.Fatalf("%s: %v", f.Op, f.Err)
	}
	w.inUse(m, want)
	for _, o := range want { // the kernel's link watch sees a carrier some time after it is there
		if l, ok := o.(kernel.Link); ok && l.NS == kernel.Host && l.Master != "" {
			w.spaces[kernel.Host].WaitUp(w, l.Name)
			w.spaces[kernel.Host].WaitUp(w, l.Master)
		}
	}
	w.must(want.Add(more...))
	for i := range w.spec.Sandboxes {
		name := fmt.Sprintf("s%d", i)
		f, err := netns.Open(k.Path(name))
		w.must(err)
		w.Cleanup(func() { f.Close() })
		w.spaces[name] = &testnet.NS{Name: name, F: f}
		w.must(want.Add(w.tune(w.spaces[name], w.spec.Inner)...))
	}
	w.walkOf(want)
}

// inUse waits until the host's IPv6 addresses can be used: the kernel puts them
// to use in a work queue, and tells after that.
func (w *world) inUse(m *rt.Monitor, want kernel.State) {
	w.Helper()
	open := map[netip.Prefix]bool{}
	for _, o := range want {
		if a, ok := o.(kernel.Address); ok && a.NS == kernel.Host && a.Prefix.Addr().Is6() {
			open[a.Prefix] = true
		}
	}
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	for len(open) > 0 {
		e, err := m.Next(ctx)
		w.must(err)
		if e.Kind == rt.EventAddress && !e.Deleted {
			delete(open, e.Address.Prefix)
		}
	}
}

// walkOf makes the walker of the state and the uplink.
func (w *world) walkOf(want kernel.State) {
	w.Helper()
	page, err := kernel.Parse(uplink)
	w.must(err)
	for _, o := range page {
		w.must(want.Add(o))
	}
	w.host, err = machine.FromState(want)
	w.must(err)
	for i := range w.host.Spaces {
		for _, proto := range []string{"tcp", "udp"} {
			w.host.Spaces[i].Listeners = append(w.host.Spaces[i].Listeners, machine.Listener{Proto: proto, Addr: netip.IPv6Unspecified(), Port: openPort})
		}
	}
	w.intrude()
	w.walker, err = walk.New(w.host)
	w.must(err)
}

// look reads back what is there, and makes the walker of it.
func (w *world) look() {
	w.Helper()
	h, err := look.Machine(w.Context(), look.Config{
		Self: w.spaces[kernel.Host].F, RunDir: w.run, Limits: look.DefaultLimits(),
		Named: map[string]*os.File{"outside": w.spaces["outside"].F},
		Held:  w.holder.find,
	})
	w.must(err)
	if len(h.Unread) > 0 {
		w.Errorf("namespaces that could not be read: %v", h.Unread)
	}
	for _, s := range h.Spaces {
		if len(s.Partial) > 0 {
			w.Errorf("%s was not read whole: %v", s.Name, s.Partial)
		}
	}
	w.seen, err = walk.New(h)
	w.must(err)
}

// newHolder holds the ports of the host that are published, in its namespace.
func (w *world) newHolder() holder {
	h := ports.New()
	w.Cleanup(func() { h.Close() })
	return holder{h, w.spaces[kernel.Host]}
}

// holder is a linux.Ports.
type holder struct {
	held *ports.Holder
	host *testnet.NS
}

// Hold takes ports.
func (h holder) Hold(list []kernel.Socket) error {
	var all []ports.Port
	for _, s := range list {
		all = append(all, ports.Of(s))
	}
	return netns.Do(h.host.F, func() error { return h.held.Hold(all...) })
}

// Release lets a port go.
func (h holder) Release(s kernel.Socket) error { return h.held.Release(ports.Of(s)) }

// Holds reports whether a port is held.
func (h holder) Holds(s kernel.Socket) bool { return h.held.Holds(ports.Of(s)) }

// find tells the sockets that hold a port.
func (h holder) find(l machine.Listener) (*machine.Passing, bool) {
	if l.V6Only {
		l.Proto += "6"
	}
	p, held := h.held.Find(ports.Port{Proto: l.Proto, Addr: netip.AddrPortFrom(l.Addr, l.Port)})
	if !held {
		return nil, false
	}
	passes, err := machine.PassedBy(kernel.Socket{To: p.To, From: p.From})
	return passes, err == nil
}

// runDir is a directory for namespaces to be bound in; they are let go at the end.
func (w *world) runDir() string {
	w.Helper()
	dir, err := os.MkdirTemp("/run", "tp")
	w.must(err)
	w.Cleanup(func() {
		entries, err := netns.List(filepath.Join(dir, "netns"))
		for _, e := range entries {
			err = errors.Join(err, netns.Remove(filepath.Join(dir, "netns", e.Name)))
		}
		if err != nil {
			w.Errorf("let namespaces go: %v", err)
		}
	})
	return dir
}
