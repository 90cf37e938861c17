package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/firewall"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/nft"
)

// chains are the forward chains of others as they were read last.
type chains struct {
	mu    sync.Mutex
	of    *kernel.Foreign
	doors []kernel.Door
	ready *firewall.Chains
}

// chains gives the forward chains of others, ready to be asked; they are made
// ready once a change.
func (e *Engine) chains(ctx context.Context) (*firewall.Chains, error) {
	now, err := e.Foreign(ctx)
	if err != nil {
		return nil, err
	}
	// A door is advice only where it is not used already.
	doors := e.loop.Facts().Doors
	if e.loop.Facts().Cooperate {
		doors = nil
	}
	c := &e.foreign
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ready == nil || c.of != now || !slices.Equal(c.doors, doors) {
		c.of, c.doors, c.ready = now, doors, firewall.New(*now, doors)
	}
	return c.ready, nil
}

// warn gives what stands in the way of networks and publications, in words.
// That it could not be found out is a warning too, and no failure of the verb.
func (e *Engine) warn(ctx context.Context, v driver.View, networks []string, ids ...string) []string {
	if e.Foreign == nil {
		return nil
	}
	c, err := e.chains(ctx)
	if err != nil {
		return []string{err.Error()}
	}
	var found []firewall.Finding
	for _, name := range networks {
		if n := v.Networks[name]; n != nil {
			found = append(found, c.Network(e.seen(n))...)
		}
	}
	for _, id := range ids {
		found = append(found, c.Publication(e.seenAt(v, v.Publications.Get(id)))...)
	}
	return firewall.Warnings(found)
}

// unguarded says when what containers send is not checked, though it should be.
func (e *Engine) unguarded(n *api.Network) []string {
	if !n.SpoofGuard() || e.loop.Facts().Hooks != kernel.NoHooks {
		return nil
	}
	return []string{fmt.Sprintf("what containers of network %s send is not checked, so one can pass for another: "+
		"that needs Linux 6.4 with CONFIG_NETFILTER_INGRESS and CONFIG_NF_TABLES_NETDEV", n.Name)}
}

// seen is a network as the chains of others see it.
func (e *Engine) seen(n *api.Network) firewall.Network {
	h := e.loop.Facts()
	var subnets []netip.Prefix
	for _, s := range n.Subnets {
		subnets = append(subnets, s.Subnet)
	}
	return firewall.Network{
		Name: n.Name, Device: n.Device, V4: n.Has4(), V6: n.Has6() && h.IPv6, Subnets: subnets,
		Internal: n.Internal, Bridged4: h.BridgeNF4, Bridged6: h.BridgeNF6, Ways: h.Ways,
	}
}

// seenAt is a publication as the chains of others see it.
func (e *Engine) seenAt(v driver.View, p *api.Publication) firewall.Publication {
	out := firewall.Publication{
		Name: fmt.Sprintf("%d/%s", p.HostPort, p.Proto), HostPort: p.HostPort, Port: p.Port,
		Proto: map[string]uint8{"tcp": nft.ProtoTCP, "udp": nft.ProtoUDP, "sctp": nft.ProtoSCTP}[p.Proto],
	}
	for _, v4 := range []bool{true, false} {
		to, n := driver.Target(p, v4, v)
		if n == nil {
			continue
		}
		out.Network, out.To = e.seen(n), append(out.To, to)
		out.V4, out.V6 = out.V4 || v4, out.V6 || !v4
	}
	if p.HostIP.IsLoopback() { // nothing comes in, and what the host sends is not forwarded
		out.V4, out.V6 = false, false
	}
	return out
}

// networksOf are the networks of a sandbox.
func networksOf(v driver.View, sandbox string) []string {
	var out []string
	for _, ep := range v.EndpointsOf(sandbox) {
		if !slices.Contains(out, ep.Network) {
			out = append(out, ep.Network)
		}
	}
	return out
}
