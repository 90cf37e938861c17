package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// A migration turns the layout of one version into that of the next. It must
// leave the store's revision as it is.
type migration func(*bbolt.Tx) error

// migrations lists the steps from version 1 on: step i leads from version i+1
// to i+2, so the present version is one more than there are steps. A step is
// never altered once it was released; a new layout is a new step.
func migrations() []migration { return nil }

// upgrade brings the file to the version that the steps lead to. A new file
// starts there.
func upgrade(db *bbolt.DB, steps []migration) error {
	newest := int64(len(steps)) + 1
	var version int64
	err := db.View(func(tx *bbolt.Tx) (err error) {
		if first, _ := tx.Cursor().First(); first == nil {
			return nil // just made, or its maker was killed before it got further
		}
		version, err = readNumber(tx, schemaKey)
		if err == nil && version == 0 {
			err = fmt.Errorf("%w: %s is 0", ErrCorrupt, schemaKey)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case version == 0:
		return db.Update(func(tx *bbolt.Tx) error { return createBuckets(tx, newest) })
	case version > newest:
		return fmt.Errorf("%w: its layout has version %d, this one knows up to %d", ErrNewer, version, newest)
	case version < newest:
		return migrate(db, version, steps)
	}
	return nil
}

func createBuckets(tx *bbolt.Tx, version int64) error {
	for _, name := range []string{metaBucket, objectsBucket} {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	return errors.Join(writeNumber(tx, schemaKey, version), writeNumber(tx, revisionKey, 0))
}

// migrate does all steps that are missing in one transaction, so that a
// failure or a crash leaves the file at the version it had.
func migrate(db *bbolt.DB, version int64, steps []migration) error {
	if err := backUp(db, fmt.Sprintf("%s.v%d.bak", db.Path(), version)); err != nil {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		for ; version <= int64(len(steps)); version++ {
			if err := steps[version-1](tx); err != nil {
				return fmt.Errorf("migrate from version %d to %d: %w", version, version+1, err)
			}
		}
		return writeNumber(tx, schemaKey, version)
	})
}

// backUp copies the file. The copy appears under its name when it is complete
// and on the disk; one of an earlier attempt is replaced.
func backUp(db *bbolt.DB, path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("back up to %s: %w", path, err)
		}
	}()
	part := path + ".part"
	defer os.Remove(part) // gone already when all went well
	if err := copyTo(db, part); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func copyTo(db *bbolt.DB, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(f)
		return err
	})
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
