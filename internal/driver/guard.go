package driver

import (
	_ "embed"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
)

// What a container sends is checked where it enters the host: a chain of family
// netdev, hooked to the host's end of its pair, before the bridge. It is one flat
// chain a network, with the commonest packets first: jumps and chains a protocol
// cost three times as much. Their two rules load the source MAC address as bytes
// 6 to 11 of the frame, because where it has its name two more expressions ask
// whether the link is Ethernet, which ends of pairs are. One a network and not one for all, because the
// kernel writes a chain with all its hooks into one netlink message of at most
// 32 KB, some 1 600 links, and a bridge has 1 023 ports at most.
//
//go:embed guard.nft
var guardset string

// guardFamily and guardChain are the names in guardset; a network's chain has
// its device behind the name.
const (
	guardFamily = "netdev"
	guardChain  = "guard"
)

// guards reports whether what is sent on the network is checked.
func guards(n *api.Network, v View) bool { return n.SpoofGuard() && v.Host.Hooks != kernel.NoHooks }

// guardPage is the table with its sets and the chain that each network has.
func guardPage() kernel.State {
	page, err := kernel.Parse("netns " + kernel.Host + ":\n" + guardset)
	if err != nil {
		panic(fmt.Sprintf("the embedded guard: %v", err)) // a test reads it
	}
	return page
}

// planGuardTable is the table with its sets.
func planGuardTable(v View) []kernel.Object {
	if v.Host.Hooks == kernel.NoHooks {
		return nil
	}
	page := guardPage()
	var objs []kernel.Object
	for _, k := range page.Keys() {
		switch o := page[k].(type) {
		case kernel.Table:
			o.Flags = v.Host.TableFlags
			objs = append(objs, o)
		case kernel.Set:
			objs = append(objs, o)
		}
	}
	return objs
}

// planGuardChain is the chain of a network.
func planGuardChain(n *api.Network, v View) []kernel.Object {
	if !guards(n, v) {
		return nil
	}
	for _, o := range guardPage() {
		if c, ok := o.(kernel.Chain); ok {
			c.Name = guardName(n.Device)
			if slices.Contains(v.Host.Listening, n.Device) {
				c.Rules = withReports(c.Rules)
			}
			return []kernel.Object{c}
		}
	}
	return nil
}

// withReports are the rules without those that drop listener reports of
// solicited-node groups alone. Nobody routes these groups (RFC 4291, 2.7.1), so
// only a bridge that snoops has a use for such a report: to pass neighbour
// solicitations on. Where none does, each new container's reports would go to all
// others, which at a thousand is most of what a connect costs the kernel.
func withReports(rules string) string {
	var kept strings.Builder
	for line := range strings.Lines(rules) {
		if !strings.Contains(line, "mld2-listener-report @th,") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// guardName is the chain of a network by its device. A device whose name cannot
// be that of a chain is written in hexadecimal.
func guardName(device string) string {
	plain := strings.IndexFunc(device, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '.' && r != '-'
	}) < 0
	if plain {
		return guardChain + "_" + device
	}
	return guardChain + "-" + hex.EncodeToString([]byte(device))
}

// planGuard lets an endpoint send what is its own: its hook, its addresses, and
// the one MAC address that the bridge takes from its port.
func planGuard(e *api.Endpoint, n *api.Network, v View, has6 bool) []kernel.Object {
	if !guards(n, v) {
		return nil
	}
	own := func(set string, parts ...string) kernel.Object {
		elem := strings.Join(append([]string{ifname(e.HostIfname), e.MAC}, parts...), " . ")
		return kernel.Element{NS: kernel.Host, Family: guardFamily, Table: tableName, Set: set, Elem: elem}
	}
	objs := []kernel.Object{
		kernel.Hook{
			NS: kernel.Host, Family: guardFamily, Table: tableName, Chain: guardName(n.Device), Dev: e.HostIfname,
			ByName: v.Host.Hooks == kernel.HooksByName,
		},
		kernel.Neighbour{NS: kernel.Host, Dev: e.HostIfname, MAC: e.MAC, Master: n.Device},
		own("own"),
	}
	addrs := map[netip.Addr]bool{}
	for _, a := range e.Addresses {
		addrs[a.Addr()] = true
	}
	if local, ok := linkLocal(e.MAC); ok && has6 && v.Host.IPv6 {
		addrs[local] = true
	}
	for a := range addrs {
		if a.Is4() {
			objs = append(objs, own("own4", a.String()))
		} else {
			objs = append(objs, own("own6", a.String()))
		}
	}
	return objs
}

// linkLocal is the address that the kernel makes of a MAC address (EUI-64, RFC
// 4291, appendix A), unless it is told to make another.
func linkLocal(mac string) (netip.Addr, bool) {
	b, err := hex.DecodeString(strings.ReplaceAll(mac, ":", ""))
	if err != nil || len(b) != 6 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: b[0] ^ 2, 9: b[1], 10: b[2], 11: 0xff, 12: 0xfe, 13: b[3], 14: b[4], 15: b[5]}), true
}
