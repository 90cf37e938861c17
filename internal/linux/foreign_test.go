//go:build linux

package linux_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

// TestNameTaken: a link that has the name of ours and not the mark is refused,
// named, and left as it is.
func TestNameTaken(t *testing.T) {
	for _, name := range []string{"tp-front", "v-web-eth0"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, false)
			_, want := h.small()
			c := h.ns.Conn(t)
			must(t, c.AddBridge(t.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: name}}))
			alias := "somebody's"
			must(t, c.SetLink(t.Context(), link(t, c, name).Index, rt.LinkChange{Alias: &alias}))
			before := link(t, c, name)

			failed := h.refused(nil, want)
			op := "+ " + want[kernel.Key{NS: kernel.Host, Kind: kernel.KindLink, Name: name}].(kernel.Link).NS + ": " +
				want[kernel.Key{NS: kernel.Host, Kind: kernel.KindLink, Name: name}].String()
			err := failed[op]
			text := fmt.Sprintf(`a link named %s exists that is not Towpath's (bridge, alias "somebody's"); remove or rename it`, name)
			if !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), text) {
				t.Errorf("error %v, want %q", err, text)
			}
			if diff := cmp.Diff(before, link(t, c, name)); diff != "" {
				t.Errorf("the link is not as before:\n%s", diff)
			}
			seen := h.see(want, true)
			for _, o := range []kernel.Object{kernel.Link{NS: kernel.Host, Name: name}, kernel.Up{NS: kernel.Host, Dev: name}} {
				if _, told := seen[o.Key()]; told {
					t.Errorf("observed %s, which is not ours", o.Key())
				}
			}
			// Even told that it is there, Apply does not touch it.
			h.Apply(t.Context(), []kernel.Op{{Verb: kernel.Change, Object: want[kernel.Key{NS: kernel.Host, Kind: kernel.KindLink, Name: name}]}})
			if diff := cmp.Diff(before, link(t, c, name)); diff != "" {
				t.Errorf("the link was changed:\n%s", diff)
			}

			must(t, c.DelLink(t.Context(), before.Index))
			h.put(h.see(want, true), want)
			h.agrees(want)
		})
	}
}

// TestForeignBridge: no link is plugged into a bridge that is not ours, not in a
// later pass either, which does not make the bridge.
func TestForeignBridge(t *testing.T) {
	h := newHost(t, false)
	_, want := h.small()
	c := h.ns.Conn(t)
	must(t, c.AddBridge(t.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "tp-front"}}))
	h.refused(nil, want)
	_, err := c.LinkByName(t.Context(), "v-web-eth0")
	if !errors.Is(err, unix.ENODEV) {
		t.Fatalf("in the first pass: %v, want no link", err)
	}
	key := kernel.Key{NS: kernel.Host, Kind: kernel.KindLink, Name: "v-web-eth0"}
	failed := h.Apply(t.Context(), []kernel.Op{{Verb: kernel.Create, Object: want[key]}})
	var taken *kernel.TakenError
	if len(failed) != 1 || !errors.As(failed[0].Err, &taken) || taken.Name != "tp-front" {
		t.Errorf("got %v, want that tp-front is not ours", failed)
	}
	if _, err := c.LinkByName(t.Context(), "v-web-eth0"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("in the second pass: %v, want no link", err)
	}
}

// TestNameTakenInside: so is an interface of the sandbox's owner.
func TestNameTakenInside(t *testing.T) {
	h := newHost(t, false)
	v := h.view()
	addNetwork(v, "front", 0, false)
	inside := testnet.New(t, "web")
	inner := inside.Conn(t)
	must(t, inner.AddBridge(t.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "eth0"}}))
	before := link(t, inner, "eth0")
	cookie, err := h.Adopt(inside.F)
	must(t, err)
	s := addSandbox(v, "web", 2, "front")
	s.Origin, s.Cookie = api.OriginAdopted, cookie

	failed := h.refused(nil, plan(t, v))
	for op, err := range failed {
		if !strings.Contains(err.Error(), "the namespace of sandbox web has an interface eth0 already") {
			t.Errorf("%s: %v; want the cause", op, err)
		}
	}
	if len(failed) == 0 {
		t.Error("nothing was refused")
	}
	if diff := cmp.Diff(before, link(t, inner, "eth0")); diff != "" {
		t.Errorf("the interface is not as before:\n%s", diff)
	}
}

// TestAdoptRefuses: the host's own namespace is none for a sandbox.
func TestAdoptRefuses(t *testing.T) {
	h := newHost(t, false)
	if _, err := h.Adopt(h.ns.F); !errors.Is(err, linux.ErrSelf) {
		t.Errorf("adopt own namespace: %v, want %v", err, linux.ErrSelf)
	}
	f, err := os.Open("/dev/null")
	must(t, err)
	defer f.Close()
	if _, err := h.Adopt(f); err == nil {
		t.Error("adopt /dev/null: no error")
	}
	op := kernel.Op{Verb: kernel.Create, Object: kernel.Namespace{Name: "web", Cookie: 4711}}
	fs := h.Apply(t.Context(), []kernel.Op{op})
	if len(fs) != 1 || !strings.Contains(fs[0].Err.Error(), "nobody has passed it again") {
		t.Errorf("bind a namespace that nobody passed: %v", fs)
	}
}

// furnish puts what is not ours beside what is: on our links too.
func furnish(h *host) {
	h.Helper()
	c := h.ns.Conn(h)
	must(h, c.AddBridge(h.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "br-other"}}))
	other, front := link(h, c, "br-other"), link(h, c, "tp-front")
	must(h, c.SetLink(h.Context(), other.Index, rt.LinkChange{Up: new(true)}))
	for _, a := range []rt.Address{
		{Index: other.Index, Prefix: netip.MustParsePrefix("10.77.0.1/24")},
		{Index: front.Index, Prefix: netip.MustParsePrefix("10.78.0.1/24")},
		{Index: front.Index, Prefix: netip.MustParsePrefix("fd00:78::1/64"), NoDAD: true},
	} {
		must(h, c.AddAddress(h.Context(), a))
	}
	for _, r := range []rt.Route{
		{Dst: netip.MustParsePrefix("10.79.0.0/16"), OIF: other.Index},
		{Dst: netip.MustParsePrefix("10.80.0.0/16"), OIF: front.Index},
		{Dst: netip.MustParsePrefix("10.81.0.0/16"), OIF: front.Index, Table: 99},
	} {
		must(h, c.AddRoute(h.Context(), r))
	}
	must(h, c.AddRule(h.Context(), rt.Rule{Family: unix.AF_INET, Priority: 99, Table: 99}))
	def, err := rules.ParseTable(`table inet other {
		set towpath { type ifname; elements = { "tp-front" } }
		chain forward { type filter hook forward priority filter; policy accept; oifname @towpath counter accept } }`)
	must(h, err)
	h.commit(func(b *nft.Batch) { b.AddTableDef(def) })
}

// TestForeignNeighbours: what is not marked is neither told of nor touched.
func TestForeignNeighbours(t *testing.T) {
	h := newHost(t, false)
	_, want := h.small()
	h.put(nil, want)
	before := h.inventory()
	furnish(h)
	all := h.inventory()
	// What furnish added, as far as it is not on a link of ours.
	foreign := slices.DeleteFunc(slices.Clone(all), func(line string) bool {
		return slices.Contains(before, line) || strings.Contains(line, "tp-front") && !strings.HasPrefix(line, "table")
	})
	if len(foreign) < 5 { // link, address, route, rule, table
		t.Fatalf("only this is foreign: %q", foreign)
	}
	h.agrees(want)
	h.put(h.see(want, true), want)
	if diff := cmp.Diff(all, h.inventory()); diff != "" {
		t.Errorf("a pass with nothing to do changed something (-before +after):\n%s", diff)
	}
	h.put(h.see(nil, true), nil)
	h.agrees(kernel.State{})
	after := h.inventory()
	for _, line := range foreign {
		if !slices.Contains(after, line) {
			t.Errorf("gone with what is ours: %s", line)
		}
	}
}

// TestLeftovers: what carries our mark and nobody wants is found, and goes.
func TestLeftovers(t *testing.T) {
	for name, leave := range map[string]func(h *host, want kernel.State){
		"link": func(h *host, _ kernel.State) {
			c := h.ns.Conn(h)
			must(h, c.AddBridge(h.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "tp-old"}}))
			alias := linux.AliasPrefix + "network/old"
			must(h, c.SetLink(h.Context(), link(h, c, "tp-old").Index, rt.LinkChange{Alias: &alias, Up: new(true)}))
		},
		// The group is set by the message that makes a link, the alias later.
		"link without alias": func(h *host, want kernel.State) {
			group := link(h, h.ns.Conn(h), "tp-front").Group
			must(h, h.ns.Conn(h).AddBridge(h.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "tp-old", Group: group}}))
		},
		"plain file": func(h *host, _ kernel.State) {
			must(h, os.WriteFile(filepath.Join(h.run, "netns", "old"), nil, 0o444))
		},
		"namespace": func(h *host, _ kernel.State) {
			must(h, netns.Create(filepath.Join(h.run, "netns", "old")))
		},
		// A process in it keeps the namespace, and with it the pair.
		"veth of a sandbox that is gone": func(h *host, want kernel.State) {
			v := h.view()
			addNetwork(v, "front", 0, true)
			addSandbox(v, "old", 9, "front")
			h.put(want, merged(h, want, plan(h, v)))
			h.sandbox("old")
			must(h, netns.Remove(h.Path("old")))
		},
		"route": func(h *host, _ kernel.State) {
			c := h.ns.Conn(h)
			r := rt.Route{Dst: netip.MustParsePrefix("10.80.0.0/16"), OIF: link(h, c, "tp-front").Index, Protocol: mark}
			must(h, c.AddRoute(h.Context(), r))
		},
		"address": func(h *host, _ kernel.State) {
			c := h.ns.Conn(h)
			a := rt.Address{Index: link(h, c, "tp-front").Index, Prefix: netip.MustParsePrefix("10.80.0.1/16"), Proto: mark}
			must(h, c.AddAddress(h.Context(), a))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, false)
			_, want := h.small()
			h.put(nil, want)
			before := h.inventory()
			leave(h, want)
			if slices.Equal(before, h.inventory()) {
				t.Fatal("nothing was left over")
			}
			if ops := kernel.Diff(h.see(want, true), want); len(ops) == 0 {
				t.Error("the leftover is not found")
			}
			h.put(h.see(want, true), want)
			if diff := cmp.Diff(before, h.inventory()); diff != "" {
				t.Errorf("not swept (-before +after):\n%s", diff)
			}
			h.agrees(want)
		})
	}
}

// merged is two states that agree on what both have but for rules and sysctls.
func merged(h *host, a, b kernel.State) kernel.State {
	h.Helper()
	out := a.Clone()
	for k, o := range b {
		if _, there := out[k]; !there {
			out[k] = o
		}
	}
	return out
}
