package mem

import (
	"errors"
	"fmt"
	"testing"

	"github.com/towpath/towpath/internal/store"
	"github.com/towpath/towpath/internal/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return New() })
}

func commit(t *testing.T, s *Store, keys int) int64 {
	t.Helper()
	var txn store.Txn
	for i := range keys {
		txn.Puts = append(txn.Puts, store.Put{Key: fmt.Sprintf("k/%05d", i), Value: []byte("1")})
	}
	rev, err := s.Commit(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestWatcherThatFellBehindIsClosed(t *testing.T) {
	s := New()
	defer s.Close()
	events, err := s.Watch(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, 10)
	if first := <-events; first.Revision != 1 { // it now holds the events of revision 1
		t.Fatalf("first event is of revision %d, want 1", first.Revision)
	}
	const revisions = 2 + HistoryLimit/10
	for range revisions {
		commit(t, s, 10)
	}
	got := 1
	for e := range events {
		got++
		if want := int64(1 + (got-1)/10); e.Revision != want {
			t.Fatalf("event %d is of revision %d, want %d", got, e.Revision, want)
		}
	}
	if got%10 != 0 || got >= revisions*10 {
		t.Errorf("%d events before the close: not whole revisions, or all of them", got)
	}
	if _, err := s.Watch(t.Context(), "", 1); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("watch behind a forgotten revision: %v, want ErrCompacted", err)
	}
}

func TestHistoryKeepsWholeRevisions(t *testing.T) {
	s := New()
	defer s.Close()
	commit(t, s, 3)
	commit(t, s, HistoryLimit-1) // one too many: all of revision 1 must go
	if got := len(s.history.events); got != HistoryLimit-1 || s.history.floor != 1 {
		t.Errorf("%d events above %d, want %d above 1", got, s.history.floor, HistoryLimit-1)
	}
	commit(t, s, HistoryLimit+5) // larger than the limit, and yet whole
	if got := len(s.history.events); got != HistoryLimit+5 || s.history.floor != 2 {
		t.Errorf("%d events above %d, want %d above 2", got, s.history.floor, HistoryLimit+5)
	}
	if _, err := s.Watch(t.Context(), "", 2); err != nil {
		t.Errorf("watch of the last revision: %v", err)
	}
}

func TestJournalThatFailsDropsTheChange(t *testing.T) {
	full := errors.New("no space left on device")
	s := Load([]store.Entry{{Key: "a", Value: []byte("1"), Revision: 7}}, 9,
		func(int64, []store.Event) error { return full })
	defer s.Close()
	txn := store.Txn{Puts: []store.Put{{Key: "b"}}, Deletes: []string{"a"}}
	if _, err := s.Commit(t.Context(), txn); !errors.Is(err, full) {
		t.Fatalf("commit: %v, want the journal's error", err)
	}
	entries, rev, err := s.List(t.Context(), "")
	if err != nil || rev != 9 || len(entries) != 1 || entries[0].Revision != 7 {
		t.Errorf("list: %v at %d, %v; want a of revision 7 at 9", entries, rev, err)
	}
}
