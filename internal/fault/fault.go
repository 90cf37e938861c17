// Package fault gives names to the points at which a daemon can die, so that a
// test can kill it at each of them in turn.
package fault

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/towpath/towpath/internal/store"
)

// Points counts the points passed. A nil *Points does nothing: that is how the
// daemon runs.
type Points struct {
	mu     sync.Mutex
	log    *os.File
	killAt int
	passed int
}

// New makes Points that write each name to log, if it is not nil, and kill the
// process with SIGKILL at the point numbered killAt (from 1; 0 never kills).
func New(log *os.File, killAt int) *Points {
	return &Points{log: log, killAt: killAt}
}

// Hit passes a point.
func (p *Points) Hit(name string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passed++
	if p.log != nil {
		fmt.Fprintf(p.log, "%d %s\n", p.passed, name)
	}
	if p.passed == p.killAt {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}

// Store makes a store whose commits have a point before and after.
func (p *Points) Store(s store.Store) store.Store {
	if p == nil {
		return s
	}
	return faultyStore{s, p}
}

type faultyStore struct {
	store.Store
	points *Points
}

// Commit is the store's, between two points.
func (s faultyStore) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	s.points.Hit("before commit")
	rev, err := s.Store.Commit(ctx, txn)
	s.points.Hit("after commit")
	return rev, err
}
