//go:build linux

package linux_test

import (
	"errors"
	"testing"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/testnet"
)

// TestReady: a sandbox in a namespace that was ready is like any other.
func TestReady(t *testing.T) {
	h := newHost(t, false)
	v := h.view()
	addNetwork(v, "front", 0, true)
	addSandbox(v, "first", 2, "front")
	before := plan(t, v)
	h.put(nil, before)
	n, err := h.FillReady(t.Context())
	must(t, err)
	if n < 2 {
		t.Fatalf("%d namespaces are ready", n)
	}
	h.agrees(before) // nobody sees them
	cookie, err := h.NextReady()
	must(t, err)
	addSandbox(v, "second", 3, "front")
	addSandbox(v, "third", 4, "front")
	want := plan(t, v)
	h.put(before, want)
	h.agrees(want)
	second, third := h.sandbox("second"), h.sandbox("third")
	got, err := netns.Cookie(second.F)
	must(t, err)
	other, err := netns.Cookie(third.F)
	must(t, err)
	if got != cookie && other != cookie {
		t.Error("neither sandbox is in the namespace that was ready")
	}
	for _, name := range []string{"first", "second", "third"} { // made cold, and ready
		for _, p := range []struct{ key, want string }{{"net/ipv6/conf/default/accept_ra", "0"}, {"net/ipv6/route/skip_notify_on_dev_down", "1"}} {
			got, err := sysctl.Read(h.sandbox(name).F, p.key)
			if errors.Is(err, errors.ErrUnsupported) && !testnet.Has("root") {
				continue // parameters of routes are not an ordinary user's (ipv6_route_sysctl_init)
			}
			if err != nil || got != p.want {
				t.Errorf("%s in %s is %s (%v), want %s", p.key, name, got, err, p.want)
			}
		}
	}
	if v.Host.Hooks != kernel.NoHooks {
		echoes(t, second, port53(), 2_000)
		echoes(t, third, port53(), 2_000)
	}
	h.put(want, kernel.State{})
	h.agrees(kernel.State{})
}

// TestReadyInSteps: the steps of a pass are calls of their own, and who does not
// come so far leaves no socket behind.
func TestReadyInSteps(t *testing.T) {
	h := newHost(t, false)
	v := h.view()
	addNetwork(v, "front", 0, true)
	addSandbox(v, "first", 2, "front")
	have := plan(t, v)
	h.put(nil, have)
	_, err := h.FillReady(t.Context())
	must(t, err)
	addSandbox(v, "second", 3, "front")
	want := plan(t, v)
	ops := kernel.Diff(have, want)
	cookie, err := h.NextReady()
	must(t, err)
	end := h.Foresee(ops)
	for i := range ops {
		if fs := h.Apply(t.Context(), ops[i:i+1]); len(fs) > 0 {
			t.Fatal(fs[0].Err)
		}
	}
	end()
	h.agrees(want)
	got, err := netns.Cookie(h.sandbox("second").F)
	must(t, err)
	if got != cookie {
		t.Error("the sandbox is not in the namespace that was ready")
	}
	_, err = h.FillReady(t.Context())
	must(t, err)
	have = want
	addSandbox(v, "third", 4, "front")
	want = plan(t, v)
	ops = kernel.Diff(have, want)
	end = h.Foresee(ops)
	for _, op := range ops {
		if op.Object.Key().Kind == kernel.KindNamespace {
			h.Apply(t.Context(), []kernel.Op{op})
		}
	}
	end()
	h.put(h.see(want, true), want)
	h.agrees(want)
	h.put(want, kernel.State{})
	h.agrees(kernel.State{})
}

// TestReadyIsOfThePlan: what is ready for another plan is not given.
func TestReadyIsOfThePlan(t *testing.T) {
	h := newHost(t, false)
	have := kernel.State{}
	for i, objects := range [][]kernel.Object{
		{kernel.Namespace{Name: "a"}},
		{kernel.Namespace{Name: "b"}, kernel.Up{NS: "b", Dev: "lo"}},
		{kernel.Namespace{Name: "c"}},
	} {
		want := have.Clone()
		must(t, want.Add(objects...))
		h.put(have, want)
		if seen := h.see(want, true); len(kernel.Diff(seen, want)) != 0 || len(seen) != len(want) {
			t.Errorf("after sandbox %d there is\n%swant\n%s", i, seen, want)
		}
		if up := link(t, h.sandbox(objects[0].(kernel.Namespace).Name).Conn(t), "lo").Up; up != (len(objects) > 1) {
			t.Errorf("loopback of sandbox %d is up: %t", i, up)
		}
		_, err := h.FillReady(t.Context())
		must(t, err)
		have = want
	}
	h.put(have, kernel.State{})
}
