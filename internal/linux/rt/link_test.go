//go:build linux

package rt_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

func TestAddBridge(t *testing.T) {
	c := testnet.New(t, "host").Conn(t)
	mac := rt.MAC{2, 0, 0, 0, 0, 1}
	must(t, c.AddBridge(t.Context(), rt.BridgeSpec{
		LinkSpec: rt.LinkSpec{Name: "br0", MAC: mac, MTU: 1400, Group: 7},
	}))
	l := got(c.LinkByName(t.Context(), "br0"))(t)
	l.Bridge.NFCallIPTables, l.Bridge.NFCallIP6Tables = false, false // of br_netfilter
	l.IPv6, l.Stats = nil, nil                                       // see TestIPv6Conf
	want := rt.Link{
		Index: l.Index, Name: "br0", Kind: "bridge", MAC: mac, MTU: 1400, Group: 7,
		Flags: unix.IFF_BROADCAST | unix.IFF_MULTICAST, OperState: rt.OperDown,
		PeerNSID: rt.NoNSID, Bridge: &rt.Bridge{},
	}
	if diff := cmp.Diff(want, l); diff != "" {
		t.Errorf("bridge (-want +got):\n%s", diff)
	}
	err := c.AddBridge(t.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "br0"}})
	if !errors.Is(err, unix.EEXIST) || !strings.HasPrefix(err.Error(), "add bridge br0: file exists") {
		t.Errorf("second bridge: %v", err)
	}
}

// TestIPv6Conf: what comes with a link is what the files say.
func TestIPv6Conf(t *testing.T) {
	ns, c, br := host(t)
	for _, want := range []rt.IPv6Conf{{AcceptRA: 2, Disable: 1}, {AcceptRA: 0, Disable: 0}, {AcceptRA: 1, Disable: 0}} {
		dir := "net/ipv6/conf/" + br.Name + "/"
		must(t, sysctl.Write(ns.F, dir+"accept_ra", strconv.Itoa(want.AcceptRA)))
		must(t, sysctl.Write(ns.F, dir+"disable_ipv6", strconv.Itoa(want.Disable)))
		if l := got(c.LinkByIndex(t.Context(), br.Index))(t); l.IPv6 == nil || *l.IPv6 != want {
			t.Errorf("link has %+v, want %+v", l.IPv6, want)
		}
	}
}

func TestSetBridge(t *testing.T) {
	_, c, br := host(t)
	must(t, c.SetBridge(t.Context(), br.Index, rt.BridgeChange{McastSnooping: new(true)}))
	if l := got(c.LinkByIndex(t.Context(), br.Index))(t); !l.Bridge.McastSnooping {
		t.Errorf("bridge is %+v", l.Bridge)
	}
	on := rt.BridgeChange{NFCallIPTables: new(true), NFCallIP6Tables: new(true)}
	must(t, c.SetBridge(t.Context(), br.Index, on))
	if l := got(c.LinkByIndex(t.Context(), br.Index))(t); !l.Bridge.NFCallIPTables || !l.Bridge.NFCallIP6Tables {
		t.Errorf("bridge is %+v, want netfilter called", l.Bridge)
	}
}

func TestAddVethInOneMessage(t *testing.T) {
	ns, c, br := host(t)
	box := testnet.New(t, "box")
	macA, macB := rt.MAC{2, 0, 0, 0, 0, 1}, rt.MAC{2, 0, 0, 0, 0, 2}
	must(t, c.AddVeth(t.Context(), rt.VethSpec{
		LinkSpec: rt.LinkSpec{Name: "v0", MAC: macA, MTU: 1450, Group: 9, Master: br.Index},
		Peer:     rt.LinkSpec{Name: "eth0", MAC: macB, MTU: 1450, NSFD: box.FD()},
	}))
	a := got(c.LinkByName(t.Context(), "v0"))(t)
	b := got(box.Conn(t).LinkByName(t.Context(), "eth0"))(t)
	if a.Kind != "veth" || a.MAC != macA || a.MTU != 1450 || a.Group != 9 || a.Master != br.Index || a.Up {
		t.Errorf("host end is %+v", a)
	}
	if b.Kind != "veth" || b.MAC != macB || b.MTU != 1450 || b.Up {
		t.Errorf("peer is %+v", b)
	}
	if a.Port == nil || !a.Port.Learning || a.Port.Isolated {
		t.Errorf("port is %+v", a.Port)
	}
	nsid := got(c.NSID(t.Context(), box.FD()))(t)
	if a.PeerIndex != b.Index || b.PeerIndex != a.Index || a.PeerNSID != nsid || nsid == rt.NoNSID {
		t.Errorf("peers are %d (namespace %d) and %d, want %d (namespace %d) and %d", a.PeerIndex, a.PeerNSID, b.PeerIndex, b.Index, nsid, a.Index)
	}
	if out, err := ns.Output(t.Context(), "ip", "-d", "link", "show", "v0"); err == nil && !strings.Contains(out, "numtxqueues 1 ") {
		t.Errorf("ip shows\n%s\nwant one queue", out)
	}
}

func TestLinksFilters(t *testing.T) {
	_, c, br := host(t)
	for i := range 3 {
		port(t, c, br, fmt.Sprintf("v%d", i))
	}
	must(t, c.SetLink(t.Context(), got(c.LinkByName(t.Context(), "v1"))(t).Index, rt.LinkChange{Group: new(uint32(5))}))
	for _, tc := range []struct {
		filter rt.LinkFilter
		want   string
	}{
		{rt.LinkFilter{Master: br.Index}, "v0 v1 v2"},
		{rt.LinkFilter{Kind: "bridge"}, "br0"},
		{rt.LinkFilter{Kind: "veth", Group: 5}, "v1"},
		{rt.LinkFilter{Kind: "no-such-kind"}, ""},
	} {
		var names []string
		for _, l := range got(c.Links(t.Context(), tc.filter))(t) {
			names = append(names, l.Name)
		}
		if g := strings.Join(names, " "); g != tc.want {
			t.Errorf("%+v gives %q, want %q", tc.filter, g, tc.want)
		}
	}
	if _, err := c.LinkByName(t.Context(), "nope"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("link that is not there: %v", err)
	}
}

func TestSetLink(t *testing.T) {
	_, c, br := host(t)
	l, box := port(t, c, br, "v0")
	must(t, c.SetLink(t.Context(), l.Index, rt.LinkChange{
		Name: new("v9"), Alias: new("towpath:x"), MTU: new(1300), MAC: &rt.MAC{2, 0, 0, 0, 0, 9}, Group: new(uint32(3)),
		Master: new(br.Index), Up: new(true), AddrGenNone: new(true),
		Port: &rt.PortChange{Isolated: new(true), Hairpin: new(true), Locked: new(true), Learning: new(false), NeighSuppress: new(true)},
	}))
	l = got(c.LinkByIndex(t.Context(), l.Index))(t)
	if l.Name != "v9" || l.Alias != "towpath:x" || l.MTU != 1300 || l.MAC.String() != "02:00:00:00:00:09" || l.Group != 3 || !l.Up || !l.AddrGenNone {
		t.Errorf("link is %+v", l)
	}
	if want := (rt.Port{Isolated: true, Hairpin: true, Locked: true, NeighSuppress: true}); *l.Port != want {
		t.Errorf("port is %+v, want %+v", *l.Port, want)
	}
	must(t, c.SetLink(t.Context(), l.Index, rt.LinkChange{Alias: new(""), Port: &rt.PortChange{Isolated: new(false)}}))
	l = got(c.LinkByIndex(t.Context(), l.Index))(t)
	if l.Alias != "" || l.Port.Isolated || !l.Port.Hairpin {
		t.Errorf("after the second change: alias %q, port %+v", l.Alias, l.Port)
	}
	// Out of the bridge, and into another namespace.
	must(t, c.SetLink(t.Context(), l.Index, rt.LinkChange{Master: new(0), Name: new("moved"), NSFD: new(box.FD())}))
	if l = got(box.Conn(t).LinkByName(t.Context(), "moved"))(t); l.Master != 0 {
		t.Errorf("moved link is %+v", l)
	}
	if err := c.SetLink(t.Context(), 0, rt.LinkChange{Up: new(true)}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("set link 0: %v", err)
	}
}

// TestNoLinkLocal holds that the order of SetLink's messages is the one that
// leaves no address behind.
func TestNoLinkLocal(t *testing.T) {
	_, c, br := host(t)
	l, box := port(t, c, br, "v0")
	b := box.Conn(t)
	eth0 := got(b.LinkByName(t.Context(), "eth0"))(t)
	must(t, c.SetLink(t.Context(), l.Index, rt.LinkChange{Up: new(true), AddrGenNone: new(true)}))
	must(t, b.SetLink(t.Context(), eth0.Index, rt.LinkChange{Up: new(true), AddrGenNone: new(true)}))
	box.WaitUp(t, "eth0")
	if addrs := got(b.Addresses(t.Context(), eth0.Index))(t); len(addrs) != 0 {
		t.Errorf("addresses %+v, want none", addrs)
	}
}

// TestSetGroups: more than go into one datagram, with some that are not there.
func TestSetGroups(t *testing.T) {
	_, c, br := host(t)
	var names []string
	for i := range 5 {
		l, _ := port(t, c, br, fmt.Sprintf("v%d", i))
		names = append(names, l.Name)
	}
	port(t, c, br, "other")
	var all []string
	for range 30 {
		all = append(append(all, names...), "gone")
	}
	for i, err := range c.SetGroups(t.Context(), all, 45) {
		if missing := all[i] == "gone"; missing != errors.Is(err, unix.ENODEV) || !missing && err != nil {
			t.Errorf("%s: %v", all[i], err)
		}
	}
	for _, l := range got(c.Links(t.Context(), rt.LinkFilter{Master: br.Index}))(t) {
		if want := l.Name != "other"; (l.Group == 45) != want {
			t.Errorf("%s is in group %d", l.Name, l.Group)
		}
	}
	if errs := c.SetGroups(t.Context(), nil, 45); len(errs) != 0 {
		t.Errorf("no links: %v", errs)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i, err := range c.SetGroups(ctx, names, 46) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled: %v", names[i], err)
		}
	}
	must(t, c.DelGroup(t.Context(), 45)) // the connection is still in step
}

func TestDelGroup(t *testing.T) {
	_, c, br := host(t)
	for i := range 5 {
		l, _ := port(t, c, br, fmt.Sprintf("v%d", i))
		must(t, c.SetLink(t.Context(), l.Index, rt.LinkChange{Group: new(uint32(44))}))
	}
	port(t, c, br, "other")
	must(t, c.DelGroup(t.Context(), 44))
	if ports := got(c.Links(t.Context(), rt.LinkFilter{Master: br.Index}))(t); len(ports) != 1 || ports[0].Name != "other" {
		t.Errorf("left over: %+v", ports)
	}
	if err := c.DelGroup(t.Context(), 44); !errors.Is(err, unix.ENODEV) {
		t.Errorf("empty group: %v", err)
	}
	if err := c.DelGroup(t.Context(), 0); err == nil {
		t.Error("group 0: no error")
	}
	if left := got(c.Links(t.Context(), rt.LinkFilter{Kind: "bridge"}))(t); len(left) != 1 {
		t.Errorf("bridges %+v, want br0", left)
	}
	must(t, c.DelLink(t.Context(), br.Index))
	if err := c.DelLink(t.Context(), br.Index); !errors.Is(err, unix.ENODEV) {
		t.Errorf("second deletion: %v", err)
	}
}

func TestLimitLists(t *testing.T) {
	_, c, br := host(t)
	for i := range 300 {
		must(t, c.AddVeth(t.Context(), rt.VethSpec{LinkSpec: rt.LinkSpec{Name: fmt.Sprintf("v%d", i)}}))
	}
	c.LimitLists(50)
	if _, err := c.Links(t.Context(), rt.LinkFilter{}); !errors.Is(err, rt.ErrTooMany) {
		t.Errorf("links: %v", err)
	}
	// What was left unread does not come as the answer to the next question.
	if l := got(c.LinkByIndex(t.Context(), br.Index))(t); l.Name != "br0" {
		t.Errorf("link is %+v", l)
	}
	if l := got(c.Links(t.Context(), rt.LinkFilter{Kind: "bridge"}))(t); len(l) != 1 {
		t.Errorf("bridges are %+v", l)
	}
}

func TestOtherKinds(t *testing.T) {
	for _, tc := range []struct {
		kind  string
		add   func(*rt.Conn, context.Context, int) error
		check func(l rt.Link, parent int) bool
	}{
		{"macvlan", func(c *rt.Conn, ctx context.Context, parent int) error {
			return c.AddMacvlan(ctx, rt.MacvlanSpec{LinkSpec: rt.LinkSpec{Name: "x"}, Parent: parent, Mode: rt.MacvlanBridge})
		}, func(l rt.Link, parent int) bool { return l.Mode == rt.MacvlanBridge && l.PeerIndex == parent }},
		{"ipvlan", func(c *rt.Conn, ctx context.Context, parent int) error {
			return c.AddIPvlan(ctx, rt.IPvlanSpec{LinkSpec: rt.LinkSpec{Name: "x"}, Parent: parent, Mode: rt.IPvlanL3})
		}, func(l rt.Link, parent int) bool { return l.Mode == rt.IPvlanL3 && l.PeerIndex == parent }},
		{"vlan", func(c *rt.Conn, ctx context.Context, parent int) error {
			return c.AddVLAN(ctx, rt.VLANSpec{LinkSpec: rt.LinkSpec{Name: "x"}, Parent: parent, ID: 12})
		}, func(l rt.Link, parent int) bool { return l.VLAN == 12 && l.PeerIndex == parent }},
		{"dummy", func(c *rt.Conn, ctx context.Context, _ int) error {
			return c.AddLink(ctx, "dummy", rt.LinkSpec{Name: "x", MTU: 1234})
		}, func(l rt.Link, _ int) bool { return l.MTU == 1234 }},
		{"vxlan", func(c *rt.Conn, ctx context.Context, parent int) error {
			return c.AddVXLAN(ctx, rt.VXLANSpec{LinkSpec: rt.LinkSpec{Name: "x"}, VNI: 77, Local: ip("fd00::1"), Port: 4789, Link: parent})
		}, func(l rt.Link, parent int) bool {
			return *l.VXLAN == rt.VXLAN{VNI: 77, Local: ip("fd00::1"), Port: 4789, Link: parent}
		}},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			testnet.Require(t, "kind:"+tc.kind)
			_, c, br := host(t)
			must(t, tc.add(c, t.Context(), br.Index))
			l := got(c.LinkByName(t.Context(), "x"))(t)
			if l.Kind != tc.kind || !tc.check(l, br.Index) {
				t.Errorf("link is %+v, %+v", l, l.VXLAN)
			}
		})
	}
	c := testnet.New(t, "host").Conn(t)
	if err := c.AddLink(t.Context(), "no-such-kind", rt.LinkSpec{Name: "x"}); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("unknown kind: %v", err)
	}
}

func TestContext(t *testing.T) {
	c := testnet.New(t, "host").Conn(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Links(ctx, rt.LinkFilter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	// A deadline that comes at any point of a request leaves a usable Conn.
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Microsecond)
		_, err := c.Links(ctx, rt.LinkFilter{})
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if l := got(c.LinkByIndex(t.Context(), 1))(t); l.Name != "lo" {
			t.Fatalf("link 1 is %+v", l)
		}
	}
	must(t, c.Close())
	if _, err := c.Links(t.Context(), rt.LinkFilter{}); !errors.Is(err, rt.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestDumpUnderChange holds that a listing never shows a link twice or leaves
// out one that was there all the time, whatever else comes and goes.
func TestDumpUnderChange(t *testing.T) {
	ns, c, br := host(t)
	const fixed = 60
	for i := range fixed {
		must(t, c.AddVeth(t.Context(), rt.VethSpec{LinkSpec: rt.LinkSpec{Name: fmt.Sprintf("f%d", i), Master: br.Index}}))
	}
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error)
	changer := ns.Conn(t)
	go func() {
		var err error
		for err == nil && ctx.Err() == nil {
			err = changer.AddVeth(ctx, rt.VethSpec{LinkSpec: rt.LinkSpec{Name: "flap", Group: 3}})
			if err == nil {
				err = changer.DelGroup(ctx, 3)
			}
		}
		stopped <- err
	}()
	complete, interrupted := 0, 0
	for range 200 {
		links, err := c.Links(t.Context(), rt.LinkFilter{})
		if errors.Is(err, rt.ErrInterrupted) {
			interrupted++
			continue
		}
		must(t, err)
		complete++
		seen := map[int]bool{}
		ports := 0
		for _, l := range links {
			if seen[l.Index] {
				t.Fatalf("link %s twice", l.Name)
			}
			seen[l.Index] = true
			if l.Master == br.Index {
				ports++
			}
		}
		if ports != fixed {
			t.Fatalf("%d ports, want %d", ports, fixed)
		}
	}
	cancel()
	if err := <-stopped; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	t.Logf("%d listings complete, %d given up", complete, interrupted)
	if complete == 0 {
		t.Error("no listing was ever complete")
	}
}
