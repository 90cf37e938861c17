package mem

import (
	"bytes"
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/towpath/towpath/internal/store"
)

// HistoryLimit is how many events are remembered for watchers. It is passed
// only to keep a transaction that alone has more in one piece. An event is a
// few hundred bytes, so this is some megabytes at most, for all watchers
// together, and several times what a full pass over a large host changes.
const HistoryLimit = 4096

// history is what watchers read. Its events are never altered, only cut off in
// front and added behind, so a watcher may go through a part of it unlocked.
type history struct {
	events []store.Event // by revision, rising
	floor  int64         // all events with a revision above this are in events
	grown  chan struct{} // closed, and replaced, when events are added
}

func newHistory(floor int64) history {
	return history{floor: floor, grown: make(chan struct{})}
}

func (h *history) add(changes []store.Event) {
	h.events = append(h.events, changes...)
	h.trim(HistoryLimit)
	close(h.grown)
	h.grown = make(chan struct{})
}

// trim forgets the oldest revisions, whole ones only and never the last.
func (h *history) trim(limit int) {
	over := len(h.events) - limit
	if over <= 0 {
		return
	}
	last := h.events[len(h.events)-1].Revision
	h.floor = min(h.events[over-1].Revision, last-1)
	h.events = h.events[h.after(h.floor):]
}

// after finds the first event with a revision above rev.
func (h *history) after(rev int64) int {
	return sort.Search(len(h.events), func(i int) bool { return h.events[i].Revision > rev })
}

// Watch is store.Store's.
func (s *Store) Watch(ctx context.Context, prefix string, after int64) (<-chan store.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("watch %q: %w", prefix, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.isClosed {
		return nil, fmt.Errorf("watch %q: %w", prefix, store.ErrClosed)
	}
	if after < s.history.floor || after > s.revision {
		return nil, fmt.Errorf("watch %q: %w: %d is outside of %d to %d",
			prefix, store.ErrCompacted, after, s.history.floor, s.revision)
	}
	events := make(chan store.Event)
	// Started under the lock, so that Close cannot have begun to wait.
	s.watches.Go(func() {
		defer close(events)
		s.follow(ctx, prefix, after, events)
	})
	return events, nil
}

// follow sends events until the watch ends, or falls behind what is remembered.
func (s *Store) follow(ctx context.Context, prefix string, after int64, to chan<- store.Event) {
	for {
		events, grown, ok := s.since(after)
		if !ok {
			return
		}
		for _, e := range events {
			after = e.Revision
			if !strings.HasPrefix(e.Key, prefix) {
				continue
			}
			e.Value = bytes.Clone(e.Value)
			select {
			case to <- e:
			case <-ctx.Done():
				return
			case <-s.closed:
				return
			}
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return
		case <-s.closed:
			return
		}
	}
}

// since returns the events with a revision above after, and the channel that
// is closed when there are more than these.
func (s *Store) since(after int64) (events []store.Event, grown <-chan struct{}, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if after < s.history.floor {
		return nil, nil, false
	}
	return s.history.events[s.history.after(after):], s.history.grown, true
}
