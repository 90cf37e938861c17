//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
)

// foreignTable names a table of others.
type foreignTable struct {
	family rules.Family
	name   string
}

// foreign is what was read of the rules of others, and what of it may have
// changed since. They may be many, so that of an event only what it names is
// read again, and nothing when nothing happened.
type foreign struct {
	mu       sync.Mutex
	watching bool
	upTo     uint32        // the last generation that notifications told of
	news     chan struct{} // closed and replaced with each
	all      bool          // everything is to be read
	stale    map[foreignTable]bool
	forwards map[foreignTable]rules.TableDef // tables with a base chain at hook forward
	now      *kernel.Foreign
}

// Limits on reading the rules of others.
const (
	foreignDeadline = 2 * time.Second
	// catchUp is how long a reader waits for notifications of what is committed
	// already; without them it reads everything.
	catchUp = 250 * time.Millisecond
)

// Foreign reads what decides on forwarded packets besides our own table. As long
// as nothing changed the answer is the same pointer.
func (k *Kernel) Foreign(ctx context.Context) (*kernel.Foreign, error) {
	ctx, cancel := context.WithTimeout(ctx, foreignDeadline)
	defer cancel()
	if err := k.catchUp(ctx); err != nil {
		return nil, fmt.Errorf("read the firewalls of others: %w", err)
	}
	f := &k.rules
	f.mu.Lock()
	defer f.mu.Unlock()
	changed, err := k.readStale(ctx)
	if err != nil {
		f.all = true
		return nil, fmt.Errorf("read the firewalls of others: %w", err)
	}
	legacy, differs, err := k.readLegacy()
	if err != nil {
		f.now = nil // what changed has been told, and is told once
		return nil, fmt.Errorf("read the firewalls of others: %w", err)
	}
	if changed || differs || f.now == nil {
		f.now = &kernel.Foreign{Legacy: legacy}
		for _, id := range slices.SortedFunc(maps.Keys(f.forwards), compareTables) {
			f.now.Tables = append(f.now.Tables, f.forwards[id])
		}
	}
	return f.now, nil
}

func compareTables(a, b foreignTable) int {
	if a.family != b.family {
		return int(a.family) - int(b.family)
	}
	if a.name < b.name {
		return -1
	}
	return 1
}

// catchUp waits until notifications have told of all that is committed now.
func (k *Kernel) catchUp(ctx context.Context) error {
	f := &k.rules
	now, err := k.nft.Generation(ctx)
	if err != nil {
		return err
	}
	timeout := time.NewTimer(catchUp)
	defer timeout.Stop()
	for {
		f.mu.Lock()
		watching, done, news := f.watching, int32(f.upTo-now) >= 0, f.news
		f.all = f.all || !watching
		f.mu.Unlock()
		if !watching || done {
			return nil
		}
		select {
		case <-news:
		case <-timeout.C:
			f.mu.Lock()
			f.all = true
			f.mu.Unlock()
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readStale reads what may have changed; the caller holds the lock.
func (k *Kernel) readStale(ctx context.Context) (changed bool, err error) {
	f := &k.rules
	if !f.all && len(f.stale) == 0 {
		return false, nil
	}
	bases, err := k.nft.BaseChains(ctx)
	if err != nil {
		return false, err
	}
	have := map[foreignTable]rules.TableDef{}
	for _, ch := range bases {
		id := foreignTable{ch.Family, ch.Table}
		if _, done := have[id]; done || ch.Hook != "forward" || ch.Table == tableName {
			continue
		}
		if def, known := f.forwards[id]; known && !f.all && !f.stale[id] {
			have[id] = def
			continue
		}
		def, err := k.nft.ReadTable(ctx, ch.Family, ch.Table)
		if errors.Is(err, unix.ENOENT) {
			continue // removed since it was listed
		}
		if err != nil {
			return false, err
		}
		have[id] = def
	}
	f.forwards, f.all, f.stale = have, false, map[foreignTable]bool{}
	return true, nil
}

// readLegacy reads those of iptables-legacy, and says whether they are others than
// before.
func (k *Kernel) readLegacy() (all []rules.TableDef, differs bool, err error) {
	for _, ipv6 := range []bool{false, true} {
		tables, changed, err := k.xt.Forward(ipv6)
		if err != nil {
			return nil, true, err
		}
		all, differs = append(all, tables...), differs || changed
	}
	return all, differs, nil
}

// watchForeign begins to trust notifications; the monitor listens already.
func (k *Kernel) watchForeign(ctx context.Context) error {
	now, err := k.nft.Generation(ctx)
	if err != nil {
		return err
	}
	f := &k.rules
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watching, f.all, f.upTo, f.news = true, true, now, make(chan struct{})
	context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.watching = false
	})
	return nil
}

// told notes a transaction. What happens in a table without a forward chain
// matters only when it may have got one.
func (f *foreign) told(e nft.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range e.Touched {
		id := foreignTable{t.Family, t.Table}
		_, forwards := f.forwards[id]
		if t.Table == tableName || !forwards && t.Kind != "chain" && t.Kind != "table" {
			continue
		}
		if f.stale == nil {
			f.stale = map[foreignTable]bool{}
		}
		f.stale[id] = true
	}
	f.upTo = e.Generation
	close(f.news)
	f.news = make(chan struct{})
}

// lost notes that notifications did not arrive.
func (k *Kernel) lost(ctx context.Context) {
	now, err := k.nft.Generation(ctx)
	f := &k.rules
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = true
	if err == nil {
		f.upTo = now
	}
	close(f.news)
	f.news = make(chan struct{})
}
