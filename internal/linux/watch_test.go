//go:build linux

package linux_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	rules "github.com/towpath/towpath/internal/nft"
)

// watched is a host whose events are heard.
type watched struct {
	*host
	events <-chan kernel.Event
	serial int
}

func (h *host) watch() *watched {
	h.Helper()
	events, err := h.Watch(h.Context())
	must(h, err)
	return &watched{host: h, events: events}
}

// wait passes events over until one is wanted.
func (w *watched) wait(what string, wanted func(kernel.Event) bool) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 10*time.Second)
	defer cancel()
	var heard []kernel.Event
	for {
		select {
		case e := <-w.events:
			if heard = append(heard, e); wanted(e) {
				return
			}
		case <-ctx.Done():
			w.Fatalf("no event of %s; heard %+v", what, heard)
		}
	}
}

// drain gives the events so far: those before that of a new link of nobody's.
func (w *watched) drain() []kernel.Event {
	w.Helper()
	w.serial++
	name := fmt.Sprintf("mark%d", w.serial)
	must(w, w.ns.Conn(w).AddBridge(w.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: name}}))
	var out []kernel.Event
	w.wait("link "+name, func(e kernel.Event) bool {
		if e.Host && strings.Contains(e.Why, name) {
			return true
		}
		out = append(out, e)
		return false
	})
	return out
}

func about(o kernel.Object) func(kernel.Event) bool {
	return func(e kernel.Event) bool { return len(e.Keys) == 1 && e.Keys[0] == o.Key() }
}

func inside(sandbox string) func(kernel.Event) bool {
	return func(e kernel.Event) bool { return e.NS == sandbox }
}

func ofHost(e kernel.Event) bool { return e.Host }

// all asks for a look at everything.
func all(e kernel.Event) bool { return len(e.Keys) == 0 && e.NS == "" && !e.Host }

// TestWatch: what somebody takes away is told of, on the host and, through the
// one socket that hears all namespaces, inside a sandbox. The Kernel may be the
// one that made what is there, or have found it.
func TestWatch(t *testing.T) {
	front := netip.MustParsePrefix("172.20.0.1/24")
	set := func(ns func(w *watched) *rt.Conn, name string, ch rt.LinkChange) func(*watched) error {
		return func(w *watched) error {
			c := ns(w)
			return c.SetLink(w.Context(), link(w, c, name).Index, ch)
		}
	}
	host := func(w *watched) *rt.Conn { return w.ns.Conn(w) }
	web := func(w *watched) *rt.Conn { return w.sandbox("web").Conn(w) }
	newName := "other0"
	for name, tc := range map[string]struct {
		harm   func(*watched) error
		wanted func(kernel.Event) bool
	}{
		"link deleted": {
			func(w *watched) error { c := host(w); return c.DelLink(w.Context(), link(w, c, "v-web-eth0").Index) },
			about(kernel.Link{NS: kernel.Host, Name: "v-web-eth0"}),
		},
		"link renamed": {set(host, "v-web-eth0", rt.LinkChange{Name: &newName}), all},
		"link down":    {set(host, "v-web-eth0", rt.LinkChange{Up: new(bool)}), about(kernel.Up{NS: kernel.Host, Dev: "v-web-eth0"})},
		"bridge down":  {set(host, "tp-front", rt.LinkChange{Up: new(bool)}), about(kernel.Up{NS: kernel.Host, Dev: "tp-front"})},
		"MTU":          {set(host, "tp-front", rt.LinkChange{MTU: new(1400)}), about(kernel.Link{NS: kernel.Host, Name: "tp-front"})},
		"off its bridge": {
			set(host, "v-web-eth0", rt.LinkChange{Master: new(0)}),
			about(kernel.Link{NS: kernel.Host, Name: "v-web-eth0"}),
		},
		"address deleted": {
			func(w *watched) error {
				c := host(w)
				return c.DelAddress(w.Context(), rt.Address{Index: link(w, c, "tp-front").Index, Prefix: front})
			},
			about(kernel.Address{NS: kernel.Host, Dev: "tp-front", Prefix: front}),
		},
		"forwarding off": {func(w *watched) error { return sysctl.Write(w.ns.F, "net/ipv4/ip_forward", "0") }, ofHost},
		"default route": {
			func(w *watched) error {
				c := host(w)
				return c.AddRoute(w.Context(), rt.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), OIF: link(w, c, "tp-front").Index})
			},
			ofHost,
		},
		"link of nobody's": {
			func(w *watched) error {
				return host(w).AddBridge(w.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "br-other"}})
			},
			ofHost,
		},
		"port of nobody's": {
			func(w *watched) error {
				c := host(w)
				if err := c.AddVeth(w.Context(), rt.VethSpec{LinkSpec: rt.LinkSpec{Name: "other0"}, Peer: rt.LinkSpec{Name: "other1"}}); err != nil {
					return err
				}
				w.wait("new links", ofHost)
				w.wait("new links", ofHost)
				f, err := w.Facts(w.Context())
				must(w, err)
				if len(f.Listening) > 0 {
					w.Errorf("listening before: %q", f.Listening)
				}
				err = c.SetLink(w.Context(), link(w, c, "other0").Index, rt.LinkChange{Master: new(link(w, c, "tp-front").Index)})
				must(w, err)
				f, err = w.Facts(w.Context())
				if !slices.Equal(f.Listening, []string{"tp-front"}) {
					w.Errorf("listening: %q", f.Listening)
				}
				return err
			},
			ofHost,
		},
		"table deleted": {
			func(w *watched) error { w.commit(func(b *nft.Batch) { b.DeleteTable(table()) }); return nil },
			all,
		},
		"inside, link deleted": {
			func(w *watched) error { c := web(w); return c.DelLink(w.Context(), link(w, c, "eth0").Index) },
			inside("web"),
		},
		"inside, loopback down": {set(web, "lo", rt.LinkChange{Up: new(bool)}), inside("web")},
		"inside, table deleted": {
			func(w *watched) error {
				c, err := nft.Dial(w.sandbox("web").FD())
				if err != nil {
					return err
				}
				defer c.Close()
				var b nft.Batch
				b.DeleteTable(rules.Table{Family: rules.FamilyNetdev, Name: "towpath"})
				return c.Commit(w.Context(), &b)
			},
			inside("web"),
		},
		"inside, link renamed": {set(web, "eth0", rt.LinkChange{Name: &newName}), inside("web")},
		"inside, link down":    {set(web, "eth0", rt.LinkChange{Up: new(bool)}), inside("web")},
		"inside, address deleted": {
			func(w *watched) error {
				c := web(w)
				return c.DelAddress(w.Context(), rt.Address{Index: link(w, c, "eth0").Index, Prefix: netip.MustParsePrefix("172.20.0.2/24")})
			},
			inside("web"),
		},
		"inside, route deleted": {
			func(w *watched) error {
				return web(w).DelRoute(w.Context(), rt.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Protocol: mark})
			},
			inside("web"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, found := range []bool{false, true} {
				h := newHost(t, false)
				w := &watched{host: h}
				if !found {
					w = h.watch()
				}
				_, want := h.small()
				h.put(nil, want)
				if found {
					must(t, h.Close())
					h.open(false)
					w = h.watch()
					h.agrees(want)
				}
				w.drain()
				must(t, tc.harm(w))
				w.wait(fmt.Sprintf("%s (found=%t)", name, found), tc.wanted)
			}
		})
	}
}

// TestWatchOwn: what the Kernel makes and changes itself gives no reason to look
// at it again; what it removes does, and then there is nothing to do.
func TestWatchOwn(t *testing.T) {
	h := newHost(t, true)
	w := h.watch()
	v, want := h.small()
	w.drain()
	steps := []kernel.State{want}
	v.Networks["back"].ICC = true
	steps = append(steps, plan(t, v))
	addSandbox(v, "late", 9, "front")
	steps = append(steps, plan(t, v))
	have := kernel.State{}
	for i, next := range steps {
		h.put(have, next)
		for _, e := range w.drain() {
			// Of a link that was not heard of before, nothing is known to be missing.
			if !e.Host {
				t.Errorf("step %d: %+v", i, e)
			}
		}
		have = next
	}
	v.Networks["front"].Internal = true
	delete(v.Sandboxes, "late")
	delete(v.Endpoints, driver.EndpointID{Sandbox: "late", Ifname: "eth0"})
	less := plan(t, v)
	h.put(have, less)
	for rounds, events := 0, w.drain(); len(events) > 0; events = w.drain() {
		if rounds++; rounds > 3 {
			t.Fatalf("events go on: %+v", events)
		}
		h.agrees(less)
	}
}

// TestWatchEnds: the channel closes with the context.
func TestWatchEnds(t *testing.T) {
	h := newHost(t, false)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := h.Watch(ctx)
	must(t, err)
	cancel()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case _, open := <-events:
			if !open {
				return
			}
		case <-timeout:
			t.Fatal("the channel is still open")
		}
	}
}
