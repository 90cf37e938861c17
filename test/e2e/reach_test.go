package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/testnet"
)

// TestReach is the promise of a bridge network, under each setting of the host
// that could break it.
func TestReach(t *testing.T) {
	for _, nf := range []string{"0", "1"} {
		for _, rp := range []string{"0", "1", "2"} {
			t.Run(fmt.Sprintf("bridge-nf-call=%s,rp_filter=%s", nf, rp), func(t *testing.T) {
				w := newWorld(t)
				w.sysctl("net/bridge/bridge-nf-call-iptables", nf)
				w.sysctl("net/bridge/bridge-nf-call-ip6tables", nf)
				w.sysctl("net/ipv4/conf/all/rp_filter", rp)
				w.sysctl("net/ipv4/conf/default/rp_filter", rp)
				testReach(w)
			})
		}
	}
}

func testReach(w *world) {
	w.start()
	w.must("network", "create", "front", "--ipv6")
	w.must("network", "create", "back", "--ipv6")
	for name, network := range map[string]string{"a": "front", "b": "front", "c": "back"} {
		w.must("sandbox", "create", name, "--network", network)
	}
	a, aInfo := w.sandbox("a")
	b, bInfo := w.sandbox("b")
	c, cInfo := w.sandbox("c")
	a4, a6 := addresses(aInfo)
	b4, b6 := addresses(bInfo)
	c4, c6 := addresses(cInfo)

	if got := reaches(w, a, w.outside, outside4()); got != host4() {
		w.Errorf("outside sees %s, want the host's address %s", got, host4())
	}
	if got := reaches(w, a, w.outside, outside6()); got != host6() {
		w.Errorf("outside sees %s, want the host's address %s", got, host6())
	}
	if got := reaches(w, a, b, b4); got != a4 {
		w.Errorf("b sees %s, want a's address %s", got, a4)
	}
	if got := reaches(w, a, b, b6); got != a6 {
		w.Errorf("b sees %s, want a's address %s", got, a6)
	}
	reaches(w, w.host, a, a4)
	reaches(w, w.host, a, a6)
	cut(w, a, c, c4)
	cut(w, a, c, c6)
	cut(w, c, a, a4)
	// A machine on the uplink can route to a container's address; the answer is no.
	w.route(w.outside, "172.16.0.0/12", host4())
	w.route(w.outside, "10.0.0.0/8", host4())
	w.route(w.outside, "fd00::/8", host6())
	cut(w, w.outside, a, a4)
	cut(w, w.outside, a, a6)
	w.clean()
}

// TestTrafficOutlivesTheDaemon: a running ping loses nothing while the daemon is
// killed, is away, and starts again over what it finds.
func TestTrafficOutlivesTheDaemon(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("sandbox", "create", "web")
	web, _ := w.sandbox("web")
	ping4, err := web.EchoEvery(t.Context(), outside4(), 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	ping6, err := web.EchoEvery(t.Context(), outside6(), 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.kill()
		reaches(w, web, w.outside, outside4())
		w.start()
		w.clean()
	}
	for _, r := range []testnet.Report{ping4.Stop(patience), ping6.Stop(patience)} {
		if len(r.Probes) == 0 || len(r.Lost()) > 0 {
			t.Errorf("a ping that ran meanwhile: %s", r)
		}
	}
}

// TestFirstPacket: when the verb returns, the container's first packet gets
// through at once, and so does the first packet to it.
func TestFirstPacket(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("sandbox", "create", "old")
	old, _ := w.sandbox("old")
	for i := range 15 {
		name := fmt.Sprintf("new%d", i)
		w.must("sandbox", "create", name)
		ns, info := w.sandbox(name)
		v4, v6 := addresses(info)
		for what, err := range map[string]error{
			"out, IPv4":         ns.Echo(outside4(), 400*time.Millisecond),
			"out, IPv6":         ns.Echo(outside6(), 400*time.Millisecond),
			"from a peer, IPv4": old.Echo(v4, 400*time.Millisecond),
			"from a peer, IPv6": old.Echo(v6, 400*time.Millisecond),
		} {
			if err != nil {
				t.Errorf("%s: first packet %s: %v", name, what, err)
			}
		}
	}
}
