// Package mem keeps a store in memory: the store of tests, and, with a journal
// under it, the readable half of a store that lasts.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/towpath/towpath/internal/store"
)

// A Journal makes the changes of one revision last. It is called by one Commit
// at a time, before anybody can see the changes; when it fails they are
// dropped. It must not keep or alter the events.
type Journal func(revision int64, changes []store.Event) error

// Store is a store.Store. What a watcher may fall behind by is HistoryLimit.
type Store struct {
	journal Journal
	// writing is held through a Commit, journal and all, so there is one
	// writer. Who holds it may read what mu guards without mu.
	writing sync.Mutex
	// mu is held for moments only, so that neither List nor Watch waits for a
	// disk.
	mu       sync.RWMutex
	entries  map[string]store.Entry
	keys     []string // of entries, sorted
	revision int64
	history  history
	isClosed bool

	closed  chan struct{}
	watches sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// New returns an empty store at revision 0.
func New() *Store { return Load(nil, 0, nil) }

// Load returns a store that holds entries and goes on from revision. Changes
// before it are not remembered. journal may be nil.
func Load(entries []store.Entry, revision int64, journal Journal) *Store {
	s := &Store{
		journal:  journal,
		entries:  make(map[string]store.Entry, len(entries)),
		revision: revision,
		history:  newHistory(revision),
		closed:   make(chan struct{}),
	}
	for _, e := range entries {
		e.Value = bytes.Clone(e.Value)
		s.entries[e.Key] = e
		s.keys = append(s.keys, e.Key)
	}
	slices.Sort(s.keys)
	return s
}

// List is store.Store's.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Entry, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, fmt.Errorf("list %q: %w", prefix, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.isClosed {
		return nil, 0, fmt.Errorf("list %q: %w", prefix, store.ErrClosed)
	}
	var entries []store.Entry
	from, _ := slices.BinarySearch(s.keys, prefix)
	for _, key := range s.keys[from:] {
		if !strings.HasPrefix(key, prefix) {
			break
		}
		e := s.entries[key]
		e.Value = bytes.Clone(e.Value)
		entries = append(entries, e)
	}
	return entries, s.revision, nil
}

// Commit is store.Store's.
func (s *Store) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if err := txn.Validate(); err != nil {
		return 0, err
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("commit transaction: %w", err)
	}
	if s.isClosed {
		return 0, fmt.Errorf("commit transaction: %w", store.ErrClosed)
	}
	if err := s.compare(txn.Compares); err != nil {
		return 0, err
	}
	changes := s.changes(txn)
	if len(changes) == 0 {
		return s.revision, nil
	}
	if s.journal != nil {
		if err := s.journal(s.revision+1, changes); err != nil {
			return 0, err
		}
	}
	s.apply(changes)
	return s.revision, nil
}

func (s *Store) compare(compares []store.Compare) error {
	for _, c := range compares {
		if have := s.entries[c.Key].Revision; have != c.Revision {
			return &store.ConflictError{Key: c.Key, Want: c.Revision, Have: have}
		}
	}
	return nil
}

// changes turns a transaction into the events of the next revision.
func (s *Store) changes(txn store.Txn) []store.Event {
	var events []store.Event
	for _, p := range txn.Puts {
		// Not bytes.Clone: a value that is there is never nil, as a deleted one is.
		value := append([]byte{}, p.Value...)
		events = append(events, store.Event{Key: p.Key, Value: value, Revision: s.revision + 1})
	}
	for _, key := range txn.Deletes {
		if _, ok := s.entries[key]; ok {
			events = append(events, store.Event{Key: key, Deleted: true, Revision: s.revision + 1})
		}
	}
	return events
}

// apply makes changes of one revision visible, to List and to watchers alike.
func (s *Store) apply(changes []store.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range changes {
		at, found := slices.BinarySearch(s.keys, e.Key)
		switch {
		case e.Deleted:
			s.keys = slices.Delete(s.keys, at, at+1)
			delete(s.entries, e.Key)
			continue
		case !found:
			s.keys = slices.Insert(s.keys, at, e.Key)
		}
		s.entries[e.Key] = store.Entry{Key: e.Key, Value: e.Value, Revision: e.Revision}
	}
	s.revision++
	s.history.add(changes)
}

// Close is store.Store's. It returns nil.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	if !s.isClosed {
		s.isClosed = true
		close(s.closed)
	}
	s.mu.Unlock()
	s.watches.Wait()
	return nil
}
