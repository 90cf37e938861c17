package spawn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
)

// WriteFile writes text to the file at path, so that a reader sees the whole
// old one or the whole new one: a file beside it takes its name (rename(2)).
func WriteFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.WriteString(text)
	// CreateTemp makes it the caller's alone; the C library of every user reads it.
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		err = api.Errorf(api.InUse, "write %s: something is mounted on it, so that it cannot be exchanged: %w", path, err).
			WithFix("write to a file beside it, and copy from there")
	default:
		err = fmt.Errorf("write %s: %w", path, err)
	}
	return errors.Join(err, os.Remove(f.Name()))
}
