package driver

import (
	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
)

// What of a connection passes once its first packet has: what comes back, and
// on the way to a container also what was translated, which is published.
const (
	answered  = "related,established"
	published = "related,established,dnat"
)

// planDoors uses the doors of other firewalls for a network. What may pass is
// decided by our own chain, which every packet meets as well; theirs are told
// no more than they must be, and nothing of their own networks.
func planDoors(n *api.Network, v View) []kernel.Object {
	var objs []kernel.Object
	if !v.Host.Cooperate {
		return nil
	}
	for _, d := range v.Host.Doors {
		switch {
		case d.Program == kernel.DoorFirewalld:
			// A zone speaks of what is sent to the host, too: a network that
			// forwards nothing needs none.
			if !n.Internal || v.Host.BridgeNF4 || v.Host.BridgeNF6 {
				objs = append(objs, kernel.Zone{NS: kernel.Host, Zone: kernel.TrustedZone, Dev: n.Device})
			}
		case d.Family == "ip" && n.Has4(), d.Family == "ip6" && n.Has6():
			objs = append(objs, planEntries(n, v, d)...)
		}
	}
	return objs
}

// planEntries are the rules of a network in a chain.
func planEntries(n *api.Network, v View, d kernel.Door) []kernel.Object {
	dev := n.Device
	entry := func(in, out, states string) kernel.Object {
		return kernel.Entry{NS: kernel.Host, Family: d.Family, Table: d.Table, Chain: d.Chain, In: in, Out: out, States: states}
	}
	objs := []kernel.Object{
		entry("", dev, published),
		entry(dev, "", answered),
		entry(dev, dev, ""), // within the network, where br_netfilter shows it
	}
	if n.Internal {
		return objs
	}
	for _, way := range v.Host.Ways {
		objs = append(objs, entry(dev, way, ""))
		if n.GatewayMode == api.GatewayRouted {
			objs = append(objs, entry(way, dev, ""))
		}
	}
	return objs
}
