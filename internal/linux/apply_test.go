//go:build linux

package linux_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
)

func TestApplyAndObserve(t *testing.T) {
	for _, protect := range []bool{false, true} {
		t.Run(fmt.Sprintf("protect=%t", protect), func(t *testing.T) {
			h := newHost(t, protect)
			before := h.inventory()
			_, want := h.small()
			h.put(nil, want)
			h.agrees(want)
			checkPoints(t, h.passed, kernel.Diff(nil, want))

			h.put(want, nil)
			h.agrees(kernel.State{})
			if diff := cmp.Diff(before, h.inventory()); diff != "" {
				t.Errorf("the namespace is not as before (-before +after):\n%s", diff)
			}
		})
	}
}

// checkPoints checks that a test can kill the daemon before and after each op.
func checkPoints(t *testing.T, passed []string, ops []kernel.Op) {
	t.Helper()
	for _, op := range ops {
		before, after := slices.Index(passed, "before "+op.String()), slices.Index(passed, "after "+op.String())
		if before < 0 || after < before {
			t.Errorf("fault points of %s: before at %d, after at %d", op, before, after)
		}
	}
}

// TestSiblings: what the kernel adds by itself is there, and is no one's.
func TestSiblings(t *testing.T) {
	h := newHost(t, false)
	_, want := h.small()
	m, err := rt.Listen(h.ns.FD(), rt.GroupIPv6Address)
	must(t, err)
	defer m.Close()
	h.put(nil, want)
	for own := (netip.Addr{}); !own.IsLinkLocalUnicast(); {
		e, err := m.Next(t.Context())
		must(t, err)
		own = e.Address.Prefix.Addr()
	}
	routes, err := h.ns.Conn(t).Routes(t.Context(), rt.RouteFilter{Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_KERNEL}, 0)
	if err != nil || len(routes) < 2 {
		t.Fatalf("connected routes %v, %v; want one a bridge", routes, err)
	}
	h.agrees(want)
}

// TestApplyTwice: to make what is there is no failure and changes nothing; so
// is to remove what is not.
func TestApplyTwice(t *testing.T) {
	h := newHost(t, false)
	_, want := h.small()
	h.put(nil, want)
	h.put(nil, want)
	h.agrees(want)
	gone := kernel.State{}
	for k, o := range want {
		if !k.Kind.IsNFT() { // a transaction is exact by nature
			gone[k] = o
		}
	}
	h.put(gone, nil)
	h.put(gone, nil)
	rules := kernel.State{}
	for k, o := range want {
		if k.Kind.IsNFT() && k.NS == kernel.Host { // the others went with their namespaces
			rules[k] = o
		}
	}
	h.agrees(rules)
}

// TestChanges goes from one random state to another.
func TestChanges(t *testing.T) {
	h := newHost(t, false)
	facts := h.view().Host
	rapid.Check(t, func(rt *rapid.T) {
		have := kernel.State{}
		defer func() { h.put(have, nil) }()
		for step := range rapid.IntRange(1, 2).Draw(rt, "steps") {
			v := randomView(rt)
			v.Host = facts
			want := plan(rt, v)
			for _, f := range h.Apply(t.Context(), kernel.Diff(have, want)) {
				rt.Errorf("step %d: %s: %v", step, f.Op, f.Err)
			}
			have = want
			if diff := cmp.Diff(want.String(), h.see(want, true).String()); diff != "" {
				rt.Fatalf("step %d: observed differs (-want +seen):\n%s", step, diff)
			}
		}
	})
}

// randomView is a small view. The same names come again with other attributes.
func randomView(t *rapid.T) driver.View {
	v := driver.NewView()
	names := []string{}
	for i := range rapid.IntRange(0, 2).Draw(t, "networks") {
		name := fmt.Sprintf("n%d", i)
		n := addNetwork(v, name, i, rapid.Bool().Draw(t, name+" v6"))
		n.Internal, n.ICC = rapid.Bool().Draw(t, name+" internal"), rapid.Bool().Draw(t, name+" icc")
		n.MTU = rapid.SampledFrom([]int{0, 1400}).Draw(t, name+" mtu")
		names = append(names, name)
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "sandboxes") {
		on := []string{}
		for range rapid.IntRange(0, min(2, 2*len(names))).Draw(t, "endpoints") {
			on = append(on, rapid.SampledFrom(names).Draw(t, "network"))
		}
		if len(on) == 2 && on[0] == on[1] {
			on = on[:1] // one address in each network
		}
		addSandbox(v, fmt.Sprintf("s%d", i), rapid.IntRange(2, 9).Draw(t, "last")+10*i, on...)
	}
	return v
}

// TestRemoveMany removes the links of many endpoints in one call. One by one
// each would wait for a grace period of its own.
func TestRemoveMany(t *testing.T) {
	h := newHost(t, false)
	v := h.view()
	addNetwork(v, "front", 0, false)
	networks := plan(t, v)
	for i := range 100 {
		addSandbox(v, fmt.Sprintf("s%d", i), 2+i, "front")
	}
	full := plan(t, v)
	h.put(nil, full)
	less := full.Clone()
	maps.DeleteFunc(less, func(_ kernel.Key, o kernel.Object) bool {
		l, ok := o.(kernel.Link)
		return ok && l.Peer != ""
	})
	ops := slices.DeleteFunc(kernel.Diff(full, less), func(op kernel.Op) bool { return op.Verb != kernel.Delete })
	if len(ops) != 100 {
		t.Fatalf("%d ops, want the removal of 100 links", len(ops))
	}
	start := time.Now()
	for _, f := range h.Apply(t.Context(), ops) {
		t.Errorf("%s: %v", f.Op, f.Err)
	}
	t.Logf("100 links removed in %s", time.Since(start).Round(time.Millisecond))
	links, err := h.ns.Conn(t).Links(t.Context(), rt.LinkFilter{Kind: "veth"})
	if err != nil || len(links) != 0 {
		t.Errorf("%d links are left, %v", len(links), err)
	}
	h.put(h.see(full, true), networks)
	h.agrees(networks)
}

// TestRemoveNamespaces lets go of many namespaces in one call: those that cannot
// go are named, and the others go.
func TestRemoveNamespaces(t *testing.T) {
	h := newHost(t, false)
	must(t, os.MkdirAll(h.Path("s7"), 0o755)) // no file, so not ours
	var ops []kernel.Op
	for i := range 40 {
		o := kernel.Namespace{Name: fmt.Sprintf("s%d", i)}
		if i != 7 {
			must(t, netns.Create(h.Path(o.Name)))
		}
		ops = append(ops, kernel.Op{Verb: kernel.Delete, Object: o})
	}
	failures := h.Apply(t.Context(), ops)
	if len(failures) != 1 || failures[0].Op != ops[7] || !strings.Contains(failures[0].Err.Error(), "not a regular file") {
		t.Errorf("failures: %v", failures)
	}
	left, err := os.ReadDir(filepath.Dir(h.Path("s7")))
	must(t, err)
	if len(left) != 1 || left[0].Name() != "s7" {
		t.Errorf("left: %v", left)
	}
	must(t, os.Remove(h.Path("s7")))
}

// TestKernelsWords: a failure carries the op, the error number and the kernel's
// own explanation.
func TestKernelsWords(t *testing.T) {
	h := newHost(t, false)
	_, want := h.small()
	h.put(nil, want)
	gw := netip.MustParseAddr("203.0.113.1")
	for name, tc := range map[string]struct {
		verb   kernel.Verb
		object kernel.Object
		errno  unix.Errno
		words  string
	}{
		"route": {
			kernel.Create,
			kernel.Route{NS: "web", Dev: "eth0", Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: gw, Metric: 7},
			unix.ENETUNREACH, "Nexthop has invalid gateway",
		},
		"address": {
			kernel.Create,
			kernel.Address{NS: "web", Dev: "eth1", Prefix: netip.MustParsePrefix("fd00::77/64")},
			unix.EACCES, "IPv6 is disabled on this device",
		},
		"no such link": {kernel.Create, kernel.Up{NS: "web", Dev: "eth7"}, unix.ENODEV, "eth7"},
		"MTU": {
			kernel.Change,
			kernel.Link{NS: kernel.Host, Name: "tp-front", Type: "bridge", MTU: 10, Mark: "towpath network/front"},
			unix.EINVAL, "mtu less than device minimum",
		},
	} {
		t.Run(name, func(t *testing.T) {
			op := kernel.Op{Verb: tc.verb, Object: tc.object}
			fs := h.Apply(t.Context(), []kernel.Op{op})
			if len(fs) != 1 || fs[0].Op.Object != tc.object {
				t.Fatalf("failures %v, want one of %s", fs, op)
			}
			err := fs[0].Err
			if !errors.Is(err, tc.errno) || !strings.Contains(err.Error(), tc.words) || !strings.Contains(err.Error(), op.String()) {
				t.Errorf("error %q, want the op, %q and %q", err, tc.errno, tc.words)
			}
		})
	}
	h.agrees(want)
}

// TestSysctlOfLinkThatWent: a link of others that goes while a pass runs is no
// failure of the pass, a parameter that the kernel has not is one.
func TestSysctlOfLinkThatWent(t *testing.T) {
	h := newHost(t, false)
	change := func(dev, name, of string) []kernel.Failure {
		s := kernel.Sysctl{NS: kernel.Host, Name: "net/ipv4/conf/" + dev + "/" + name, Value: "1", Dev: of}
		return h.Apply(t.Context(), []kernel.Op{{Verb: kernel.Change, Object: s}})
	}
	for _, of := range []string{"veth0123", ""} { // of a link of ours, and of the host
		if f := change("veth0123", "forwarding", of); len(f) > 0 {
			t.Errorf("a link that went: %v", f)
		}
	}
	if f := change("lo", "no_such_parameter", "lo"); len(f) != 1 {
		t.Errorf("a parameter that is not there: %v, want a failure", f)
	}
}

// TestFailureSpreads: what needs a link that could not be made fails with its
// cause, what does not is carried out.
func TestFailureSpreads(t *testing.T) {
	h := newHost(t, false)
	_, want := h.small()
	must(t, h.ns.Conn(t).AddBridge(t.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "tp-front"}}))
	failed := h.refused(nil, want)
	for op, err := range failed {
		if !strings.Contains(err.Error(), "tp-front") {
			t.Errorf("%s: %v; want the cause", op, err)
		}
	}
	seen := h.see(want, true)
	for _, o := range []kernel.Object{
		kernel.Link{NS: kernel.Host, Name: "v-web-eth1"},
		kernel.Up{NS: "web", Dev: "eth1"},
		kernel.Link{NS: "db", Name: "eth0"},
		kernel.Table{NS: kernel.Host, Family: "inet", Name: "towpath"},
	} {
		if _, there := seen[o.Key()]; !there {
			t.Errorf("%s is not there, though it does not need what failed", o.Key())
		}
	}
}
