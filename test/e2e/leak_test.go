package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

// The marks of what is Towpath's. They are written out, not taken from the
// daemon's packages: what is leaked is looked for without its eyes.
const (
	markGroup, trashGroup = 0x746f7700, 0x746f7701 // IFLA_GROUP
	markProtocol          = 80                     // RTA_PROTOCOL, FRA_PROTOCOL
)

// snapshot is what the host's namespace has, as text to compare: links,
// addresses, routes, rules of routing, nftables, and the parameters of IP.
// Indices of links are left out: no two links ever have the same.
func (w *world) snapshot() string {
	w.Helper()
	c := w.host.Conn(w)
	names := map[int]string{}
	links, err := c.Links(w.Context(), rt.LinkFilter{})
	w.check(err)
	for _, l := range links {
		names[l.Index] = l.Name
	}
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, l := range links {
		add("link %s %s up %t mtu %d address %s master %q group %#x alias %q addrgen none %t",
			l.Name, l.Kind, l.Up, l.MTU, l.MAC, names[l.Master], l.Group, l.Alias, l.AddrGenNone)
	}
	addrs, err := c.Addresses(w.Context(), 0)
	w.check(err)
	for _, a := range addrs {
		add("address %s dev %s proto %d flags %#x", a.Prefix, names[a.Index], a.Proto, a.Flags)
	}
	routes, err := c.Routes(w.Context(), rt.RouteFilter{}, 0)
	w.check(err)
	for _, r := range routes {
		dev := names[r.OIF]
		r.OIF = 0
		add("route dev %s %+v", dev, r)
	}
	policy, err := c.Rules(w.Context(), unix.AF_UNSPEC)
	w.check(err)
	for _, r := range policy {
		add("rule %+v", r)
	}
	lines = append(lines, w.parameters()...)
	slices.Sort(lines)
	for _, t := range w.tables() {
		lines = append(lines, t.String())
	}
	return strings.Join(lines, "\n")
}

// same checks that the host is as in a snapshot.
func (w *world) same(before string) {
	w.Helper()
	if diff := cmp.Diff(before, w.snapshot()); diff != "" {
		w.Errorf("the host is not as it was (-before +after):\n%s", diff)
	}
}

// settle waits until the kernel has looked whether somebody else has the host's
// link-local address, some two seconds: until then that address has no route.
func (w *world) settle() {
	w.Helper()
	m, err := rt.Listen(w.host.FD(), rt.GroupIPv6Address)
	w.check(err)
	defer m.Close()
	addrs, err := w.host.Conn(w).Addresses(w.Context(), 0)
	w.check(err)
	waiting := map[netip.Prefix]bool{}
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			waiting[a.Prefix] = true
		}
	}
	ctx, cancel := context.WithTimeout(w.Context(), 2*patience)
	defer cancel()
	for len(waiting) > 0 {
		e, err := m.Next(ctx)
		w.check(err)
		if e.Kind == rt.EventAddress && e.Address.Flags&unix.IFA_F_TENTATIVE == 0 {
			delete(waiting, e.Address.Prefix)
		}
	}
}

// parameters are the sysctls of IP, of the namespace and of its links.
func (w *world) parameters() []string {
	w.Helper()
	var lines []string
	w.host.Do(w, func() error {
		for _, root := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"} {
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				value, err := os.ReadFile(path)
				if err != nil { // stable_secret is EIO until it is set
					value = []byte(err.Error())
				}
				lines = append(lines, path+" = "+strings.TrimSpace(string(value)))
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return lines
}

// tables are all nftables tables of the host.
func (w *world) tables() []rules.TableDef {
	w.Helper()
	c, err := nft.Dial(w.host.FD())
	w.check(err)
	defer c.Close()
	tables, err := c.ReadTables(w.Context())
	w.check(err)
	return tables
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// nothingLeaked checks that what carries our mark is exactly what the plan has:
// namespaces, links, addresses, routing and nftables; and that no command is left.
func (w *world) nothingLeaked() {
	w.Helper()
	plan, err := kernel.Parse(w.must("plan"))
	w.check(err)
	var want []string
	for _, k := range plan.Keys() {
		switch k.Kind {
		case kernel.KindNamespace, kernel.KindLink, kernel.KindAddress, kernel.KindRoute, kernel.KindRule,
			kernel.KindTable, kernel.KindSet, kernel.KindChain, kernel.KindElement:
			want = append(want, k.String())
		}
	}
	have := w.marked()
	slices.Sort(want)
	slices.Sort(have)
	if diff := cmp.Diff(want, have); diff != "" {
		w.Errorf("the kernel has not what the plan has (-plan +kernel):\n%s", diff)
	}
	if left := w.commands(); len(left) > 0 {
		w.Errorf("processes of a command are left: %v", left)
	}
}

// marked are the keys of what is ours in the kernel.
func (w *world) marked() []string {
	w.Helper()
	keys := w.markedIn(w.host, kernel.Host)
	entries, err := netns.List(filepath.Join(w.run, "netns"))
	w.check(err)
	for _, e := range entries {
		keys = append(keys, kernel.Namespace{Name: e.Name}.Key().String())
		if !e.Mounted {
			w.Errorf("%s is a file that no namespace is mounted on", e.Name)
			continue
		}
		f, err := netns.Open(filepath.Join(w.run, "netns", e.Name))
		w.check(err)
		keys = append(keys, w.markedIn(&testnet.NS{Name: e.Name, F: f}, e.Name)...)
		f.Close()
	}
	for _, t := range w.tables() {
		keys = append(keys, tableKeys(kernel.Host, t)...)
	}
	return keys
}

// markedIn are the links, addresses and routing of ours in one namespace. In a
// sandbox every link but those that each namespace has came from us.
func (w *world) markedIn(ns *testnet.NS, name string) []string {
	w.Helper()
	c, err := rt.Dial(ns.FD())
	w.check(err)
	defer c.Close()
	links, err := c.Links(w.Context(), rt.LinkFilter{})
	w.check(err)
	var keys []string
	names, ours := map[int]string{}, map[int]bool{}
	for _, l := range links {
		names[l.Index] = l.Name
		ours[l.Index] = l.Group == markGroup || l.Group == trashGroup || strings.HasPrefix(l.Alias, linux.AliasPrefix) ||
			(name != kernel.Host && l.Kind == "veth")
		if ours[l.Index] {
			keys = append(keys, kernel.Link{NS: name, Name: l.Name}.Key().String())
		}
	}
	addrs, err := c.Addresses(w.Context(), 0)
	w.check(err)
	for _, a := range addrs {
		// The kernel makes link-local addresses too (IFAPROT_KERNEL_LL).
		if ours[a.Index] && (a.Proto == markProtocol || !a.Prefix.Addr().IsLinkLocalUnicast()) {
			keys = append(keys, kernel.Address{NS: name, Dev: names[a.Index], Prefix: a.Prefix}.Key().String())
		}
	}
	if name != kernel.Host {
		keys = append(keys, w.markedRules(ns, name)...)
	}
	return append(keys, w.markedRouting(c, name, names)...)
}

// markedRules are our tables in a sandbox.
func (w *world) markedRules(ns *testnet.NS, name string) []string {
	w.Helper()
	c, err := nft.Dial(ns.FD())
	w.check(err)
	defer c.Close()
	tables, err := c.ReadTables(w.Context())
	w.check(err)
	var keys []string
	for _, t := range tables {
		if t.Name == "towpath" {
			keys = append(keys, tableKeys(name, t)...)
		}
	}
	return keys
}

// markedRouting are the routes and the rules of routing of ours in one namespace.
func (w *world) markedRouting(c *rt.Conn, ns string, names map[int]string) []string {
	w.Helper()
	var keys []string
	routes, err := c.Routes(w.Context(), rt.RouteFilter{Protocol: markProtocol}, 0)
	w.check(err)
	for _, r := range routes {
		o := kernel.Route{NS: ns, Dev: names[r.OIF], Dst: r.Dst, Metric: r.Metric, Table: r.Table}
		if o.Dst.Addr().Is6() && o.Metric == 1024 { // what the kernel makes of 0
			o.Metric = 0
		}
		if o.Table == unix.RT_TABLE_MAIN {
			o.Table = 0
		}
		keys = append(keys, o.Key().String())
	}
	policy, err := c.Rules(w.Context(), unix.AF_UNSPEC)
	w.check(err)
	for _, r := range policy {
		if r.Protocol == markProtocol {
			keys = append(keys, kernel.Rule{NS: ns, From: r.Src, Priority: r.Priority}.Key().String())
		}
	}
	return keys
}

// tableKeys are the keys of a table and of all that is in it.
func tableKeys(ns string, t rules.TableDef) []string {
	family := t.Family.String()
	keys := []string{kernel.Table{NS: ns, Family: family, Name: t.Name}.Key().String()}
	for _, c := range t.Chains {
		keys = append(keys, kernel.Chain{NS: ns, Family: family, Table: t.Name, Name: c.Name}.Key().String())
	}
	for _, s := range t.Sets {
		keys = append(keys, kernel.Set{NS: ns, Family: family, Table: t.Name, Name: s.Name}.Key().String())
		for _, e := range s.Elements {
			elem, _, _ := strings.Cut(rules.FormatElement(s.Set, e), " : ")
			keys = append(keys, kernel.Element{NS: ns, Family: family, Table: t.Name, Set: s.Name, Elem: elem}.Key().String())
		}
	}
	return keys
}

// commands are the processes that came from a command line of this world: what
// `run` starts inherits its environment, which has the world's socket in it.
func (w *world) commands() []string {
	w.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	w.check(err)
	var out []string
	for _, file := range files {
		env, err := os.ReadFile(file)
		if err != nil { // gone by now, or another user's
			continue
		}
		if slices.Contains(strings.Split(string(env), "\x00"), w.socketEnv()) {
			out = append(out, filepath.Dir(file))
		}
	}
	return out
}

func (w *world) socketEnv() string { return "TOWPATH_SOCKET=" + filepath.Join(w.run, "towpath.sock") }
