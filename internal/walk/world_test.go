package walk_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/walk"
)

// uplink is what is not Towpath's in these tests: the host's link to a machine
// outside, and both machines' routes.
const uplink = `netns host:
	link eth0 type veth address 02:00:00:00:ff:01 peer eth0 netns outside
	up eth0
	addr 192.0.2.10/24 dev eth0
	addr 2001:db8::10/64 dev eth0
	route default via 192.0.2.1 dev eth0
	route ::/0 via 2001:db8::1 dev eth0
netns outside:
	link eth0 type veth address 02:00:00:00:ff:02 peer eth0 netns host
	up eth0
	addr 192.0.2.1/24 dev eth0
	addr 2001:db8::1/64 dev eth0
	route 172.20.0.0/16 via 192.0.2.10 dev eth0
	route fd00::/16 via 2001:db8::10 dev eth0
`

// world is a host, its sandboxes, and a machine outside.
type world struct {
	*testing.T
	view driver.View
	host machine.Host
}

// newWorld has network front (NAT, both families) with web (.2) and app (.3),
// and back (IPv4) with db (.2), which is on front too, as .4.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, view: driver.NewView()}
	w.view.Host = kernel.Facts{IPv6: true, ForceForwarding: true, Uplinks: []kernel.Uplink{{Name: "eth0"}}}
	w.network("front", 0, true)
	w.network("back", 1, false)
	w.connect("web", "front", "eth0", 2)
	w.connect("app", "front", "eth0", 3)
	w.connect("db", "back", "eth0", 2)
	w.connect("db", "front", "eth1", 4)
	return w
}

// network adds number i: 172.20.i.0/24 and, with v6, fd00:0:0:i::/64.
func (w *world) network(name string, i int, v6 bool) *api.Network {
	n := &api.Network{
		Name: name, Driver: api.DriverBridge, Device: "tp-" + name, MAC: fmt.Sprintf("02:00:00:00:00:%02x", i), ICC: true, GatewayMode: api.GatewayNAT,
		Subnets: []api.Subnet{{Subnet: prefix("172.20.%d.0/24", i), Gateway: prefix("172.20.%d.1/24", i).Addr()}},
	}
	if v6 {
		n.Subnets = append(n.Subnets, api.Subnet{Subnet: prefix("fd00:0:0:%d::/64", i), Gateway: prefix("fd00:0:0:%d::1/64", i).Addr()})
	}
	w.view.Networks[name] = n
	return n
}

func prefix(format string, args ...any) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(format, args...))
}

// connect puts a sandbox on a network with the last byte of its addresses.
func (w *world) connect(sandbox, network, ifname string, last int) {
	if w.view.Sandboxes[sandbox] == nil {
		w.view.Sandboxes[sandbox] = &api.Sandbox{Name: sandbox, Origin: api.OriginMade}
	}
	n := w.view.Networks[network]
	e := &api.Endpoint{
		Sandbox: sandbox, Network: network, Ifname: ifname, HostIfname: "v-" + sandbox + "-" + ifname,
		MAC: fmt.Sprintf("02:00:00:01:%s:%02x", n.MAC[15:], last), Index: len(w.view.EndpointsOf(sandbox)),
	}
	for _, s := range n.Subnets {
		a := s.Gateway
		for range last - 1 {
			a = a.Next()
		}
		e.Addresses, e.Gateways = append(e.Addresses, netip.PrefixFrom(a, s.Subnet.Bits())), append(e.Gateways, s.Gateway)
	}
	w.view.Endpoints[driver.EndpointID{Sandbox: sandbox, Ifname: ifname}] = e
}

// build plans, adds the uplink and more of the page's form, and makes the Host,
// on which change may act.
func (w *world) build(more string, change func(*machine.Host)) *walk.Walker {
	w.Helper()
	s, err := kernel.Parse(uplink + more)
	for _, u := range driver.Units(w.view) {
		if err == nil {
			err = s.Add(driver.Plan(u, w.view)...)
		}
	}
	if err == nil {
		w.host, err = machine.FromState(s)
	}
	if err != nil {
		w.Fatal(err)
	}
	for i := range w.host.Spaces {
		w.host.Spaces[i].Listeners = []machine.Listener{
			{Proto: "tcp", Addr: netip.IPv6Unspecified(), Port: 80}, {Proto: "udp", Addr: netip.IPv6Unspecified(), Port: 80},
		}
	}
	if change != nil {
		change(&w.host)
	}
	ready, err := walk.New(w.host)
	if err != nil {
		w.Fatal(err)
	}
	return ready
}

// space finds a namespace of a host.
func space(h *machine.Host, name string) *machine.Space {
	return &h.Spaces[slices.IndexFunc(h.Spaces, func(s machine.Space) bool { return s.Name == name })]
}

// bridgeNF switches br_netfilter on.
func bridgeNF(h *machine.Host) {
	for _, f := range []string{"iptables", "ip6tables"} {
		space(h, "host").Sysctls["net/bridge/bridge-nf-call-"+f] = "1"
	}
}

// addTables puts the tables of a text beside those of a namespace.
func addTables(ns, text string) func(*machine.Host) {
	return func(h *machine.Host) {
		tables, err := nft.ParseTables(text)
		if err != nil {
			panic(err)
		}
		space(h, ns).Tables = append(space(h, ns).Tables, tables...)
	}
}

// follow walks "web 198.51.100.7:80/tcp"; without a port it is an echo request.
// "NS@LINK=SRC" sends from outside by a link, "NS=SRC" from an address.
func follow(t testing.TB, w *walk.Walker, from, to string) api.Path {
	t.Helper()
	var q walk.Question
	var src string
	q.From, src, _ = strings.Cut(from, "=")
	q.From, q.Link, _ = strings.Cut(q.From, "@")
	if src != "" {
		q.Src = netip.AddrPortFrom(netip.MustParseAddr(src), 0)
	}
	addr, proto, hasProto := strings.Cut(to, "/")
	if hasProto {
		q.Proto, q.Dst = proto, netip.MustParseAddrPort(addr)
	} else {
		q.Proto, q.Dst = "icmp", netip.AddrPortFrom(netip.MustParseAddr(addr), 0)
	}
	p, err := w.Walk(q)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// seen is the packet as its receiver saw it: in the last hop of the request.
func seen(p api.Path) string {
	var out string
	for _, h := range p.Hops {
		if h.Direction == api.Request && h.Before != nil {
			out = flowText(h.Before)
		}
	}
	return out
}

func flowText(f *api.Flow) string {
	if f.Sport == 0 && f.Dport == 0 {
		return f.Src.String() + " > " + f.Dst.String()
	}
	return netip.AddrPortFrom(f.Src, f.Sport).String() + " > " + netip.AddrPortFrom(f.Dst, f.Dport).String()
}

// hops is the path for a reader of a failed test.
func hops(p api.Path) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", p.Verdict, p.Reason)
	for _, h := range p.Hops {
		fmt.Fprintf(&b, "  %-7s %-8s %-12s %-12s %-10s %s\n", h.Direction, h.NS, h.Device, h.Layer, h.Action, h.Detail)
	}
	return b.String()
}
