//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
)

// protectFlags is how the state writes table flags owner and persist
// (NFT_TABLE_F_OWNER 5.12, NFT_TABLE_F_PERSIST 6.9): a foreign flush of the
// ruleset leaves the table alone, and it stays when the daemon dies.
const protectFlags = "owner,persist"

// orphanFlags are those of a table so protected whose owner has gone.
const orphanFlags = "persist"

// probeFlags asks the kernel in a table of its own whether it has the flags.
func (k *Kernel) probeFlags() (string, error) {
	t := rules.Table{Family: rules.FamilyInet, Name: tableName + "_probe", Flags: rules.TableOwner | rules.TablePersist}
	var b nft.Batch
	b.AddTable(t)
	b.DeleteTable(t)
	err := k.nft.Commit(context.Background(), &b)
	switch {
	case err == nil:
		return protectFlags, nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, errors.ErrUnsupported):
		return "", nil
	}
	return "", fmt.Errorf("probe nftables: %w", err)
}

// ownFamilies are the families in which a namespace may have a table of ours.
func ownFamilies(ns string) []rules.Family {
	if ns == kernel.Host {
		return []rules.Family{rules.FamilyInet, rules.FamilyIP, rules.FamilyNetdev}
	}
	return []rules.Family{rules.FamilyNetdev}
}

// sandboxObjects is how much there may be in our table in a sandbox over what
// we want. One that has more counts as absent, and is made anew.
const sandboxObjects = 256

// readTables reads our nftables tables, when something of them is asked for. On
// a sweep those of sandboxes too: their name is our mark.
func (o *observer) readTables(ctx context.Context, sp *space, ns string) error {
	for _, f := range ownFamilies(ns) {
		if !o.sweep && !o.asksRules(ns, f) {
			continue
		}
		c, err := sp.rules()
		if err != nil {
			return err
		}
		def, err := c.ReadTable(ctx, f, tableName)
		if errors.Is(err, unix.ENOENT) || ns != kernel.Host && errors.Is(err, nft.ErrTooMuch) {
			continue
		}
		if err != nil {
			return err
		}
		objs := o.k.tableObjects(ns, def)
		if ns != kernel.Host && len(objs)+countElements(def) > len(o.in[ns])+sandboxObjects {
			continue
		}
		for _, obj := range objs {
			w, asked := o.want[obj.Key()]
			if hook, isHook := w.(kernel.Hook); isHook {
				obj = hook // all of it is in its key
			}
			if o.sweep || asked {
				o.add(obj)
			}
		}
		ranges := wanted[kernel.Element](o, ns)
		for _, s := range def.Sets {
			o.readElements(ns, s, stretchesOf(s.Set, ranges))
		}
	}
	return nil
}

// readElements adds what is in a set: ranges that are wanted as such, and others
// one by one. What is in the place of an element of a range is in its way, and
// told even if nobody asked for it.
func (o *observer) readElements(ns string, s rules.SetDef, ranges stretches) {
	for _, e := range s.Elements {
		taken, near := ranges.take(e)
		if taken {
			continue
		}
		elem, value, _ := strings.Cut(rules.FormatElement(s.Set, e), " : ")
		obj := kernel.Element{NS: ns, Family: s.Family.String(), Table: s.Table, Set: s.Name, Elem: elem, Value: value}
		if near || o.sweep || o.wants(obj) {
			o.add(obj)
		}
	}
	for _, obj := range ranges.seen() {
		o.add(obj)
	}
}

func (o *observer) asksRules(ns string, f rules.Family) bool {
	return slices.ContainsFunc(o.in[ns], func(obj kernel.Object) bool {
		return obj.Key().Kind.IsNFT() && tableOf(obj).family == f.String()
	})
}

// tableObjects turns what was read into objects, but for the elements.
func (k *Kernel) tableObjects(ns string, def rules.TableDef) []kernel.Object {
	t := def.Table
	family := t.Family.String()
	flags := ""
	switch persists := t.Flags&rules.TablePersist != 0; {
	case persists && t.Flags&rules.TableOwner != 0:
		flags = protectFlags
	case persists && k.flags != "": // without protection it may stay as it is
		flags = orphanFlags
	}
	objs := []kernel.Object{kernel.Table{NS: ns, Family: family, Name: t.Name, Flags: flags}}
	for _, s := range def.Sets {
		objs = append(objs, kernel.Set{NS: ns, Family: family, Table: t.Name, Name: s.Name, Type: setType(s.Set), Flags: setFlags(s.Set)})
	}
	for _, c := range def.Chains {
		var text strings.Builder
		for _, r := range c.Rules {
			text.WriteString(r.String() + "\n")
		}
		for _, dev := range c.Devices {
			objs = append(objs, kernel.Hook{NS: ns, Family: family, Table: t.Name, Chain: c.Name, Dev: dev, ByName: k.hooks == kernel.HooksByName})
		}
		chain := kernel.Chain{NS: ns, Family: family, Table: t.Name, Name: c.Name, Rules: text.String()}
		if c.Base() {
			c.Devices = nil
			chain.Base = c.Header()
		}
		objs = append(objs, chain)
	}
	return objs
}

// countElements counts those of all sets.
func countElements(def rules.TableDef) int {
	n := 0
	for _, s := range def.Sets {
		n += len(s.Elements)
	}
	return n
}

func parseSet(s kernel.Set) (rules.Set, error) {
	family, err := rules.ParseFamily(s.Family)
	if err != nil {
		return rules.Set{}, err
	}
	key, data, isMap := strings.Cut(s.Type, " : ")
	set := rules.Set{Family: family, Table: s.Table, Name: s.Name, Map: isMap, KeyType: key, DataType: data}
	for _, f := range strings.Split(s.Flags, ",") {
		switch f {
		case "interval":
			set.Flags |= rules.SetInterval
		case "dynamic":
			set.Flags |= rules.SetDynamic
		case "constant":
			set.Flags |= rules.SetConstant
		case "timeout":
			set.Flags |= rules.SetTimeout
		}
	}
	return set, nil
}

func setType(s rules.Set) string {
	if s.Map {
		return s.KeyType + " : " + s.DataType
	}
	return s.KeyType
}

// setFlags in the order nft prints them.
func setFlags(s rules.Set) string {
	var names []string
	for _, f := range []struct {
		flag rules.SetFlags
		name string
	}{{rules.SetConstant, "constant"}, {rules.SetInterval, "interval"}, {rules.SetTimeout, "timeout"}, {rules.SetDynamic, "dynamic"}} {
		if s.Flags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, ",")
}

// chainLines are the rules of our chains in a namespace with the kernel's
// counters; of those that only links of the host meet, the ones of some links.
func chainLines(ctx context.Context, sp *space, ns string, links []string) ([]string, error) {
	lines := []string{}
	for _, f := range ownFamilies(ns) {
		c, err := sp.rules()
		if err != nil {
			return nil, err
		}
		def, err := c.ReadTable(ctx, f, tableName)
		switch {
		case errors.Is(err, unix.ENOENT):
			continue
		case err != nil:
			return nil, err
		}
		for _, c := range def.Chains {
			if ns == kernel.Host && f == rules.FamilyNetdev && !slices.ContainsFunc(links, func(l string) bool { return slices.Contains(c.Devices, l) }) {
				continue
			}
			for _, r := range c.Rules {
				lines = append(lines, fmt.Sprintf("%s: %s %s %s handle %d: %s", ns, f, tableName, c.Name, r.Handle, counted(r)))
			}
		}
	}
	return lines, nil
}

// counted is a rule with the values of its counter.
func counted(r rules.Rule) string {
	text := r.String()
	for _, e := range r.Exprs {
		if n, ok := e.(rules.Counter); ok {
			text = strings.Replace(text, "counter", fmt.Sprintf("counter packets %d bytes %d", n.Packets, n.Bytes), 1)
		}
	}
	return text
}
