package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/towpath/towpath/internal/store"
	"github.com/towpath/towpath/internal/store/storetest"
)

func openTest(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func dbPath(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "towpath.db")
}

func commit(t *testing.T, s *Store, key, value string) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), store.Txn{Puts: []store.Put{{Key: key, Value: []byte(value)}}})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// content is what a store lists, in one value that can be compared.
type content struct {
	Entries  []store.Entry
	Revision int64
}

func contentOf(t *testing.T, s *Store) content {
	t.Helper()
	entries, rev, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	return content{entries, rev}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, fileMode); err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return openTest(t, dbPath(t)) })
	storetest.RunLasting(t, func(t *testing.T, path string) store.Store { return openTest(t, path) })
}

func TestFileModeAndRecordsAreReadable(t *testing.T) {
	path := dbPath(t)
	s := openTest(t, path)
	commit(t, s, "network/front", `{"name":"front"}`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("file has mode %v, %v; want -rw-------", info.Mode(), err)
	}
	edit(t, path, func(tx *bbolt.Tx) error {
		got := string(tx.Bucket([]byte("objects")).Get([]byte("network/front")))
		if want := "{\"revision\":1}\n{\"name\":\"front\"}"; got != want {
			t.Errorf("record is %q, want %q", got, want)
		}
		return nil
	})
}

// edit changes the file behind the store's back.
func edit(t *testing.T, path string, do func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(do), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestCopyBetweenCommitsOpens(t *testing.T) {
	path := dbPath(t)
	s := openTest(t, path)
	for i := range 12 {
		commit(t, s, fmt.Sprintf("k/%d", i), strings.Repeat("v", i*1000))
		if i%3 == 2 {
			if _, err := s.Commit(t.Context(), store.Txn{Deletes: []string{fmt.Sprintf("k/%d", i-1)}}); err != nil {
				t.Fatal(err)
			}
		}
		cut := dbPath(t)
		writeFile(t, cut, readFile(t, path))
		if diff := cmp.Diff(contentOf(t, s), contentOf(t, openTest(t, cut))); diff != "" {
			t.Fatalf("copy after commit %d (- store, + copy):\n%s", i, diff)
		}
	}
}

func TestLockedFile(t *testing.T) {
	path := dbPath(t)
	s := openTest(t, path)
	_, err := Open(t.Context(), path)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "another towpathd") {
		t.Fatalf("second open: %v, want ErrLocked with the file and its user named", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*lockInterval)
	defer cancel()
	if _, err := Open(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("open with a deadline: %v, want context.DeadlineExceeded", err)
	}
	commit(t, s, "a", "1") // the first is unharmed
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openTest(t, path)
}

func TestLockIsWaitedFor(t *testing.T) {
	path := dbPath(t)
	s := openTest(t, path)
	result := make(chan error)
	go func() {
		next, err := Open(t.Context(), path)
		if err == nil {
			err = next.Close()
		}
		result <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Errorf("open while the holder ends: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestUnusableFiles(t *testing.T) {
	tests := map[string]struct {
		prepare func(t *testing.T, path string)
		want    error
	}{
		"no directory":  {func(t *testing.T, path string) { must(t, os.Remove(filepath.Dir(path))) }, fs.ErrNotExist},
		"a directory":   {func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, ErrCorrupt},
		"read-only":     {func(t *testing.T, path string) { writeFile(t, path, nil); must(t, os.Chmod(path, 0o400)) }, ErrReadOnly},
		"text":          {func(t *testing.T, path string) { writeFile(t, path, []byte("{}\n")) }, ErrCorrupt},
		"zeros":         {func(t *testing.T, path string) { writeFile(t, path, make([]byte, 1<<16)) }, ErrCorrupt},
		"other buckets": {func(t *testing.T, path string) { edit(t, path, makeBucket("x")) }, ErrCorrupt},
		"no objects": {func(t *testing.T, path string) {
			openTest(t, path).Close()
			edit(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(objectsBucket)) })
		}, ErrCorrupt},
		"bad record":      {brokenBy(objectsBucket, "a", "1"), ErrCorrupt},
		"future record":   {brokenBy(objectsBucket, "a", "{\"revision\":99}\n1"), ErrCorrupt},
		"bad revision":    {brokenBy(metaBucket, revisionKey, "many"), ErrCorrupt},
		"schema 0":        {brokenBy(metaBucket, schemaKey, "0"), ErrCorrupt},
		"a newer version": {brokenBy(metaBucket, schemaKey, "2"), ErrNewer},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := dbPath(t)
			tt.prepare(t, path)
			before, _ := os.ReadFile(path) // none where it is no file
			_, err := Open(t.Context(), path)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("open: %v, want %q with the file named", err, tt.want)
			}
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the file was altered")
			}
		})
	}
}

func makeBucket(name string) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte(name))
		return err
	}
}

// brokenBy makes a store and puts one wrong thing into it.
func brokenBy(bucket, key, value string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		s := openTest(t, path)
		commit(t, s, "a", "1")
		s.Close()
		edit(t, path, func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) })
	}
}
