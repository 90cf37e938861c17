package driver

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
)

var update = flag.Bool("update", false, "write the golden files")

// Addresses in these tests: network "front" is 172.20.0.0/24 and
// fd00:0:0:1::/64, "back" 172.20.1.0/24 alone; the host's uplink is eth0.
func host() kernel.Facts {
	return kernel.Facts{
		UplinkMTU: 1500, IPv6: true, ForceForwarding: true, BridgeNF4: true, BridgeNF6: true,
		TableFlags: "owner,persist", Hooks: kernel.HooksByName, Uplinks: []kernel.Uplink{{Name: "eth0", AcceptRA: 1}},
	}
}

func network(name string, i int, v6 bool) *api.Network {
	n := &api.Network{
		Name: name, Driver: api.DriverBridge, Device: "tp-" + name, MAC: fmt.Sprintf("02:00:00:00:00:%02x", i), ICC: true,
		Subnets: []api.Subnet{{Subnet: netip.MustParsePrefix(fmt.Sprintf("172.20.%d.0/24", i)), Gateway: netip.MustParseAddr(fmt.Sprintf("172.20.%d.1", i))}},
	}
	if v6 {
		n.Subnets = append(n.Subnets, api.Subnet{Subnet: netip.MustParsePrefix(fmt.Sprintf("fd00:0:0:%d::/64", i)), Gateway: netip.MustParseAddr(fmt.Sprintf("fd00:0:0:%d::1", i))})
	}
	return n
}

func connect(v View, sandbox, network, ifname string, last int) *api.Endpoint {
	e := &api.Endpoint{
		Sandbox: sandbox, Network: network, Ifname: ifname, HostIfname: "v-" + sandbox + "-" + ifname,
		MAC: fmt.Sprintf("02:00:00:00:01:%02x", last), Index: len(v.EndpointsOf(sandbox)),
	}
	for _, s := range v.Networks[network].Subnets {
		a := s.Gateway
		for range last - 1 {
			a = a.Next()
		}
		e.Addresses = append(e.Addresses, netip.PrefixFrom(a, s.Subnet.Bits()))
		e.Gateways = append(e.Gateways, s.Gateway)
	}
	v.Endpoints[EndpointID{sandbox, ifname}] = e
	return e
}

func twoNetworks() View {
	v := NewView()
	v.Host = host()
	v.Networks["front"], v.Networks["back"] = network("front", 0, true), network("back", 1, false)
	v.Sandboxes["web"] = &api.Sandbox{Name: "web", Origin: api.OriginMade}
	connect(v, "web", "front", "eth0", 2)
	connect(v, "web", "back", "eth1", 2)
	return v
}

// full is the union of all units.
func full(t interface{ Fatalf(string, ...any) }, v View) kernel.State {
	s := kernel.State{}
	for _, u := range Units(v) {
		if err := s.Add(Plan(u, v)...); err != nil {
			t.Fatalf("unit %s: %v", u, err)
		}
	}
	return s
}

func TestGolden(t *testing.T) {
	for name, change := range map[string]func(*View){
		"two-networks": func(*View) {},
		"internal":     func(v *View) { v.Networks["front"].Internal = true },
		"icc-off": func(v *View) {
			v.Networks["back"].ICC = false
			v.Host.BridgeNF4 = false
		},
		"old-kernel": func(v *View) {
			v.Host.ForceForwarding, v.Host.TableFlags, v.Host.Hooks = false, "", kernel.NoHooks
		},
		"no-ipv6": func(v *View) {
			v.Host.IPv6 = false
			delete(v.Networks, "front")
			delete(v.Endpoints, EndpointID{"web", "eth0"})
		},
		"no-guard": func(v *View) {
			v.Networks["back"].Options = map[string]string{api.OptionSpoofGuard: "off"}
		},
		"listening": func(v *View) { v.Host.Listening = []string{"tp-back"} },
		"routed":    func(v *View) { v.Networks["front"].GatewayMode = api.GatewayRouted },
		"isolated": func(v *View) {
			v.Networks["front"].Internal, v.Networks["front"].GatewayMode = true, api.GatewayIsolated
			v.Endpoints[EndpointID{"web", "eth0"}].Gateways = nil
		},
		"sysctl": func(v *View) {
			v.Endpoints[EndpointID{"web", "eth0"}].Sysctls = map[string]string{"net/ipv4/conf/eth0/log_martians": "1"}
		},
		"doors": func(v *View) {
			v.Networks["back"].GatewayMode, v.Networks["back"].Internal = api.GatewayRouted, false
			v.Host.Cooperate, v.Host.Ways = true, []string{"eth0"}
			v.Host.Doors = []kernel.Door{
				{Program: kernel.DoorUFW, Family: "ip", Table: "filter", Chain: "ufw-user-forward"},
				{Program: kernel.DoorDocker, Family: "ip6", Table: "filter", Chain: "DOCKER-USER"},
				{Program: kernel.DoorFirewalld},
			}
		},
		"doors-shut": func(v *View) {
			v.Host.Ways, v.Host.Doors = []string{"eth0"}, []kernel.Door{{Program: kernel.DoorFirewalld}}
		},
		"priority": func(v *View) { v.Endpoints[EndpointID{"web", "eth1"}].GwPriority = 1 },
		"adopted":  func(v *View) { v.Sandboxes["web"].Origin, v.Sandboxes["web"].Cookie = api.OriginAdopted, 4711 },
		"down": func(v *View) {
			*v = View{Host: v.Host, Down: true, Saved: map[string]string{"net/ipv4/ip_forward": "0", "net/ipv6/conf/gone0/accept_ra": "1"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := twoNetworks()
			change(&v)
			got := full(t, v).String()
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("plan differs from %s (-want +got):\n%s\nrun with -update if it is meant", file, diff)
			}
			if _, err := kernel.Parse(got); err != nil {
				t.Errorf("the plan cannot be read back: %v", err)
			}
		})
	}
}

// TestUnitsAreTheWholePlan edits a view at random, plans only the units that
// each edit touches, and compares with the whole plan.
func TestUnitsAreTheWholePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := NewView()
		v.Host = host()
		parts := map[Unit][]kernel.Object{HostUnit: Plan(HostUnit, v)}
		for range rapid.IntRange(1, 12).Draw(t, "edits") {
			before := v
			v = v.Clone()
			touched := edit(t, before, &v)
			for _, u := range touched {
				parts[u] = Plan(u, v)
			}
			got := kernel.State{}
			for u, objs := range parts {
				if err := got.Add(objs...); err != nil {
					t.Fatalf("unit %s: %v", u, err)
				}
			}
			if diff := cmp.Diff(full(t, v).String(), got.String()); diff != "" {
				t.Fatalf("touched %v; the units differ from the whole plan (-whole +units):\n%s", touched, diff)
			}
		}
	})
}

// edit makes one random change and says which units it touches.
func edit(t *rapid.T, before View, v *View) []Unit {
	n := fmt.Sprintf("n%d", rapid.IntRange(0, 2).Draw(t, "network"))
	s := fmt.Sprintf("s%d", rapid.IntRange(0, 2).Draw(t, "sandbox"))
	id := EndpointID{s, fmt.Sprintf("eth%d", rapid.IntRange(0, 1).Draw(t, "ifname"))}
	byNetwork := func() []Unit { return append(TouchedByNetwork(before, n), TouchedByNetwork(*v, n)...) }
	bySandbox := func() []Unit { return append(TouchedBySandbox(before, s), TouchedBySandbox(*v, s)...) }
	switch rapid.SampledFrom([]string{"connect", "connect", "connect", "network", "disconnect", "rm sandbox", "rm network"}).Draw(t, "edit") {
	case "network":
		i := int(n[1] - '0')
		nw := network(n, i, rapid.Bool().Draw(t, "v6"))
		if old := v.Networks[n]; old != nil {
			nw.Subnets = old.Subnets
		}
		nw.Internal, nw.ICC = rapid.Bool().Draw(t, "internal"), rapid.Bool().Draw(t, "icc")
		nw.MTU = rapid.SampledFrom([]int{0, 1400}).Draw(t, "mtu")
		if rapid.Bool().Draw(t, "no guard") {
			nw.Options = map[string]string{api.OptionSpoofGuard: "off"}
		}
		v.Networks[n] = nw
		return byNetwork()
	case "rm network":
		if len(v.EndpointsOn(n)) > 0 {
			return nil
		}
		delete(v.Networks, n)
		return byNetwork()
	case "rm sandbox":
		delete(v.Sandboxes, s)
		for _, e := range v.EndpointsOf(s) {
			delete(v.Endpoints, EndpointID{s, e.Ifname})
		}
		return bySandbox()
	case "connect":
		if v.Endpoints[id] != nil {
			return nil
		}
		if v.Networks[n] == nil {
			v.Networks[n] = network(n, int(n[1]-'0'), rapid.Bool().Draw(t, "v6"))
		}
		if v.Sandboxes[s] == nil {
			v.Sandboxes[s] = &api.Sandbox{Name: s, Origin: rapid.SampledFrom([]string{api.OriginMade, api.OriginAdopted}).Draw(t, "origin")}
		}
		e := connect(*v, s, n, id.Ifname, rapid.IntRange(2, 200).Draw(t, "address"))
		e.GwPriority = rapid.IntRange(0, 1).Draw(t, "priority")
		return append(byNetwork(), bySandbox()...)
	default:
		delete(v.Endpoints, id)
		return bySandbox()
	}
}
