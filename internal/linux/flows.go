//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/ct"
	"github.com/towpath/towpath/internal/linux/rt"
)

// A connection keeps the translation of its first packet. So when a publication
// comes, goes or leads elsewhere, connections made before go on as they were: a
// UDP client that never pauses would for ever. What the maps of now would not
// produce is removed from conntrack, and nothing else is: entries of the same
// ports that lead to addresses which are not the host's are others'.

// mapping is what an element of the publish maps, or a range of them, makes of a
// first packet.
type mapping struct {
	proto uint8
	host  netip.Addr // not valid: any address of the host
	v4    bool
	port  uint16         // the first
	count uint16         // of ports
	from  netip.Prefix   // not valid: from anywhere
	to    netip.AddrPort // where the first port leads
	gone  bool           // it led there, and does not any more
}

// target is where a connection that the mapping covers is led.
func (m mapping) target(e ct.Entry) netip.AddrPort {
	return netip.AddrPortFrom(m.to.Addr(), m.to.Port()+e.Orig.Dst.Port()-m.port)
}

// covers reports whether the mapping is about a connection. local says whether
// an address is the host's.
func (m mapping) covers(e ct.Entry, local func(netip.Addr) bool) bool {
	dst := e.Orig.Dst
	return m.proto == e.Proto && dst.Port() >= m.port && dst.Port()-m.port < m.count && m.v4 == dst.Addr().Is4() &&
		(m.host == dst.Addr() || !m.host.IsValid() && local(dst.Addr())) &&
		(!m.from.IsValid() || m.from.Contains(e.Orig.Src.Addr()))
}

// flows removes the connections that contradict what a transaction left in the
// publish maps.
func (a *applier) flows(ctx context.Context, ops []kernel.Op) error {
	var changed []mapping
	for _, op := range ops {
		e, ok := op.Object.(kernel.Element)
		if !ok || e.NS != kernel.Host || !strings.HasPrefix(e.Set, "publish") {
			continue
		}
		m, err := parseMapping(e)
		if err != nil {
			return err
		}
		m.gone = op.Verb == kernel.Delete
		changed = append(changed, m)
	}
	if len(changed) == 0 {
		return nil
	}
	local, err := a.k.Locals(ctx)
	if err != nil {
		return err
	}
	ours, err := a.k.networks(ctx)
	if err != nil {
		return err
	}
	maps := byPort(changed)
	return a.k.purge(ctx, services(changed), func(e ct.Entry) bool {
		m, covered := maps.of(e, local)
		return covered && stale(e, m, ours)
	})
}

// services are what the mappings are about.
func services(all []mapping) []ct.Service {
	var out []ct.Service
	for _, m := range all {
		for i := range m.count {
			out = append(out, ct.Service{IPv6: !m.v4, Proto: m.proto, Port: m.port + i})
		}
	}
	return out
}

// portMaps are mappings by the ports they are about, sixteen to a key.
type portMaps map[uint16][]mapping

func byPort(all []mapping) portMaps {
	p := portMaps{}
	for _, m := range all {
		for k := m.port / 16; k <= (m.port+m.count-1)/16; k++ {
			p[k] = append(p[k], m)
		}
	}
	return p
}

// of gives the mapping that is about a connection: one of now before one that is
// gone and, like the rules, one for an address before one for all.
func (p portMaps) of(e ct.Entry, local func(netip.Addr) bool) (found mapping, covered bool) {
	for _, m := range p[e.Orig.Dst.Port()/16] {
		if !m.covers(e, local) {
			continue
		}
		if !covered || found.gone && !m.gone || found.gone == m.gone && m.host.IsValid() {
			found, covered = m, true
		}
	}
	return found, covered
}

// stale reports whether a connection that a mapping is about leads elsewhere
// than the mapping says. What others translate to addresses that are not ours
// is theirs.
func stale(e ct.Entry, m mapping, ours func(netip.Addr) bool) bool {
	switch {
	case m.gone:
		return e.Reply.Src == m.target(e)
	case e.Reply.Src == m.target(e):
		return false
	case e.Status&ct.DNAT == 0:
		return true // it goes to the host itself
	default:
		return ours(e.Reply.Src.Addr())
	}
}

// forget removes all connections of addresses that are nobody's any more, and
// those that are misled.
func (k *Kernel) forget(ctx context.Context, ops []kernel.Op) error {
	gone, misled := map[netip.Addr]bool{}, map[kernel.Misled]bool{}
	for _, op := range ops {
		switch o := op.Object.(type) {
		case kernel.Flows:
			gone[o.Addr] = true
		case kernel.Misled:
			misled[o] = true
		}
	}
	return k.purge(ctx, nil, func(e ct.Entry) bool {
		return gone[e.Orig.Src.Addr()] || gone[e.Orig.Dst.Addr()] || gone[e.Reply.Src.Addr()] || misled[misledBy(e)]
	})
}

// misledBy is what a connection is when it should not be.
func misledBy(e ct.Entry) kernel.Misled {
	proto := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp"}[e.Proto]
	return kernel.Misled{NS: kernel.Host, Proto: proto, At: e.Orig.Dst, To: e.Reply.Src}
}

// purge removes connections, all or those to some services. A kernel without
// conntrack has none.
func (k *Kernel) purge(ctx context.Context, of []ct.Service, stale func(ct.Entry) bool) error {
	n, known := k.number("net/netfilter/nf_conntrack_count")
	if known && n == 0 {
		return nil // reading a large empty table takes milliseconds all the same
	}
	buckets, _ := k.number("net/netfilter/nf_conntrack_buckets")
	c, err := ct.Dial(int(k.self.Fd()))
	if err == nil {
		if len(of) > 0 && n >= worth(len(of), buckets) {
			_, err = c.PurgeServices(ctx, of, stale)
		} else {
			_, err = c.Purge(ctx, stale)
		}
		err = errors.Join(err, c.Close())
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove stale connections: %w", err)
	}
	return nil
}

// worth is of how many connections on it is cheaper to ask for those to some
// services than for all: each question is a walk over the kernel's buckets, of
// which some hundred cost as much as to be told of one connection.
func worth(services, buckets int) int {
	const bucketsAConnection = 128
	return (services - 1) * buckets / bucketsAConnection
}

// Locals tells the host's own addresses from others.
func (k *Kernel) Locals(ctx context.Context) (func(netip.Addr) bool, error) {
	routes, err := k.rt.Routes(ctx, rt.RouteFilter{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL}, hostRoutes)
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return nil, fmt.Errorf("read local addresses: %w", err)
	}
	return func(a netip.Addr) bool {
		return slices.ContainsFunc(routes, func(r rt.Route) bool { return r.Dst.Contains(a) })
	}, nil
}

// networks tells the addresses of our networks from others.
func (k *Kernel) networks(ctx context.Context) (func(netip.Addr) bool, error) {
	links, err := k.rt.Links(ctx, rt.LinkFilter{Kind: "bridge"})
	if err != nil {
		return nil, fmt.Errorf("read bridges: %w", err)
	}
	own := map[int]bool{}
	for _, l := range links {
		own[l.Index] = ours(l)
	}
	addrs, err := k.rt.Addresses(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	return func(a netip.Addr) bool {
		return slices.ContainsFunc(addrs, func(x rt.Address) bool { return own[x.Index] && x.Prefix.Contains(a) })
	}, nil
}

// parseMapping reads an element of a publish map:
// [FROM . ][HOST . ]PROTO . PORT, and ADDRESS . PORT.
func parseMapping(e kernel.Element) (mapping, error) {
	parts := strings.Split(e.Elem, " . ")
	to := strings.Split(e.Value, " . ")
	m := mapping{v4: strings.HasPrefix(e.Set, "publish4"), count: max(e.Count, 1)}
	if len(parts) < 2 || len(to) != 2 {
		return m, fmt.Errorf("element %s is no mapping", e)
	}
	port, err := strconv.ParseUint(parts[len(parts)-1], 10, 16)
	if err != nil {
		return m, fmt.Errorf("element %s: %w", e, err)
	}
	m.port = uint16(port)
	switch parts[len(parts)-2] {
	case "tcp":
		m.proto = unix.IPPROTO_TCP
	case "udp":
		m.proto = unix.IPPROTO_UDP
	case "sctp":
		m.proto = unix.IPPROTO_SCTP
	}
	if m.to, err = netip.ParseAddrPort(hostPort(to[0], to[1])); err != nil {
		return m, fmt.Errorf("element %s: %w", e, err)
	}
	rest := parts[:len(parts)-2]
	if len(rest) > 0 { // a range is any address
		m.host, _ = netip.ParseAddr(rest[len(rest)-1])
	}
	if len(rest) == 2 {
		m.from = prefixOf(rest[0])
	}
	return m, nil
}

// hostPort joins address and port as they are written in Go.
func hostPort(addr, port string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]:" + port
	}
	return addr + ":" + port
}

// prefixOf reads an address, a prefix, or the range of all, as not valid.
func prefixOf(s string) netip.Prefix {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.Prefix{}
}
