// Package store says what a store of intent is: keys with values, changed by
// all-or-nothing transactions that each get a revision, and watched in order.
//
// The shape is that of etcd's v3 KV and Watch services, cut down to what the
// engine asks for, so that one machine (bolt), many machines (etcd) and a test
// (mem) offer the same. What an implementation must do is written here and
// proven by the suite in storetest.
package store

import (
	"context"
	"errors"
	"fmt"
)

// Limits every store keeps, in bytes, so that what one takes all take. etcd
// refuses requests above 1.5 MiB by default (--max-request-bytes).
const (
	MaxKey   = 1024
	MaxValue = 1 << 20
)

var (
	// ErrConflict matches a Commit whose compare failed: nothing was changed,
	// list again and decide anew. The error itself is a *ConflictError.
	ErrConflict = errors.New("conflict")
	// ErrCompacted says that the changes behind a revision are not available:
	// List, and watch from the revision it returns.
	ErrCompacted = errors.New("revision is not available")
	// ErrInvalid matches a transaction that no state of the store would take.
	ErrInvalid = errors.New("invalid transaction")
	// ErrClosed is what a store returns once Close was called.
	ErrClosed = errors.New("store is closed")
)

// An Entry is one key as it stands.
type Entry struct {
	Key   string
	Value []byte
	// Revision of the last change of this key, at least 1.
	Revision int64
}

// A Compare is a condition of a transaction: Key was last changed at Revision.
// Revision 0 means that the key must be absent.
type Compare struct {
	Key      string
	Revision int64
}

// A Put sets a key. It is a change, with a new revision, even where the value
// stays the same.
type Put struct {
	Key   string
	Value []byte
}

// A Txn is done as a whole or not at all: when every compare holds, all puts
// and deletes are done at one revision. A key may be compared and changed, but
// changed once only.
//
// Deleting an absent key changes nothing. A transaction that changes nothing,
// the empty one included, is legal: its compares are checked, it takes no
// revision, and no watcher hears of it.
type Txn struct {
	Compares []Compare
	Puts     []Put
	Deletes  []string
}

// An Event tells of one change of one key. Value is nil for a deleted key,
// whose Revision is that of the transaction that deleted it.
type Event struct {
	Key      string
	Value    []byte
	Deleted  bool
	Revision int64
}

// A Store holds entries. It is safe for concurrent use; values passed in and
// handed out are copies, so either side may change its own.
type Store interface {
	// List returns the entries whose key begins with prefix ("" for all),
	// sorted by key, as they stood together at the revision returned: that of
	// the whole store, which may be above that of any entry listed.
	List(ctx context.Context, prefix string) (entries []Entry, revision int64, err error)

	// Commit does a transaction and returns the revision it took, or the
	// store's revision where it changed nothing. Revisions begin at 1 and
	// strictly rise for as long as the data lives, over restarts too.
	//
	// Errors match ErrConflict, ErrInvalid or ErrClosed, or the context's:
	// with the first three nothing was changed. After any other error a store
	// reached over a network may have taken the change: list to know.
	Commit(ctx context.Context, txn Txn) (revision int64, err error)

	// Watch sends the changes of keys that begin with prefix and have a
	// revision above after: in the order of revisions, within a revision the
	// puts and then the deletes in the order of the transaction, none left
	// out. It fails with ErrCompacted where after lies before what the store
	// remembers, or ahead of its revision (the caller's knowledge is then of
	// another store, such as this one before a backup was put back).
	//
	// A watcher never holds up a Commit. It may fall behind by as much as the
	// store remembers; beyond that the channel is closed, after the events it
	// still had. The channel is closed as well when ctx ends and when the
	// store is closed. So where it is closed and ctx has not ended, list
	// again; ErrClosed then tells the third case. A watch that is broken off
	// within a revision cannot be resumed there: list again, too.
	Watch(ctx context.Context, prefix string, after int64) (<-chan Event, error)

	// Close ends all watches and waits for a Commit under way. A second Close
	// does nothing.
	Close() error
}

// A ConflictError names the compare that failed, the first one if several did.
type ConflictError struct {
	Key  string
	Want int64 // the revision the transaction asked for, 0 for absent
	Have int64 // the revision the key is at, 0 for absent
}

// Error says what was asked for and what was found.
func (e *ConflictError) Error() string {
	switch {
	case e.Want == 0:
		return fmt.Sprintf("commit transaction: key %q exists already, at revision %d", e.Key, e.Have)
	case e.Have == 0:
		return fmt.Sprintf("commit transaction: key %q does not exist, expected revision %d", e.Key, e.Want)
	}
	return fmt.Sprintf("commit transaction: key %q is at revision %d, expected %d", e.Key, e.Have, e.Want)
}

// Is makes the error match ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// Validate checks what can be said of a transaction without the store. Its
// errors match ErrInvalid. Every implementation calls it first.
func (t Txn) Validate() error {
	for _, c := range t.Compares {
		if err := validKey(c.Key); err != nil {
			return err
		}
	}
	changed := make(map[string]bool, len(t.Puts)+len(t.Deletes))
	for _, p := range t.Puts {
		if len(p.Value) > MaxValue {
			return invalid("value of key %q has %d bytes, more than %d", p.Key, len(p.Value), MaxValue)
		}
		if err := validChange(p.Key, changed); err != nil {
			return err
		}
	}
	for _, key := range t.Deletes {
		if err := validChange(key, changed); err != nil {
			return err
		}
	}
	return nil
}

func validChange(key string, changed map[string]bool) error {
	if changed[key] {
		return invalid("key %q is changed twice", key)
	}
	changed[key] = true
	return validKey(key)
}

func validKey(key string) error {
	switch {
	case key == "":
		return invalid("a key is empty")
	case len(key) > MaxKey:
		return invalid("key %.32q... has %d bytes, more than %d", key, len(key), MaxKey)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("commit transaction: %w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
