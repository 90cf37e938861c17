//go:build linux

package follow

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/towpath/towpath/internal/explain"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/trace"
	"github.com/towpath/towpath/internal/trace/taps"
	"github.com/towpath/towpath/internal/trace/watch"
)

const (
	// interval is how often namespaces are listed.
	interval = 300 * time.Millisecond
	// looks is how often a namespace is read after it came: its links come later
	// than itself.
	looks = 3
)

// News is where a watcher learns of namespaces that come and go. Both are asked
// while it goes on watching, one at a time.
type News struct {
	// List gives the inodes of the namespaces that there are, sorted.
	List func() ([]uint64, error)
	// Again reads the machine again. What was known may be taken over, but of the
	// host and of namespaces with those inodes.
	Again func(ctx context.Context, was *explain.Machine, young []uint64) (*explain.Machine, error)
}

// news is what is known of namespaces that come and go.
type news struct {
	News
	cancel context.CancelFunc
	ctx    context.Context // what looks goes on from one Next to the other
	known  []uint64
	young  map[uint64]int // namespaces that came lately: how often they are still to be read
	next   time.Time
	found  chan found // nil: nobody looks
}

// found is the answer of a look.
type found struct {
	known  []uint64
	young  map[uint64]int
	opened *opened // nil: there is the same to watch as before
	err    error
}

// Renew makes the watcher ask for the namespaces that there are while it waits
// and, when they are others, read those, and watch them too.
func (w *Watcher) Renew(ctx context.Context, from News) error {
	known, err := from.List()
	if err != nil {
		return err
	}
	// Those that came since the machine was read are new.
	read := make([]uint64, 0, len(w.machine.Host.Spaces))
	for i := range w.machine.Host.Spaces {
		read = append(read, w.machine.Host.Spaces[i].Inode)
	}
	w.news = news{News: from, known: known, young: arrived(nil, read, known), next: time.Now().Add(interval)}
	w.news.ctx, w.news.cancel = context.WithCancel(ctx)
	return nil
}

// arrived are the namespaces that came lately, when those that there are were
// others.
func arrived(young map[uint64]int, was, now []uint64) map[uint64]int {
	out := map[uint64]int{}
	for _, inode := range now {
		switch {
		case !slices.Contains(was, inode):
			out[inode] = looks - 1
		case young[inode] > 1:
			out[inode] = young[inode] - 1
		}
	}
	return out
}

// due reports whether it is time to look, or what a look found is there.
func (n *news) due() bool {
	if n.found != nil {
		return len(n.found) > 0
	}
	return n.List != nil && !time.Now().Before(n.next)
}

// catchUp watches what there is now, if it is not what is watched. The look goes
// on beside, so that meanwhile nothing is missed.
func (w *Watcher) catchUp(ctx context.Context) error {
	n := &w.news
	switch {
	case !n.due():
		return nil
	case n.found == nil:
		n.found = make(chan found, 1)
		go func(out chan<- found) { out <- w.look(n.ctx) }(n.found)
		return nil
	}
	f := <-n.found
	n.found, n.next = nil, time.Now().Add(interval)
	if f.err != nil {
		return f.err
	}
	n.known, n.young = f.known, f.young
	if f.opened == nil {
		return nil
	}
	return w.change(ctx, f.opened)
}

// look asks for the namespaces and, if there may be something else to watch,
// begins to.
func (w *Watcher) look(ctx context.Context) found {
	n := &w.news
	now, err := n.List()
	if err != nil {
		return found{err: err}
	}
	out := found{known: now, young: arrived(n.young, n.known, now)}
	if slices.Equal(now, n.known) && len(n.young) == 0 {
		return out
	}
	read := make([]uint64, 0, len(n.young)+len(out.young))
	for _, list := range []map[uint64]int{n.young, out.young} {
		for inode := range list {
			read = append(read, inode)
		}
	}
	m, err := n.Again(ctx, w.machine, read)
	if err == nil && !same(&m.Host, &w.machine.Host) {
		out.opened, err = w.begin(ctx, m)
	}
	out.err = err
	return out
}

// end stops to look.
func (n *news) end() error {
	if n.List == nil {
		return nil
	}
	n.cancel()
	if n.found == nil {
		return nil
	}
	f := <-n.found
	if n.found = nil; f.opened == nil {
		return nil
	}
	return f.opened.session.Close()
}

// same reports whether there is the same to watch: namespaces and links.
func same(a, b *machine.Host) bool {
	return slices.EqualFunc(a.Spaces, b.Spaces, func(x, y machine.Space) bool {
		return x.Name == y.Name && x.Inode == y.Inode && slices.EqualFunc(x.Links, y.Links, func(l, m machine.Link) bool {
			return l.Index == m.Index && l.Name == m.Name
		})
	})
}

// change watches another machine. Both sessions see what happens until the new
// one is open, and of that only what the old one saw counts.
func (w *Watcher) change(ctx context.Context, to *opened) error {
	old := w.session
	w.opened = *to
	err := w.read(ctx, old, func(seen trace.Watch) trace.Watch { return seen })
	cut := old.Heard()
	err = errors.Join(err, old.Close(), w.routes.Close())
	w.seen.Machine, w.routes = &w.machine.Host, watch.NewRoutes(&w.machine.Host, w.open)
	return errors.Join(err, w.read(ctx, w.session, func(seen trace.Watch) trace.Watch { return after(seen, cut) }))
}

// read takes what a session has by now.
func (w *Watcher) read(ctx context.Context, s *taps.Session, take func(trace.Watch) trace.Watch) error {
	asked := false
	_, err := s.Hear(ctx, w.seen.Start, func(seen *trace.Watch) bool {
		w.seen.Add(take(*seen), s.Heard())
		*seen = trace.Watch{}
		done := asked
		asked = true
		return done
	})
	return err
}

// after is what was seen from a time on. What rules told has the time when it was
// read, which is later: it is left out.
func after(w trace.Watch, from time.Duration) trace.Watch {
	w.Rulings = nil
	w.Sightings = slices.DeleteFunc(w.Sightings, func(x trace.Sighting) bool { return x.At < from })
	w.Crossings = slices.DeleteFunc(w.Crossings, func(x trace.Crossing) bool { return x.At < from })
	w.Drops = slices.DeleteFunc(w.Drops, func(x trace.Drop) bool { return x.At < from })
	return w
}
