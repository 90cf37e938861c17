package e2e

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

// TestHostKeepsItsAdvertisedRoutes: a host that forwards for containers goes on
// listening to the router of its uplink.
func TestHostKeepsItsAdvertisedRoutes(t *testing.T) {
	w := newWorld(t)
	w.settle()
	// Again and again: at first the router has no link-local address to send from.
	learns := func() bool { w.advertise(w.outside); return len(w.advertisedRoutes()) > 0 }
	w.eventually("the host has the route of the router", learns)
	w.start()
	w.must("network", "create", "front", "--ipv6")
	w.must("sandbox", "create", "a", "--network", "front")
	a, _ := w.sandbox("a")
	reaches(w, a, w.outside, outside6())
	// Taken away and told again: what was learned before could just have stayed.
	c := w.host.Conn(t)
	for _, r := range w.advertisedRoutes() {
		w.check(c.DelRoute(t.Context(), r))
	}
	w.eventually("the host learns the route again", learns)
	w.clean()
}

func (w *world) advertisedRoutes() []rt.Route {
	w.Helper()
	routes, err := w.host.Conn(w).Routes(w.Context(), rt.RouteFilter{Family: unix.AF_INET6, Protocol: unix.RTPROT_RA}, 0)
	w.check(err)
	return slices.DeleteFunc(routes, func(r rt.Route) bool { return r.Dst.Bits() != 0 })
}

// advertise sends a router advertisement (RFC 4861, 4.2) to all nodes on eth0:
// the sender is a default router for half an hour.
func (w *world) advertise(from *testnet.NS) {
	w.Helper()
	l, err := from.Conn(w).LinkByName(w.Context(), "eth0")
	w.check(err)
	message := []byte{134, 0, 0, 0, 64, 0, 1800 >> 8, 1800 & 0xff, 0, 0, 0, 0, 0, 0, 0, 0}
	w.check(netns.Do(from.F, func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		// Receivers drop what a router could have passed on (6.1.2): the hop limit is 255.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, l.Index); err != nil {
			return err
		}
		to := &unix.SockaddrInet6{ZoneId: uint32(l.Index), Addr: [16]byte{0: 0xff, 1: 0x02, 15: 1}}
		return unix.Sendto(fd, message, 0, to)
	}))
}
