package driver

import (
	_ "embed"
	"net/netip"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
)

// planSandbox is a namespace, and what answers for names in it. The loopback
// has to be up for that, also in a namespace that somebody else made.
func planSandbox(s *api.Sandbox, v View) []kernel.Object {
	return append([]kernel.Object{
		kernel.Namespace{Name: s.Name, Cookie: s.Cookie},
		kernel.Up{NS: s.Name, Dev: "lo"},
	}, resolver(s.Name, v)...)
}

// resolverRules lead what is sent to 127.0.0.11:53 to the port that the resolver
// has, and its answers back: packet by packet, without conntrack, which would
// cost every packet of the sandbox. Port 53 itself is free for the workload.
// They stand on the ingress of the loopback, which both directions pass.
//
//go:embed resolver.nft
var resolverRules string

// resolver is the same in every sandbox, but for its name.
func resolver(ns string, v View) []kernel.Object {
	addr, port := netip.MustParseAddr(api.ResolverAddress), uint16(api.ResolverPort)
	if v.Host.Hooks == kernel.NoHooks {
		// Without a chain that rewrites ports it has port 53 of its address
		// itself, and a workload cannot have that of all addresses.
		return []kernel.Object{resolverSockets(ns, netip.AddrPortFrom(addr, 53))}
	}
	return []kernel.Object{
		kernel.Table{NS: ns, Family: "netdev", Name: tableName},
		kernel.Chain{
			NS: ns, Family: "netdev", Table: tableName, Name: "resolver",
			Base: "type filter hook ingress priority filter; policy accept;", Rules: resolverRules,
		},
		kernel.Hook{NS: ns, Family: "netdev", Table: tableName, Chain: "resolver", Dev: "lo", ByName: v.Host.Hooks == kernel.HooksByName},
		resolverSockets(ns, netip.AddrPortFrom(addr, port)),
	}
}

// resolverSockets are a pair, which come and go together.
func resolverSockets(ns string, at netip.AddrPort) kernel.Socket {
	return kernel.Socket{NS: ns, Proto: "udp,tcp", Addr: at}
}
