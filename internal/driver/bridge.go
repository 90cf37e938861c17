package driver

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
)

// planNetwork is a bridge with the gateway addresses, and what the rules say of it.
func planNetwork(n *api.Network, v View) []kernel.Object {
	dev := n.Device
	objs := []kernel.Object{
		kernel.Link{NS: kernel.Host, Name: dev, Type: "bridge", MAC: n.MAC, MTU: mtu(n, v), Mark: NetworkUnit(n.Name).Mark()},
		kernel.Up{NS: kernel.Host, Dev: dev},
	}
	for _, s := range n.Subnets {
		if n.GatewayMode == api.GatewayIsolated {
			break // the host is not on this network
		}
		objs = append(objs, kernel.Address{NS: kernel.Host, Dev: dev, Prefix: netip.PrefixFrom(s.Gateway, s.Subnet.Bits())})
	}
	objs = append(objs, bridgeSysctls(n, v)...)
	objs = append(objs, planGuardChain(n, v)...)
	objs = append(objs, planDoors(n, v)...)
	return append(append(objs, bridgeElements(n)...), loopback(n, v)...)
}

// loopback lets what is published be reached at the host's own 127.0.0.1 and
// [::1]. Both are translated on their way out; the kernel then needs
// route_localnet to send and to take 127.0.0.0/8 over the bridge, and a route
// for ::1 on the very link that the answers come in on. What containers
// themselves send to loopback addresses the chain martian drops.
func loopback(n *api.Network, v View) []kernel.Object {
	var objs []kernel.Object
	if n.Internal {
		return nil
	}
	if n.Has4() {
		objs = append(objs, kernel.Sysctl{NS: kernel.Host, Name: "net/ipv4/conf/" + n.Device + "/route_localnet", Value: "1", Dev: n.Device})
	}
	if n.Has6() && v.Host.IPv6 {
		objs = append(objs, kernel.Route{
			NS: kernel.Host, Dev: n.Device, Dst: netip.PrefixFrom(netip.IPv6Loopback(), 128), Table: localTable, Metric: 1, Local: true,
		})
	}
	return objs
}

// localTable is RT_TABLE_LOCAL (linux/rtnetlink.h).
const localTable = 255

// bridgeSysctls: the host must not take a container for a router, and
// forwards IPv6 from the bridge.
func bridgeSysctls(n *api.Network, v View) []kernel.Object {
	if !v.Host.IPv6 {
		return nil
	}
	set := func(name, value string) kernel.Object {
		return kernel.Sysctl{NS: kernel.Host, Name: "net/ipv6/conf/" + n.Device + "/" + name, Value: value, Dev: n.Device}
	}
	objs := []kernel.Object{set("accept_ra", "0")}
	// An internal network too: it reaches what is published, through its gateway.
	if n.Has6() && v.Host.ForceForwarding {
		objs = append(objs, set("force_forwarding", "1"))
	}
	return objs
}

// bridgeElements is the network in the rules: in `bridges` it is guarded, and
// the maps say what it may do all the same.
func bridgeElements(n *api.Network) []kernel.Object {
	dev := ifname(n.Device)
	same, leave := "accept", "accept"
	if !n.ICC {
		same = "jump icc_off"
	}
	if n.Internal {
		leave = "drop"
	}
	objs := []kernel.Object{
		element("bridges", dev, ""),
		element("same", dev+" . "+dev, same),
		element("leave", dev, leave),
	}
	switch {
	case n.Internal:
	case n.GatewayMode == api.GatewayRouted:
		objs = append(objs, element("routed", dev, ""))
	default:
		objs = append(objs, element("nat_out", dev, ""))
	}
	for _, s := range n.Subnets {
		family := "4"
		if s.Subnet.Addr().Is6() {
			family = "6"
		}
		objs = append(objs, element("hairpin"+family, dev+" . "+s.Subnet.String(), ""))
	}
	return objs
}

// planEndpoint is a veth pair: a port of the network's bridge, and the
// interface in the sandbox with its addresses and routes.
func planEndpoint(e *api.Endpoint, v View) []kernel.Object {
	n, s := v.Networks[e.Network], v.Sandboxes[e.Sandbox]
	if n == nil || s == nil {
		return nil
	}
	id := EndpointID{e.Sandbox, e.Ifname}
	port := kernel.Link{
		NS: kernel.Host, Name: e.HostIfname, Type: "veth", MTU: mtu(n, v), Master: n.Device,
		PeerNS: s.Name, Peer: e.Ifname, Hairpin: true, Mark: EndpointUnit(id).Mark(),
		// Frames between ports bypass the rules unless br_netfilter hands them
		// over; where it does so for all, the rules decide, and an isolated port
		// would also lose what is published to its neighbours.
		Isolated: !n.ICC && (!v.Host.BridgeNF4 || v.Host.IPv6 && !v.Host.BridgeNF6),
		Locked:   guards(n, v),
	}
	objs := []kernel.Object{
		port,
		kernel.Link{NS: s.Name, Name: e.Ifname, Type: "veth", MAC: e.MAC, MTU: mtu(n, v), PeerOf: e.HostIfname},
		kernel.Up{NS: kernel.Host, Dev: e.HostIfname},
		kernel.Up{NS: s.Name, Dev: e.Ifname},
	}
	var has6 bool
	for _, a := range e.Addresses {
		objs = append(objs, kernel.Address{NS: s.Name, Dev: e.Ifname, Prefix: a}, kernel.Flows{NS: kernel.Host, Addr: a.Addr()})
		has6 = has6 || a.Addr().Is6()
	}
	if local, ok := linkLocal(e.MAC); ok && has6 && v.Host.IPv6 {
		// The kernel would give the interface the same address, but first ask all
		// others on the network whether one has it, and send nothing from it for
		// a second.
		objs = append(objs, kernel.Address{NS: s.Name, Dev: e.Ifname, Prefix: netip.PrefixFrom(local, 64)})
	}
	objs = append(objs, planGuard(e, n, v, has6)...)
	objs = append(objs, routes(e, v)...)
	return append(objs, endpointSysctls(e, has6, v)...)
}

// endpointSysctls: an interface without an IPv6 address of ours stays without
// IPv6; one with takes its routes from us, not from a neighbour's advertisement.
// What the user asked for comes on top.
func endpointSysctls(e *api.Endpoint, has6 bool, v View) []kernel.Object {
	values := map[string]string{}
	prefix := "net/ipv6/conf/" + e.Ifname + "/"
	switch {
	case v.Host.IPv6 && has6:
		if v.Sandboxes[e.Sandbox].Origin == api.OriginAdopted {
			// Its owner may have chosen that link-local addresses are not made of
			// the MAC address (RFC 7217); the guard knows no other.
			values[prefix+"addr_gen_mode"] = "0"
		}
		// The namespace may have IPv6 off by default, and an interface that comes
		// to another network had it off with the one before.
		values[prefix+"accept_ra"], values[prefix+"disable_ipv6"] = "0", "0"
	case v.Host.IPv6:
		values[prefix+"disable_ipv6"] = "1"
	}
	maps.Copy(values, e.Sysctls)
	var objs []kernel.Object
	for name, value := range values {
		objs = append(objs, kernel.Sysctl{NS: e.Sandbox, Name: name, Value: value, Dev: e.Ifname})
	}
	return objs
}

// policyTable is the first routing table, and rule priority, of endpoints that
// do not give the default route; the endpoint's index is added. It is out of
// the way of the tables that tools choose, and before main (priority 32766).
const policyTable = 8000

// routes of an endpoint: the default route, if of all endpoints of its sandbox
// it is the one to give it; else a table of its own for what its addresses send,
// so that an answer leaves by the interface the question came in on.
func routes(e *api.Endpoint, v View) []kernel.Object {
	var objs []kernel.Object
	for _, v4 := range []bool{true, false} {
		gw, ok := gateway(e, v4, v)
		table := policyTable + uint32(e.Index)
		if !ok && second(e, v) {
			objs = append(objs, ownRoutes(e, v4, table)...)
		}
		if !ok {
			continue
		}
		all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		if v4 {
			all = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		if givesDefault(e, v4, v) {
			objs = append(objs, kernel.Route{NS: e.Sandbox, Dev: e.Ifname, Dst: all, Via: gw})
			continue
		}
		objs = append(objs, kernel.Route{NS: e.Sandbox, Dev: e.Ifname, Dst: all, Via: gw, Table: table})
		objs = append(objs, ownRoutes(e, v4, table)...)
	}
	return objs
}

// ownRoutes send what comes from the endpoint's addresses by the endpoint.
func ownRoutes(e *api.Endpoint, v4 bool, table uint32) []kernel.Object {
	var objs []kernel.Object
	for _, a := range e.Addresses {
		if a.Addr().Is4() == v4 {
			from := netip.PrefixFrom(a.Addr(), a.Addr().BitLen())
			objs = append(objs,
				kernel.Route{NS: e.Sandbox, Dev: e.Ifname, Dst: a.Masked(), Table: table},
				kernel.Rule{NS: e.Sandbox, From: from, Table: table, Priority: table})
		}
	}
	return objs
}

// second reports whether the sandbox was on the network before: of two routes to
// the same prefix the kernel takes the first, by a link that may not send what
// comes from the address of the other.
func second(e *api.Endpoint, v View) bool {
	return slices.ContainsFunc(v.EndpointsOf(e.Sandbox), func(o *api.Endpoint) bool { return o.Network == e.Network && o.Index < e.Index })
}

// givesDefault: per family the endpoint with the highest priority, ties to the
// one connected first.
func givesDefault(e *api.Endpoint, v4 bool, v View) bool {
	var best *api.Endpoint
	for _, s := range v.EndpointsOf(e.Sandbox) {
		if _, ok := gateway(s, v4, v); ok && (best == nil || s.GwPriority > best.GwPriority) {
			best = s
		}
	}
	return best != nil && best.Ifname == e.Ifname
}

// gateway of a family that leads out of the host, if e has one.
func gateway(e *api.Endpoint, v4 bool, v View) (netip.Addr, bool) {
	n := v.Networks[e.Network]
	if n == nil || n.Internal {
		return netip.Addr{}, false
	}
	for _, gw := range e.Gateways {
		if gw.Is4() == v4 {
			return gw, true
		}
	}
	return netip.Addr{}, false
}
