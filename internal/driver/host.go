package driver

import (
	_ "embed"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
)

// The ruleset is constant in networks and endpoints: what grows are the
// elements of its sets and maps. It is written as nft prints it. What is for IPv4
// alone and meets every packet has a table of that family: a hook of inet costs
// each packet of IPv6 as much, though no rule is about it.
//
//go:embed ruleset.nft
var ruleset string

// Names in the ruleset.
const (
	tableFamily = "inet"
	tableName   = "towpath"
)

func planHost(v View) []kernel.Object {
	if v.Down {
		return planForwarding(v)
	}
	page, err := kernel.Parse("netns " + kernel.Host + ":\n" + ruleset)
	if err != nil {
		panic(fmt.Sprintf("the embedded ruleset: %v", err)) // a test reads it
	}
	var objs []kernel.Object
	for _, k := range page.Keys() {
		o := page[k]
		if t, ok := o.(kernel.Table); ok {
			t.Flags = v.Host.TableFlags
			o = t
		}
		objs = append(objs, o)
	}
	return append(append(objs, planGuardTable(v)...), planForwarding(v)...)
}

// planForwarding makes the host a router for the families that a network needs,
// and puts the values from before back when none does.
func planForwarding(v View) []kernel.Object {
	var need4, need6 bool
	for _, n := range v.Networks {
		need4 = need4 || (!n.Internal && n.Has4())
		need6 = need6 || (!n.Internal && n.Has6())
	}
	want := map[string]string{}
	for name, value := range v.Saved {
		if applies(name, v.Host) {
			want[name] = value
		}
	}
	if need4 {
		want["net/ipv4/ip_forward"] = "1"
	}
	if need6 && v.Host.IPv6 {
		for name, value := range forward6(v) {
			want[name] = value
		}
	}
	var objs []kernel.Object
	for name, value := range want {
		objs = append(objs, kernel.Sysctl{NS: kernel.Host, Name: name, Value: value})
	}
	return objs
}

// applies reports whether the host still has what a saved sysctl belongs to.
func applies(sysctl string, h kernel.Facts) bool {
	dev, ok := strings.CutPrefix(path.Dir(sysctl), "net/ipv6/conf/")
	return !ok || dev == "all" || h.Has(dev)
}

// forward6 lets IPv6 through without costing the host its own routes: a host
// that forwards ignores router advertisements unless accept_ra is 2
// (Documentation/networking/ip-sysctl.rst). Where the kernel has
// force_forwarding, each uplink forwards and stays a host; otherwise all
// forward, and those that listened to advertisements go on listening.
func forward6(v View) map[string]string {
	want := map[string]string{}
	for _, l := range v.Host.Uplinks {
		prefix := "net/ipv6/conf/" + l.Name + "/"
		if v.Host.ForceForwarding {
			want[prefix+"force_forwarding"] = "1"
		} else if l.AcceptRA == 1 || v.Saved[prefix+"accept_ra"] == "1" {
			want[prefix+"accept_ra"] = "2"
		}
	}
	if !v.Host.ForceForwarding {
		want["net/ipv6/conf/all/forwarding"] = "1"
	}
	return want
}

func element(set, elem, value string) kernel.Element {
	return kernel.Element{NS: kernel.Host, Family: tableFamily, Table: tableName, Set: set, Elem: elem, Value: value}
}

// mtu of a network's links: its own, else the uplink's, else Ethernet's.
func mtu(n *api.Network, v View) int {
	switch {
	case n.MTU != 0:
		return n.MTU
	case v.Host.UplinkMTU != 0:
		return v.Host.UplinkMTU
	default:
		return 1500
	}
}

// ifname in nft's notation.
func ifname(name string) string { return strconv.Quote(name) }
