//go:build linux

package linux_test

import (
	"fmt"
	"testing"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/testnet"
)

// TestManyHooks: a chain that is made has more links than fit a message, as that
// of a network with many containers has after somebody took its table away; and
// so many come and go later.
func TestManyHooks(t *testing.T) {
	testnet.Require(t, "netns")
	h := newHost(t, false)
	if h.view().Host.Hooks != kernel.HooksByName {
		t.Skip("skip: needs Linux 6.16, where links are hooked by their names")
	}
	guarded := func(n int) kernel.State {
		s, err := kernel.Parse("netns host:\n\ttable netdev towpath {\n\t\tchain guard {\n\t\t\ttype filter hook ingress priority -500; policy accept;\n\t\t\tcounter drop\n\t\t}\n\t}\n")
		must(t, err)
		for i := range n {
			must(t, s.Add(kernel.Hook{NS: kernel.Host, Family: "netdev", Table: "towpath", Chain: "guard", Dev: fmt.Sprintf("v-%d", i), ByName: true}))
		}
		return s
	}
	var have kernel.State
	for _, n := range []int{600, 0, 600, 1} {
		want := guarded(n)
		h.put(have, want)
		h.agrees(want)
		have = want
	}
	h.put(have, nil)
}
