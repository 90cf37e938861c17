package engine

import (
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
)

// TestUnguarded: where the kernel cannot check what containers send, the verb
// says so and what it needs; not where it was not asked to.
func TestUnguarded(t *testing.T) {
	inBubble(t, func(r *rig) {
		said := func(n api.Network) bool {
			return slices.ContainsFunc(n.Warnings, func(w string) bool {
				return strings.Contains(w, "is not checked") && strings.Contains(w, "Linux 6.4 with CONFIG_NETFILTER_INGRESS and CONFIG_NF_TABLES_NETDEV")
			})
		}
		if n := r.network(api.NetworkSpec{Name: "able"}); said(n) {
			t.Errorf("warned of a kernel that can: %q", n.Warnings)
		}
		r.kernel.Hooks = kernel.NoHooks
		r.check(r.loop.Once(t.Context()))
		if n := r.network(api.NetworkSpec{Name: "front"}); !said(n) {
			t.Errorf("no warning of a kernel that cannot: %q", n.Warnings)
		}
		if n := r.network(api.NetworkSpec{Name: "lab", Options: map[string]string{api.OptionSpoofGuard: "off"}}); said(n) {
			t.Errorf("warned of what was not asked for: %q", n.Warnings)
		}
		r.clean()
	})
}
