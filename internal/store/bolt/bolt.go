// Package bolt keeps a store in one bbolt file: the store of a single machine.
//
// The file is read once, when it is opened; from then on reads are answered
// from memory (package mem) and each Commit is one bbolt transaction, on the
// disk (fdatasync) before anybody sees it. Watchers remember what was committed
// since the file was opened.
//
// The file holds two buckets. "meta" has "schema", the version of this layout,
// and "revision", that of the store. "objects" has a record for each key: a
// line of JSON, {"revision":N}, and then the value as it was given. Values of
// the engine are JSON too, so the file can be read with bbolt's own command.
package bolt

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/towpath/towpath/internal/store"
	"github.com/towpath/towpath/internal/store/mem"
)

var (
	// ErrLocked says that another process has the file open.
	ErrLocked = errors.New("another towpathd uses this state directory")
	// ErrNewer says that a later version of this program wrote the file.
	ErrNewer = errors.New("written by a newer towpathd")
	// ErrCorrupt says that the file is not a store, or no longer. It was left
	// as it is.
	ErrCorrupt = errors.New("file is damaged or not a store")
	// ErrReadOnly says that the file's owner may not write to it. Root could,
	// but somebody took that right away for a reason.
	ErrReadOnly = errors.New("file is read-only")
)

// Store is a store.Store.
type Store struct {
	*mem.Store
	end func() error
}

var _ store.Store = (*Store)(nil)

// Open opens the store in the file at path, which is made, with mode 0600,
// where there is none; its directory must exist. It waits up to a second for
// another process to let go of the file, less where ctx ends earlier. A file that cannot be used is refused and never altered: the error
// names it, and matches ErrLocked, ErrNewer, ErrCorrupt, ErrReadOnly or the
// kernel's own error.
//
// A file of an older layout is brought up to the present one; a copy of it as
// it was is kept beside it, as PATH.v<version>.bak.
func Open(ctx context.Context, path string) (*Store, error) {
	s, err := open(ctx, path, migrations())
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string, to []migration) (*Store, error) {
	db, err := openFile(ctx, path)
	if err != nil {
		return nil, err
	}
	entries, revision, err := prepare(db, to)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	j := &journal{db: db}
	m := mem.Load(entries, revision, j.write)
	return &Store{Store: m, end: sync.OnceValue(func() error {
		if err := errors.Join(m.Close(), db.Close()); err != nil {
			return fmt.Errorf("close store %s: %w", path, err)
		}
		return nil
	})}, nil
}

// prepare brings the file to the present layout and reads it.
func prepare(db *bbolt.DB, to []migration) (entries []store.Entry, revision int64, err error) {
	if err := upgrade(db, to); err != nil {
		return nil, 0, err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		entries, revision, err = readAll(tx)
		return err
	})
	return entries, revision, err
}

// Close ends all watches, waits for a Commit under way and lets go of the file.
// Later calls return what the first one did.
func (s *Store) Close() error { return s.end() }

// journal writes to the file, for one Commit at a time.
type journal struct {
	db *bbolt.DB
	// broken is set when it is not known any more what the file holds.
	broken error
}

// write is a mem.Journal.
func (j *journal) write(revision int64, changes []store.Event) error {
	if j.broken != nil {
		return j.broken
	}
	err := j.db.Update(func(tx *bbolt.Tx) error { return writeChanges(tx, revision, changes) })
	if err == nil {
		return nil
	}
	err = fmt.Errorf("write store %s: %w", j.db.Path(), err)
	if j.isAt(revision - 1) {
		return err // as after "no space left on device": nothing was changed
	}
	// The page that makes the change valid was written, but fsync failed: the
	// kernel shows the change and may yet lose it. Building on either answer
	// could mix up two histories under one revision.
	j.broken = fmt.Errorf("%w; the change may be on the disk or not: start towpathd again to read the file anew", err)
	return j.broken
}

// isAt reports whether the file, as the kernel shows it, is at a revision.
func (j *journal) isAt(revision int64) bool {
	err := j.db.View(func(tx *bbolt.Tx) error {
		at, err := readNumber(tx, revisionKey)
		if err == nil && at != revision {
			err = fmt.Errorf("file is at revision %d", at)
		}
		return err
	})
	return err == nil
}
