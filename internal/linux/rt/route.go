//go:build linux

package rt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Route is a route of either family. Dst decides the family; a default route has
// the prefix 0.0.0.0/0 or ::/0.
type Route struct {
	Dst      netip.Prefix
	Gateway  netip.Addr // may be IPv6 for an IPv4 destination; zero: on the link
	OIF      int        // index of the link; 0: none
	Table    uint32     // RT_TABLE_*; 0 is written as main
	Protocol uint8      // RTPROT_*: who set it
	Metric   uint32     // 0 is written to IPv6 as 1024, by the kernel
	Type     uint8      // RTN_*; 0 is written as unicast
	// Scope is RT_SCOPE_*. 0 is written as the scope that fits (host for local,
	// link for what has no gateway, else universe). IPv6 has none.
	Scope  uint8
	Src    netip.Addr // preferred source address
	Onlink bool       // take the gateway for a neighbour whatever the addresses say
	TOS    uint8      // only packets with it; 0: all
	MTU    int        // bytes; 0: that of the link

	// Hops are the ways of a multipath route, and then Gateway and OIF are zero.
	Hops []Hop
	// NextHopID refers to a nexthop object (read only).
	NextHopID uint32
	// From is the source that a source-specific IPv6 route is for (read only).
	From netip.Prefix
	// Encap is LWTUNNEL_ENCAP_*, of a route that wraps its packets (read only).
	Encap uint16
	// Flags are RTM_F_* and RTNH_F_* as read, such as RTNH_F_LINKDOWN. They are
	// not written; Onlink is.
	Flags uint32
}

// Hop is one way of a multipath route.
type Hop struct {
	Gateway netip.Addr
	OIF     int
	Weight  int // 1 to 256
	Onlink  bool
}

// RouteFilter selects routes, in the kernel. The zero filter selects those of
// both families and all tables.
type RouteFilter struct {
	Family   uint8 // AF_INET, AF_INET6; 0: both
	Table    uint32
	Protocol uint8
	Type     uint8
	OIF      int
}

// Routes lists routes, at most limit of them if limit is above zero. More are an
// ErrTooMany beside the first ones: nothing of what is beyond is read.
func (c *Conn) Routes(ctx context.Context, f RouteFilter, limit int) ([]Route, error) {
	families := []uint8{f.Family}
	if f.Family == unix.AF_UNSPEC {
		// Not one dump of AF_UNSPEC: that has multicast and MPLS routes too.
		families = []uint8{unix.AF_INET, unix.AF_INET6}
	}
	var out []Route
	for _, fam := range families {
		one := f
		one.Family = fam
		routes, err := c.routes(ctx, one, limit)
		out = append(out, routes...)
		if limit > 0 && len(out) > limit {
			out, err = out[:limit], fmt.Errorf("%w of %d", ErrTooMany, limit)
		}
		if err != nil {
			return out, fmt.Errorf("list routes: %w", err)
		}
	}
	return out, nil
}

// routes lists the routes of one family. A table that was never used is an
// ENOENT of the kernel's, and an empty list here.
func (c *Conn) routes(ctx context.Context, f RouteFilter, limit int) ([]Route, error) {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[5], h[7] = f.Family, f.Protocol, f.Type
	body, err := attributes(h, func(ae *netlink.AttributeEncoder) {
		if f.Table != 0 {
			ae.Uint32(unix.RTA_TABLE, f.Table)
		}
		if f.OIF != 0 {
			ae.Uint32(unix.RTA_OIF, uint32(f.OIF))
		}
	})
	if err != nil {
		return nil, err
	}
	req := request{typ: unix.RTM_GETROUTE, body: body}
	out, err := list(ctx, c, req, limit, func(_ uint16, b []byte) (Route, bool, error) {
		r, err := decodeRoute(b)
		return r, f.match(r), err
	})
	if f.Table != 0 && errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return out, err
}

// match says the filter again for what kernels leave unfiltered in one family or
// the other. A multipath route has no OIF of its own.
func (f RouteFilter) match(r Route) bool {
	return (f.Table == 0 || f.Table == r.Table) &&
		(f.Protocol == 0 || f.Protocol == r.Protocol) &&
		(f.Type == 0 || f.Type == r.Type) &&
		(f.OIF == 0 || f.OIF == r.OIF || len(r.Hops) > 0)
}

// AddRoute adds a route. One that is there is an unix.EEXIST.
func (c *Conn) AddRoute(ctx context.Context, r Route) error {
	return c.changeRoute(ctx, "add", unix.RTM_NEWROUTE, netlink.Create|netlink.Excl, r)
}

// AppendRoute adds a route beside others to the same destination with the same
// metric, over other links. One that is there is an unix.EEXIST.
func (c *Conn) AppendRoute(ctx context.Context, r Route) error {
	return c.changeRoute(ctx, "append", unix.RTM_NEWROUTE, netlink.Create|netlink.Append, r)
}

// ReplaceRoute adds a route in place of the one with the same destination, table
// and metric, if there is one.
func (c *Conn) ReplaceRoute(ctx context.Context, r Route) error {
	return c.changeRoute(ctx, "replace", unix.RTM_NEWROUTE, netlink.Create|netlink.Replace, r)
}

// DelRoute deletes the first route that is equal in all that r says; zero fields
// of r match anything. There being none is an unix.ESRCH.
func (c *Conn) DelRoute(ctx context.Context, r Route) error {
	if r.Scope == unix.RT_SCOPE_UNIVERSE {
		r.Scope = scopeNowhere
	}
	return c.changeRoute(ctx, "delete", unix.RTM_DELROUTE, 0, r)
}

func (c *Conn) changeRoute(ctx context.Context, verb string, typ uint16, flags netlink.HeaderFlags, r Route) error {
	if typ == unix.RTM_NEWROUTE {
		r = r.complete()
	}
	body, err := r.encode()
	if err == nil {
		err = c.do(ctx, request{typ: typ, flags: flags, body: body}, nil)
	}
	if err != nil {
		return fmt.Errorf("%s route %s: %w", verb, r.Dst, err)
	}
	return nil
}

// complete fills in the type and the scope.
func (r Route) complete() Route {
	if r.Type == 0 {
		r.Type = unix.RTN_UNICAST
	}
	if r.Scope != unix.RT_SCOPE_UNIVERSE {
		return r
	}
	switch r.Type {
	case unix.RTN_LOCAL, unix.RTN_NAT:
		r.Scope = unix.RT_SCOPE_HOST
	case unix.RTN_BROADCAST, unix.RTN_MULTICAST, unix.RTN_ANYCAST:
		r.Scope = unix.RT_SCOPE_LINK
	case unix.RTN_UNICAST:
		if !r.Gateway.IsValid() && len(r.Hops) == 0 {
			r.Scope = unix.RT_SCOPE_LINK
		}
	}
	return r
}

// encode writes struct rtmsg and its attributes. The table goes in an attribute,
// because the header has one byte for it.
func (r Route) encode() ([]byte, error) {
	if !r.Dst.IsValid() {
		return nil, fmt.Errorf("destination %s: %w", r.Dst, unix.EINVAL)
	}
	fam := family(r.Dst.Addr())
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = fam, uint8(r.Dst.Bits())
	h[3], h[5], h[6], h[7] = r.TOS, r.Protocol, r.Scope, r.Type
	if r.Onlink {
		binary.NativeEndian.PutUint32(h[8:], unix.RTNH_F_ONLINK)
	}
	table := r.Table
	if table == 0 {
		table = unix.RT_TABLE_MAIN
	}
	return attributes(h, func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.RTA_TABLE, table)
		if r.Dst.Bits() > 0 {
			putAddr(ae, unix.RTA_DST, r.Dst.Masked().Addr())
		}
		putAddr(ae, unix.RTA_PREFSRC, r.Src)
		putGateway(ae, fam, r.Gateway)
		if r.OIF != 0 {
			ae.Uint32(unix.RTA_OIF, uint32(r.OIF))
		}
		if r.Metric != 0 {
			ae.Uint32(unix.RTA_PRIORITY, r.Metric)
		}
		if r.MTU != 0 {
			nested(ae, unix.RTA_METRICS, func(in *netlink.AttributeEncoder) { in.Uint32(metricMTU, uint32(r.MTU)) })
		}
		if len(r.Hops) > 0 {
			ae.Do(unix.RTA_MULTIPATH, func() ([]byte, error) { return encodeHops(fam, r.Hops) })
		}
	})
}

// putGateway writes a gateway of the route's family, or, with its family, one of
// the other (RFC 5549).
func putGateway(ae *netlink.AttributeEncoder, fam uint8, gw netip.Addr) {
	switch {
	case !gw.IsValid():
	case family(gw) == fam:
		putAddr(ae, unix.RTA_GATEWAY, gw)
	default:
		via := binary.NativeEndian.AppendUint16(nil, uint16(family(gw)))
		ae.Bytes(unix.RTA_VIA, append(via, gw.Unmap().AsSlice()...))
	}
}

// encodeHops writes an array of struct rtnexthop, each with its attributes.
func encodeHops(fam uint8, hops []Hop) ([]byte, error) {
	var out []byte
	for _, hop := range hops {
		h := make([]byte, nextHopHeader)
		if hop.Onlink {
			h[2] = unix.RTNH_F_ONLINK
		}
		h[3] = uint8(max(hop.Weight, 1) - 1)
		binary.NativeEndian.PutUint32(h[4:], uint32(hop.OIF))
		b, err := attributes(h, func(ae *netlink.AttributeEncoder) { putGateway(ae, fam, hop.Gateway) })
		if err != nil {
			return nil, err
		}
		binary.NativeEndian.PutUint16(b, uint16(len(b)))
		out = append(out, b...)
	}
	return out, nil
}
