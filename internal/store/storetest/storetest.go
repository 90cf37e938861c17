// Package storetest is the one suite that every store must pass. It knows
// stores by their interface only.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/towpath/towpath/internal/store"
)

// tb is what testing.T and rapid.T share and the checks need.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(f func())
}

// patience bounds a wait for an event that must come. No test waits for time
// to pass: it only makes a lost event a failure instead of a hang.
const patience = 30 * time.Second

// Run tests stores that open returns: empty, at revision 0, each on its own.
// The suite closes them.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	tests := []struct {
		name string
		test func(*testing.T, store.Store)
	}{
		{"ListIsSortedAndByPrefix", listIsSortedAndByPrefix},
		{"RevisionsRise", revisionsRise},
		{"NoChangeTakesNoRevision", noChangeTakesNoRevision},
		{"ConflictChangesNothing", conflictChangesNothing},
		{"InvalidTransactions", invalidTransactions},
		{"ValuesAreCopies", valuesAreCopies},
		{"EndedContext", endedContext},
		{"Close", closeEndsAll},
		{"CountersLoseNoUpdate", countersLoseNoUpdate},
		{"ListIsOneSnapshot", listIsOneSnapshot},
		{"WatchFromRevision", watchFromRevision},
		{"WatchUnavailableRevision", watchUnavailableRevision},
		{"WatchEndsWithContext", watchEndsWithContext},
		{"SlowWatcher", slowWatcher},
		{"ListThenWatchSeesAll", listThenWatchSeesAll},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t)
			defer closeStore(t, s)
			tt.test(t, s)
		})
	}
	t.Run("Model", func(t *testing.T) { followsModel(t, open) })
}

func closeStore(t *testing.T, s store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close store: %v", err)
	}
}

// commit does a transaction that must succeed.
func commit(t tb, s store.Store, txn store.Txn) int64 {
	t.Helper()
	rev, err := s.Commit(context.Background(), txn)
	if err != nil {
		t.Fatalf("commit %+v: %v", txn, err)
	}
	return rev
}

func put(key, value string) store.Txn {
	return store.Txn{Puts: []store.Put{{Key: key, Value: []byte(value)}}}
}

func list(t tb, s store.Store, prefix string) ([]store.Entry, int64) {
	t.Helper()
	entries, rev, err := s.List(context.Background(), prefix)
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	return entries, rev
}

// same compares entries or events; a value of no bytes may be nil.
func same(t tb, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("%s (- wanted, + found):\n%s", what, diff)
	}
}

func listIsSortedAndByPrefix(t *testing.T, s store.Store) {
	if entries, rev := list(t, s, ""); len(entries) != 0 || rev != 0 {
		t.Fatalf("a new store lists %v at revision %d", entries, rev)
	}
	commit(t, s, put("network/b", `{"name":"b"}`))
	commit(t, s, store.Txn{Puts: []store.Put{
		{Key: "networks", Value: []byte("\x00\n\xff")}, {Key: "network/a", Value: []byte(`"é <&>"`)}, {Key: "n", Value: nil},
	}})
	entries, rev := list(t, s, "network/")
	same(t, "network/", entries, []store.Entry{
		{Key: "network/a", Value: []byte(`"é <&>"`), Revision: 2}, {Key: "network/b", Value: []byte(`{"name":"b"}`), Revision: 1},
	})
	if rev != 2 {
		t.Errorf("listed at revision %d, want 2", rev)
	}
	entries, _ = list(t, s, "network")
	same(t, "network", entries[2], store.Entry{Key: "networks", Value: []byte("\x00\n\xff"), Revision: 2})
	if all, _ := list(t, s, ""); len(all) != 4 {
		t.Errorf("%d entries in all, want 4: %v", len(all), all)
	}
	if none, rev := list(t, s, "zone/"); len(none) != 0 || rev != 2 {
		t.Errorf("zone/ lists %v at %d, want nothing at 2", none, rev)
	}
}

func revisionsRise(t *testing.T, s store.Store) {
	last := int64(0)
	for i := range 5 {
		for _, txn := range []store.Txn{put("a", fmt.Sprint(i)), put("a", fmt.Sprint(i)), {Deletes: []string{"a"}}} {
			rev := commit(t, s, txn)
			if rev <= last {
				t.Fatalf("commit %+v took revision %d after %d", txn, rev, last)
			}
			last = rev
		}
	}
	if _, rev := list(t, s, ""); rev != last {
		t.Errorf("an empty store lists at revision %d, want %d: deletes count", rev, last)
	}
}

func noChangeTakesNoRevision(t *testing.T, s store.Store) {
	rev := commit(t, s, put("a", "1"))
	for _, txn := range []store.Txn{
		{},
		{Compares: []store.Compare{{Key: "a", Revision: rev}, {Key: "b"}}},
		{Deletes: []string{"b"}},
	} {
		if got := commit(t, s, txn); got != rev {
			t.Errorf("%+v took revision %d, want still %d", txn, got, rev)
		}
	}
	_, err := s.Commit(context.Background(), store.Txn{Compares: []store.Compare{{Key: "b", Revision: 1}}})
	if !errors.Is(err, store.ErrConflict) {
		t.Errorf("a compare alone: %v, want ErrConflict", err)
	}
}

func conflictChangesNothing(t *testing.T, s store.Store) {
	old := commit(t, s, put("a", "1"))
	rev := commit(t, s, put("a", "2"))
	tests := []struct {
		compare store.Compare
		have    int64
	}{
		{store.Compare{Key: "a"}, rev},
		{store.Compare{Key: "a", Revision: old}, rev},
		{store.Compare{Key: "a", Revision: rev + 1}, rev},
		{store.Compare{Key: "b", Revision: old}, 0},
	}
	for _, tt := range tests {
		txn := store.Txn{
			Compares: []store.Compare{{Key: "a", Revision: rev}, tt.compare},
			Puts:     []store.Put{{Key: "c", Value: []byte("3")}}, Deletes: []string{"a"},
		}
		_, err := s.Commit(context.Background(), txn)
		var conflict *store.ConflictError
		if !errors.Is(err, store.ErrConflict) || !errors.As(err, &conflict) {
			t.Fatalf("commit %+v: %v, want a conflict", txn, err)
		}
		if !strings.Contains(err.Error(), strconv.Quote(tt.compare.Key)) {
			t.Errorf("%v does not name key %q", err, tt.compare.Key)
		}
		same(t, "conflict", *conflict, store.ConflictError{Key: tt.compare.Key, Want: tt.compare.Revision, Have: tt.have})
	}
	entries, at := list(t, s, "")
	same(t, "after conflicts", entries, []store.Entry{{Key: "a", Value: []byte("2"), Revision: rev}})
	if at != rev {
		t.Errorf("revision %d after conflicts, want %d", at, rev)
	}
}

func invalidTransactions(t *testing.T, s store.Store) {
	long := strings.Repeat("k", store.MaxKey+1)
	for name, txn := range map[string]store.Txn{
		"empty key":       put("", "1"),
		"long key":        put(long, "1"),
		"long value":      put("a", strings.Repeat("v", store.MaxValue+1)),
		"put twice":       {Puts: []store.Put{{Key: "a"}, {Key: "a"}}},
		"put and delete":  {Puts: []store.Put{{Key: "a"}}, Deletes: []string{"a"}},
		"delete twice":    {Deletes: []string{"a", "a"}},
		"delete no key":   {Deletes: []string{""}},
		"compare no key":  {Compares: []store.Compare{{}}},
		"compare too far": {Compares: []store.Compare{{Key: long}}},
	} {
		if _, err := s.Commit(context.Background(), txn); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if entries, rev := list(t, s, ""); len(entries) != 0 || rev != 0 {
		t.Errorf("invalid transactions left %v at revision %d", entries, rev)
	}
	commit(t, s, put(long[1:], strings.Repeat("v", store.MaxValue)))
}

func valuesAreCopies(t *testing.T, s store.Store) {
	value := []byte("1")
	commit(t, s, store.Txn{Puts: []store.Put{{Key: "a", Value: value}}})
	value[0] = 'x'
	entries, _ := list(t, s, "")
	entries[0].Value[0] = 'y'
	for range 2 {
		e := receive(t, watch(t, s, "", 0))
		same(t, "event", string(e.Value), "1")
		e.Value[0] = 'z'
	}
	entries, _ = list(t, s, "")
	same(t, "entry", string(entries[0].Value), "1")
}

func endedContext(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, commitErr := s.Commit(ctx, put("a", "1"))
	_, _, listErr := s.List(ctx, "")
	_, watchErr := s.Watch(ctx, "", 0)
	for _, err := range []error{commitErr, listErr, watchErr} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("with an ended context: %v, want context.Canceled", err)
		}
	}
	if _, rev := list(t, s, ""); rev != 0 {
		t.Errorf("revision %d, want 0: the context had ended before the commit", rev)
	}
}

func closeEndsAll(t *testing.T, s store.Store) {
	commit(t, s, put("a", "1"))
	unread, idle := watch(t, s, "", 0), watch(t, s, "", 1)
	for range 2 {
		closeStore(t, s)
	}
	drain(t, unread)
	drain(t, idle)
	ctx := context.Background()
	_, commitErr := s.Commit(ctx, put("a", "1"))
	_, _, listErr := s.List(ctx, "")
	_, watchErr := s.Watch(ctx, "", 1)
	for _, err := range []error{commitErr, listErr, watchErr} {
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("after close: %v, want ErrClosed", err)
		}
	}
}
