package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/store"
	"github.com/towpath/towpath/internal/store/bolt"
)

// ledger is a store like the daemon's, on the same file system, for the cost of
// a commit alone.
type ledger struct {
	store *bolt.Store
	next  int
}

func openLedger(ctx context.Context, dir string) (*ledger, error) {
	s, err := bolt.Open(ctx, filepath.Join(dir, "ledger.db"))
	if err != nil {
		return nil, err
	}
	return &ledger{store: s}, nil
}

// fill writes records until there are n of them, in one transaction.
func (l *ledger) fill(ctx context.Context, n int, like api.Sandbox) error {
	var all store.Txn
	for l.next < n {
		t, err := l.record(like)
		if err != nil {
			return err
		}
		all.Puts = append(all.Puts, t.Puts...)
	}
	_, err := l.store.Commit(ctx, all)
	return err
}

// commit writes one record and returns what it took: until it is on the disk.
func (l *ledger) commit(ctx context.Context, like api.Sandbox) (time.Duration, error) {
	t, err := l.record(like)
	if err != nil {
		return 0, err
	}
	t.Puts = append(t.Puts,
		store.Put{Key: "lease/4", Value: []byte(`"10.98.0.2"`)},
		store.Put{Key: "lease/6", Value: []byte(`"fd00:98::2"`)})
	began := time.Now()
	_, err = l.store.Commit(ctx, t)
	return time.Since(began), err
}

// record is what the daemon writes for a sandbox with one endpoint.
func (l *ledger) record(like api.Sandbox) (store.Txn, error) {
	l.next++
	endpoint := like.Endpoints[0]
	endpoint.Status = nil
	like.Endpoints, like.Status = nil, nil
	var t store.Txn
	for prefix, value := range map[string]any{"sandboxes": like, "endpoints": endpoint} {
		raw, err := json.Marshal(value)
		if err != nil {
			return t, fmt.Errorf("encode record: %w", err)
		}
		t.Puts = append(t.Puts, store.Put{Key: fmt.Sprintf("%s/%06d", prefix, l.next), Value: raw})
	}
	return t, nil
}
