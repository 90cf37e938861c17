package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel"
)

// pass makes the kernel agree with the view as far as the pending work reaches,
// and returns how many ops it took.
func (l *Loop) pass(ctx context.Context) int {
	l.source.Gather() // before passing is held: who changes intent may ask for it
	l.passing.Lock()
	defer l.passing.Unlock()
	l.mu.Lock()
	w := l.pending
	l.pending = work{}
	view, rev := l.source.View() // together with the work, see Change
	l.mu.Unlock()
	start := time.Now()
	done, failures, err := l.reach(ctx, view, w)
	if ctx.Err() != nil { // the daemon ends; the next one finds what is left to do
		l.log.Info("pass cut short", "revision", rev, "cause", context.Cause(ctx))
		return 0
	}
	if err != nil {
		l.log.Error("pass failed", "err", err)
		l.mark(work{full: true}) // nothing is known for sure
		done, failures = plan{units: l.units(view, w)}, map[driver.Unit]error{driver.HostUnit: err}
		for _, u := range done.units {
			failures[u] = err
		}
	}
	l.settle(rev, slices.AppendSeq(slices.Clone(done.units), maps.Keys(failures)), failures)
	if len(done.ops) == 0 && len(failures) == 0 {
		return 0
	}
	took := time.Since(start)
	l.log.Info("pass", "revision", rev, "units", len(done.units), "ops", len(done.ops), "failed", len(failures), "us", took.Microseconds())
	l.Report(Report{Units: len(done.units), Ops: len(done.ops), Failed: len(failures), Took: took})
	l.tellHealed(w, done)
	return len(done.ops)
}

// tellHealed tells of what was put right without anyone having asked.
func (l *Loop) tellHealed(w work, done plan) {
	of := l.unitsOf(done)
	healed := map[driver.Unit][]string{}
	for _, op := range done.ops {
		u := of[op.Object.Key()]
		if !w.units[u] && w.why != "" {
			healed[u] = append(healed[u], op.String())
		}
	}
	for _, u := range slices.Sorted(maps.Keys(healed)) {
		l.Tell(unitEvent(u, "heal", w.why+"; "+count(healed[u])))
	}
}

// count says how many ops there are, and which is the first.
func count(ops []string) string {
	if len(ops) == 1 {
		return "1 op: " + ops[0]
	}
	return fmt.Sprintf("%d ops, the first: %s", len(ops), ops[0])
}

// unitEvent is an event of the object that a unit belongs to.
func unitEvent(u driver.Unit, action, detail string) api.Event {
	kind, name, _ := strings.Cut(string(u), "/")
	return api.Event{Kind: kind, Name: name, Action: action, Detail: detail}
}

// plan is what a pass works with: the units it covers, wanted and present.
type plan struct {
	units []driver.Unit
	want  map[driver.Unit]kernel.State
	have  kernel.State
	ops   []kernel.Op
}

// all merges the wanted states of the units.
func (p plan) all() kernel.State {
	all := kernel.State{}
	for _, s := range p.want {
		maps.Copy(all, s)
	}
	return all
}

// reach plans, compares and applies; it returns what it covered, and per unit what failed.
func (l *Loop) reach(ctx context.Context, view driver.View, w work) (plan, map[driver.Unit]error, error) {
	p, err := l.compare(ctx, view, w)
	if err != nil {
		return plan{}, nil, err
	}
	if err := l.save(ctx, view, p.ops); err != nil {
		return p, nil, err
	}
	failures := l.apply(ctx, p)
	for _, u := range p.units {
		has := p.want[u]
		delete(l.unsure, u)
		if failures[u] != nil { // some of the old, some of the new: to be read next time
			has = has.Clone()
			for k, o := range l.owned[u] {
				if _, ok := has[k]; !ok {
					has[k] = o
				}
			}
			l.unsure[u] = true
		}
		l.own(u, has)
	}
	return p, failures, nil
}

// compare plans the units and finds the ops. With full work everything is
// read; otherwise what is known to be in the kernel is trusted, except for
// units that an event or a failure cast doubt on.
func (l *Loop) compare(ctx context.Context, view driver.View, w work) (plan, error) {
	if w.full || w.recheck[driver.HostUnit] {
		facts, err := l.kernel.Facts(ctx)
		if err != nil {
			return plan{}, fmt.Errorf("read host: %w", err)
		}
		if !facts.Equal(l.facts) { // every unit may plan differently now
			w.full = true
		}
		l.facts = facts
	}
	view.Host = l.facts
	p := plan{units: l.units(view, w), want: map[driver.Unit]kernel.State{}, have: kernel.State{}}
	doubt := kernel.State{}
	for _, u := range p.units {
		p.want[u] = kernel.NewState(driver.Plan(u, view)...)
		if w.full || w.recheck[u] || l.unsure[u] {
			maps.Copy(doubt, l.owned[u])
			maps.Copy(doubt, p.want[u])
			continue
		}
		maps.Copy(p.have, l.owned[u])
		for k, o := range p.want[u] { // its value before us must be known
			if _, known := l.owned[u][k]; !known && outlivesUs(o) {
				doubt[k] = o
			}
		}
	}
	if len(doubt) > 0 || w.full {
		seen, err := l.kernel.Observe(ctx, doubt, w.full)
		if err != nil {
			return plan{}, fmt.Errorf("observe: %w", err)
		}
		maps.Copy(p.have, seen)
	}
	p.ops = kernel.Diff(p.have, p.all())
	return p, nil
}

// units a pass covers, in order.
func (l *Loop) units(view driver.View, w work) []driver.Unit {
	set := maps.Clone(w.units)
	set = merge(set, w.recheck)
	if w.full {
		for _, u := range driver.Units(view) {
			set = merge(set, map[driver.Unit]bool{u: true})
		}
		for u := range l.owned {
			set[u] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// own remembers what a unit has in the kernel.
func (l *Loop) own(u driver.Unit, s kernel.State) {
	for k := range l.owned[u] {
		if l.owner[k] == u {
			delete(l.owner, k)
		}
	}
	if len(s) == 0 {
		delete(l.owned, u)
		return
	}
	l.owned[u] = s
	for k := range s {
		l.owner[k] = u
	}
}

// outlivesUs reports whether an object is a sysctl of the host itself, to be put
// back one day. Those of our links and sandboxes go with them.
func outlivesUs(o kernel.Object) bool {
	s, ok := o.(kernel.Sysctl)
	return ok && s.NS == kernel.Host && s.Dev == ""
}

// save puts the values that sysctls of the host have before our first change
// into the store.
func (l *Loop) save(ctx context.Context, view driver.View, ops []kernel.Op) error {
	before := map[string]string{}
	for _, op := range ops {
		if op.Old == nil || !outlivesUs(op.Old) {
			continue
		}
		s := op.Old.(kernel.Sysctl)
		if _, saved := view.Saved[s.Name]; !saved {
			before[s.Name] = s.Value
		}
	}
	if len(before) == 0 {
		return nil
	}
	if err := l.source.SaveSysctls(ctx, before); err != nil {
		return fmt.Errorf("save sysctls: %w", err)
	}
	// That made a revision which this pass, whose view is older, does not stand
	// for: without another pass, whoever waits for it would wait for an event.
	l.Trigger(driver.HostUnit)
	return nil
}

// The time between tries of a failing unit doubles between these.
const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = time.Minute
)

// settle publishes the outcome of a pass and wakes the waiters.
func (l *Loop) settle(rev int64, units []driver.Unit, failures map[driver.Unit]error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range slices.Compact(slices.Sorted(slices.Values(units))) {
		cause := failures[u]
		f := l.failed[u]
		if cause == nil {
			if f != nil {
				l.Tell(unitEvent(u, "recover", ""))
			}
			delete(l.failed, u)
			continue
		}
		if f == nil {
			f = &failing{}
			l.failed[u] = f
			l.Tell(unitEvent(u, "fail", cause.Error()))
		}
		f.err = cause
		f.next = time.Now().Add(min(firstBackoff<<min(f.tries, 10), maxBackoff))
		f.tries++
		l.log.Error("unit failed", "unit", string(u), "err", cause, "tries", f.tries)
	}
	l.passed = max(l.passed, rev)
	close(l.waiters)
	l.waiters = make(chan struct{})
}

// Diff is the ops that a pass over everything would apply now; it changes nothing.
func (l *Loop) Diff(ctx context.Context) ([]kernel.Op, error) {
	l.passing.Lock()
	defer l.passing.Unlock()
	view, _ := l.source.View()
	p, err := l.compare(ctx, view, work{full: true})
	return p.ops, err
}

// Preview is the ops that a pass over the units would apply if view were
// committed; it changes nothing.
func (l *Loop) Preview(ctx context.Context, view driver.View, units ...driver.Unit) ([]kernel.Op, error) {
	l.passing.Lock()
	defer l.passing.Unlock()
	w := work{units: map[driver.Unit]bool{}}
	for _, u := range units {
		w.units[u] = true
	}
	p, err := l.compare(ctx, view, w)
	return p.ops, err
}

// Desired is the whole wanted state.
func (l *Loop) Desired() kernel.State {
	l.passing.Lock()
	defer l.passing.Unlock()
	view, _ := l.source.View()
	view.Host = l.facts
	s := kernel.State{}
	for _, u := range driver.Units(view) {
		for _, o := range driver.Plan(u, view) {
			s[o.Key()] = o
		}
	}
	return s
}

// Facts is what the last pass knew of the host.
func (l *Loop) Facts() kernel.Facts {
	l.passing.Lock()
	defer l.passing.Unlock()
	return l.facts
}

// Once does one pass over everything, without the loop.
func (l *Loop) Once(ctx context.Context) error {
	_, rev := l.source.View() // before the pass, which may save sysctls
	l.mark(work{full: true})
	l.pass(ctx)
	l.mu.Lock()
	units := slices.Collect(maps.Keys(l.failed))
	l.mu.Unlock()
	return l.Wait(ctx, rev, units...)
}
