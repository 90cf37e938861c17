//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
)

// hostRoutes bounds how many of the host's own routes are read: it may be a router.
const hostRoutes = 1 << 16

// Facts reads what planning must know of the host.
func (k *Kernel) Facts(ctx context.Context) (kernel.Facts, error) {
	f := kernel.Facts{TableFlags: k.flags, IPv6: k.ipv6, Hooks: k.hooks, Cooperate: k.Cooperate}
	_, f.ForceForwarding = k.number("net/ipv6/conf/all/force_forwarding")
	f.SCTP = hasSCTP()
	nf4, _ := k.number("net/bridge/bridge-nf-call-iptables")
	nf6, _ := k.number("net/bridge/bridge-nf-call-ip6tables")
	f.BridgeNF4, f.BridgeNF6 = nf4 == 1, nf6 == 1
	links, err := k.rt.Links(ctx, rt.LinkFilter{})
	if err != nil {
		return f, fmt.Errorf("read links: %w", err)
	}
	mtu := map[int]int{}
	for _, l := range links {
		mtu[l.Index] = l.MTU
		if ours(l) || l.Name == "lo" || l.Master != 0 {
			continue
		}
		ra, _ := k.number("net/ipv6/conf/" + l.Name + "/accept_ra")
		f.Uplinks = append(f.Uplinks, kernel.Uplink{Name: l.Name, AcceptRA: ra})
	}
	f.Listening = listening(links)
	if f.Ways, err = k.ways(ctx, links); err != nil {
		return f, err
	}
	if f.Doors, err = k.doors(ctx); err != nil {
		return f, err
	}
	slices.SortFunc(f.Uplinks, func(a, b kernel.Uplink) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	def, err := k.defaultRoute(ctx)
	if err != nil {
		return f, err
	}
	f.UplinkMTU = mtu[def]
	return f, nil
}

// listening are our bridges that snoop, or have ports which are not ours.
func listening(links []rt.Link) []string {
	foreign := map[int]bool{}
	for _, l := range links {
		if l.Master != 0 && !ours(l) {
			foreign[l.Master] = true
		}
	}
	var names []string
	for _, l := range links {
		if l.Bridge != nil && ours(l) && (l.Bridge.McastSnooping || foreign[l.Index]) {
			names = append(names, l.Name)
		}
	}
	return slices.Sorted(slices.Values(names))
}

// hasSCTP: a kernel without CONFIG_IP_SCTP has no such protocol.
func hasSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}

// number reads a sysctl of the host that is a number; false if there is none.
func (k *Kernel) number(name string) (int, bool) {
	v, err := sysctl.Read(k.self, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(v)
	return n, err == nil
}

// defaultRoute is the index of the link the host's default route leads over,
// IPv4 before IPv6, 0 without one.
func (k *Kernel) defaultRoute(ctx context.Context) (int, error) {
	routes, err := k.routes(ctx)
	if err != nil {
		return 0, err
	}
	best, found := rt.Route{}, false
	for _, r := range routes {
		if r.Dst.Bits() != 0 || r.OIF == 0 {
			continue
		}
		better := !found || (r.Dst.Addr().Is4() && best.Dst.Addr().Is6()) ||
			(r.Dst.Addr().Is4() == best.Dst.Addr().Is4() && r.Metric < best.Metric)
		if better {
			best, found = r, true
		}
	}
	return best.OIF, nil
}

// routes are the unicast routes of the host's main table.
func (k *Kernel) routes(ctx context.Context) ([]rt.Route, error) {
	f := rt.RouteFilter{Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}
	routes, err := k.rt.Routes(ctx, f, hostRoutes)
	if err != nil && !errors.Is(err, rt.ErrTooMany) {
		return nil, fmt.Errorf("read routes: %w", err)
	}
	return routes, nil
}

// Prefix is a destination the host has a route to.
type Prefix struct {
	Prefix netip.Prefix
	Dev    string
}

// Prefixes are the destinations of the host's live routes, those of our own
// links and the default routes aside: what a new subnet must not cover.
func (k *Kernel) Prefixes(ctx context.Context) ([]Prefix, error) {
	links, err := k.rt.Links(ctx, rt.LinkFilter{})
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	names, own := map[int]string{}, map[int]bool{}
	for _, l := range links {
		names[l.Index], own[l.Index] = l.Name, ours(l)
	}
	routes, err := k.routes(ctx)
	if err != nil {
		return nil, err
	}
	var out []Prefix
	for _, r := range routes {
		if r.Dst.Bits() == 0 || own[r.OIF] || r.Dst.Addr().IsLinkLocalUnicast() {
			continue
		}
		out = append(out, Prefix{r.Dst, names[r.OIF]})
	}
	return out, nil
}
