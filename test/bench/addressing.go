package main

import (
	"context"
	"net/netip"

	"github.com/towpath/towpath/internal/linux/sysctl"
)

// addressing is the addresses of a line in one family: the documentation ranges
// of RFC 5737 and RFC 3849 for what lies outside of a host, and a network for its
// containers.
type addressing struct {
	forwarding                string // the sysctl
	uplinkHost, uplinkOutside string
	routedHost, routedInside  string
	all                       string
}

func over4() addressing {
	return addressing{"net/ipv4/ip_forward", "192.0.2.10/24", "192.0.2.1/24", "10.97.0.1/16", "10.97.0.2/16", "0.0.0.0/0"}
}

func over6() addressing {
	return addressing{"net/ipv6/conf/all/forwarding", "2001:db8::10/64", "2001:db8::1/64", "fd00:97::1/64", "fd00:97::2/64", "::/0"}
}

// at is a port of an address of a line.
func at(prefix string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParsePrefix(prefix).Addr(), port)
}

// route gives everybody addresses, and makes the host a router.
func (a addressing) route(ctx context.Context, outside, host, inside space) error {
	if err := sysctl.Write(host.f, a.forwarding, "1"); err != nil {
		return err
	}
	for _, x := range []struct {
		s           space
		dev, prefix string
	}{
		{host, bareBridge, a.routedHost},
		{inside, "eth0", a.routedInside},
		{host, "eth0", a.uplinkHost},
		{outside, "eth0", a.uplinkOutside},
	} {
		if err := x.s.address(ctx, x.dev, x.prefix); err != nil {
			return err
		}
	}
	if err := inside.route(ctx, a.all, a.routedHost); err != nil {
		return err
	}
	return outside.route(ctx, a.routedInside, a.uplinkHost)
}
