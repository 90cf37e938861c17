package bolt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// fileMode: labels and options of tenants are nobody else's business.
const fileMode = 0o600

const (
	// lockPatience is how long a process that is about to end may keep the lock.
	lockPatience = time.Second
	// lockInterval is between two tries: flock(2) can wait, but not up to a
	// deadline, and tells nobody when it is free.
	lockInterval = 20 * time.Millisecond
)

// openFile opens the bbolt file, takes its lock and verifies it.
func openFile(ctx context.Context, path string) (*bbolt.DB, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	isNew, err := inspect(path)
	if err != nil {
		return nil, err
	}
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{
		// bbolt takes the lock as well, which the open file then has already.
		OpenFile: func(name string, flag int, mode fs.FileMode) (*os.File, error) {
			return openVerified(ctx, name, flag, mode)
		},
	})
	if err != nil {
		return nil, err
	}
	if isNew {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// inspect refuses what must not be opened: opening a FIFO would block.
func inspect(path string) (isNew bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("%w: not a regular file but %s", ErrCorrupt, info.Mode())
	case info.Mode().Perm()&0o200 == 0:
		return false, fmt.Errorf("%w: mode %#o", ErrReadOnly, info.Mode().Perm())
	}
	return false, nil
}

// openVerified opens the file locked, and only if it is sound. An empty file
// is: its maker was killed before it got further.
func openVerified(ctx context.Context, path string, flag int, mode fs.FileMode) (*os.File, error) {
	file, err := os.OpenFile(path, flag, mode)
	if err != nil {
		return nil, err
	}
	err = lock(ctx, file)
	if err == nil {
		err = verifyFile(file)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func verifyFile(file *os.File) error {
	data, err := io.ReadAll(io.NewSectionReader(file, 0, math.MaxInt64))
	if err != nil || len(data) == 0 {
		return err
	}
	if err := verifyPages(data); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// lock takes the lock that bbolt uses. It goes with the process that holds it.
func lock(ctx context.Context, file *os.File) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience, ErrLocked)
	defer cancel()
	again := time.NewTicker(lockInterval)
	defer again.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return fmt.Errorf("lock file: %w", err)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return lockRefused(ctx)
		}
	}
}

// lockRefused tells of the other process, also where it was the caller's
// context that ended.
func lockRefused(ctx context.Context) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, ErrLocked) {
		return fmt.Errorf("%w: the file stayed locked for %v", ErrLocked, lockPatience)
	}
	return fmt.Errorf("%w: the file is locked: %w", ErrLocked, cause)
}

// syncDir makes the names in a directory last through a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
