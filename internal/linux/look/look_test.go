//go:build linux

package look_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/look"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/machine"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// bind binds a namespace in a run directory, as a sandbox's is.
func bind(t *testing.T, dir, name string, ns *testnet.NS) {
	t.Helper()
	path := filepath.Join(dir, "netns", name)
	must(t, netns.Bind(ns.FD(), path))
	t.Cleanup(func() {
		// The directory is a mount of its own.
		if err := errors.Join(netns.Remove(path), unix.Unmount(filepath.Dir(path), unix.MNT_DETACH)); err != nil {
			t.Error(err)
		}
	})
}

// see looks at the machine from a namespace.
func see(t *testing.T, host *testnet.NS, dir string, more ...*testnet.NS) machine.Host {
	t.Helper()
	named := map[string]*os.File{}
	for _, ns := range more {
		named[ns.Name] = ns.F
	}
	h, err := look.Machine(t.Context(), look.Config{Self: host.F, RunDir: dir, Named: named, Owners: true, Limits: look.DefaultLimits()})
	must(t, err)
	return h
}

// TestMachine sees a host with a bridge and two containers, one of them bound in
// the run directory and one that only a link leads to.
func TestMachine(t *testing.T) {
	testnet.Require(t, "netns")
	host, web, far := testnet.New(t, "host"), testnet.New(t, "web"), testnet.New(t, "far")
	dir := t.TempDir()
	bind(t, dir, "web", web)
	testnet.Link(t, host, web, "v-web", "eth0", nil, prefixes("172.20.0.2/24", "fd00::2/64"))
	testnet.Link(t, host, far, "eth0", "eth0", prefixes("192.0.2.10/24"), prefixes("192.0.2.1/24"))
	c := host.Conn(t)
	must(t, c.AddBridge(t.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "br0"}}))
	br, err := c.LinkByName(t.Context(), "br0")
	must(t, err)
	v, err := c.LinkByName(t.Context(), "v-web")
	must(t, err)
	must(t, c.SetLink(t.Context(), br.Index, rt.LinkChange{Up: new(true)}))
	must(t, c.SetLink(t.Context(), v.Index, rt.LinkChange{
		Master: &br.Index, Port: &rt.PortChange{Hairpin: new(true), Isolated: new(true)},
	}))
	must(t, c.AddRoute(t.Context(), rt.Route{Dst: netip.MustParsePrefix("198.51.100.0/24"), Type: unix.RTN_BLACKHOLE}))
	must(t, c.AddRule(t.Context(), rt.Rule{Family: unix.AF_INET, Priority: 100, Mark: 7, Table: 77}))
	must(t, sysctl.Write(host.F, "net/ipv4/ip_forward", "1"))
	filter(t, host, `table ip f { chain c { type filter hook forward priority 0; policy drop; tcp dport 80 counter accept comment "web" } }`)
	web.ListenTCP(t, netip.MustParseAddrPort("127.0.0.1:8080"))

	must(t, host.Echo(netip.MustParseAddr("192.0.2.1"), 10*time.Second))

	h := see(t, host, dir, far)
	self := h.Space("host")
	if self == nil || h.Space("web") == nil || len(h.Spaces) != 3 {
		t.Fatalf("spaces %v, unread %v", names(h), h.Unread)
	}
	port := self.Link("v-web")
	if port.PeerNS != "web" || port.Peer != "eth0" || port.Master != "br0" || !port.Hairpin || !port.Isolated || !port.Up || port.MTU != 1500 {
		t.Errorf("port %+v", port)
	}
	if up := self.Link("eth0"); up.PeerNS != "far" || up.Peer != "eth0" || up.OperState != "up" || up.Stats.TxPackets == 0 {
		t.Errorf("uplink %+v of spaces %v", up, names(h))
	}
	if other := h.Space("web").Link("eth0"); other.PeerNS != "host" || other.Peer != "v-web" {
		t.Errorf("the other end %+v", other)
	}
	if !slices.ContainsFunc(self.Routes, func(r machine.Route) bool {
		return r.Type == machine.Blackhole && r.Dst.String() == "198.51.100.0/24" && r.Table == machine.TableMain
	}) {
		t.Errorf("no blackhole among %v", self.Routes)
	}
	if !slices.ContainsFunc(self.Rules, func(r machine.Rule) bool { return r.Priority == 100 && r.Mark == 7 && r.Table == 77 }) {
		t.Errorf("no rule among %v", self.Rules)
	}
	if self.Sysctls["net/ipv4/ip_forward"] != "1" || h.Space("web").Sysctls["net/ipv4/ip_forward"] != "0" {
		t.Errorf("ip_forward of host %q, of web %q", self.Sysctls["net/ipv4/ip_forward"], h.Space("web").Sysctls["net/ipv4/ip_forward"])
	}
	if len(self.Tables) != 1 || self.Tables[0].Chains[0].Rules[0].Comment != "web" || self.Tables[0].Chains[0].Rules[0].Handle == 0 {
		t.Errorf("tables %v", self.Tables)
	}
	comm, err := os.ReadFile("/proc/self/comm")
	must(t, err)
	want := machine.Listener{Proto: "tcp", Addr: netip.MustParseAddr("127.0.0.1"), Port: 8080, PID: unix.Getpid(), Command: strings.TrimSpace(string(comm))}
	if got := h.Space("web").Listeners; len(got) != 1 || got[0] != want {
		t.Errorf("listeners %+v, want %+v", got, want)
	}
	if _, known := self.Counters["IpForwDatagrams"]; !known || len(h.Space("web").Partial) > 0 {
		t.Errorf("counters %v, partial %v", self.Counters, h.Space("web").Partial)
	}
}

func names(h machine.Host) []string {
	var out []string
	for _, s := range h.Spaces {
		out = append(out, s.Name)
	}
	return out
}

// filter puts tables into a namespace.
func filter(t *testing.T, ns *testnet.NS, text string) {
	t.Helper()
	c, err := nft.Dial(ns.FD())
	must(t, err)
	t.Cleanup(func() { c.Close() })
	tables, err := rules.ParseTables(text)
	must(t, err)
	var b nft.Batch
	for _, def := range tables {
		b.AddTableDef(def)
	}
	must(t, c.Commit(t.Context(), &b))
}

// TestLimits: what is too much is left out and told of, and rules that were not
// read let nothing be decided.
func TestLimits(t *testing.T) {
	testnet.Require(t, "netns")
	host := testnet.New(t, "host")
	c := host.Conn(t)
	for i := range 64 {
		must(t, c.AddRoute(t.Context(), rt.Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 32), Type: unix.RTN_BLACKHOLE}))
	}
	filter(t, host, "table ip f { chain c { type filter hook forward priority 0; policy accept;\n"+strings.Repeat("counter\n", 64)+"} }")
	limits := look.DefaultLimits()
	limits.Objects = 4
	h, err := look.Machine(t.Context(), look.Config{Self: host.F, Limits: limits})
	must(t, err)
	s := h.Space("host")
	all := strings.Join(s.Partial, "\n")
	if len(s.Routes) != 4 || !strings.Contains(all, "routes: list routes: more entries than the limit of 4") {
		t.Errorf("%d routes, partial:\n%s", len(s.Routes), all)
	}
	if !strings.Contains(all, "packet filter") || len(s.Tables) != 1 || s.Tables[0].Name != "f" {
		t.Fatalf("tables %v, partial:\n%s", s.Tables, all)
	}
	if _, unknown := s.Tables[0].Chains[0].Rules[0].Exprs[0].(rules.Unknown); !unknown {
		t.Errorf("a table that was not read decides: %v", s.Tables[0])
	}
}

// TestDeadline: a look that is out of time is an error, and not half a machine.
func TestDeadline(t *testing.T) {
	testnet.Require(t, "netns")
	host := testnet.New(t, "host")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := look.Machine(ctx, look.Config{Self: host.F, Limits: look.DefaultLimits()}); err == nil {
		t.Error("no error")
	}
}
