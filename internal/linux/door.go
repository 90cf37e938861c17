//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	rules "github.com/towpath/towpath/internal/nft"
)

// entryMark is the comment of our rules in the chains of others.
const entryMark = "towpath"

// firewalldTable is the table of firewalld with its usual backend; with the
// other it makes a chain of this name in the tables of iptables.
const (
	firewalldTable = "firewalld"
	firewalldChain = "FORWARD_direct"
)

// ways are the links that lead out of the host: those that default routes lead
// over, and links of such kinds as container engines do not make.
func (k *Kernel) ways(ctx context.Context, links []rt.Link) ([]string, error) {
	routes, err := k.routes(ctx)
	if err != nil {
		return nil, err
	}
	byDefault := map[int]bool{}
	for _, r := range routes {
		byDefault[r.OIF] = byDefault[r.OIF] || r.Dst.Bits() == 0
	}
	inside := []string{"bridge", "veth", "dummy", "ifb", "vxlan", "geneve", "ipvlan"}
	var out []string
	for _, l := range links {
		if !ours(l) && l.Name != "lo" && (byDefault[l.Index] || l.Master == 0 && !slices.Contains(inside, l.Kind)) {
			out = append(out, l.Name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// doors finds the ways past the forward chains of others. Of two in one table
// one is enough, and the first is the better.
func (k *Kernel) doors(ctx context.Context) ([]kernel.Door, error) {
	var out []kernel.Door
	for _, d := range kernel.DoorChains() {
		same := func(o kernel.Door) bool { return o.Family == d.Family && o.Table == d.Table }
		if slices.ContainsFunc(out, same) {
			continue
		}
		family, err := rules.ParseFamily(d.Family)
		if err != nil {
			return nil, err
		}
		there, err := k.nft.HasChain(ctx, family, d.Table, d.Chain)
		if err != nil {
			return nil, err
		}
		if there {
			out = append(out, d)
		}
	}
	if there, err := k.hasFirewalld(ctx); err != nil || !there {
		return out, err
	}
	return append(out, kernel.Door{Program: kernel.DoorFirewalld}), nil
}

// hasFirewalld reports whether firewalld rules in this namespace, and answers.
// One that only answers is another namespace's.
func (k *Kernel) hasFirewalld(ctx context.Context) (bool, error) {
	if k.Zones == nil {
		return false, nil
	}
	there, err := k.nft.HasTable(ctx, rules.FamilyInet, firewalldTable)
	if err != nil {
		return false, err
	}
	if !there {
		if there, err = k.nft.HasChain(ctx, rules.FamilyIP, "filter", firewalldChain); err != nil {
			return false, err
		}
	}
	return there && k.Zones.Running(ctx), nil
}

// atDoor reports whether a change may have opened, closed or emptied a door.
func atDoor(t nft.Touch) bool {
	if t.Kind == "table" {
		return t.Table == firewalldTable || t.Delete && t.Table == "filter"
	}
	return t.Name == firewalldChain || kernel.IsDoor(t.Family.String(), t.Table, t.Name)
}

// quiet is how long others must leave the table of a door alone before we look
// at it, and atMost how long we wait for that. A program that loads its rules
// anew takes its chains apart one by one, and a rule that came back in the midst
// of it would be in its way.
const (
	quiet  = 500 * time.Millisecond
	atMost = 5 * time.Second
)

// touch is what another program did to a table that has doors.
type touch struct {
	process string
	door    bool // to the door itself
}

// doors asks for a look at the doors when whoever touched one is done.
func (w *watcher) doors(ctx context.Context) {
	var due <-chan time.Time
	var last time.Time
	var why string
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-w.touches:
			if due == nil && !t.door {
				continue
			}
			if due == nil {
				last = time.Now().Add(atMost)
			}
			if t.door {
				why = t.process + " changed a chain that lets our traffic through"
			}
			due = time.After(min(quiet, time.Until(last)))
		case <-due:
			due = nil
			w.send(ctx, kernel.Event{Why: why})
		}
	}
}

// touched passes on what others did to a table that has doors.
func (w *watcher) touched(ctx context.Context, e nft.Event) {
	t := touch{process: e.Process, door: slices.ContainsFunc(e.Touched, atDoor)}
	if !t.door && !slices.ContainsFunc(e.Touched, func(x nft.Touch) bool { return x.Table == "filter" }) {
		return
	}
	select {
	case w.touches <- t:
	case <-ctx.Done():
	}
}

// readEntries reads our rules in the doors.
func (o *observer) readEntries(ctx context.Context, _ *space, ns string) error {
	if ns != kernel.Host || !o.sweep && len(wanted[kernel.Entry](o, ns)) == 0 {
		return nil
	}
	for _, d := range kernel.DoorChains() {
		list, err := o.k.readDoor(ctx, d)
		if err != nil {
			return err
		}
		for _, r := range list {
			if e, ok := entryOf(d, r); ok {
				o.add(e)
			}
		}
	}
	return nil
}

// readDoor reads the rules of a chain, none when it is not there.
func (k *Kernel) readDoor(ctx context.Context, d kernel.Door) ([]rules.Rule, error) {
	family, err := rules.ParseFamily(d.Family)
	if err != nil {
		return nil, err
	}
	list, err := k.nft.Rules(ctx, family, d.Table, d.Chain)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return list, err
}

// entryRule is an entry in the form iptables-nft gives it, so that iptables
// goes on listing and restoring the chain.
func entryRule(e kernel.Entry) (rules.Rule, error) {
	family, err := rules.ParseFamily(e.Family)
	if err != nil {
		return rules.Rule{}, err
	}
	r := rules.Rule{Family: family, Comment: entryMark}
	for _, side := range []struct {
		key  rules.MetaKey
		name string
	}{{rules.MetaIIfName, e.In}, {rules.MetaOIfName, e.Out}} {
		if side.name == "" {
			continue
		}
		padded := make([]byte, unix.IFNAMSIZ)
		copy(padded, side.name)
		r.Exprs = append(r.Exprs, rules.Meta{DReg: 1, Key: side.key}, rules.Cmp{SReg: 1, Op: rules.CmpEq, Data: padded})
	}
	if e.States != "" {
		r.Exprs = append(r.Exprs, rules.ConntrackMatch(strings.Split(e.States, ",")...).Expr())
	}
	r.Exprs = append(r.Exprs, rules.Counter{}, rules.Verdict{Code: rules.Accept})
	return r, nil
}

// entryOf is the inverse; false for a rule that is not ours. One that carries
// our mark and was changed by hand comes out different from any we want, and
// with a form of which there is none, as an entry that accepts everything.
func entryOf(d kernel.Door, r rules.Rule) (kernel.Entry, bool) {
	e := kernel.Entry{NS: kernel.Host, Family: d.Family, Table: d.Table, Chain: d.Chain}
	if r.AnyComment() != entryMark {
		return e, false
	}
	var key rules.MetaKey
	for _, x := range r.Exprs {
		switch x := x.(type) {
		case rules.Meta:
			key = x.Key
		case rules.Cmp:
			name, _, _ := strings.Cut(string(x.Data), "\x00")
			switch key {
			case rules.MetaIIfName:
				e.In = name
			case rules.MetaOIfName:
				e.Out = name
			}
		case rules.Unknown:
			if m, ok := x.XT(); ok {
				if states, ok := m.ConntrackStates(); ok {
					e.States = strings.Join(states, ",")
				}
			}
		}
	}
	return e, true
}

func isEntry(op kernel.Op) bool { return op.Object.Key().Kind == kernel.KindEntry }

// entryTries is how often a change of foreign chains is begun again when others
// change them meanwhile.
const entryTries = 10

// changeEntries adds and removes entries as one transaction. A chain that is
// gone took its entries along, and needs none: the event of its going asks for
// another plan.
func (k *Kernel) changeEntries(ctx context.Context, ops []kernel.Op) error {
	for range entryTries {
		before, err := k.nft.Generation(ctx)
		if err != nil {
			return err
		}
		var b nft.Batch
		b.IfGeneration(before)
		for _, d := range kernel.DoorChains() {
			if err := k.changeDoor(ctx, &b, d, ops); err != nil {
				return err
			}
		}
		err = k.nft.Commit(ctx, &b)
		if !errors.Is(err, unix.ERESTART) {
			return err
		}
	}
	return fmt.Errorf("change foreign chains: %w", nft.ErrInterrupted)
}

// changeDoor adds the ops on one chain to a transaction. New rules go behind
// those of the administrator, whose refusals hold, but before a last rule that
// leaves the chain.
func (k *Kernel) changeDoor(ctx context.Context, b *nft.Batch, d kernel.Door, ops []kernel.Op) error {
	mine := slices.DeleteFunc(slices.Clone(ops), func(op kernel.Op) bool {
		e := op.Object.(kernel.Entry)
		return e.Family != d.Family || e.Table != d.Table || e.Chain != d.Chain
	})
	if len(mine) == 0 {
		return nil
	}
	family, err := rules.ParseFamily(d.Family)
	if err != nil {
		return err
	}
	if there, err := k.nft.HasChain(ctx, family, d.Table, d.Chain); err != nil || !there {
		return err
	}
	list, err := k.readDoor(ctx, d)
	if err != nil {
		return err
	}
	chain := rules.Chain{Family: family, Table: d.Table, Name: d.Chain}
	for _, op := range mine {
		want := op.Object.(kernel.Entry)
		same := func(r rules.Rule) bool { e, ok := entryOf(d, r); return ok && e == want }
		if op.Verb == kernel.Delete {
			for _, r := range list {
				if same(r) {
					b.DeleteRule(chain, r.Handle)
				}
			}
			continue
		}
		if slices.ContainsFunc(list, same) {
			continue
		}
		rule, err := entryRule(want)
		if err != nil {
			return err
		}
		if n := len(list); n > 0 && leaves(list[n-1]) {
			b.InsertRule(chain, rule, list[n-1].Handle)
		} else {
			b.AddRule(chain, rule)
		}
	}
	return nil
}

// leaves reports whether a rule returns from the chain whatever the packet.
func leaves(r rules.Rule) bool {
	for _, x := range r.Exprs {
		switch x := x.(type) {
		case rules.Counter:
		case rules.Verdict:
			return x.Code == rules.Return
		default:
			return false
		}
	}
	return false
}
