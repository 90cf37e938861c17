package storetest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/towpath/towpath/internal/store"
)

// model is the store said in the plainest way.
type model struct {
	entries  map[string]store.Entry
	revision int64
	events   []store.Event
}

func newModel() *model { return &model{entries: map[string]store.Entry{}} }

// conflict finds the first compare that does not hold.
func (m *model) conflict(txn store.Txn) *store.ConflictError {
	for _, c := range txn.Compares {
		if have := m.entries[c.Key].Revision; have != c.Revision {
			return &store.ConflictError{Key: c.Key, Want: c.Revision, Have: have}
		}
	}
	return nil
}

func (m *model) commit(txn store.Txn) {
	next := m.revision + 1
	var events []store.Event
	for _, p := range txn.Puts {
		events = append(events, store.Event{Key: p.Key, Value: p.Value, Revision: next})
	}
	for _, key := range txn.Deletes {
		if _, ok := m.entries[key]; ok {
			events = append(events, store.Event{Key: key, Deleted: true, Revision: next})
		}
	}
	for _, e := range events {
		replay(m.entries, e)
		m.revision = next
	}
	m.events = append(m.events, events...)
}

func (m *model) list(prefix string) []store.Entry {
	some := map[string]store.Entry{}
	for key, e := range m.entries {
		if strings.HasPrefix(key, prefix) {
			some[key] = e
		}
	}
	return sorted(some)
}

// keys are few, so that transactions meet.
func keys() []string { return []string{"a", "a/1", "a/2", "b", "b/1"} }

func drawTxn(t *rapid.T, m *model) store.Txn {
	var txn store.Txn
	for _, key := range keys() {
		switch rapid.SampledFrom([]string{"put", "delete", "leave", "leave"}).Draw(t, key) {
		case "put":
			txn.Puts = append(txn.Puts, store.Put{Key: key, Value: rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "value")})
		case "delete":
			txn.Deletes = append(txn.Deletes, key)
		}
		switch rapid.SampledFrom([]string{"right", "any", "none", "none", "none", "none"}).Draw(t, "compare") {
		case "right":
			txn.Compares = append(txn.Compares, store.Compare{Key: key, Revision: m.entries[key].Revision})
		case "any":
			rev := rapid.Int64Range(0, m.revision+1).Draw(t, "revision")
			txn.Compares = append(txn.Compares, store.Compare{Key: key, Revision: rev})
		}
	}
	return txn
}

func checkCommit(t *rapid.T, s store.Store, m *model) {
	txn := drawTxn(t, m)
	rev, err := s.Commit(context.Background(), txn)
	if want := m.conflict(txn); want != nil {
		var got *store.ConflictError
		if !errors.As(err, &got) || *got != *want {
			t.Fatalf("commit %+v: %v, want %v", txn, err, want)
		}
		return
	}
	if m.commit(txn); err != nil || rev != m.revision {
		t.Fatalf("commit %+v: revision %d, %v; want %d", txn, rev, err, m.revision)
	}
}

func checkList(t *rapid.T, s store.Store, m *model) {
	prefix := rapid.SampledFrom(append(keys(), "", "a/", "c")).Draw(t, "prefix")
	entries, rev := list(t, s, prefix)
	if same(t, "list "+prefix, entries, m.list(prefix)); rev != m.revision {
		t.Fatalf("listed at revision %d, want %d", rev, m.revision)
	}
}

func checkWatch(t *rapid.T, s store.Store, m *model) {
	prefix := rapid.SampledFrom(append(keys(), "")).Draw(t, "prefix")
	after := rapid.Int64Range(0, m.revision+1).Draw(t, "after")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events, err := s.Watch(ctx, prefix, after)
	if after > m.revision {
		if !errors.Is(err, store.ErrCompacted) {
			t.Fatalf("watch after %d at revision %d: %v, want ErrCompacted", after, m.revision, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("watch after %d at revision %d: %v", after, m.revision, err)
	}
	for _, want := range m.events {
		if want.Revision > after && strings.HasPrefix(want.Key, prefix) {
			same(t, "event", receive(t, events), want)
		}
	}
}

// followsModel does random transactions to a store and to the model.
func followsModel(t *testing.T, open func(t *testing.T) store.Store) {
	rapid.Check(t, func(rt *rapid.T) {
		s, m := open(t), newModel()
		defer closeStore(t, s)
		for range rapid.IntRange(1, 12).Draw(rt, "commits") {
			checkCommit(rt, s, m)
			checkList(rt, s, m)
		}
		checkWatch(rt, s, m)
	})
}
