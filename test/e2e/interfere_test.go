package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

// victim is a sandbox whose network somebody damages.
type victim struct {
	*world
	ns               *testnet.NS
	device, port     string // of the network; the host's end of eth0
	addr4, addr6     netip.Prefix
	hostRT, insideRT *rt.Conn
}

func newVictim(t *testing.T) *victim {
	t.Helper()
	w := newWorld(t)
	w.flags = []string{"--protect-tables", "off"}
	w.start()
	w.must("network", "create", "front", "--ipv6")
	w.must("sandbox", "create", "web", "--network", "front")
	ns, info := w.sandbox("web")
	v := &victim{world: w, ns: ns, port: info.Endpoints[0].HostIfname, hostRT: w.host.Conn(t), insideRT: ns.Conn(t)}
	for _, p := range info.Endpoints[0].Addresses {
		if p.Addr().Is4() {
			v.addr4 = p
		} else {
			v.addr6 = p
		}
	}
	port := v.link(v.hostRT, v.port)
	bridge, err := v.hostRT.LinkByIndex(t.Context(), port.Master)
	if err != nil {
		t.Fatal(err)
	}
	v.device = bridge.Name
	return v
}

func (v *victim) link(c *rt.Conn, name string) rt.Link {
	v.Helper()
	l, err := c.LinkByName(v.Context(), name)
	if err != nil {
		v.Fatal(err)
	}
	return l
}

func (v *victim) check(err error) {
	v.Helper()
	if err != nil {
		v.Fatal(err)
	}
}

// set changes a link.
func (v *victim) set(c *rt.Conn, name string, ch rt.LinkChange) {
	v.Helper()
	v.check(c.SetLink(v.Context(), v.link(c, name).Index, ch))
}

// del deletes a link.
func (v *victim) del(c *rt.Conn, name string) {
	v.Helper()
	v.check(c.DelLink(v.Context(), v.link(c, name).Index))
}

// delAddresses deletes the addresses of a family, but for link-local ones.
func (v *victim) delAddresses(c *rt.Conn, name string, is4 bool) {
	v.Helper()
	addrs, err := c.Addresses(v.Context(), v.link(c, name).Index)
	v.check(err)
	for _, a := range addrs {
		if a.Prefix.Addr().Is4() == is4 && !a.Prefix.Addr().IsLinkLocalUnicast() {
			v.check(c.DelAddress(v.Context(), a))
		}
	}
}

// delRoute deletes the default route of the sandbox.
func (v *victim) delRoute(dst string) {
	v.Helper()
	v.check(v.insideRT.DelRoute(v.Context(), rt.Route{Dst: netip.MustParsePrefix(dst)}))
}

// rules changes the host's nftables as somebody else.
func (v *victim) rules(fill func(c *nft.Conn, b *nft.Batch)) {
	v.Helper()
	c, err := nft.Dial(v.host.FD())
	v.check(err)
	defer c.Close()
	var b nft.Batch
	fill(c, &b)
	v.check(c.Commit(v.Context(), &b))
}

// harms are what somebody may do.
func harms() map[string]func(v *victim) {
	name := "stray0"
	return map[string]func(v *victim){
		"table flushed": func(v *victim) {
			v.rules(func(c *nft.Conn, b *nft.Batch) {
				chains, err := c.Chains(v.Context(), rules.FamilyInet, "towpath")
				v.check(err)
				for _, chain := range chains {
					b.FlushChain(chain)
				}
			})
		},
		"table deleted": func(v *victim) {
			v.rules(func(_ *nft.Conn, b *nft.Batch) { b.DeleteTable(rules.Table{Family: rules.FamilyInet, Name: "towpath"}) })
		},
		"sets emptied": func(v *victim) {
			v.rules(func(c *nft.Conn, b *nft.Batch) {
				sets, err := c.Sets(v.Context(), rules.FamilyInet, "towpath")
				v.check(err)
				for _, set := range sets {
					b.FlushSet(set)
				}
			})
		},
		"guard deleted": func(v *victim) {
			v.rules(func(_ *nft.Conn, b *nft.Batch) {
				b.DeleteTable(rules.Table{Family: rules.FamilyNetdev, Name: "towpath"})
			})
		},
		"guard emptied": func(v *victim) {
			v.rules(func(c *nft.Conn, b *nft.Batch) {
				sets, err := c.Sets(v.Context(), rules.FamilyNetdev, "towpath")
				v.check(err)
				for _, set := range sets {
					b.FlushSet(set)
				}
				b.DeleteDevices(rules.Chain{Family: rules.FamilyNetdev, Table: "towpath", Name: "guard_" + v.device}, []string{v.port})
			})
		},
		"all rules flushed": func(v *victim) {
			v.rules(func(c *nft.Conn, b *nft.Batch) {
				tables, err := c.Tables(v.Context(), 0)
				v.check(err)
				for _, table := range tables {
					b.DeleteTable(table)
				}
			})
		},
		"veth deleted":               func(v *victim) { v.del(v.hostRT, v.port) },
		"veth deleted inside":        func(v *victim) { v.del(v.insideRT, "eth0") },
		"veth renamed":               func(v *victim) { v.set(v.hostRT, v.port, rt.LinkChange{Name: &name}) },
		"veth renamed inside":        func(v *victim) { v.set(v.insideRT, "eth0", rt.LinkChange{Name: &name}) },
		"veth down":                  func(v *victim) { v.set(v.hostRT, v.port, rt.LinkChange{Up: new(bool)}) },
		"veth down inside":           func(v *victim) { v.set(v.insideRT, "eth0", rt.LinkChange{Up: new(bool)}) },
		"port off its bridge":        func(v *victim) { v.set(v.hostRT, v.port, rt.LinkChange{Master: new(0)}) },
		"bridge down":                func(v *victim) { v.set(v.hostRT, v.device, rt.LinkChange{Up: new(bool)}) },
		"bridge deleted":             func(v *victim) { v.del(v.hostRT, v.device) },
		"bridge renamed":             func(v *victim) { v.set(v.hostRT, v.device, rt.LinkChange{Name: &name}) },
		"bridge address deleted":     func(v *victim) { v.delAddresses(v.hostRT, v.device, true) },
		"bridge IPv6 deleted":        func(v *victim) { v.delAddresses(v.hostRT, v.device, false) },
		"container address deleted":  func(v *victim) { v.delAddresses(v.insideRT, "eth0", true) },
		"container IPv6 deleted":     func(v *victim) { v.delAddresses(v.insideRT, "eth0", false) },
		"default route deleted":      func(v *victim) { v.delRoute("0.0.0.0/0") },
		"IPv6 default route deleted": func(v *victim) { v.delRoute("::/0") },
		"forwarding off":             func(v *victim) { v.sysctl("net/ipv4/ip_forward", "0") },
		"all at once": func(v *victim) {
			v.rules(func(_ *nft.Conn, b *nft.Batch) { b.DeleteTable(rules.Table{Family: rules.FamilyInet, Name: "towpath"}) })
			v.sysctl("net/ipv4/ip_forward", "0")
			v.del(v.insideRT, "eth0")
			v.del(v.hostRT, v.device)
		},
	}
}

// TestInterference damages what the daemon has built while traffic flows: all of
// it comes back, soon and by itself.
func TestInterference(t *testing.T) {
	for name, harm := range harms() {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t)
			v.check(v.ns.Echo(outside4(), patience))
			ping, err := v.ns.EchoEvery(t.Context(), outside4(), 2*time.Millisecond)
			v.check(err)
			start := time.Now()
			harm(v)
			v.heals(patience)
			took := time.Since(start)
			reaches(v.world, v.ns, v.outside, outside4())
			reaches(v.world, v.ns, v.outside, outside6())
			reaches(v.world, v.host, v.ns, v.addr4.Addr())
			reaches(v.world, v.host, v.ns, v.addr6.Addr())
			v.clean()
			t.Logf("healed after %s; the ping was away for %s", took.Round(time.Millisecond), outage(ping.Stop(impatience)).Round(time.Millisecond))
		})
	}
}

// heals waits until plan and kernel agree again.
func (w *world) heals(within time.Duration) {
	w.Helper()
	var r result
	for deadline := time.Now().Add(within); time.Now().Before(deadline); {
		if r = w.towpath("diff"); r.code == 0 && r.stdout == "" {
			return
		}
	}
	w.Fatalf("not healed after %s; diff: exit %d\n%s%s\nlog:\n%s", within, r.code, r.stdout, r.stderr, w.log)
}

// outage is the longest time from a request without an answer to the next one
// that has it.
func outage(r testnet.Report) time.Duration {
	var longest time.Duration
	var since time.Time
	for _, p := range r.Probes {
		switch {
		case p.Got && !since.IsZero():
			longest = max(longest, p.At.Sub(since))
			since = time.Time{}
		case !p.Got && since.IsZero():
			since = p.At
		}
	}
	return longest
}

// TestFlushRuleset: with protected tables, somebody's flush of all rules does
// not reach ours, and no packet is lost.
func TestFlushRuleset(t *testing.T) {
	testnet.Require(t, "nft-binary")
	w := newWorld(t)
	w.start()
	if !strings.Contains(w.must("plan"), "flags owner,persist") {
		t.Skip("skip: needs table flags owner and persist: this kernel has none")
	}
	w.must("sandbox", "create", "web")
	web, info := w.sandbox("web")
	w.route(w.outside, "172.16.0.0/12", host4())
	w.route(w.outside, "10.0.0.0/8", host4())
	v4, _ := addresses(info)
	ping, err := web.EchoEvery(t.Context(), outside4(), 2*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if out, err := w.host.Output(t.Context(), "nft", "flush", "ruleset"); err != nil {
			t.Fatalf("%s%v", out, err)
		}
		reaches(w, web, w.outside, outside4())
		cut(w, w.outside, web, v4)
	}
	w.clean()
	if r := ping.Stop(patience); len(r.Probes) == 0 || len(r.Lost()) > 0 {
		t.Errorf("a ping that ran meanwhile: %s", r)
	}
	if w.daemonLogged("look at everything") {
		t.Errorf("the flush made work:\n%s", w.log)
	}
}

// daemonLogged tells whether the daemon wrote a text to its log, of which it
// must have ended.
func (w *world) daemonLogged(text string) bool {
	w.Helper()
	w.kill()
	return strings.Contains(w.log.String(), text)
}
