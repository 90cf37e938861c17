package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"testing"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/towpath/towpath/internal/store"
)

// fullFile makes a file of many pages, some of them free.
func fullFile(t *testing.T) []byte {
	path := dbPath(t)
	s := openTest(t, path)
	for round := range 4 {
		var txn store.Txn
		for i := range 200 {
			txn.Puts = append(txn.Puts, store.Put{Key: fmt.Sprintf("k/%d", i), Value: bytes.Repeat([]byte{'v'}, 100*round)})
		}
		if _, err := s.Commit(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return readFile(t, path)
}

// openDamaged opens a file that may be refused, but must not be altered then,
// nor stay locked, nor bring the process down.
func openDamaged(t *rapid.T, path string, data []byte) {
	if err := os.WriteFile(path, data, fileMode); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path)
	if err == nil {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
		t.Fatalf("open: %v, want ErrCorrupt", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(after, data) {
		t.Fatalf("refused, and yet altered (%v)", err)
	}
}

// TestSoundFilesAreAccepted verifies what bbolt writes, for page sizes of other
// machines, buckets in pages and within a page, and values of many pages.
func TestSoundFilesAreAccepted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		path := dbPath(t)
		options := bbolt.Options{PageSize: rapid.SampledFrom([]int{1 << 12, 1 << 14, 1 << 16}).Draw(rt, "page size")}
		db, err := bbolt.Open(path, fileMode, &options)
		if err != nil {
			rt.Fatal(err)
		}
		defer db.Close()
		for range rapid.IntRange(1, 6).Draw(rt, "transactions") {
			if err := db.Update(func(tx *bbolt.Tx) error { return changeAtRandom(rt, tx) }); err != nil {
				rt.Fatal(err)
			}
			if err := verifyPages(readFile(t, path)); err != nil {
				rt.Fatalf("verify: %v", err)
			}
		}
	})
}

func changeAtRandom(t *rapid.T, tx *bbolt.Tx) error {
	outer, err := tx.CreateBucketIfNotExists([]byte(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "bucket")))
	if err != nil {
		return err
	}
	inner, err := outer.CreateBucketIfNotExists([]byte("inner"))
	if err != nil {
		return err
	}
	value := make([]byte, rapid.SampledFrom([]int{0, 10, 300, 5000, 200_000}).Draw(t, "size"))
	count := min(rapid.IntRange(1, 1000).Draw(t, "count"), 400_000/(len(value)+1)+1)
	from := rapid.IntRange(0, 1000).Draw(t, "from")
	for i := range count {
		b := []*bbolt.Bucket{outer, inner}[i%2]
		key := fmt.Appendf(nil, "key %d", from+i)
		if err := b.Put(key, value); err != nil {
			return err
		}
		if i%5 == 4 {
			err = b.Delete(fmt.Appendf(nil, "key %d", from+i-2))
		}
	}
	return err
}

func TestTruncatedFileIsRefused(t *testing.T) {
	whole, path := fullFile(t), dbPath(t)
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, len(whole)-1).Draw(rt, "bytes")
		openDamaged(rt, path, whole[:n])
	})
}

// TestLostPageIsRefusedOrWasFree zeroes each page, as a disk does that lost it.
func TestLostPageIsRefusedOrWasFree(t *testing.T) {
	whole := fullFile(t)
	path := dbPath(t)
	writeFile(t, path, whole)
	s := openTest(t, path)
	want := contentOf(t, s)
	s.Close()
	size, refused := os.Getpagesize(), 0
	for at := 2 * size; at < len(whole); at += size {
		data := bytes.Clone(whole)
		clear(data[at : at+size])
		writeFile(t, path, data)
		s, err := Open(t.Context(), path)
		if err != nil {
			refused++
			continue
		}
		// What is left of a record that reaches over many pages has no header of
		// its own: bbolt keeps no sum of values. There is none in this file.
		if !reflect.DeepEqual(want, contentOf(t, s)) {
			t.Errorf("opened without page %d, and with other content", at/size)
		}
		s.Close()
	}
	if refused == 0 {
		t.Error("no page was missed")
	}
}

func TestOverwrittenPagesAreRefusedOrHarmless(t *testing.T) {
	whole, path := fullFile(t), dbPath(t)
	pages := len(whole) / os.Getpagesize()
	rapid.Check(t, func(rt *rapid.T) {
		data := bytes.Clone(whole)
		for range rapid.IntRange(1, 3).Draw(rt, "places") {
			at := rapid.IntRange(0, pages-1).Draw(rt, "page") * os.Getpagesize()
			at += rapid.SampledFrom([]int{0, 8, 16, 32, 100, 2000}).Draw(rt, "offset")
			copy(data[at:], rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(rt, "junk"))
		}
		openDamaged(rt, path, data)
	})
}

func TestDamagedFileIsNotLeftLocked(t *testing.T) {
	whole, path := fullFile(t), dbPath(t)
	writeFile(t, path, whole[:len(whole)/4])
	if _, err := Open(t.Context(), path); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("open: %v, want ErrCorrupt", err)
	}
	writeFile(t, path, whole) // as after a backup was put back: the same inode
	if got := contentOf(t, openTest(t, path)); len(got.Entries) != 200 || got.Revision != 4 {
		t.Errorf("%d entries at revision %d, want 200 at 4", len(got.Entries), got.Revision)
	}
}
