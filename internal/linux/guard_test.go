//go:build linux

package linux_test

import (
	"testing"

	"github.com/towpath/towpath/internal/kernel"
)

// TestGuardOnOlderKernels: the plan for a kernel that takes hooks only of links
// that are there is carried out as well.
func TestGuardOnOlderKernels(t *testing.T) {
	h := newHost(t, false)
	v, _ := h.small()
	if v.Host.Hooks == kernel.NoHooks {
		t.Skip("skip: needs Linux 6.4 with CONFIG_NETFILTER_INGRESS and CONFIG_NF_TABLES_NETDEV")
	}
	v.Host.Hooks = kernel.HooksOnLinks
	want := plan(t, v)
	h.put(nil, want)
	h.agrees(want)
	h.put(want, nil)
	h.agrees(nil)
}

// TestGuardOfAnUpgrade: what an older daemon left unguarded is guarded while it
// is in use, and nothing is made anew.
func TestGuardOfAnUpgrade(t *testing.T) {
	h := newHost(t, false)
	v, guarded := h.small()
	if v.Host.Hooks == kernel.NoHooks {
		t.Skip("skip: needs Linux 6.4 with CONFIG_NETFILTER_INGRESS and CONFIG_NF_TABLES_NETDEV")
	}
	v.Host.Hooks = kernel.NoHooks
	bare := plan(t, v)
	h.put(nil, bare)
	seen := h.see(guarded, true)
	for _, op := range kernel.Diff(seen, guarded) {
		if _, isLink := op.Object.(kernel.Link); op.Verb == kernel.Delete || isLink && op.Verb != kernel.Change {
			t.Errorf("an upgrade does: %s", op)
		}
	}
	h.put(seen, guarded)
	h.agrees(guarded)
	h.put(h.see(bare, true), bare)
	h.agrees(bare)
}

// TestTakeOverWithHooks: after a new start the tables are taken over in the same
// pass in which hooks and a network's chain come and go.
func TestTakeOverWithHooks(t *testing.T) {
	h := newHost(t, true)
	v, all := h.small()
	if v.Host.TableFlags == "" || v.Host.Hooks == kernel.NoHooks {
		t.Skip("skip: needs table flags owner and persist, and hooks of family netdev: this kernel has none")
	}
	lone := h.view()
	addNetwork(lone, "front", 0, true)
	less := plan(t, lone)
	for _, step := range []struct{ have, want kernel.State }{{all, less}, {less, all}} {
		h.put(h.see(step.have, true), step.have)
		must(t, h.Close())
		h.open(true)
		h.put(h.see(step.want, true), step.want)
		h.agrees(step.want)
	}
}
