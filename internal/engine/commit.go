package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/store"
)

// outcome of a commit.
type outcome struct {
	rev  int64
	view driver.View
	part
}

// request is a verb that waits for its commit.
type request struct {
	ctx    context.Context
	decide func(*draft) error
	// done says that out and err are final; guarded by Engine.mu.
	done bool
	out  outcome
	err  error
}

func (r *request) finish(out outcome, err error) { r.out, r.err, r.done = out, err, true }

// queue holds the verbs whose turn to commit has not come.
type queue struct {
	mu    sync.Mutex
	list  []*request
	count int // of verbs that ever joined
}

func (q *queue) join(r *request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, r)
	q.count++
}

func (q *queue) joined() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count
}

// maxTogether bounds how many verbs share a transaction: an etcd refuses one of
// more than 128 operations by default, and all wait for the slowest.
const maxTogether = 64

// take takes the first verbs of the queue.
func (q *queue) take() []*request {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.list), maxTogether)
	first := slices.Clone(q.list[:n])
	q.list = slices.Delete(q.list, 0, n)
	return first
}

// putBack makes verbs the first of the queue.
func (q *queue) putBack(list []*request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(slices.Clone(list), q.list...)
}

// commit lets decide draft a change of the current view and commits it. Verbs
// that arrive while another commits go together after it: they share one
// transaction of the store, which is what a commit costs, and one pass of the
// loop. Each decides on what those before it have left, and has its own answer.
// Whoever gets the lock first commits for all.
func (e *Engine) commit(ctx context.Context, decide func(*draft) error) (outcome, error) {
	r := &request{ctx: ctx, decide: decide}
	e.queue.join(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	for !r.done { // it may be behind many
		e.commitTogether(e.queue.take())
	}
	return r.out, r.err
}

// How Gather waits for a crowd: the removal of a hundred links costs the kernel
// little more than that of one, so that a short wait for the rest is much less
// than a pass of its own.
const (
	crowd       = 4 // verbs in one commit; fewer come by chance
	gatherPause = 2 * time.Millisecond
	gatherLimit = 20 * time.Millisecond
)

// Gather waits until verbs that are about to commit have done so: what they ask
// for can join the pass that is about to begin. While a crowd is arriving it waits
// for those behind too; a verb that comes alone is not held up.
func (e *Engine) Gather() {
	more := e.settled() >= crowd
	for limit := time.Now().Add(gatherLimit); more && time.Now().Before(limit); {
		before := e.queue.joined()
		<-time.After(gatherPause)
		e.settled()
		more = e.queue.joined() > before
	}
}

// settled returns when those have committed who are in the queue, and of how many
// verbs the last commit was.
func (e *Engine) settled() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.together
}

// commitTogether commits as many of the requests as go into one transaction and
// leaves the rest to the queue; the caller holds mu. When another writer was
// faster, it decides again on what is there then.
func (e *Engine) commitTogether(list []*request) {
	for tries := 0; len(list) > 0; tries++ {
		d, joined, later := e.decide(list)
		if len(joined) > 0 {
			rev, err := e.Store.Commit(context.WithoutCancel(list[0].ctx), d.txn())
			if errors.Is(err, store.ErrConflict) && tries < 3 {
				if err = e.reload(list[0].ctx); err == nil {
					list = unfinished(list)
					continue
				}
			}
			switch {
			case err == nil:
				e.publish(d, rev, joined)
			case len(joined) > 1: // one of them may be what the store refuses
				for _, r := range joined {
					e.commitTogether([]*request{r})
				}
			default:
				joined[0].finish(outcome{}, fmt.Errorf("commit to store: %w", err))
			}
		}
		e.queue.putBack(later)
		return
	}
}

func unfinished(list []*request) []*request {
	return slices.DeleteFunc(slices.Clone(list), func(r *request) bool { return r.done })
}

// decide lets the requests draft one change together. A request that changes an
// object which one before it changed has to wait for the next transaction, and
// all after it, so that each finds its own work in the view it is answered from.
// Those that were refused, or have nothing to change, are finished.
func (e *Engine) decide(list []*request) (d *draft, joined, later []*request) {
	view, rev := e.View()
	d = newDraft(view, e.meta)
	touched := map[driver.Unit]bool{}
	for i, r := range list {
		before := d.mark()
		err := r.ctx.Err()
		if err == nil {
			err = r.decide(d)
		}
		if err == nil && slices.ContainsFunc(d.units, func(u driver.Unit) bool { return touched[u] }) {
			d.back(before)
			return d, joined, list[i:]
		}
		switch {
		case err != nil:
			d.back(before)
			r.finish(outcome{}, err)
		case d.unchanged(before):
			r.finish(outcome{rev: rev, view: view}, nil)
		default:
			joined = append(joined, r)
			r.out.part = d.part
			for _, u := range d.units {
				touched[u] = u != driver.HostUnit // many change it, and nobody asks for it
			}
		}
	}
	return d, joined, nil
}

// publish makes a change that was committed the current view.
func (e *Engine) publish(d *draft, rev int64, joined []*request) {
	for key, value := range d.changes {
		if value == nil {
			delete(e.meta.revisions, key)
		} else {
			e.meta.revisions[key] = rev
		}
	}
	e.meta, e.together = d.meta, len(joined)
	units := map[driver.Unit]bool{}
	for _, r := range joined {
		for _, u := range r.out.units {
			units[u] = true
		}
	}
	now := func() { e.now.Store(&snapshot{view: d.view, rev: rev}) }
	if len(units) == 0 || e.loop == nil {
		now()
	} else {
		e.loop.Change(func() {
			for _, r := range joined {
				e.hide(r.out.fresh)
			}
			now()
			for _, r := range joined {
				e.name(r.out.names...) // what goes is not found any more, before it goes
			}
		}, slices.Collect(maps.Keys(units))...)
	}
	for _, r := range joined {
		r.finish(outcome{rev: rev, view: d.view, part: r.out.part}, nil)
	}
}
