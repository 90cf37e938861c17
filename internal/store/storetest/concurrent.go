package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/towpath/towpath/internal/store"
)

// increment adds one to the number in key by compare and set, as often as it takes.
func increment(s store.Store, key string) error {
	for {
		entries, _, err := s.List(context.Background(), key)
		if err != nil {
			return err
		}
		var n int
		var rev int64
		if len(entries) == 1 {
			rev = entries[0].Revision
			if n, err = strconv.Atoi(string(entries[0].Value)); err != nil {
				return err
			}
		}
		txn := put(key, strconv.Itoa(n+1))
		txn.Compares = []store.Compare{{Key: key, Revision: rev}}
		if _, err = s.Commit(context.Background(), txn); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

func countersLoseNoUpdate(t *testing.T, s store.Store) {
	const writers, each = 8, 20
	events := watch(t, s, "counter", 0)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if err := increment(s, "counter"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	entries, rev := list(t, s, "counter")
	if got := string(entries[0].Value); got != strconv.Itoa(writers*each) || rev != writers*each {
		t.Errorf("counter is %s at revision %d, want %d at the same", got, rev, writers*each)
	}
	for n := 1; n <= writers*each; n++ {
		want := store.Event{Key: "counter", Value: []byte(strconv.Itoa(n)), Revision: int64(n)}
		same(t, "event", receive(t, events), want)
	}
}

// listIsOneSnapshot changes two keys together and never lists them apart.
func listIsOneSnapshot(t *testing.T, s store.Store) {
	const rounds = 50
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range rounds {
			value := []byte(fmt.Sprint(i))
			txn := store.Txn{Puts: []store.Put{{Key: "a", Value: value}, {Key: "z", Value: value}}}
			if _, err := s.Commit(context.Background(), txn); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		entries, rev := list(t, s, "")
		if len(entries) == 0 && rev == 0 {
			continue
		}
		if len(entries) != 2 || string(entries[0].Value) != string(entries[1].Value) ||
			entries[0].Revision != rev || entries[1].Revision != rev {
			t.Fatalf("listed %v at revision %d", entries, rev)
		}
	}
}

// listThenWatchSeesAll keeps a copy by List and Watch while others write, as
// the engine's reader does, and ends with the store's own content.
func listThenWatchSeesAll(t *testing.T, s store.Store) {
	const writers, each = 4, 15
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				txn := put(fmt.Sprintf("k/%d/%d", w, i%5), fmt.Sprint(i))
				if i%4 == 3 {
					txn.Deletes = []string{fmt.Sprintf("k/%d/%d", w, (i+1)%5)}
				}
				if _, err := s.Commit(context.Background(), txn); err != nil {
					t.Error(err)
				}
			}
		})
	}
	listed, rev := list(t, s, "")
	events := watch(t, s, "", rev)
	wg.Wait()
	mirror := map[string]store.Entry{}
	for _, e := range listed {
		mirror[e.Key] = e
	}
	want, end := list(t, s, "")
	for rev < end {
		e := receive(t, events)
		if e.Revision < rev {
			t.Fatalf("event of revision %d after %d", e.Revision, rev)
		}
		rev = e.Revision
		replay(mirror, e)
	}
	drainRevision(t, s, events, mirror)
	same(t, "mirror", sorted(mirror), want)
}

// drainRevision takes what is left of the last revision: it commits one more
// change, whose event comes behind all others.
func drainRevision(t *testing.T, s store.Store, events <-chan store.Event, mirror map[string]store.Entry) {
	t.Helper()
	end := commit(t, s, put("end", ""))
	for e := receive(t, events); e.Revision < end; e = receive(t, events) {
		replay(mirror, e)
	}
}
