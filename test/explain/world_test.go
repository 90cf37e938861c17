package explain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/explain"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/linux/look"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/ports"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

// world is a host with a machine outside, and Towpath's networks:
//
//	front  172.20.0.0/24, fd00::/64        web .2, app .3
//	back   172.20.1.0/24, fd00:0:0:1::/64  db .2
//	cell   172.20.2.0/24, internal         cage .2
//	quiet  172.20.3.0/24, icc off          one .2, two .3
//
// web's port 80 is published at 8080, and others as published says. The host is 192.0.2.10 and 2001:db8::10,
// the machine outside .1 and ::1. Port 80 is listened on everywhere.
type world struct {
	*testing.T
	view   driver.View
	spaces map[string]*testnet.NS
	dir    string
	holder holder
}

// openPort is listened on everywhere.
const openPort = 80

func newWorld(t *testing.T) *world {
	t.Helper()
	testnet.Require(t, "netns")
	w := &world{T: t, view: driver.NewView(), spaces: map[string]*testnet.NS{}}
	host, outside := testnet.New(t, "host"), testnet.New(t, "outside")
	w.spaces["host"], w.spaces["outside"] = host, outside
	testnet.Link(t, host, outside, "eth0", "eth0", prefixes("192.0.2.10/24", "2001:db8::10/64"), prefixes("192.0.2.1/24", "2001:db8::1/64"))
	w.route("host", rt.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.1"), OIF: w.index("host", "eth0")})
	w.route("host", rt.Route{Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("2001:db8::1"), OIF: w.index("host", "eth0")})
	w.route("outside", rt.Route{Dst: netip.MustParsePrefix("172.20.0.0/16"), Gateway: netip.MustParseAddr("192.0.2.10"), OIF: w.index("outside", "eth0")})
	for _, ns := range []string{"host", "outside"} {
		w.sysctl(ns, "net/ipv4/icmp_ratelimit", "0")
		w.sysctl(ns, "net/ipv6/icmp/ratelimit", "0")
	}
	for i, name := range []string{"front", "back", "cell", "quiet"} {
		w.network(name, i)
	}
	w.view.Networks["cell"].Internal, w.view.Networks["quiet"].ICC = true, false
	for _, s := range []struct {
		name, network string
		last          int
	}{{"web", "front", 2}, {"app", "front", 3}, {"db", "back", 2}, {"cage", "cell", 2}, {"one", "quiet", 2}, {"two", "quiet", 3}} {
		w.connect(s.name, s.network, s.last)
	}
	for _, p := range published() {
		p.Sandbox, p.Count = "web", 1
		w.view.Publications.Put(&p)
	}
	w.apply()
	for name := range w.view.Networks { // bridges notice their ports in a work queue
		w.spaces["host"].WaitUp(t, "tp-"+name)
	}
	for _, ns := range w.spaces {
		ns.ServeTCP(t, netip.AddrPortFrom(netip.IPv6Unspecified(), openPort))
	}
	for _, a := range []string{"172.20.0.2:53", "[fd00::2]:53"} {
		w.spaces["web"].ServeUDP(t, netip.MustParseAddrPort(a))
	}
	return w
}

// published are the ports of web that are.
func published() []api.Publication {
	return []api.Publication{
		{HostPort: 8080, Port: openPort, Proto: "tcp"},
		{HostPort: 8053, Port: 53, Proto: "udp"},
		{HostPort: 8081, Port: 81, Proto: "tcp"},
		{HostPort: 8081, Port: 81, Proto: "udp"},
		{HostPort: 8082, Port: openPort, Proto: "tcp", From: prefixes("203.0.113.0/24", "2001:db8:f::/48")},
		{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8083, Port: openPort, Proto: "tcp"},
	}
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

// index is that of a link.
func (w *world) index(ns, name string) int {
	w.Helper()
	l, err := w.spaces[ns].Conn(w).LinkByName(w.Context(), name)
	w.must(err)
	return l.Index
}

func (w *world) route(ns string, r rt.Route) {
	w.Helper()
	w.must(w.spaces[ns].Conn(w).AddRoute(w.Context(), r))
}

func (w *world) sysctl(ns, name, value string) {
	w.Helper()
	w.must(sysctl.Write(w.spaces[ns].F, name, value))
}

func (w *world) network(name string, i int) {
	n := &api.Network{
		Name: name, Driver: api.DriverBridge, Device: "tp-" + name, MAC: fmt.Sprintf("02:00:00:00:00:%02x", i), ICC: true, GatewayMode: api.GatewayNAT,
	}
	for _, gateway := range []string{fmt.Sprintf("172.20.%d.1/24", i), fmt.Sprintf("fd00:0:0:%d::1/64", i)} {
		p := netip.MustParsePrefix(gateway)
		n.Subnets = append(n.Subnets, api.Subnet{Subnet: p.Masked(), Gateway: p.Addr()})
	}
	w.view.Networks[name] = n
}

func (w *world) connect(sandbox, network string, last int) {
	w.view.Sandboxes[sandbox] = &api.Sandbox{Name: sandbox, Origin: api.OriginMade}
	n := w.view.Networks[network]
	e := &api.Endpoint{
		Sandbox: sandbox, Network: network, Ifname: "eth0", HostIfname: "v-" + sandbox, MAC: fmt.Sprintf("02:00:00:01:%s:%02x", n.MAC[15:], last),
	}
	for _, s := range n.Subnets {
		a := s.Gateway
		for range last - 1 {
			a = a.Next()
		}
		e.Addresses, e.Gateways = append(e.Addresses, netip.PrefixFrom(a, s.Subnet.Bits())), append(e.Gateways, s.Gateway)
	}
	w.view.Endpoints[driver.EndpointID{Sandbox: sandbox, Ifname: e.Ifname}] = e
}

// apply makes what is planned, as the daemon does.
func (w *world) apply() {
	w.Helper()
	w.dir = w.runDir()
	held := ports.New()
	w.Cleanup(func() { held.Close() })
	w.holder = holder{held, w.spaces["host"]}
	var k *linux.Kernel
	w.spaces["host"].Do(w, func() error {
		var err error
		k, err = linux.Open(linux.Config{RunDir: w.dir, Ports: w.holder, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Pass: func(string) {}})
		return err
	})
	w.Cleanup(func() { k.Close() })
	facts, err := k.Facts(w.Context())
	w.must(err)
	w.view.Host = facts
	want := kernel.State{}
	for _, u := range driver.Units(w.view) {
		w.must(want.Add(driver.Plan(u, w.view)...))
	}
	for _, f := range k.Apply(w.Context(), kernel.Diff(nil, want)) {
		w.Fatalf("%s: %v", f.Op, f.Err)
	}
	for name := range w.view.Sandboxes {
		f, err := netns.Open(k.Path(name))
		w.must(err)
		w.Cleanup(func() { f.Close() })
		w.spaces[name] = &testnet.NS{Name: name, F: f}
	}
}

// runDir is a directory for namespaces to be bound in; they are let go at the end.
func (w *world) runDir() string {
	w.Helper()
	dir := w.TempDir()
	w.Cleanup(func() {
		bound := filepath.Join(dir, "netns")
		entries, err := netns.List(bound)
		for _, e := range entries {
			err = errors.Join(err, netns.Remove(filepath.Join(bound, e.Name)))
		}
		// The directory is a mount of its own.
		if err = errors.Join(err, unix.Unmount(bound, unix.MNT_DETACH)); err != nil {
			w.Errorf("let namespaces go: %v", err)
		}
	})
	return dir
}

// look reads the machine.
func (w *world) look(ctx context.Context) (machine.Host, error) {
	return look.Machine(ctx, w.looking())
}

func (w *world) looking() look.Config {
	return look.Config{
		Self: w.spaces["host"].F, RunDir: w.dir, Named: map[string]*os.File{"outside": w.spaces["outside"].F}, Owners: true, Held: w.holder.find, Limits: look.DefaultLimits(),
	}
}

// machine is what the daemon would explain with.
func (w *world) machine() *explain.Machine {
	w.Helper()
	h, err := w.look(w.Context())
	w.must(err)
	m := &explain.Machine{Host: h}
	for _, n := range w.view.Networks {
		m.Networks = append(m.Networks, *n)
	}
	for name, s := range w.view.Sandboxes {
		s := *s
		for _, e := range w.view.EndpointsOf(name) {
			s.Endpoints = append(s.Endpoints, *e)
		}
		m.Sandboxes = append(m.Sandboxes, s)
	}
	for _, p := range w.view.Publications.All() {
		m.Publications = append(m.Publications, *p)
	}
	return m
}

// byPort makes the host route what goes to a port of TCP by a table of its own,
// which leads to the machine outside.
func (w *world) byPort(port uint16, table uint32) {
	w.Helper()
	c := w.spaces["host"].Conn(w)
	eth0, err := c.LinkByName(w.Context(), "eth0")
	w.must(err)
	for _, to := range []string{"192.0.2.1/32", "2001:db8::1/128"} {
		dst := netip.MustParsePrefix(to)
		w.must(c.AddRoute(w.Context(), rt.Route{Dst: dst, OIF: eth0.Index, Table: table}))
		r := rt.Rule{Family: unix.AF_INET, Priority: 100, IPProto: unix.IPPROTO_TCP, DstPorts: [2]uint16{port, port}, Table: table}
		if dst.Addr().Is6() {
			r.Family = unix.AF_INET6
		}
		w.must(c.AddRule(w.Context(), r))
	}
}
