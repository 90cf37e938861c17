package walk

import (
	"fmt"
	"net/netip"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
)

// routeOut routes what the namespace sends.
func (r *run) routeOut(at *space, p *packet) (machine.Route, *fate) {
	dst := p.dst.Addr()
	rt, ok := at.lookup(query{
		src: p.src.Addr(), dst: dst, iif: loopback, oif: p.oif, mark: p.mark,
		proto: p.proto, sport: p.src.Port(), dport: p.dst.Port(),
	})
	fail := func(errno string) (machine.Route, *fate) {
		return rt, r.drop(at, rt.Dev, api.LayerRoute, p, "%s has no route to %s: %s", at.Name, dst, errno)
	}
	if ok && dst == limitedBroadcast() {
		rt.Type = machine.Broadcast
	}
	r.uncertain = r.uncertain || len(rt.Hops) > 1
	switch {
	case ok && rt.Type == undecided:
		return rt, r.unclear(at, "", p)
	case !ok:
		return fail("ENETUNREACH")
	case rt.Type == machine.Blackhole:
		return fail("it is a blackhole route, EINVAL")
	case rt.Type == machine.Unreachable:
		return fail("it is an unreachable route, EHOSTUNREACH")
	case rt.Type == machine.Prohibit:
		return fail("it is a prohibit route, EACCES")
	case p.src.Addr().Is4() && p.src.Addr().IsLoopback() && outDev(rt) != loopback && !at.routesLoopback(rt.Dev):
		return fail("127.0.0.0/8 may not leave by " + rt.Dev + " (route_localnet is 0), EINVAL")
	}
	return rt, nil
}

// unclear ends a packet at a rule of routing that cannot be evaluated.
func (r *run) unclear(at *space, dev string, p *packet) *fate {
	why := ""
	for _, rule := range at.rules {
		if rule.Unknown != "" && rule.IPv6 == p.is6() {
			why = fmt.Sprintf("rule %d of routing in %s asks for %s", rule.Priority, at.Name, rule.Unknown)
			break
		}
	}
	f := end(at, p, api.Undecided, "%s", why)
	r.hop(at, dev, api.Hop{Layer: api.LayerRoute, Action: "undecided", Detail: why, Before: new(p.flow())})
	return f
}

// limitedBroadcast is the address of everybody on the link, whatever the route.
func limitedBroadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// routeIn routes what comes in by a link.
func (r *run) routeIn(at *space, in string, p *packet) (machine.Route, *fate) {
	if p.is6() {
		return r.routeIn6(at, in, p)
	}
	if why := martian(at, in, p.src.Addr(), p.dst.Addr()); why != "" {
		return machine.Route{}, r.drop(at, in, api.LayerRoute, p, "%s", why)
	}
	rt, ok := at.lookup(query{
		src: p.src.Addr(), dst: p.dst.Addr(), iif: in, mark: p.mark,
		proto: p.proto, sport: p.src.Port(), dport: p.dst.Port(),
	})
	r.uncertain = r.uncertain || len(rt.Hops) > 1
	if ok && rt.Type == undecided {
		return rt, r.unclear(at, in, p)
	}
	if p.dst.Addr() == limitedBroadcast() {
		rt, ok = machine.Route{Type: machine.Broadcast, Dev: in}, true
	}
	if !ok || failure(rt) || rt.Type == machine.Unicast && !at.forwards4(in) {
		if !at.forwards4(in) {
			return rt, r.drop(at, in, api.LayerRoute, p, "%s does not forward IPv4 that comes in by %s", at.Name, in)
		}
		return rt, r.routeError(at, in, rt, ok, p)
	}
	out := ""
	if rt.Type == machine.Unicast {
		out = rt.Dev
	}
	if why := validateSource(at, in, out, p.src.Addr(), p.dst.Addr()); why != "" {
		return rt, r.drop(at, in, api.LayerRoute, p, "%s", why)
	}
	if rt.Type == machine.Multicast {
		return rt, end(at, p, api.Undecided, "packets to many are not followed")
	}
	return rt, nil
}

// failure reports whether a route leads nowhere.
func failure(rt machine.Route) bool {
	return rt.Type == machine.Blackhole || rt.Type == machine.Unreachable || rt.Type == machine.Prohibit
}

// routeError ends a packet that a router has no way for (ip_error,
// ip6_pkt_drop): a blackhole says nothing.
func (r *run) routeError(at *space, in string, rt machine.Route, found bool, p *packet) *fate {
	dst := p.dst.Addr()
	switch {
	case !found:
		return r.reject(at, in, api.LayerRoute, p, noRoute, "%s has no route to %s", at.Name, dst)
	case rt.Type == machine.Blackhole:
		return r.drop(at, in, api.LayerRoute, p, "the route of %s to %s is a blackhole", at.Name, rt.Dst)
	case rt.Type == machine.Prohibit:
		return r.reject(at, in, api.LayerRoute, p, prohibited, "the route of %s to %s prohibits it", at.Name, rt.Dst)
	case p.is6():
		return r.reject(at, in, api.LayerRoute, p, noRoute, "the route of %s to %s is unreachable", at.Name, rt.Dst)
	}
	return r.reject(at, in, api.LayerRoute, p, hostUnreachable, "the route of %s to %s is unreachable", at.Name, rt.Dst)
}

func (r *run) routeIn6(at *space, in string, p *packet) (machine.Route, *fate) {
	dst := p.dst.Addr()
	rt, ok := at.lookup(query{
		src: p.src.Addr(), dst: dst, iif: in, mark: p.mark, proto: p.proto, sport: p.src.Port(), dport: p.dst.Port(),
		strict: dst.IsLinkLocalUnicast() || dst.IsLoopback() || dst.IsMulticast(),
	})
	r.uncertain = r.uncertain || len(rt.Hops) > 1
	switch {
	case ok && rt.Type == undecided:
		return rt, r.unclear(at, in, p)
	case p.src.Addr().IsMulticast():
		return rt, r.drop(at, in, api.LayerRoute, p, "its source is a multicast address")
	case !ok || failure(rt):
		return rt, r.routeError(at, in, rt, ok, p)
	case rt.Type == machine.Multicast:
		return rt, end(at, p, api.Undecided, "packets to many are not followed")
	}
	return rt, nil
}

// martian says why no packet may have these addresses and come in by a link
// (ip_route_input_slow).
func martian(at *space, in string, src, dst netip.Addr) string {
	switch {
	case src.IsMulticast() || src == limitedBroadcast():
		return "martian: its source is for many"
	case dst == limitedBroadcast():
		return ""
	case src.IsUnspecified() || dst.IsUnspecified():
		return "martian: it has no address"
	case dst.IsLoopback() && !at.routesLoopback(in):
		return "martian: a loopback destination came in by " + in + " (route_localnet is 0)"
	case src.IsLoopback() && !dst.IsLoopback() && !at.routesLoopback(in):
		return "martian: a loopback source came in by " + in + " (route_localnet is 0)"
	}
	return ""
}

// validateSource says why the way back speaks against a source of what comes in
// and goes out again, or stays where out is "" (fib_validate_source). Without a
// filter, rules or redirects it is looked at for one thing alone: that it is not
// an address of the namespace's own.
func validateSource(at *space, in, out string, src, dst netip.Addr) string {
	filter := max(at.conf("ipv4", in, "rp_filter"), at.confAll("ipv4", "rp_filter"))
	redirects := out == in && at.redirects(in)
	rt, ok := at.lookup(query{src: dst, dst: src, iif: loopback})
	switch accepts := at.conf("ipv4", in, "accept_local") != 0 || at.confAll("ipv4", "accept_local") != 0; {
	case at.isLocal(src) && !accepts:
		return "martian: its source " + src.String() + " is an address of " + at.Name
	case filter == 0 && !redirects && !at.custom4():
		return ""
	case ok && !failure(rt) && rt.Type != machine.Unicast && rt.Type != machine.Local:
		return "martian: its source " + src.String() + " is for many"
	case filter != 0 && (!ok || failure(rt)):
		return "rp_filter: there is no route back to " + src.String()
	case filter == 1 && rt.Dev != in && rt.Type == machine.Unicast:
		return "rp_filter: the route back to " + src.String() + " is over " + rt.Dev + ", not " + in
	}
	return ""
}

// redirects reports whether the namespace tells senders on a link of better
// routes, which it does unless it is told not to.
func (s *space) redirects(dev string) bool {
	off := func(d string) bool { return s.Sysctls["net/ipv4/conf/"+d+"/send_redirects"] == "0" }
	return !off(dev) || !off("all")
}

// custom4 reports whether there are rules of IPv4 beside those of the start.
func (s *space) custom4() bool {
	n := 0
	for _, r := range s.rules {
		if !r.IPv6 {
			n++
		}
	}
	return n > 3
}
