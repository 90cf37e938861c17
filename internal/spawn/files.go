package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

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

// resolvedUpstreams is where systemd-resolved lists the servers behind its own
// address 127.0.0.53 (systemd-resolved(8)).
const resolvedUpstreams = "/run/systemd/resolve/resolv.conf"

// HostResolv is the host's resolv.conf as a sandbox can use it, and whether a
// name server is left in it. A file that is absent is empty.
func HostResolv() (text string, servers bool, err error) {
	for _, path := range []string{"/etc/resolv.conf", resolvedUpstreams} {
		raw, readErr := readIfThere(path)
		if readErr != nil {
			return "", false, fmt.Errorf("read resolv.conf: %w", readErr)
		}
		usable, some := reachable(raw)
		if some {
			return usable, true, nil
		}
		if text == "" {
			text = usable
		}
	}
	return text, false, nil
}

// reachable drops the name servers that mean something only on the host: its
// loopback, and link-local addresses, whose zone is one of its interfaces. It
// reports whether one is left.
func reachable(resolv string) (string, bool) {
	var b strings.Builder
	some := false
	for line := range strings.Lines(resolv) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			b.WriteString(line)
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil || a.Unmap().IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
			continue
		}
		some = true
		b.WriteString(line)
	}
	return b.String(), some
}

// readIfThere reads a file; one that is absent is empty.
func readIfThere(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(data), err
}
