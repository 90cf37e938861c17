//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
)

// rules carries out ops on the nftables of one namespace as one transaction. In
// a sandbox that goes over a socket which is closed at the end of the call: one
// that stayed open would keep the namespace, so no table there has an owner.
func (a *applier) rules(ctx context.Context, ops []kernel.Op) error {
	ns := ops[0].Object.Key().NS
	sp, err := a.spaces.at(ns)
	if errors.Is(err, os.ErrNotExist) && !slices.ContainsFunc(ops, func(op kernel.Op) bool { return op.Verb != kernel.Delete }) {
		return nil // all of it went with the namespace
	}
	if err != nil {
		return err
	}
	c, err := sp.rules()
	if err != nil {
		return err
	}
	if ns != kernel.Host {
		a.k.mu.Lock()
		a.k.wrote[ns] = c.PortID() // before the monitor hears of it
		a.k.mu.Unlock()
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, sandboxDeadline)
		defer cancel()
	}
	err = a.k.change(ctx, c, ops)
	if errors.Is(err, unix.ENOENT) { // perhaps of a hook whose link is gone
		if rest, rerr := withoutLostHooks(ctx, c, ops); rerr == nil && len(rest) < len(ops) {
			err = a.k.change(ctx, c, rest)
		}
	}
	if err != nil {
		return fmt.Errorf("change rules: %w", err)
	}
	return nil
}

// change commits ops as one transaction. The types of the host's sets are kept,
// as they were read or made last: to read them for each change would cost as
// much as the change.
func (k *Kernel) change(ctx context.Context, c *nft.Conn, ops []kernel.Op) error {
	b := &transaction{ops: ops, sets: map[tableID][]rules.Set{}, kept: map[tableID][]rules.Set{}}
	if c == k.nft {
		b.kept = k.sets
	}
	if err := b.commit(ctx, c); err != nil {
		clear(b.kept) // perhaps they are not what they were
		return err
	}
	for _, op := range ops {
		switch op.Object.Key().Kind {
		case kernel.KindTable, kernel.KindSet:
			delete(b.kept, tableOf(op.Object))
		}
	}
	return nil
}

// commit carries the ops out, at once if the socket takes a transaction that
// large.
func (b *transaction) commit(ctx context.Context, c *nft.Conn) error {
	if err := b.takeOver(ctx, c); err != nil {
		return err
	}
	if err := b.sort(ctx, c); err != nil {
		return err
	}
	b.DeleteAll(b.out)
	if err := b.structure(); err != nil {
		return err
	}
	b.AddAll(b.in)
	if err := b.hooks(kernel.Create); err != nil {
		return err
	}
	err := c.Commit(ctx, &b.Batch)
	if errors.Is(err, nft.ErrTooLarge) {
		return b.inParts(ctx, c)
	}
	return err
}

// takeOver changes the flags of tables, in a transaction of its own: the kernel
// refuses it beside the removal of base chains and changes of hooks
// (nft_table_pending_update, __NFT_TABLE_F_UPDATE).
func (b *transaction) takeOver(ctx context.Context, c *nft.Conn) error {
	var first nft.Batch
	for _, op := range b.ops {
		if t, ok := op.Object.(kernel.Table); ok && op.Verb == kernel.Change {
			first.AddTable(parseTable(t))
		}
	}
	return c.Commit(ctx, &first)
}

// inParts is for a socket whose buffer cannot be raised (net.core.wmem_max holds
// without CAP_NET_ADMIN in the initial user namespace): elements go and come in
// parts, and when one is refused, those before it are taken back.
func (b *transaction) inParts(ctx context.Context, c *nft.Conn) error {
	b.Batch = nft.Batch{}
	err := b.structure()
	if err == nil && b.Len() == 0 {
		err = c.Exchange(ctx, b.out, b.in)
	} else if err == nil {
		err = c.Exchange(ctx, b.out, nil)
		if err == nil {
			err = c.Commit(ctx, &b.Batch)
		}
		if err == nil {
			err = c.Exchange(ctx, nil, b.in)
		}
	}
	b.Batch = nft.Batch{}
	if err == nil {
		err = b.hooks(kernel.Create)
	}
	if err != nil {
		return err
	}
	return c.Commit(ctx, &b.Batch)
}

// tableID names a table within a namespace.
type tableID struct{ family, name string }

// tableOf is the table that an object of nftables is in.
func tableOf(o kernel.Object) tableID {
	switch o := o.(type) {
	case kernel.Table:
		return tableID{o.Family, o.Name}
	case kernel.Set:
		return tableID{o.Family, o.Table}
	case kernel.Chain:
		return tableID{o.Family, o.Table}
	case kernel.Element:
		return tableID{o.Family, o.Table}
	case kernel.Hook:
		return tableID{o.Family, o.Table}
	}
	return tableID{}
}

// transaction is made of ops. The order within it is the kernel's:
// elements before what they refer to when they go, after it when they come.
type transaction struct {
	nft.Batch
	ops  []kernel.Op
	sets map[tableID][]rules.Set // made here
	kept map[tableID][]rules.Set // there already, as far as known
	// out and in are the elements that go and come.
	out, in []nft.Elements
}

// sort finds out which elements go and which come.
func (b *transaction) sort(ctx context.Context, c *nft.Conn) error {
	if err := b.findSets(ctx, c); err != nil {
		return err
	}
	for _, op := range b.ops {
		e, ok := op.Object.(kernel.Element)
		if !ok {
			continue
		}
		if err := b.element(op, e); err != nil {
			return err
		}
	}
	return nil
}

// element sorts one op on an element.
func (b *transaction) element(op kernel.Op, e kernel.Element) (err error) {
	was, changes := op.Old.(kernel.Element)
	if changes && was.Lacks != "" && was.Value == e.Value { // the rest of a range
		b.in, err = b.collect(b.in, e, was.Missing())
		return err
	}
	if op.Verb != kernel.Create { // replace is delete and add
		old := e
		if changes {
			old = was
		}
		b.out, err = b.collect(b.out, old, old.Places())
	}
	if err == nil && op.Verb != kernel.Delete {
		b.in, err = b.collect(b.in, e, e.Places())
	}
	return err
}

// findSets gathers the types of the sets that elements belong to and rules
// name: made here, or there already.
func (b *transaction) findSets(ctx context.Context, c *nft.Conn) error {
	for _, op := range b.ops {
		if s, ok := op.Object.(kernel.Set); ok {
			set, err := parseSet(s)
			if err != nil {
				return err
			}
			b.sets[tableOf(s)] = append(b.sets[tableOf(s)], set)
		}
	}
	for _, op := range b.ops {
		id := tableOf(op.Object)
		e, isElement := op.Object.(kernel.Element)
		_, isChain := op.Object.(kernel.Chain)
		_, known := b.set(id, e.Set)
		if _, read := b.kept[id]; read || !isChain && (!isElement || known) {
			continue
		}
		f, err := rules.ParseFamily(id.family)
		if err != nil {
			return err
		}
		there, err := c.Sets(ctx, f, id.name)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		b.kept[id] = there
	}
	return nil
}

// set finds a set: one made here before one that is there.
func (b *transaction) set(id tableID, name string) (rules.Set, bool) {
	all := b.all(id)
	i := slices.IndexFunc(all, func(s rules.Set) bool { return s.Name == name })
	if i < 0 {
		return rules.Set{}, false
	}
	return all[i], true
}

func (b *transaction) all(id tableID) []rules.Set { return slices.Concat(b.sets[id], b.kept[id]) }

// collect puts elements with the others of their set.
func (b *transaction) collect(all []nft.Elements, e kernel.Element, places iter.Seq[uint16]) ([]nft.Elements, error) {
	set, ok := b.set(tableOf(e), e.Set)
	if !ok {
		return nil, fmt.Errorf("set %s does not exist in table %s: %w", e.Set, e.Table, unix.ENOENT)
	}
	first, err := parseElement(set, e)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(x nft.Elements) bool {
		return x.Set.Name == set.Name && x.Set.Family == set.Family && x.Set.Table == set.Table
	})
	if i < 0 {
		all, i = append(all, nft.Elements{Set: set}), len(all)
	}
	all[i].List = append(all[i].List, expand(first, places)...)
	return all, nil
}

// structure takes hooks away, and adds the ops on tables, chains and sets: chains
// are emptied before anything is removed, and filled after everything is there.
func (b *transaction) structure() error {
	if err := b.hooks(kernel.Delete); err != nil {
		return err
	}
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
		if op.Verb == kernel.Create {
			b.AddTable(parseTable(o))
		}
		if o.NS != kernel.Host && op.Verb == kernel.Create && !b.removes(o) {
			// What the tenant may have put there under our name was not read.
			b.DeleteTable(parseTable(o))
			b.AddTable(parseTable(o))
		}
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
			b.hooked(chain, b.devices(o, kernel.Create))
			b.FlushChain(chain)
		}
	}
	return nil
}

// removes reports whether the table is removed first.
func (b *transaction) removes(t kernel.Table) bool {
	return slices.ContainsFunc(b.ops, func(op kernel.Op) bool { return op.Verb == kernel.Delete && op.Object.Key() == t.Key() })
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
			r, err := rules.ParseRule(chain.Family, strings.TrimRight(line, "\n"), b.all(tableOf(o))...)
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
