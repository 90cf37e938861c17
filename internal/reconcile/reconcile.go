// Package reconcile makes the kernel agree with the store: one loop that
// plans, compares, applies, retries, and tells each caller when its own change
// is in the kernel.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel"
)

// Kernel is the edge: the only way the loop sees or changes the kernel.
type Kernel interface {
	// Observe reads what is there of the wanted objects and, with sweep, of
	// everything else that carries our mark.
	Observe(ctx context.Context, want kernel.State, sweep bool) (kernel.State, error)
	// Apply carries out ops in order. Ops of nftables are one transaction. It
	// goes on after a failure with what does not depend on it.
	Apply(ctx context.Context, ops []kernel.Op) []kernel.Failure
	// Facts reads what planning must know of the host.
	Facts(ctx context.Context) (kernel.Facts, error)
	// Watch tells of changes that others made. The channel closes with ctx.
	Watch(ctx context.Context) (<-chan kernel.Event, error)
}

// Source is where intent comes from: the engine.
type Source interface {
	// View is the current view, with the store revision it stands for.
	View() (driver.View, int64)
	// SaveSysctls records the values sysctls of the host had before us; it
	// returns when they are in the store, before anything is changed.
	SaveSysctls(ctx context.Context, before map[string]string) error
	// Gather returns when changes of intent that are being made are in the view,
	// so that they share the pass which is about to begin.
	Gather()
}

// Report is what a pass did, for metrics.
type Report struct {
	Units, Ops, Failed int
	Took               time.Duration
}

// Loop is the one writer. Run it in a goroutine of its own.
type Loop struct {
	// Tell is told of repairs and failures, Report of each pass that did
	// something. Both may be set before Run.
	Tell   func(api.Event)
	Report func(Report)

	kernel Kernel
	source Source
	log    *slog.Logger

	// passing is held while the kernel is read or changed.
	passing sync.Mutex
	// The fields below belong to whoever holds passing.
	facts  kernel.Facts
	owned  map[driver.Unit]kernel.State // what each unit has in the kernel, as far as we know
	owner  map[kernel.Key]driver.Unit
	unsure map[driver.Unit]bool // to be read before it is compared

	mu      sync.Mutex // guards what follows
	pending work
	passed  int64 // the revision the last pass stood for
	failed  map[driver.Unit]*failing
	suspect map[string]*suspect // sandboxes that something happened in
	waiters chan struct{}       // closed and replaced after each pass
	wake    chan struct{}
}

// work is what the next pass has to look at.
type work struct {
	units   map[driver.Unit]bool
	recheck map[driver.Unit]bool
	full    bool
	why     string
}

// failing is a unit whose last pass failed.
type failing struct {
	err   error
	tries int
	next  time.Time
}

// New makes a Loop. Its first pass looks at everything.
func New(k Kernel, source Source, log *slog.Logger) *Loop {
	return &Loop{
		Tell: func(api.Event) {}, Report: func(Report) {},
		kernel: k, source: source, log: log,
		owned:   map[driver.Unit]kernel.State{},
		owner:   map[kernel.Key]driver.Unit{},
		unsure:  map[driver.Unit]bool{},
		pending: work{full: true},
		failed:  map[driver.Unit]*failing{},
		suspect: map[string]*suspect{},
		waiters: make(chan struct{}),
		wake:    make(chan struct{}, 1),
	}
}

// Know says, before the first pass, what a unit has from an earlier life, so that
// it is not taken for what somebody else may have a share in.
func (l *Loop) Know(u driver.Unit, objects ...kernel.Object) {
	l.passing.Lock()
	defer l.passing.Unlock()
	l.own(u, kernel.NewState(objects...))
}

// fullInterval is how often everything is read even though no event asked for it.
const fullInterval = 5 * time.Minute

// Run passes until ctx ends. A pass that fails is tried again.
func (l *Loop) Run(ctx context.Context) error {
	events, err := l.kernel.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch kernel: %w", err)
	}
	full := time.NewTicker(fullInterval)
	defer full.Stop()
	l.poke()
	for {
		retry := time.NewTimer(l.untilRetry())
		select {
		case <-ctx.Done():
			retry.Stop()
			return nil
		case <-l.wake:
		case <-full.C:
			l.mark(work{full: true})
		case <-retry.C:
			l.markRetries()
		case e, ok := <-events:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errors.New("watch kernel: the stream of events ended")
			}
			l.note(e)
		}
		retry.Stop()
		for more := true; more; { // what came meanwhile joins this pass
			select {
			case e, ok := <-events:
				if more = ok; ok {
					l.note(e)
				}
			default:
				more = false
			}
		}
		l.pass(ctx)
		l.passSuspect(ctx)
	}
}

// Trigger asks for a pass over units whose objects have changed.
func (l *Loop) Trigger(units ...driver.Unit) { l.Change(func() {}, units...) }

// Change publishes a view in which objects of the units have changed, and asks
// for a pass over them. Both are one step: a pass that took the view and not the
// units would stand for a revision that it did not carry out.
func (l *Loop) Change(publish func(), units ...driver.Unit) {
	w := work{units: map[driver.Unit]bool{}}
	for _, u := range units {
		w.units[u] = true
	}
	l.mu.Lock()
	publish()
	l.add(w)
	l.mu.Unlock()
	l.poke()
}

func (l *Loop) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// mark adds to the work of the next pass.
func (l *Loop) mark(w work) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(w)
}

// add is mark for who holds mu.
func (l *Loop) add(w work) {
	l.pending.full = l.pending.full || w.full
	l.pending.units = merge(l.pending.units, w.units)
	l.pending.recheck = merge(l.pending.recheck, w.recheck)
	l.pending.why = reasons(l.pending.why, w.why)
}

// reasons adds why to look again to those that there are, a few of them: which of
// them it was that did the harm is not known.
func reasons(all, why string) string {
	const sep = ", and "
	switch {
	case all == "" || why == "":
		return all + why
	case slices.Contains(strings.Split(all, sep), why) || strings.Count(all, sep) >= 3:
		return all
	}
	return all + sep + why
}

func merge(a, b map[driver.Unit]bool) map[driver.Unit]bool {
	if a == nil {
		return maps.Clone(b)
	}
	maps.Copy(a, b)
	return a
}

// Wait returns when a pass has covered revision rev, with what went wrong for
// the units named.
func (l *Loop) Wait(ctx context.Context, rev int64, units ...driver.Unit) error {
	for {
		l.mu.Lock()
		done, next := l.passed >= rev, l.waiters
		var errs []error
		for _, u := range units {
			if f := l.failed[u]; f != nil && !slices.ContainsFunc(errs, func(e error) bool { return e.Error() == f.err.Error() }) {
				errs = append(errs, f.err)
			}
		}
		l.mu.Unlock()
		if done {
			return errors.Join(errs...)
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("wait for revision %d: %w", rev, ctx.Err())
		}
	}
}

// Failing is how many units the kernel does not hold.
func (l *Loop) Failing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.failed)
}

// Status is the error of a unit's last pass, nil when the kernel holds what it asks for.
func (l *Loop) Status(u driver.Unit) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.failed[u]; f != nil {
		return f.err
	}
	return nil
}
