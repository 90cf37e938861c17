package driver

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
)

// planPublication is one element a family in the maps that prerouting and output
// translate by, and one socket, which keeps other programs of the host from
// taking the port; of a range each is one object for all its ports.
func planPublication(p *api.Publication, v View) []kernel.Object {
	var objs []kernel.Object
	var targets []netip.Addr
	for _, v4 := range []bool{true, false} {
		if to, ok := target(p, v4, v); ok {
			targets = append(targets, to)
		}
	}
	for _, to := range targets {
		objs = append(objs, publishElements(p, netip.AddrPortFrom(to, p.Port))...)
	}
	if p.Proto != "sctp" || v.Host.SCTP {
		at := netip.AddrPortFrom(holdAt(p, v.Host.IPv6), p.HostPort)
		s := kernel.Socket{NS: kernel.Host, Proto: p.Proto, Addr: at, Count: span(p)}
		if p.HostIP == netip.IPv6Unspecified() {
			s.Proto += "6" // the port of IPv4 may be another's
		}
		s.To, s.From = passOn(p, v)
		objs = append(objs, s)
	}
	return objs
}

// passOn is where the daemon passes on the clients of a family that the sandbox
// has no address of, though the port is published for it, and which of them.
// The zero address is none.
func passOn(p *api.Publication, v View) (to netip.AddrPort, from string) {
	if p.Proto == "sctp" {
		return netip.AddrPort{}, ""
	}
	for _, v4 := range []bool{true, false} {
		_, kernels := target(p, v4, v)
		if kernels || p.HostIP.IsValid() && p.HostIP.Is4() != v4 || !v4 && !v.Host.IPv6 {
			continue
		}
		a, ok := target(&api.Publication{Sandbox: p.Sandbox}, !v4, v)
		sources, some := sourcesOf(p, v4)
		if ok && some {
			return netip.AddrPortFrom(a, p.Port), sources
		}
	}
	return netip.AddrPort{}, ""
}

// sourcesOf are those of a family that may, "" for all; false if none may.
func sourcesOf(p *api.Publication, v4 bool) (string, bool) {
	var list []string
	for _, f := range p.From {
		if f.Addr().Is4() == v4 {
			list = append(list, f.String())
		}
	}
	return strings.Join(list, ","), len(p.From) == 0 || len(list) > 0
}

// span is how many ports an object of the publication stands for; 0 for one.
func span(p *api.Publication) uint16 {
	if p.Count == 1 {
		return 0
	}
	return p.Count
}

// Reachable reports whether a publication has anything to lead to.
func Reachable(p *api.Publication, v View) bool {
	_, v4 := target(p, true, v)
	_, v6 := target(p, false, v)
	v.Host.IPv6 = true // a host without has no IPv6 clients either; not every view says
	to, _ := passOn(p, v)
	return v4 || v6 || to.IsValid()
}

// target is the address of the sandbox that a publication leads to in a family:
// that of its first interface that is not on an internal network.
func target(p *api.Publication, v4 bool, v View) (netip.Addr, bool) {
	addr, _ := Target(p, v4, v)
	return addr, addr.IsValid()
}

// Target is the address that a publication leads to in a family, and the network
// over which; invalid and nil if it does not.
func Target(p *api.Publication, v4 bool, v View) (netip.Addr, *api.Network) {
	if p.HostIP.IsValid() && p.HostIP.Is4() != v4 {
		return netip.Addr{}, nil
	}
	for _, e := range v.EndpointsOf(p.Sandbox) {
		n := v.Networks[e.Network]
		if n == nil || n.Internal {
			continue
		}
		for _, a := range e.Addresses {
			if a.Addr().Is4() == v4 {
				return a.Addr(), n
			}
		}
	}
	return netip.Addr{}, nil
}

// holdAt is the address to bind a port's socket to: [::] takes the port of both
// families when it is not restricted to one.
func holdAt(p *api.Publication, ipv6 bool) netip.Addr {
	switch {
	case p.HostIP.IsValid():
		return p.HostIP
	case ipv6:
		return netip.IPv6Unspecified()
	default:
		return netip.IPv4Unspecified()
	}
}

// publishElements translate the ports of the host in one family.
func publishElements(p *api.Publication, to netip.AddrPort) []kernel.Object {
	family, all := "4", "0.0.0.0/0"
	if to.Addr().Is6() {
		family, all = "6", "::/0"
	}
	service := p.Proto + " . " + strconv.Itoa(int(p.HostPort))
	value := to.Addr().String() + " . " + strconv.Itoa(int(to.Port()))
	anywhere := !p.HostIP.IsValid() || p.HostIP.IsUnspecified()
	if len(p.From) == 0 && anywhere {
		return []kernel.Object{portElement(p, "publish"+family+"_any", service, value)}
	}
	host := all
	if !anywhere {
		host = p.HostIP.String()
	}
	if len(p.From) == 0 {
		return []kernel.Object{portElement(p, "publish"+family, host+" . "+service, value)}
	}
	var objs []kernel.Object
	for _, from := range p.From {
		if from.Addr().Is4() == to.Addr().Is4() {
			objs = append(objs, portElement(p, "publish"+family+"_from", fmt.Sprintf("%s . %s . %s", interval(from), host, service), value))
		}
	}
	return objs
}

// portElement is the element for all ports of a publication.
func portElement(p *api.Publication, set, elem, value string) kernel.Element {
	e := element(set, elem, value)
	e.Count = span(p)
	return e
}

// interval writes a prefix as nft prints it within an interval set.
func interval(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
