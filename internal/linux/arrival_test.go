//go:build linux

package linux_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

// solicitAgain is when a neighbour solicitation that was lost is repeated
// (RETRANS_TIMER of RFC 4861, section 10): an answer that came before it is one
// to the first packet.
const solicitAgain = time.Second

// TestFirstPacket: when Apply returns, packets pass both ends of a new pair and
// its bridge, so that the first one is answered and not the one after it. A
// dump, unlike the question for one link, shows what the kernel has been told.
func TestFirstPacket(t *testing.T) {
	for name, others := range map[string]int{"first of its network": 0, "beside another": 1} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, false)
			v := h.view()
			gateway := addNetwork(v, "front", 0, true).Subnets[1].Gateway
			to := []netip.Addr{gateway, gateway.Next().Next()}[others]
			for i := range others {
				addSandbox(v, fmt.Sprintf("other%d", i), 3+i, "front")
			}
			without := plan(t, v)
			h.put(nil, without)
			addSandbox(v, "web", 2, "front")
			want := plan(t, v)
			deaf, lost := 0, 0
			const rounds = 20
			for range rounds {
				ops := kernel.Diff(without, want)
				raised := slices.IndexFunc(ops, func(op kernel.Op) bool { return op.Object == kernel.Up{NS: "web", Dev: "eth0"} })
				h.do(ops[:raised])
				h.do(ops[raised : raised+1])
				web := h.sandbox("web")
				if !passes(t, h.ns, "tp-front", "v-web-eth0") || !passes(t, web, "eth0") {
					deaf++
				}
				h.do(ops[raised+1:])
				if web.Echo(to, solicitAgain-100*time.Millisecond) != nil {
					lost++
				}
				_ = web.F.Close() // it would keep the namespace
				h.put(want, without)
			}
			if deaf > 0 || lost > 0 {
				t.Errorf("of %d times, a link was not in use yet %d, and the first packet lost %d", rounds, deaf, lost)
			}
			h.put(without, kernel.State{})
		})
	}
}

// passes says whether the kernel has put links to use.
func passes(t *testing.T, ns *testnet.NS, names ...string) bool {
	t.Helper()
	links, err := ns.Conn(t).Links(t.Context(), rt.LinkFilter{})
	must(t, err)
	in := map[string]bool{}
	for _, l := range links {
		in[l.Name] = l.OperState == rt.OperUp
	}
	for _, name := range names {
		if !in[name] {
			return false
		}
	}
	return true
}
