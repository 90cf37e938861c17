package bolt

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/towpath/towpath/internal/store"
)

// rename is a migration as a later version may bring one.
func rename(from, to string) migration {
	return func(tx *bbolt.Tx) error {
		objects := tx.Bucket([]byte(objectsBucket))
		return errors.Join(objects.Put([]byte(to), objects.Get([]byte(from))), objects.Delete([]byte(from)))
	}
}

func TestMigrationsKeepABackup(t *testing.T) {
	path := dbPath(t)
	s := openTest(t, path)
	commit(t, s, "a", "1")
	old := contentOf(t, s)
	s.Close()

	writeFile(t, path+".v1.bak", []byte("of an attempt before"))
	steps := []migration{rename("a", "b"), rename("b", "c")}
	for range 2 { // the second time nothing is left to do
		s, err := open(t.Context(), path, steps)
		if err != nil {
			t.Fatal(err)
		}
		want := content{[]store.Entry{{Key: "c", Value: []byte("1"), Revision: 1}}, 1}
		if diff := cmp.Diff(want, contentOf(t, s)); diff != "" {
			t.Errorf("after migration (- wanted, + found):\n%s", diff)
		}
		s.Close()
	}
	if diff := cmp.Diff(old, contentOf(t, openTest(t, path+".v1.bak"))); diff != "" {
		t.Errorf("backup (- before, + backup):\n%s", diff)
	}
	info, err := os.Stat(path + ".v1.bak")
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("backup has mode %v, %v; want -rw-------", info.Mode(), err)
	}
	_, err = Open(t.Context(), path)
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "version 3") || !strings.Contains(err.Error(), path) {
		t.Errorf("open by the older program: %v, want ErrNewer with version and file", err)
	}
}

func TestMigrationThatFailsChangesNothing(t *testing.T) {
	path := dbPath(t)
	s := openTest(t, path)
	commit(t, s, "a", "1")
	want := contentOf(t, s)
	s.Close()

	cause := errors.New("no such field")
	fails := func(*bbolt.Tx) error { return cause }
	_, err := open(t.Context(), path, []migration{rename("a", "b"), fails})
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "migrate from version 2 to 3") {
		t.Fatalf("open: %v, want the step and its cause", err)
	}
	if diff := cmp.Diff(want, contentOf(t, openTest(t, path))); diff != "" {
		t.Errorf("after a failed migration (- before, + after):\n%s", diff)
	}
}

func TestBackupThatFailsStopsTheMigration(t *testing.T) {
	path := dbPath(t)
	openTest(t, path).Close()
	if err := os.Mkdir(path+".v1.bak", 0o700); err != nil { // a file cannot take its name
		t.Fatal(err)
	}
	called := false
	step := func(*bbolt.Tx) error { called = true; return nil }
	if _, err := open(t.Context(), path, []migration{step}); err == nil || !strings.Contains(err.Error(), path+".v1.bak") {
		t.Errorf("open: %v, want an error that names the backup", err)
	}
	if _, err := os.Stat(path + ".v1.bak.part"); called || err == nil {
		t.Errorf("migrated: %v; part of a copy left: %v", called, err == nil)
	}
}

func TestUnfinishedCreationIsFinished(t *testing.T) {
	for name, prepare := range map[string]func(path string){
		"empty file": func(path string) { writeFile(t, path, nil) },
		"no buckets": func(path string) { edit(t, path, func(*bbolt.Tx) error { return nil }) },
	} {
		path := dbPath(t)
		prepare(path)
		if got := contentOf(t, openTest(t, path)); got.Revision != 0 || got.Entries != nil {
			t.Errorf("%s: opened as %+v", name, got)
		}
	}
}
