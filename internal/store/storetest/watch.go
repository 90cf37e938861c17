package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/store"
)

func watch(t tb, s store.Store, prefix string, after int64) <-chan store.Event {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	events, err := s.Watch(ctx, prefix, after)
	if err != nil {
		t.Fatalf("watch %q after %d: %v", prefix, after, err)
	}
	return events
}

func receive(t tb, events <-chan store.Event) store.Event {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("watch: channel is closed, expected an event")
		}
		return e
	case <-timeout.C:
		t.Fatalf("watch: no event for %v", patience)
	}
	return store.Event{}
}

// drain reads until the channel is closed.
func drain(t tb, events <-chan store.Event) []store.Event {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	var all []store.Event
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return all
			}
			all = append(all, e)
		case <-timeout.C:
			t.Fatalf("watch: channel is not closed after %v", patience)
		}
	}
}

// replay does to a mirror of the store what an event tells.
func replay(mirror map[string]store.Entry, e store.Event) {
	if e.Deleted {
		delete(mirror, e.Key)
		return
	}
	mirror[e.Key] = store.Entry{Key: e.Key, Value: e.Value, Revision: e.Revision}
}

func sorted(mirror map[string]store.Entry) []store.Entry {
	var entries []store.Entry
	for _, key := range slices.Sorted(maps.Keys(mirror)) {
		entries = append(entries, mirror[key])
	}
	return entries
}

func watchFromRevision(t *testing.T, s store.Store) {
	commit(t, s, put("net/a", "1"))
	commit(t, s, put("other", "1"))
	commit(t, s, store.Txn{
		Puts:    []store.Put{{Key: "net/c", Value: []byte("3")}, {Key: "net/b", Value: nil}},
		Deletes: []string{"net/a", "absent"},
	})
	live := watch(t, s, "net/", 3)
	commit(t, s, put("net/d", "4"))
	all := []store.Event{
		{Key: "net/a", Value: []byte("1"), Revision: 1},
		{Key: "net/c", Value: []byte("3"), Revision: 3},
		{Key: "net/b", Revision: 3},
		{Key: "net/a", Deleted: true, Revision: 3},
		{Key: "net/d", Value: []byte("4"), Revision: 4},
	}
	for after := range int64(4) {
		events := watch(t, s, "net/", after)
		for _, want := range all {
			if want.Revision > after {
				same(t, fmt.Sprintf("watch after %d", after), receive(t, events), want)
			}
		}
	}
	same(t, "live watch", receive(t, live), all[4])
	same(t, "watch of one key", receive(t, watch(t, s, "other", 0)), store.Event{Key: "other", Value: []byte("1"), Revision: 2})
}

func watchUnavailableRevision(t *testing.T, s store.Store) {
	rev := commit(t, s, put("a", "1"))
	for _, after := range []int64{-1, rev + 1} {
		if _, err := s.Watch(context.Background(), "", after); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("watch after %d at revision %d: %v, want ErrCompacted", after, rev, err)
		}
	}
}

func watchEndsWithContext(t *testing.T, s store.Store) {
	commit(t, s, put("a", "1"))
	for after := range int64(2) { // once blocked in sending, once idle
		ctx, cancel := context.WithCancel(context.Background())
		events, err := s.Watch(ctx, "", after)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		drain(t, events)
	}
}

// slowWatcher reads nothing while many events come. No commit waits for it,
// and what it reads later has no gap: all of it, or all up to the close.
func slowWatcher(t *testing.T, s store.Store) {
	const revisions, perRevision = 20, 500
	events := watch(t, s, "", 0)
	for range revisions {
		var txn store.Txn
		for i := range perRevision {
			txn.Puts = append(txn.Puts, store.Put{Key: fmt.Sprintf("%04d", i), Value: []byte("1")})
		}
		commit(t, s, txn)
	}
	n := 0
	for n < revisions*perRevision {
		timeout := time.NewTimer(patience)
		select {
		case e, ok := <-events:
			if !ok {
				if n%perRevision != 0 {
					t.Errorf("watch closed after %d events, within revision %d", n, n/perRevision+1)
				}
				return
			}
			want := store.Event{Key: fmt.Sprintf("%04d", n%perRevision), Value: []byte("1"), Revision: int64(n/perRevision + 1)}
			same(t, fmt.Sprintf("event %d", n), e, want)
			n++
		case <-timeout.C:
			t.Fatalf("watch: neither an event nor a close after %d events", n)
		}
		timeout.Stop()
	}
}
