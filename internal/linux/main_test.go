//go:build linux

package linux_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// mark is the protocol number of what is Towpath's.
const mark = 80

// host is a namespace that a Kernel takes for the host.
type host struct {
	testing.TB
	*linux.Kernel
	ns  *testnet.NS
	run string
	// passed are the fault points that Apply has passed.
	passed []string
	// resolver outlives the Kernel, as if its sockets had been handed over.
	resolver *answers
}

// newHost opens a Kernel in a new namespace. With protect, tables are owned.
func newHost(t testing.TB, protect bool) *host {
	t.Helper()
	h := &host{TB: t, ns: testnet.New(t, "host"), run: runDir(t), resolver: &answers{open: map[string][]io.Closer{}}}
	t.Cleanup(h.resolver.close)
	h.open(protect)
	return h
}

// runDir is a directory for namespaces to be bound in. /run is the test's own.
func runDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/run", "tp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		entries, err := netns.List(filepath.Join(dir, "netns"))
		for _, e := range entries {
			err = errors.Join(err, netns.Remove(filepath.Join(dir, "netns", e.Name)))
		}
		if err != nil {
			t.Error(err)
		}
	})
	return dir
}

// open opens the host's Kernel, again after a Close.
func (h *host) open(protect bool) {
	h.Helper()
	h.ns.Do(h, func() error {
		k, err := linux.Open(linux.Config{
			RunDir: h.run, Protect: protect, Resolver: h.resolver, Log: slog.New(slog.NewTextHandler(h.Output(), nil)),
			Pass: func(point string) { h.passed = append(h.passed, point) },
		})
		h.Kernel = k
		return err
	})
	k := h.Kernel
	h.Cleanup(func() { k.Close() })
}

// put applies the difference between two states, and fails the test when an op fails.
func (h *host) put(have, want kernel.State) {
	h.Helper()
	h.do(kernel.Diff(have, want))
}

// do carries out ops, and fails the test when one fails.
func (h *host) do(ops []kernel.Op) {
	h.Helper()
	for _, f := range h.Apply(h.Context(), ops) {
		h.Fatalf("%s: %v", f.Op, f.Err)
	}
}

// see observes, and fails the test when it cannot.
func (h *host) see(want kernel.State, sweep bool) kernel.State {
	h.Helper()
	seen, err := h.Observe(h.Context(), want, sweep)
	if err != nil {
		h.Fatal(err)
	}
	return seen
}

// agrees checks that all that is there is what is wanted.
func (h *host) agrees(want kernel.State) {
	h.Helper()
	for _, sweep := range []bool{false, true} {
		seen := h.see(want, sweep)
		if diff := cmp.Diff(want.String(), seen.String()); diff != "" {
			h.Errorf("observed with sweep=%t differs (-want +seen):\n%s", sweep, diff)
		}
		for _, op := range kernel.Diff(seen, want) {
			h.Errorf("with sweep=%t there is still to do: %s", sweep, op)
		}
	}
}

// refused applies the difference, and returns the failures by the op's text.
func (h *host) refused(have, want kernel.State) map[string]error {
	h.Helper()
	out := map[string]error{}
	for _, f := range h.Apply(h.Context(), kernel.Diff(have, want)) {
		out[f.Op.String()] = f.Err
	}
	return out
}

// rules connects to the host's nftables as somebody else.
func (h *host) rules() *nft.Conn {
	h.Helper()
	c, err := nft.Dial(h.ns.FD())
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { c.Close() })
	return c
}

// sandbox opens the namespace of a sandbox.
func (h *host) sandbox(name string) *testnet.NS {
	h.Helper()
	f, err := netns.Open(h.Path(name))
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { f.Close() })
	return &testnet.NS{Name: name, F: f}
}

// inventory lists what is in the host's namespace and under the run directory,
// whosever it is, in order, without what the kernel numbers and what it adds by
// itself in its own time: link-local addresses, connected and local routes.
func (h *host) inventory() []string {
	h.Helper()
	c := h.ns.Conn(h)
	links, err := c.Links(h.Context(), rt.LinkFilter{})
	must(h, err)
	names := map[int]string{}
	out := []string{}
	for _, l := range links {
		names[l.Index] = l.Name
		out = append(out, fmt.Sprintf("link %s %s up=%t group=%d alias=%q master=%d", l.Name, l.Kind, l.Up, l.Group, l.Alias, l.Master))
	}
	addrs, err := c.Addresses(h.Context(), 0)
	must(h, err)
	for _, a := range addrs {
		if a.Prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		out = append(out, fmt.Sprintf("addr %s dev %s proto %d", a.Prefix, names[a.Index], a.Proto))
	}
	routes, err := c.Routes(h.Context(), rt.RouteFilter{}, 0)
	must(h, err)
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		out = append(out, fmt.Sprintf("route %s via %s dev %s table %d proto %d", r.Dst, r.Gateway, names[r.OIF], r.Table, r.Protocol))
	}
	policy, err := c.Rules(h.Context(), unix.AF_UNSPEC)
	must(h, err)
	for _, r := range policy {
		out = append(out, fmt.Sprintf("rule %d family %d lookup %d proto %d", r.Priority, r.Family, r.Table, r.Protocol))
	}
	tables, err := h.rules().ReadTables(h.Context())
	must(h, err)
	for _, t := range tables {
		out = append(out, t.String())
	}
	entries, err := netns.List(filepath.Join(h.run, "netns"))
	must(h, err)
	for _, e := range entries {
		out = append(out, "netns "+e.Name)
	}
	slices.Sort(out)
	return out
}

// link finds a link of a namespace.
func link(t testing.TB, c *rt.Conn, name string) rt.Link {
	t.Helper()
	l, err := c.LinkByName(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// view starts an empty view of the host as it is.
func (h *host) view() driver.View {
	h.Helper()
	v := driver.NewView()
	var err error
	v.Host, err = h.Facts(h.Context())
	must(h, err)
	return v
}

// addNetwork adds network number i: 172.20.i.0/24 and, with v6, fd00:0:0:i::/64.
func addNetwork(v driver.View, name string, i int, v6 bool) *api.Network {
	n := &api.Network{
		Name: name, Driver: api.DriverBridge, Device: "tp-" + name, MAC: fmt.Sprintf("02:00:00:00:00:%02x", i), ICC: true,
		Subnets: []api.Subnet{{Subnet: netip.MustParsePrefix(fmt.Sprintf("172.20.%d.0/24", i)), Gateway: netip.MustParseAddr(fmt.Sprintf("172.20.%d.1", i))}},
	}
	if v6 {
		n.Subnets = append(n.Subnets, api.Subnet{Subnet: netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%d::/64", i)), Gateway: netip.MustParseAddr(fmt.Sprintf("fd00:0:0:%d::1", i))})
	}
	v.Networks[name] = n
	return n
}

// addSandbox adds a sandbox with one interface on each network, eth0 first, and
// the address number last in each.
func addSandbox(v driver.View, name string, last int, networks ...string) *api.Sandbox {
	s := &api.Sandbox{Name: name, Origin: api.OriginMade}
	v.Sandboxes[name] = s
	for i, network := range networks {
		e := &api.Endpoint{
			Sandbox: name, Network: network, Ifname: fmt.Sprintf("eth%d", i), Index: i,
			MAC: fmt.Sprintf("02:00:00:%02x:%02x:%02x", i, last>>8, last&0xff),
		}
		e.HostIfname = "v-" + name + "-" + e.Ifname
		for _, s := range v.Networks[network].Subnets {
			a := s.Gateway
			for range last - 1 {
				a = a.Next()
			}
			e.Addresses = append(e.Addresses, netip.PrefixFrom(a, s.Subnet.Bits()))
			e.Gateways = append(e.Gateways, s.Gateway)
		}
		v.Endpoints[driver.EndpointID{Sandbox: name, Ifname: e.Ifname}] = e
	}
	return s
}

// plan is the wanted state of a view.
func plan(t interface {
	Helper()
	Fatal(args ...any)
}, v driver.View,
) kernel.State {
	t.Helper()
	s := kernel.State{}
	for _, u := range driver.Units(v) {
		if err := s.Add(driver.Plan(u, v)...); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// small is a plan with most of what there is: two networks, one of both
// families, one that keeps its containers apart; three sandboxes.
func (h *host) small() (driver.View, kernel.State) {
	h.Helper()
	v := h.view()
	addNetwork(v, "front", 0, true)
	addNetwork(v, "back", 1, false).ICC = false
	addSandbox(v, "web", 2, "front", "back")
	addSandbox(v, "db", 3, "back")
	addSandbox(v, "lone", 4)
	return v, plan(h, v)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
