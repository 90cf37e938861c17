package e2e

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/towpath/towpath/internal/testnet"
)

// TestPublishFromEverywhere is the table of docs/publish.md: who reaches a
// published port, and what the server sees as the source, on networks of both
// families and of either, where the rules see frames within a bridge and where not.
func TestPublishFromEverywhere(t *testing.T) {
	for _, nf := range []string{"0", "1"} {
		t.Run("bridge-nf-call="+nf, func(t *testing.T) {
			w := newWorld(t)
			w.sysctl("net/bridge/bridge-nf-call-iptables", nf)
			w.sysctl("net/bridge/bridge-nf-call-ip6tables", nf)
			w.start()
			w.must("network", "create", "back", "--ipv6")
			w.must("network", "create", "inner", "--ipv6", "--internal")
			w.must("sandbox", "create", "other", "--network", "back")
			w.must("sandbox", "create", "cell", "--network", "inner")
			w.must("network", "create", "both", "--ipv6")
			w.must("network", "create", "four")
			w.must("network", "create", "six", "--ipv6", "--ipv4=false")
			for i, network := range []string{"both", "four", "six"} {
				w.publishTable(network, 8000+10*uint16(i), nf == "1")
			}
			w.clean()
		})
	}
}

// cell is one row of the table.
type cell struct {
	from     *testnet.NS
	what     string
	to, sees netip.Addr // sees is not valid: nothing comes through
}

// publishTable publishes two ports of a sandbox on a network, one of them at
// loopback only, and goes through the table in both families.
func (w *world) publishTable(network string, port uint16, bridgeNF bool) {
	w.Helper()
	args := []string{"sandbox", "create", "web-" + network, "--network", network}
	for _, proto := range []string{"tcp", "udp"} {
		for _, at := range []string{"", "127.0.0.1:", "[::1]:"} {
			p := port
			if at != "" {
				p++
			}
			args = append(args, "-p", at+strconv.Itoa(int(p))+":80/"+proto)
		}
	}
	w.must(args...)
	w.must("sandbox", "create", "mate-"+network, "--network", network)
	web, _ := w.sandbox("web-" + network)
	w.tellSource(web, 80)
	for family := range 2 {
		everywhere, local := w.rows(network, family, bridgeNF)
		for _, c := range everywhere {
			w.tryCell(network, c, port)
		}
		for _, c := range local {
			w.tryCell(network+", at loopback only", c, port+1)
		}
		w.tryDirectly(network, family)
	}
}

// tryCell asks by both protocols.
func (w *world) tryCell(published string, c cell, port uint16) {
	w.Helper()
	wait := patience
	if !c.sees.IsValid() {
		wait = impatience
	}
	for _, proto := range []string{"tcp", "udp"} {
		got, err := ask(w, c.from, proto, netip.AddrPortFrom(c.to, port), wait)
		switch {
		case c.sees.IsValid() && (err != nil || got != c.sees.String()):
			w.Errorf("published on %s, %s to %s %s: the server sees %q, %v; want %s", published, c.what, proto, c.to, got, err, c.sees)
		case !c.sees.IsValid() && err == nil:
			w.Errorf("published on %s, %s to %s %s: the server sees %q; want nothing", published, c.what, proto, c.to, got)
		}
	}
}

// rows are those of a family (0 is IPv4) for a port published everywhere, and for
// one at loopback only. With bridgeNF the kernel undoes translation within the
// bridge, and its IPv6 input then drops what is for ::1 and came over a link
// (ip6_rcv_core): that cell does not work, as the docs say.
func (w *world) rows(network string, family int, bridgeNF bool) (everywhere, local []cell) {
	w.Helper()
	web, webInfo := w.sandbox("web-" + network)
	mate, _ := w.sandbox("mate-" + network)
	other, otherInfo := w.sandbox("other")
	cellNS, cellInfo := w.sandbox("cell")
	host, client := []netip.Addr{host4(), host6()}[family], []netip.Addr{outside4(), outside6()}[family]
	loop := []netip.Addr{mustAddr("127.0.0.1"), mustAddr("::1")}[family]
	gateway, has := gatewayOf(webInfo.Endpoints[0].Gateways, family)
	sees := func(own netip.Addr) netip.Addr { // what is passed on comes from the gateway
		if has {
			return own
		}
		return gateway
	}
	back, inner := otherInfo.Endpoints[0].Gateways[family], cellInfo.Endpoints[0].Gateways[family]
	otherAddr, cellAddr := otherInfo.Endpoints[0].Addresses[family].Addr(), cellInfo.Endpoints[0].Addresses[family].Addr()
	everywhere = []cell{
		{w.outside, "outside", host, sees(client)},
		{w.host, "host, own address", host, sees(host)},
		{w.host, "host, address of another bridge", back, sees(back)},
		{other, "a container of another network", host, sees(otherAddr)},
		{other, "a container of another network, its gateway", back, sees(otherAddr)},
		{cellNS, "a container of an internal network, its gateway", inner, sees(cellAddr)},
	}
	if has { // others of the network have no address of the family either
		everywhere = append(everywhere,
			cell{w.host, "host, address of the bridge", gateway, gateway},
			cell{web, "the same container", host, gateway},
			cell{web, "the same container, its gateway", gateway, gateway},
			cell{mate, "a container of the network", host, gateway},
			cell{mate, "a container of the network, its gateway", gateway, gateway},
			cell{other, "a container of another network, address of the bridge", gateway, otherAddr},
		)
	}
	loopback := gateway
	if has && bridgeNF && family == 1 {
		loopback = netip.Addr{}
	}
	everywhere = append(everywhere, cell{w.host, "host, loopback", loop, loopback})
	local = []cell{
		{w.host, "host, loopback", loop, loopback},
		{w.outside, "outside", host, netip.Addr{}},
		{other, "a container of another network", host, netip.Addr{}},
	}
	return everywhere, local
}

// gatewayOf is the gateway of a family, and else of the other.
func gatewayOf(gateways []netip.Addr, family int) (addr netip.Addr, has bool) {
	for _, g := range gateways {
		if g.Is6() == (family == 1) {
			return g, true
		}
	}
	return gateways[0], false
}

// tryDirectly asks from outside for the container itself, over a route by way of
// the host.
func (w *world) tryDirectly(network string, family int) {
	w.Helper()
	_, info := w.sandbox("web-" + network)
	for _, p := range info.Endpoints[0].Addresses {
		if p.Addr().Is6() != (family == 1) {
			continue
		}
		w.route(w.outside, p.Masked().String(), []netip.Addr{host4(), host6()}[family])
		w.tryCell(network, cell{w.outside, "outside, the container itself", p.Addr(), netip.Addr{}}, 80)
	}
}
