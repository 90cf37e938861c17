package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel"
)

// foresight is of a kernel that can make use of knowing what all steps of a
// plan are, until end is called.
type foresight interface {
	Foresee(ops []kernel.Op) (end func())
}

// apply carries out the ops of a plan in steps, so that what the rules are to
// guard is not plugged in when the rules were refused, and nothing is raised
// that is not guarded.
func (l *Loop) apply(ctx context.Context, p plan) map[driver.Unit]error {
	unitOf := l.unitsOf(p)
	if f, ok := l.kernel.(foresight); ok {
		defer f.Foresee(p.ops)()
	}
	var before, rules, plug, guard, after []kernel.Op
	for _, op := range p.ops {
		switch {
		case op.Phase < kernel.Rules:
			before = append(before, op)
		case op.Phase == kernel.Rules:
			rules = append(rules, op)
		case op.Phase < kernel.Guard:
			plug = append(plug, op)
		case op.Phase == kernel.Guard:
			guard = append(guard, op)
		default:
			after = append(after, op)
		}
	}
	failures := map[driver.Unit]error{}
	blame := func(fs []kernel.Failure) {
		for _, f := range fs {
			if u := unitOf[f.Op.Object.Key()]; failures[u] == nil {
				failures[u] = f.Err
			}
		}
	}
	blame(l.kernel.Apply(ctx, before))
	rules = withdraw(rules, p.have, failures, unitOf)
	blame(l.bisect(ctx, rules, unitOf))
	sound := func(ops []kernel.Op) []kernel.Op {
		return slices.DeleteFunc(ops, func(op kernel.Op) bool {
			u := unitOf[op.Object.Key()]
			if host := failures[driver.HostUnit]; host != nil && failures[u] == nil {
				failures[u] = withoutHost(host)
			}
			return failures[u] != nil
		})
	}
	if len(guard) > 0 {
		blame(l.kernel.Apply(ctx, sound(plug)))
		blame(l.bisect(ctx, sound(guard), unitOf))
		plug = nil
	}
	blame(l.kernel.Apply(ctx, sound(append(plug, after...))))
	return failures
}

// withoutHost is what keeps a unit out of the kernel when the host's own failed.
func withoutHost(err error) error {
	return fmt.Errorf("what guards it is not in place: %w", err)
}

// withdraw takes what failed units would add out of a transaction, and the
// elements of failed publications that are there already out of the rules: one
// whose port somebody else has must not lead its traffic away.
func withdraw(rules []kernel.Op, have kernel.State, failures map[driver.Unit]error, unitOf map[kernel.Key]driver.Unit) []kernel.Op {
	if len(failures) == 0 {
		return rules
	}
	going := map[kernel.Key]bool{}
	rules = slices.DeleteFunc(rules, func(op kernel.Op) bool {
		if op.Verb == kernel.Delete {
			going[op.Object.Key()] = true
			return false
		}
		return failures[unitOf[op.Object.Key()]] != nil
	})
	for k, o := range have {
		u := unitOf[k]
		if _, isElement := o.(kernel.Element); isElement && !going[k] && failures[u] != nil && strings.HasPrefix(string(u), "publication/") {
			rules = append(rules, kernel.Op{Verb: kernel.Delete, Object: o, Phase: kernel.Rules})
		}
	}
	return rules
}

// unitsOf says whose each op is. What nobody wants and nobody had is garbage
// of an earlier life, and the host's to clear away.
func (l *Loop) unitsOf(p plan) map[kernel.Key]driver.Unit {
	of := map[kernel.Key]driver.Unit{}
	for _, op := range p.ops {
		k := op.Object.Key()
		of[k] = driver.HostUnit
		if u, ok := l.owner[k]; ok {
			of[k] = u
		}
	}
	for u, s := range p.want {
		for k := range s {
			of[k] = u
		}
	}
	return of
}

// bisect applies transactions, one a namespace, and of one that the kernel
// refuses its halves by unit, until the guilty ones are found and the others are
// in. The host's ops make the tables, so they stay with every part.
func (l *Loop) bisect(ctx context.Context, ops []kernel.Op, unitOf map[kernel.Key]driver.Unit) []kernel.Failure {
	if len(ops) == 0 {
		return nil
	}
	fs := l.kernel.Apply(ctx, ops)
	if len(fs) == 0 {
		return nil
	}
	ops = nil
	for _, f := range fs {
		ops = append(ops, f.Op)
	}
	groups := map[driver.Unit][]kernel.Op{}
	for _, op := range ops {
		u := unitOf[op.Object.Key()]
		groups[u] = append(groups[u], op)
	}
	if len(groups) == 1 {
		return fs
	}
	if host := groups[driver.HostUnit]; len(host) > 0 {
		if fs := l.kernel.Apply(ctx, host); len(fs) > 0 {
			for _, op := range ops { // none of the others is in
				if unitOf[op.Object.Key()] != driver.HostUnit {
					fs = append(fs, kernel.Failure{Op: op, Err: withoutHost(fs[0].Err)})
				}
			}
			return fs
		}
		delete(groups, driver.HostUnit)
	}
	units := slices.Sorted(maps.Keys(groups))
	var failures []kernel.Failure
	for _, half := range [][]driver.Unit{units[:len(units)/2], units[len(units)/2:]} {
		part := slices.DeleteFunc(slices.Clone(ops), func(op kernel.Op) bool {
			return !slices.Contains(half, unitOf[op.Object.Key()])
		})
		failures = append(failures, l.bisect(ctx, part, unitOf)...)
	}
	return failures
}
