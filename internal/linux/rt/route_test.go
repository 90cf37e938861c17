//go:build linux

package rt_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

// comparable addresses and prefixes, and no flags, which are read only.
var plain = []cmp.Option{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmpopts.IgnoreFields(rt.Route{}, "Flags"),
	cmpopts.IgnoreFields(rt.Address{}, "Flags"),
}

func TestAddresses(t *testing.T) {
	ns, c, br := host(t)
	v4 := rt.Address{Index: br.Index, Prefix: pfx("10.9.0.1/24"), Proto: mark}
	v6 := rt.Address{Index: br.Index, Prefix: pfx("fd09::1/64"), Proto: mark, NoDAD: true}
	ptp := rt.Address{Index: br.Index, Prefix: pfx("10.8.0.1/32"), Peer: ip("10.8.0.2")}
	for _, a := range []rt.Address{v4, v6, ptp} {
		must(t, c.AddAddress(t.Context(), a))
	}
	ptp.Prefix = pfx("10.8.0.1/32")
	if diff := cmp.Diff([]rt.Address{v4, ptp, v6}, got(c.Addresses(t.Context(), br.Index))(t), plain...); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	all := got(c.Addresses(t.Context(), 0))(t)
	if len(all) <= 3 || all[0].Index != 1 {
		t.Errorf("all addresses are %+v, want those of lo too", all)
	}
	if out, err := ns.Output(t.Context(), "ip", "addr", "show", "br0"); err == nil && !strings.Contains(out, "10.9.0.1/24 brd 10.9.0.255") {
		t.Errorf("ip shows\n%s\nwant a broadcast address", out)
	}
	if err := c.AddAddress(t.Context(), v4); !errors.Is(err, unix.EEXIST) {
		t.Errorf("second time: %v", err)
	}
	for _, a := range []rt.Address{v4, v6} {
		a.Proto = mark + 1
		must(t, c.ReplaceAddress(t.Context(), a))
	}
	for _, a := range got(c.Addresses(t.Context(), br.Index))(t) {
		if a.Prefix != ptp.Prefix && a.Proto != mark+1 {
			t.Errorf("after replacing: %+v", a)
		}
	}
	for _, a := range []rt.Address{v4, v6} {
		must(t, c.DelAddress(t.Context(), a))
		if err := c.DelAddress(t.Context(), a); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("second deletion: %v", err)
		}
	}
	if err := c.AddAddress(t.Context(), rt.Address{Index: br.Index}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("no prefix: %v", err)
	}
}

func TestRoutes(t *testing.T) {
	_, c, br := host(t)
	for _, p := range []string{"10.9.0.1/24", "fd09::1/64"} {
		must(t, c.AddAddress(t.Context(), rt.Address{Index: br.Index, Prefix: pfx(p), NoDAD: true}))
	}
	const table = 1000
	want := []rt.Route{
		{Dst: pfx("0.0.0.0/0"), Gateway: ip("10.9.0.254"), OIF: br.Index, Table: table, Type: unix.RTN_UNICAST},
		{Dst: pfx("10.1.0.0/16"), Gateway: ip("192.0.2.1"), OIF: br.Index, Table: table, Type: unix.RTN_UNICAST, Onlink: true, MTU: 1300},
		{Dst: pfx("10.2.0.0/16"), OIF: br.Index, Table: table, Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_LINK, Src: ip("10.9.0.1"), Metric: 7},
		{Dst: pfx("10.3.0.0/16"), Table: table, Type: unix.RTN_BLACKHOLE, TOS: 8},
		{Dst: pfx("10.4.0.0/16"), Gateway: ip("fd09::9"), OIF: br.Index, Table: table, Type: unix.RTN_UNICAST},
		{Dst: pfx("10.5.0.0/16"), Table: table, Type: unix.RTN_UNICAST, Hops: []rt.Hop{
			{Gateway: ip("10.9.0.7"), OIF: br.Index, Weight: 1}, {Gateway: ip("10.9.0.8"), OIF: br.Index, Weight: 5},
		}},
		{Dst: pfx("fd01::/32"), Gateway: ip("fd09::fe"), OIF: br.Index, Table: table, Type: unix.RTN_UNICAST, Metric: 5},
		{Dst: pfx("fd02::/32"), Table: table, Type: unix.RTN_UNREACHABLE, OIF: 1, Metric: 1024},
		{Dst: pfx("::/0"), Gateway: ip("fd09::fe"), OIF: br.Index, Table: table, Type: unix.RTN_UNICAST, Metric: 1024},
	}
	for i := range want {
		want[i].Protocol = mark
		must(t, c.AddRoute(t.Context(), want[i]))
	}
	filter := rt.RouteFilter{Table: table, Protocol: mark}
	if diff := cmp.Diff(want, got(c.Routes(t.Context(), filter, 0))(t), plain...); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if err := c.AddRoute(t.Context(), want[0]); !errors.Is(err, unix.EEXIST) {
		t.Errorf("second time: %v", err)
	}
	must(t, c.ReplaceRoute(t.Context(), rt.Route{Dst: pfx("0.0.0.0/0"), Gateway: ip("10.9.0.253"), Table: table, Protocol: mark}))
	for _, r := range want {
		if r.Dst == pfx("0.0.0.0/0") {
			r.Gateway = ip("10.9.0.253")
		}
		must(t, c.DelRoute(t.Context(), r))
		if err := c.DelRoute(t.Context(), r); !errors.Is(err, unix.ESRCH) {
			t.Errorf("second deletion of %s: %v", r.Dst, err)
		}
	}
	if left := got(c.Routes(t.Context(), filter, 0))(t); len(left) != 0 {
		t.Errorf("left over: %+v", left)
	}
}

// TestLocalLoopbackRoute is the route that lets [::1] be translated to addresses
// behind a bridge.
func TestLocalLoopbackRoute(t *testing.T) {
	_, c, br := host(t)
	r := rt.Route{Dst: pfx("::1/128"), OIF: br.Index, Table: unix.RT_TABLE_LOCAL, Metric: 1, Type: unix.RTN_LOCAL, Protocol: mark}
	must(t, c.AddRoute(t.Context(), r))
	have := got(c.Routes(t.Context(), rt.RouteFilter{Protocol: mark, OIF: br.Index}, 0))(t)
	if diff := cmp.Diff([]rt.Route{r}, have, plain...); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	must(t, c.DelRoute(t.Context(), r))
}

func TestRouteFilters(t *testing.T) {
	_, c, br := host(t)
	must(t, c.AddAddress(t.Context(), rt.Address{Index: br.Index, Prefix: pfx("10.9.0.1/24")}))
	for _, f := range []rt.RouteFilter{
		{Family: unix.AF_INET},
		{Family: unix.AF_INET6},
		{Table: unix.RT_TABLE_LOCAL},
		{OIF: 1},
		{Type: unix.RTN_BROADCAST},
		{Protocol: unix.RTPROT_KERNEL, Table: unix.RT_TABLE_MAIN},
	} {
		routes := got(c.Routes(t.Context(), f, 0))(t)
		if len(routes) == 0 {
			t.Errorf("%+v selects nothing", f)
		}
		for _, r := range routes {
			if f.Table != 0 && r.Table != f.Table || f.OIF != 0 && r.OIF != f.OIF ||
				f.Protocol != 0 && r.Protocol != f.Protocol || f.Type != 0 && r.Type != f.Type ||
				f.Family != 0 && r.Dst.Addr().Is4() != (f.Family == unix.AF_INET) {
				t.Errorf("%+v selects %+v", f, r)
			}
		}
	}
	if routes := got(c.Routes(t.Context(), rt.RouteFilter{Table: 4242}, 0))(t); len(routes) != 0 {
		t.Errorf("table that was never used: %+v", routes)
	}
}

func TestRoutesLimit(t *testing.T) {
	_, c, br := host(t)
	for i := range 3000 {
		r := rt.Route{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 7, byte(i >> 8), byte(i)}), 32), OIF: br.Index, Table: 50}
		must(t, c.AddRoute(t.Context(), r))
	}
	filter := rt.RouteFilter{Family: unix.AF_INET, Table: 50}
	for _, limit := range []int{1, 100, 2999} {
		if routes, err := c.Routes(t.Context(), filter, limit); !errors.Is(err, rt.ErrTooMany) || len(routes) != limit {
			t.Errorf("limit %d: %d routes, %v", limit, len(routes), err)
		}
	}
	for _, limit := range []int{0, 3000} {
		if routes := got(c.Routes(t.Context(), filter, limit))(t); len(routes) != 3000 {
			t.Errorf("limit %d: %d routes", limit, len(routes))
		}
	}
	if _, err := c.Routes(t.Context(), rt.RouteFilter{}, 3000); !errors.Is(err, rt.ErrTooMany) {
		t.Errorf("both families: %v", err)
	}
}

func TestErrorKeepsKernelText(t *testing.T) {
	_, c, br := host(t)
	err := c.AddRoute(t.Context(), rt.Route{Dst: pfx("10.0.0.0/8"), Gateway: ip("192.0.2.1"), OIF: br.Index})
	var refused *rt.Error
	if !errors.As(err, &refused) || refused.Message == "" || !errors.Is(err, unix.ENETUNREACH) {
		t.Fatalf("error %v, want one with the kernel's explanation", err)
	}
	if want := fmt.Sprintf("add route 10.0.0.0/8: network is unreachable: %s", refused.Message); err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestRules(t *testing.T) {
	_, c, _ := host(t)
	standard := len(got(c.Rules(t.Context(), 0))(t))
	if standard < 5 {
		t.Errorf("%d rules in a new namespace, want those of both families", standard)
	}
	want := []rt.Rule{
		{Family: unix.AF_INET, Priority: 100, Src: pfx("10.0.0.0/8"), IIF: "br0", Table: 1000, Protocol: mark, Action: unix.FR_ACT_TO_TBL},
		{Family: unix.AF_INET, Priority: 101, Invert: true, Dst: pfx("10.1.0.0/16"), OIF: "later", Table: 10, Protocol: mark, Action: unix.FR_ACT_TO_TBL, MinPrefixLen: 1},
		{Family: unix.AF_INET, Priority: 102, Mark: 1, Mask: 0xff, IPProto: unix.IPPROTO_TCP, SrcPorts: [2]uint16{1, 2}, DstPorts: [2]uint16{80, 80}, Protocol: mark, Action: unix.FR_ACT_PROHIBIT},
		{Family: unix.AF_INET, Priority: 103, Goto: 32766, Protocol: mark, Action: unix.FR_ACT_GOTO},
		{Family: unix.AF_INET6, Priority: 104, Src: pfx("fd00::/8"), Dst: pfx("fd01::/16"), Table: 254, Protocol: mark, Action: unix.FR_ACT_TO_TBL},
	}
	for _, r := range want {
		must(t, c.AddRule(t.Context(), r))
	}
	if err := c.AddRule(t.Context(), want[0]); !errors.Is(err, unix.EEXIST) {
		t.Errorf("second time: %v", err)
	}
	var ours []rt.Rule
	for _, r := range got(c.Rules(t.Context(), 0))(t) {
		if r.Protocol == mark {
			ours = append(ours, r)
		}
	}
	if diff := cmp.Diff(want, ours, plain...); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	for _, r := range want {
		must(t, c.DelRule(t.Context(), r))
	}
	if err := c.DelRule(t.Context(), want[0]); !errors.Is(err, unix.ENOENT) {
		t.Errorf("second deletion: %v", err)
	}
	if err := c.DelRule(t.Context(), rt.Rule{Family: unix.AF_INET}); err == nil {
		t.Error("rule that says nothing: deleted")
	}
	if left := len(got(c.Rules(t.Context(), 0))(t)); left != standard {
		t.Errorf("%d rules left, want %d", left, standard)
	}
}

// TestOpaqueRule holds that a rule is not taken for a wider one than it is.
func TestOpaqueRule(t *testing.T) {
	testnet.Require(t, "ip-binary")
	ns, c, _ := host(t)
	got(ns.Output(t.Context(), "ip", "rule", "add", "uidrange", "0-0", "table", "77"))(t)
	for _, r := range got(c.Rules(t.Context(), unix.AF_INET))(t) {
		if r.Opaque != (r.Table == 77) {
			t.Errorf("rule %+v", r)
		}
	}
}
