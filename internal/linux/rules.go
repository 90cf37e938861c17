//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// readTables reads our nftables table, when something of it is asked for.
func (o *observer) readTables(ctx context.Context, _ *space, ns string) error {
	if ns != kernel.Host || (!o.sweep && !o.asksRules(ns)) {
		return nil
	}
	def, err := o.k.nft.ReadTable(ctx, rules.FamilyInet, tableName)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, obj := range tableObjects(ns, def) {
		if o.sweep || o.wants(obj) {
			o.add(obj)
		}
	}
	return nil
}

func (o *observer) asksRules(ns string) bool {
	for k := range o.want {
		if k.NS == ns && k.Kind.IsNFT() {
			return true
		}
	}
	return false
}

// tableObjects turns what was read into objects.
func tableObjects(ns string, def rules.TableDef) []kernel.Object {
	t := def.Table
	family := t.Family.String()
	flags := ""
	if t.Flags&rules.TableOwner != 0 && t.Flags&rules.TablePersist != 0 {
		flags = protectFlags
	}
	objs := []kernel.Object{kernel.Table{NS: ns, Family: family, Name: t.Name, Flags: flags}}
	for _, s := range def.Sets {
		objs = append(objs, kernel.Set{NS: ns, Family: family, Table: t.Name, Name: s.Name, Type: setType(s.Set), Flags: setFlags(s.Set)})
		for _, e := range s.Elements {
			elem, value, _ := strings.Cut(rules.FormatElement(s.Set, e), " : ")
			objs = append(objs, kernel.Element{NS: ns, Family: family, Table: t.Name, Set: s.Name, Elem: elem, Value: value})
		}
	}
	for _, c := range def.Chains {
		var text strings.Builder
		for _, r := range c.Rules {
			text.WriteString(r.String() + "\n")
		}
		chain := kernel.Chain{NS: ns, Family: family, Table: t.Name, Name: c.Name, Rules: text.String()}
		if c.Base() {
			chain.Base = c.Header()
		}
		objs = append(objs, chain)
	}
	return objs
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

// rules carries out ops on nftables as one transaction.
func (a *applier) rules(ctx context.Context, ops []kernel.Op) error {
	if ns := ops[0].Object.Key().NS; ns != kernel.Host {
		return fmt.Errorf("no way to change rules in %s", ns)
	}
	b := &transaction{ops: ops}
	if err := b.build(ctx, a.k.nft); err != nil {
		return err
	}
	if err := a.k.nft.Commit(ctx, &b.Batch); err != nil {
		return fmt.Errorf("change rules: %w", err)
	}
	return nil
}

// transaction is made of ops. The order within it is the kernel's:
// elements before what they refer to when they go, after it when they come.
type transaction struct {
	nft.Batch
	ops  []kernel.Op
	sets map[string]rules.Set
}

// elements that go to one set in one message.
type elements struct {
	set  string
	list []rules.Element
}

func (b *transaction) build(ctx context.Context, c *nft.Conn) error {
	if err := b.findSets(ctx, c); err != nil {
		return err
	}
	var out, in []elements
	var err error
	for _, op := range b.ops {
		e, ok := op.Object.(kernel.Element)
		if !ok {
			continue
		}
		if op.Verb != kernel.Create { // replace is delete and add
			old := e
			if was, ok := op.Old.(kernel.Element); ok {
				old = was
			}
			if out, err = b.collect(out, old); err != nil {
				return err
			}
		}
		if op.Verb != kernel.Delete {
			if in, err = b.collect(in, e); err != nil {
				return err
			}
		}
	}
	for _, e := range out {
		b.DeleteElements(b.sets[e.set], e.list)
	}
	if err := b.structure(); err != nil {
		return err
	}
	for _, e := range in {
		b.AddElements(b.sets[e.set], e.list)
	}
	return nil
}

// findSets gathers the types of the sets that elements belong to: made here, or there already.
func (b *transaction) findSets(ctx context.Context, c *nft.Conn) error {
	b.sets = map[string]rules.Set{}
	missing := false
	for _, op := range b.ops {
		if s, ok := op.Object.(kernel.Set); ok {
			set, err := parseSet(s)
			if err != nil {
				return err
			}
			b.sets[s.Name] = set
		}
	}
	for _, op := range b.ops {
		e, isElement := op.Object.(kernel.Element)
		_, isChain := op.Object.(kernel.Chain) // whose rules name sets
		if isChain || isElement && b.sets[e.Set].Name == "" {
			missing = true
		}
	}
	if !missing {
		return nil
	}
	there, err := c.Sets(ctx, rules.FamilyInet, tableName)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	for _, s := range there {
		if b.sets[s.Name].Name == "" {
			b.sets[s.Name] = s
		}
	}
	return nil
}

// collect puts an element with the others of its set.
func (b *transaction) collect(all []elements, e kernel.Element) ([]elements, error) {
	set, ok := b.sets[e.Set]
	if !ok {
		return nil, fmt.Errorf("set %s does not exist in table %s: %w", e.Set, e.Table, unix.ENOENT)
	}
	text := e.Elem
	if e.Value != "" {
		text += " : " + e.Value
	}
	parsed, err := rules.ParseElement(set, text)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(x elements) bool { return x.set == e.Set })
	if i < 0 {
		all, i = append(all, elements{set: e.Set}), len(all)
	}
	all[i].list = append(all[i].list, parsed)
	return all, nil
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

// structure adds the ops on tables, chains and sets: chains are emptied before
// anything is removed, and filled after everything is there.
func (b *transaction) structure() error {
	for _, op := range b.ops {
		if t, ok := op.Object.(kernel.Table); ok && op.Verb == kernel.Delete {
			b.DeleteTable(parseTable(t))
		}
	}
	for _, verb := range []kernel.Verb{kernel.Delete, kernel.Create} {
		for _, kind := range b.order(verb) {
			for _, op := range b.ops {
				if op.Object.Key().Kind != kind || (op.Verb == kernel.Delete) != (verb == kernel.Delete) {
					continue
				}
				if err := b.part(op); err != nil {
					return err
				}
			}
		}
	}
	return b.fill()
}

func (b *transaction) order(verb kernel.Verb) []kernel.Kind {
	if verb == kernel.Delete {
		return []kernel.Kind{kernel.KindChain, kernel.KindSet}
	}
	return []kernel.Kind{kernel.KindTable, kernel.KindSet, kernel.KindChain}
}

// part adds one op on a table, chain or set; rules come by fill.
func (b *transaction) part(op kernel.Op) error {
	switch o := op.Object.(type) {
	case kernel.Table:
		b.AddTable(parseTable(o))
	case kernel.Set:
		set, err := parseSet(o)
		if err != nil {
			return err
		}
		if op.Verb == kernel.Delete {
			b.DeleteSet(set)
			return nil
		}
		b.AddSet(set)
	case kernel.Chain:
		chain, err := parseChain(o)
		if err != nil {
			return err
		}
		switch op.Verb {
		case kernel.Delete:
			b.FlushChain(chain)
			b.DeleteChain(chain)
		case kernel.Change:
			b.FlushChain(chain)
		case kernel.Create: // one that is there is filled anew
			b.AddChain(chain)
			b.FlushChain(chain)
		}
	}
	return nil
}

// fill adds the rules of chains that come or change.
func (b *transaction) fill() error {
	for _, op := range b.ops {
		o, ok := op.Object.(kernel.Chain)
		if !ok || op.Verb == kernel.Delete {
			continue
		}
		chain, err := parseChain(o)
		if err != nil {
			return err
		}
		for line := range strings.Lines(o.Rules) {
			r, err := rules.ParseRule(chain.Family, strings.TrimRight(line, "\n"), slices.Collect(maps.Values(b.sets))...)
			if err != nil {
				return err
			}
			b.AddRule(chain, r)
		}
	}
	return nil
}

func parseTable(t kernel.Table) rules.Table {
	family, _ := rules.ParseFamily(t.Family) // unknown: the kernel refuses 0
	out := rules.Table{Family: family, Name: t.Name}
	if t.Flags == protectFlags {
		out.Flags = rules.TableOwner | rules.TablePersist
	}
	return out
}

func parseChain(c kernel.Chain) (rules.Chain, error) {
	family, err := rules.ParseFamily(c.Family)
	if err != nil {
		return rules.Chain{}, err
	}
	chain := rules.Chain{Family: family}
	if c.Base != "" {
		if chain, err = rules.ParseHeader(family, c.Base); err != nil {
			return chain, err
		}
	}
	chain.Family, chain.Table, chain.Name = family, c.Table, c.Name
	return chain, nil
}

// chainLines are the rules of our chains with the kernel's counters.
func (k *Kernel) chainLines(ctx context.Context) ([]string, error) {
	def, err := k.nft.ReadTable(ctx, rules.FamilyInet, tableName)
	if errors.Is(err, unix.ENOENT) {
		return []string{}, nil
	}
	if err != nil {
		return nil, err
	}
	lines := []string{}
	for _, c := range def.Chains {
		for _, r := range c.Rules {
			text := r.String()
			for _, e := range r.Exprs {
				if n, ok := e.(rules.Counter); ok {
					text = strings.Replace(text, "counter", fmt.Sprintf("counter packets %d bytes %d", n.Packets, n.Bytes), 1)
				}
			}
			lines = append(lines, fmt.Sprintf("%s %s handle %d: %s", tableName, c.Name, r.Handle, text))
		}
	}
	return lines, nil
}
