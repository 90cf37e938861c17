package bolt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"go.etcd.io/bbolt"

	"github.com/towpath/towpath/internal/store"
)

// Names of the two buckets, and of the keys of the first.
const (
	metaBucket    = "meta"
	objectsBucket = "objects"
	schemaKey     = "schema"
	revisionKey   = "revision"
)

// header is the first line of a record.
type header struct {
	Revision int64 `json:"revision"`
}

func encodeRecord(revision int64, value []byte) []byte {
	record := strconv.AppendInt([]byte(`{"revision":`), revision, 10)
	return append(append(record, "}\n"...), value...)
}

// decodeRecord returns a copy: bbolt's memory is valid within its transaction only.
func decodeRecord(key, record []byte) (store.Entry, error) {
	line, value, ok := bytes.Cut(record, []byte("\n"))
	var h header
	if err := json.Unmarshal(line, &h); err != nil || !ok || h.Revision < 1 {
		return store.Entry{}, fmt.Errorf("%w: record %q has no revision", ErrCorrupt, key)
	}
	return store.Entry{Key: string(key), Value: bytes.Clone(value), Revision: h.Revision}, nil
}

func writeChanges(tx *bbolt.Tx, revision int64, changes []store.Event) error {
	objects := tx.Bucket([]byte(objectsBucket))
	for _, e := range changes {
		var err error
		if e.Deleted {
			err = objects.Delete([]byte(e.Key))
		} else {
			err = objects.Put([]byte(e.Key), encodeRecord(e.Revision, e.Value))
		}
		if err != nil {
			return fmt.Errorf("change key %q: %w", e.Key, err)
		}
	}
	return writeNumber(tx, revisionKey, revision)
}

func readAll(tx *bbolt.Tx) ([]store.Entry, int64, error) {
	revision, err := readNumber(tx, revisionKey)
	if err != nil {
		return nil, 0, err
	}
	objects := tx.Bucket([]byte(objectsBucket))
	if objects == nil {
		return nil, 0, fmt.Errorf("%w: bucket %s is missing", ErrCorrupt, objectsBucket)
	}
	var entries []store.Entry
	err = objects.ForEach(func(key, record []byte) error {
		e, err := decodeRecord(key, record)
		if err == nil && e.Revision > revision {
			err = fmt.Errorf("%w: record %q is of revision %d, the store of %d", ErrCorrupt, key, e.Revision, revision)
		}
		entries = append(entries, e)
		return err
	})
	return entries, revision, err
}

func readNumber(tx *bbolt.Tx, key string) (int64, error) {
	meta := tx.Bucket([]byte(metaBucket))
	if meta == nil {
		return 0, fmt.Errorf("%w: bucket %s is missing", ErrCorrupt, metaBucket)
	}
	n, err := strconv.ParseInt(string(meta.Get([]byte(key))), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%w: %s is not a number", ErrCorrupt, key)
	}
	return n, nil
}

func writeNumber(tx *bbolt.Tx, key string, n int64) error {
	if err := tx.Bucket([]byte(metaBucket)).Put([]byte(key), strconv.AppendInt(nil, n, 10)); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}
