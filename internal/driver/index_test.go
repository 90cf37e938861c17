package driver

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/towpath/towpath/api"
)

// answers asks a view everything that an index answers.
func answers(v View) map[string]any {
	out := map[string]any{}
	for i := range 4 {
		box, net := fmt.Sprintf("Box%d", i), fmt.Sprintf("net%d", i)
		out["of "+box], out["on "+net] = v.EndpointsOf(box), v.EndpointsOn(net)
		out["count "+net] = v.CountOn(net)
		out["named "+box] = v.SandboxNamed(strings.ToUpper(box))
		for j := range 4 {
			out[fmt.Sprint("addr ", net, j)] = v.WithAddress(net, addr(j).Addr())
			out[fmt.Sprint("mac ", net, j)] = v.WithMAC(net, mac(j)) != nil
			out[fmt.Sprint("dev ", box, j)] = v.OverPort(hostEnd(box, j))
		}
	}
	return out
}

func addr(j int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", j+2)) }
func mac(j int) string        { return fmt.Sprintf("02:00:00:00:00:0%d", j) }
func hostEnd(box string, j int) string {
	return fmt.Sprintf("v-%s-eth%d", box, j)
}

// TestIndex: after any edits an index gives what looking at everything gives,
// and a copy knows nothing of later edits.
func TestIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := NewView().Indexed()
		plain := NewView()
		for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
			before := v.Clone()
			was := answers(v)
			box := fmt.Sprintf("Box%d", rapid.IntRange(0, 3).Draw(t, "box"))
			eth := rapid.IntRange(0, 3).Draw(t, "eth")
			id := EndpointID{box, fmt.Sprintf("eth%d", eth)}
			var s *api.Sandbox
			var e *api.Endpoint
			if rapid.Bool().Draw(t, "comes") {
				net := fmt.Sprintf("net%d", rapid.IntRange(0, 3).Draw(t, "net"))
				s = &api.Sandbox{Name: box}
				e = &api.Endpoint{
					Sandbox: box, Network: net, Ifname: id.Ifname, Index: step, HostIfname: hostEnd(box, eth),
					MAC: mac(rapid.IntRange(0, 3).Draw(t, "mac")),
				}
				if a := addr(rapid.IntRange(0, 3).Draw(t, "addr")); plain.WithAddress(net, a.Addr()) == nil {
					e.Addresses = []netip.Prefix{a} // an address has one holder
				}
			}
			if rapid.Bool().Draw(t, "sandbox") {
				v.SetSandbox(box, s)
				plain.SetSandbox(box, s)
			} else {
				v.SetEndpoint(id, e)
				plain.SetEndpoint(id, e)
			}
			for what, w := range map[string]View{"kept": v, "made anew": plain.Indexed()} {
				if diff := cmp.Diff(answers(plain), answers(w), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
					t.Fatalf("index %s (-all +index):\n%s", what, diff)
				}
			}
			if diff := cmp.Diff(was, answers(before), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Fatalf("a copy changed:\n%s", diff)
			}
		}
	})
}
