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
)

const (
	// interval is how often namespaces are listed.
	interval = 300 * time.Millisecond
	// looks is how often the machine is read after a namespace came or went: its
	// links come later than itself.
	looks = 3
)

// news tells of namespaces that come and go. With nil it never does.
type news struct {
	list  func() ([]uint64, error)
	again func(context.Context) (*explain.Machine, error)
	known []uint64
	next  time.Time
	looks int
}

// Renew makes the watcher ask for the namespaces that there are while it waits
// and, when they are others, read the machine again, and watch those.
func (w *Watcher) Renew(list func() ([]uint64, error), again func(context.Context) (*explain.Machine, error)) error {
	known, err := list()
	w.news = news{list: list, again: again, known: known, next: time.Now().Add(interval)}
	return err
}

func (n *news) due() bool { return n.list != nil && !time.Now().Before(n.next) }

// catchUp watches what there is now, if it is not what is watched.
func (w *Watcher) catchUp(ctx context.Context) error {
	n := &w.news
	if !n.due() {
		return nil
	}
	defer func() { n.next = time.Now().Add(interval) }()
	now, err := n.list()
	if err != nil {
		return err
	}
	if !slices.Equal(now, n.known) {
		n.known, n.looks = now, looks
	}
	if n.looks == 0 {
		return nil
	}
	n.looks--
	m, err := n.again(ctx)
	if err != nil || same(&m.Host, &w.machine.Host) {
		return err
	}
	return w.change(ctx, m)
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
func (w *Watcher) change(ctx context.Context, m *explain.Machine) error {
	old, was := w.session, w.machine
	w.machine = m
	if err := w.begin(ctx); err != nil {
		w.session, w.machine = old, was
		return err
	}
	err := w.read(ctx, old, func(seen trace.Watch) trace.Watch { return seen })
	cut := old.Heard()
	err = errors.Join(err, old.Close())
	w.seen.Machine = &m.Host
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
