package e2e

import (
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
)

// TestInternal: an internal network reaches its own and the host, nothing else.
func TestInternal(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "inner", "--internal", "--ipv6")
	w.must("network", "create", "front", "--ipv6")
	w.must("sandbox", "create", "a", "--network", "inner")
	w.must("sandbox", "create", "b", "--network", "inner")
	w.must("sandbox", "create", "c", "--network", "front")
	a, aInfo := w.sandbox("a")
	b, bInfo := w.sandbox("b")
	c, _ := w.sandbox("c")
	a4, a6 := addresses(aInfo)
	b4, b6 := addresses(bInfo)
	reaches(w, a, b, b4)
	reaches(w, a, b, b6)
	reaches(w, w.host, a, a4)
	cut(w, c, a, a4)
	cut(w, c, a, a6)
	// Even with a route of its own making it does not get out.
	addDefault(w, "a", aInfo.Endpoints[0].Gateways[0].String())
	cut(w, a, w.outside, outside4())
	w.clean()
}

// addDefault adds a default route inside a sandbox, as its tenant could.
func addDefault(w *world, sandbox, via string) {
	w.Helper()
	ns, _ := w.sandbox(sandbox)
	conn := ns.Conn(w)
	l, err := conn.LinkByName(w.Context(), "eth0")
	if err == nil {
		err = conn.AddRoute(w.Context(), rt.Route{Dst: prefixes("0.0.0.0/0")[0], Gateway: mustAddr(via), OIF: l.Index})
	}
	if err != nil {
		w.Fatal(err)
	}
}

// TestIsolated: the host itself is not on the network.
func TestIsolated(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "cell", "--internal", "--gateway-mode", "isolated")
	w.must("sandbox", "create", "a", "--network", "cell")
	w.must("sandbox", "create", "b", "--network", "cell")
	a, aInfo := w.sandbox("a")
	b, bInfo := w.sandbox("b")
	a4, _ := addresses(aInfo)
	b4, _ := addresses(bInfo)
	reaches(w, a, b, b4)
	cut(w, w.host, a, a4)
	if len(aInfo.Endpoints[0].Gateways) != 0 {
		t.Errorf("gateways %v on a network without the host", aInfo.Endpoints[0].Gateways)
	}
	w.clean()
}

// TestICCOff: containers of the network do not reach each other, whether frames
// within a bridge pass the rules or not; the host and outside they do.
func TestICCOff(t *testing.T) {
	for _, nf := range []struct{ v4, v6 string }{{"0", "0"}, {"1", "1"}, {"1", "0"}, {"0", "1"}} {
		t.Run("bridge-nf-call="+nf.v4+nf.v6, func(t *testing.T) {
			w := newWorld(t)
			w.sysctl("net/bridge/bridge-nf-call-iptables", nf.v4)
			w.sysctl("net/bridge/bridge-nf-call-ip6tables", nf.v6)
			w.start()
			w.must("network", "create", "quiet", "--icc=false", "--ipv6")
			w.must("sandbox", "create", "a", "--network", "quiet")
			w.must("sandbox", "create", "b", "--network", "quiet")
			a, _ := w.sandbox("a")
			b, bInfo := w.sandbox("b")
			b4, b6 := addresses(bInfo)
			cut(w, a, b, b4)
			cut(w, a, b, b6)
			reaches(w, a, w.outside, outside4())
			reaches(w, a, w.outside, outside6())
			reaches(w, w.host, b, b4)
			w.clean()
		})
	}
}

// TestRouted: containers are seen with their own addresses, can be pinged from
// outside, and nothing else comes in.
func TestRouted(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "pub", "--gateway-mode", "routed", "--subnet", "198.51.100.0/24", "--subnet", "2001:db8:1::/64")
	w.must("sandbox", "create", "a", "--network", "pub")
	a, info := w.sandbox("a")
	a4, a6 := addresses(info)
	w.route(w.outside, "198.51.100.0/24", host4())
	w.route(w.outside, "2001:db8:1::/64", host6())
	if got := reaches(w, a, w.outside, outside4()); got != a4 {
		t.Errorf("outside sees %s, want %s", got, a4)
	}
	if got := reaches(w, a, w.outside, outside6()); got != a6 {
		t.Errorf("outside sees %s, want %s", got, a6)
	}
	if err := w.outside.Echo(a4, patience); err != nil {
		t.Errorf("ping from outside: %v", err)
	}
	if err := w.outside.Echo(a6, patience); err != nil {
		t.Errorf("ping from outside: %v", err)
	}
	refusesTCP(w, w.outside, a, a4)
	refusesTCP(w, w.outside, a, a6)
	w.clean()
}

// TestOnlyIPv6: a network without IPv4.
func TestOnlyIPv6(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "six", "--ipv4=false", "--ipv6")
	w.must("sandbox", "create", "a", "--network", "six")
	a, info := w.sandbox("a")
	if len(info.Endpoints[0].Addresses) != 1 {
		t.Errorf("addresses %v, want one", info.Endpoints[0].Addresses)
	}
	reaches(w, a, w.outside, outside6())
	w.clean()
}

// TestSeveralNetworks: the default route is the one chosen; an answer leaves by
// the interface the question came in on.
func TestSeveralNetworks(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "one", "--gateway-mode", "routed", "--subnet", "198.51.100.0/25", "--subnet", "2001:db8:1::/64")
	w.must("network", "create", "two", "--gateway-mode", "routed", "--subnet", "198.51.100.128/25", "--subnet", "2001:db8:2::/64")
	w.route(w.outside, "198.51.100.0/24", host4())
	w.route(w.outside, "2001:db8:1::/64", host6())
	w.route(w.outside, "2001:db8:2::/64", host6())
	w.must("sandbox", "create", "a", "--network", "one", "--network", "name=two,gw-priority=1", "--network", "one")
	a, info := w.sandbox("a")
	a.Do(t, func() error { return sysctl.Write(nil, "net/ipv4/conf/all/rp_filter", "1") })
	if len(info.Endpoints) != 3 || info.Endpoints[2].Ifname != "eth2" {
		t.Fatalf("endpoints %+v", info.Endpoints)
	}
	if got := reaches(w, a, w.outside, outside4()); got != info.Endpoints[1].Addresses[0].Addr() {
		t.Errorf("the default route is over the network of %s, want that of the highest priority", got)
	}
	for _, e := range info.Endpoints[:2] {
		for _, p := range e.Addresses {
			if err := w.outside.Echo(p.Addr(), patience); err != nil {
				t.Errorf("ping from outside to %s on %s: %v", p.Addr(), e.Ifname, err)
			}
		}
	}
	w.clean()
	w.must("network", "disconnect", "two", "a")
	if got := reaches(w, a, w.outside, outside4()); got != info.Endpoints[0].Addresses[0].Addr() {
		t.Errorf("after the disconnect outside sees %s", got)
	}
	w.clean()
}

// TestMTUFollowsTheUplink: unless it was given.
func TestMTUFollowsTheUplink(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "fixed", "--mtu", "1400")
	w.must("sandbox", "create", "a", "--network", "bridge", "--network", "fixed")
	a, _ := w.sandbox("a")
	uplink := w.host.Conn(t)
	l, err := uplink.LinkByName(t.Context(), "eth0")
	if err != nil {
		t.Fatal(err)
	}
	mtu := 1450
	if err := uplink.SetLink(t.Context(), l.Index, rt.LinkChange{MTU: &mtu}); err != nil {
		t.Fatal(err)
	}
	inside := a.Conn(t)
	w.eventually("eth0 has the uplink's MTU", func() bool {
		l, err := inside.LinkByName(t.Context(), "eth0")
		return err == nil && l.MTU == mtu
	})
	if l, err := inside.LinkByName(t.Context(), "eth1"); err != nil || l.MTU != 1400 {
		t.Errorf("eth1 of the network with --mtu 1400: %+v, %v", l, err)
	}
	w.clean()
}

// TestSysctl: of the interface, set in the sandbox, and back when others change it.
func TestSysctl(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "front")
	w.must("sandbox", "create", "a")
	w.must("network", "connect", "front", "a", "--sysctl", "net.ipv4.conf.IFNAME.log_martians=1")
	a, _ := w.sandbox("a")
	a.Do(t, func() error {
		v, err := sysctl.Read(nil, "net/ipv4/conf/eth1/log_martians")
		if err == nil && v != "1" {
			t.Errorf("log_martians is %s", v)
		}
		return err
	})
	r := w.towpath("network", "connect", "front", "a", "--sysctl", "kernel.panic=1")
	if r.code != 1 || !strings.Contains(r.stderr, "not one of the interface") {
		t.Errorf("a sysctl of the host: exit %d, %s", r.code, r.stderr)
	}
	w.clean()
}
