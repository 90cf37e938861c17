package storetest

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/towpath/towpath/internal/store"
)

// RunLasting tests that a store's content outlives it. open opens the store at
// path, and makes an empty one where there is none.
func RunLasting(t *testing.T, open func(t *testing.T, path string) store.Store) {
	t.Run("RevisionOutlivesContent", func(t *testing.T) { revisionOutlivesContent(t, open) })
	t.Run("ModelWithReopen", func(t *testing.T) { followsModelReopened(t, open) })
}

func revisionOutlivesContent(t *testing.T, open func(t *testing.T, path string) store.Store) {
	path := filepath.Join(t.TempDir(), "store")
	s := open(t, path)
	commit(t, s, put("a", "1"))
	rev := commit(t, s, store.Txn{Deletes: []string{"a"}})
	closeStore(t, s)

	s = open(t, path)
	defer closeStore(t, s)
	if entries, got := list(t, s, ""); len(entries) != 0 || got != rev {
		t.Errorf("reopened: %v at revision %d, want nothing at %d", entries, got, rev)
	}
	if _, err := s.Watch(context.Background(), "", rev-1); err != nil && !errors.Is(err, store.ErrCompacted) {
		t.Errorf("watch of what was before: %v, want all of it or ErrCompacted", err)
	}
	events := watch(t, s, "", rev)
	if got := commit(t, s, put("a", "2")); got <= rev {
		t.Errorf("revision %d after a restart at %d", got, rev)
	}
	same(t, "event", receive(t, events), store.Event{Key: "a", Value: []byte("2"), Revision: rev + 1})
}

// followsModelReopened closes and opens the store between transactions.
func followsModelReopened(t *testing.T, open func(t *testing.T, path string) store.Store) {
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(t.TempDir(), "store")
		m := newModel()
		for range rapid.IntRange(1, 4).Draw(rt, "opens") {
			s := open(t, path)
			checkList(rt, s, m)
			for range rapid.IntRange(0, 3).Draw(rt, "commits") {
				checkCommit(rt, s, m)
			}
			checkList(rt, s, m)
			closeStore(t, s)
		}
	})
}
