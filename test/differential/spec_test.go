package differential

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/machine"
)

// spec is a world as it is drawn.
type spec struct {
	Networks  []networkSpec
	Sandboxes [][]int // the networks each is on, by number
	// NF4 and NF6: frames within a bridge pass the hooks of IP.
	NF4, NF6 bool
	// RPFilter is that of the host, Inner that of the sandboxes.
	RPFilter, Inner int
	Published       []publication
	Foreign         []foreign
	// Nowhere is the type of the host's route to some addresses (RTN_BLACKHOLE,
	// ...); 0: they go out.
	Nowhere uint8
	// Seed chooses among all packets that could be sent.
	Seed uint64
}

type networkSpec struct {
	V4, V6, Internal, ICC bool
	Mode                  string
	// Guard is what checks its containers: "chain", "ports", both or none.
	Guard string
}

// publication leads from a port of the host to one of a sandbox.
type publication struct {
	To     int    // the sandbox, by number
	Host   string // address of the host; "": any
	Port   uint16
	Closed bool // to a port where nobody listens
	UDP    bool
	From   string // prefix; "": everybody
}

// Ports: everybody listens on open, nobody on closed; those of the host that
// are published count from published on.
const (
	openPort, closedPort = 7000, 7001
	published            = 8000
)

// What checks the containers of a network.
const (
	guardBoth, guardChain, guardPorts, guardNone = "both", "chain", "ports", "none"
)

func drawSpec(t *rapid.T) spec {
	flip := func(label string) bool { return rapid.Bool().Draw(t, label) }
	var s spec
	for range rapid.IntRange(1, 3).Draw(t, "networks") {
		n := networkSpec{V4: true, V6: flip("v6"), ICC: flip("icc"), Internal: rapid.IntRange(0, 3).Draw(t, "internal") == 0}
		n.V4 = !n.V6 || rapid.IntRange(0, 4).Draw(t, "no v4") > 0
		n.Mode = rapid.SampledFrom([]string{api.GatewayNAT, api.GatewayNAT, api.GatewayRouted}).Draw(t, "mode")
		if n.Internal {
			n.Mode = rapid.SampledFrom([]string{api.GatewayNAT, api.GatewayIsolated}).Draw(t, "mode")
		}
		n.Guard = rapid.SampledFrom([]string{guardBoth, guardBoth, guardChain, guardPorts, guardNone}).Draw(t, "guard")
		s.Networks = append(s.Networks, n)
	}
	one := rapid.IntRange(0, len(s.Networks)-1)
	for range rapid.IntRange(1, 4).Draw(t, "sandboxes") {
		s.Sandboxes = append(s.Sandboxes, rapid.SliceOfN(one, 1, 2).Draw(t, "on"))
	}
	s.NF4, s.NF6 = flip("nf4"), flip("nf6")
	s.RPFilter, s.Inner = rapid.IntRange(0, 2).Draw(t, "rp_filter"), rapid.IntRange(0, 2).Draw(t, "rp_filter inside")
	if flip("publish") {
		s.Published = drawPublications(t, len(s.Sandboxes))
	}
	if flip("foreign") {
		for _, table := range rapid.SliceOfNDistinct(rapid.SampledFrom(tableNames()), 1, 3, rapid.ID).Draw(t, "tables") {
			s.Foreign = append(s.Foreign, foreign{rapid.SampledFrom([]string{"host", "host", "s0", "s1", "outside"}).Draw(t, "where"), table})
		}
	}
	s.Nowhere = rapid.SampledFrom([]uint8{0, 0, uint8(machine.Blackhole), uint8(machine.Unreachable), uint8(machine.Prohibit), uint8(machine.Throw)}).Draw(t, "nowhere")
	s.Seed = rapid.Uint64().Draw(t, "seed")
	return s
}

func drawPublications(t *rapid.T, sandboxes int) []publication {
	hosts := []string{"", "", "", "0.0.0.0", "::", "127.0.0.1", "::1", "192.0.2.10", "2001:db8::10", "172.20.0.1"}
	var out []publication
	for i := range rapid.IntRange(1, 6).Draw(t, "publications") {
		out = append(out, publication{
			To: rapid.IntRange(0, sandboxes-1).Draw(t, "to"), Host: rapid.SampledFrom(hosts).Draw(t, "host"),
			Closed: rapid.IntRange(0, 4).Draw(t, "closed") == 0, UDP: rapid.Bool().Draw(t, "udp"), Port: published + uint16(i),
			From: rapid.SampledFrom([]string{"", "", "172.20.0.0/23", "192.0.2.1/32", "fd00::/64", "2001:db8::/32"}).Draw(t, "from"),
		})
	}
	return out
}

// Addresses: network i is 172.20.i.0/24 and fd00:0:0:i::/64, the host .1 of each
// and .10 on the uplink, the machine outside .1 there.
const (
	hostLink4, outsideLink4 = "192.0.2.10/24", "192.0.2.1/24"
	hostLink6, outsideLink6 = "2001:db8::10/64", "2001:db8::1/64"
)

// uplink is the link to the outside and the routes, as state: the walk must know
// of it, and Towpath does not make it.
const uplink = `netns host:
	link eth0 type veth peer eth0 netns outside
	up eth0
	addr ` + hostLink4 + ` dev eth0
	addr ` + hostLink6 + ` dev eth0
	route default via 192.0.2.1 dev eth0
	route ::/0 via 2001:db8::1 dev eth0
netns outside:
	link eth0 type veth peer eth0 netns host
	up eth0
	addr ` + outsideLink4 + ` dev eth0
	addr ` + outsideLink6 + ` dev eth0
	route 172.20.0.0/16 via 192.0.2.10 dev eth0
	route fd00::/16 via 2001:db8::10 dev eth0
`

// view is the spec as the planner takes it.
func (s *spec) view(facts kernel.Facts) driver.View {
	v := driver.NewView()
	v.Host = facts
	for i, n := range s.Networks {
		name := fmt.Sprintf("n%d", i)
		net := &api.Network{
			Name: name, Driver: api.DriverBridge, Device: "tp-" + name, MAC: fmt.Sprintf("02:00:00:00:00:%02x", i),
			Internal: n.Internal, ICC: n.ICC, GatewayMode: n.Mode,
		}
		if n.Guard == guardNone {
			net.Options = map[string]string{api.OptionSpoofGuard: "off"}
		}
		if n.V4 {
			net.Subnets = append(net.Subnets, subnet("172.20.%d.1/24", i))
		}
		if n.V6 {
			net.Subnets = append(net.Subnets, subnet("fd00:0:0:%d::1/64", i))
		}
		v.Networks[name] = net
	}
	for i, on := range s.Sandboxes {
		name := fmt.Sprintf("s%d", i)
		v.Sandboxes[name] = &api.Sandbox{Name: name, Origin: api.OriginMade}
		for j, n := range on {
			attach(v, name, fmt.Sprintf("n%d", n), i, j)
		}
	}
	s.publish(v)
	return v
}

func subnet(format string, i int) api.Subnet {
	p := netip.MustParsePrefix(fmt.Sprintf(format, i))
	return api.Subnet{Subnet: p.Masked(), Gateway: p.Addr()}
}

func attach(v driver.View, sandbox, network string, i, j int) {
	n := v.Networks[network]
	e := &api.Endpoint{
		Sandbox: sandbox, Network: network, Ifname: fmt.Sprintf("eth%d", j), Index: j,
		HostIfname: fmt.Sprintf("v-%s-%d", sandbox, j), MAC: fmt.Sprintf("02:00:00:01:%02x:%02x", i, j),
	}
	for _, s := range n.Subnets {
		a := s.Gateway
		for range 2*i + j + 1 {
			a = a.Next()
		}
		e.Addresses = append(e.Addresses, netip.PrefixFrom(a, s.Subnet.Bits()))
		if n.GatewayMode != api.GatewayIsolated {
			e.Gateways = append(e.Gateways, s.Gateway)
		}
	}
	v.Endpoints[driver.EndpointID{Sandbox: sandbox, Ifname: e.Ifname}] = e
}

// publish puts the publications that can lead to something into the view.
func (s *spec) publish(v driver.View) {
	for _, p := range s.Published {
		pub := &api.Publication{Sandbox: fmt.Sprintf("s%d", p.To), HostPort: p.Port, Port: openPort, Count: 1, Proto: "tcp"}
		if p.Host != "" {
			pub.HostIP = netip.MustParseAddr(p.Host)
		}
		if p.Closed {
			pub.Port = closedPort
		}
		if p.UDP {
			pub.Proto = "udp"
		}
		if p.From != "" {
			pub.From = append(pub.From, netip.MustParsePrefix(p.From))
		}
		if driver.Reachable(pub, v) {
			v.Publications.Put(pub)
		}
	}
}

// plan is the wanted state.
func (s *spec) plan(facts kernel.Facts) (kernel.State, error) {
	v, want := s.view(facts), kernel.State{}
	for _, u := range driver.Units(v) {
		if err := want.Add(driver.Plan(u, v)...); err != nil {
			return nil, err
		}
	}
	for k, o := range want {
		switch o := o.(type) {
		case kernel.Socket:
			// Whom a daemon would pass on by hand is not a matter of the kernel: here
			// sockets hold, and nobody listens behind them.
			o.To, o.From = netip.AddrPort{}, ""
			want[k] = o
		case kernel.Link:
			o.Locked = o.Locked && s.guard(o.Master) != guardChain
			want[k] = o
		case kernel.Hook:
			if s.guard(strings.TrimPrefix(o.Chain, "guard_")) == guardPorts {
				delete(want, k)
			}
		}
	}
	return want, nil
}

// twice reports whether a sandbox is on the same network twice.
func (s *spec) twice() bool {
	return slices.ContainsFunc(s.Sandboxes, func(on []int) bool { return len(on) == 2 && on[0] == on[1] })
}

// guard is what checks the containers of a network, by its bridge.
func (s *spec) guard(device string) string {
	var i int
	if n, _ := fmt.Sscanf(device, "tp-n%d", &i); n == 1 {
		return s.Networks[i].Guard
	}
	return ""
}
