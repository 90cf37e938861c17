//go:build linux

package engines

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/towpath/towpath/internal/machine"
)

// ResolvConf reads the resolv.conf of a namespace: of the machine its own, of
// others that which the first process in it sees. ok is false where there is
// none to speak of, as in a namespace whose processes see the files of the
// daemon itself, and data is nil where the file is missing.
func ResolvConf(root string, s *machine.Space) (path string, data []byte, ok bool) {
	if s.Name == machine.HostName {
		// The files of the machine say nothing of a namespace that is not the machine's.
		if !IsMachine() {
			return "", nil, false
		}
		path = filepath.Join(root, "/etc/resolv.conf")
		data, err := read(path)
		return path, data, err == nil || errors.Is(err, fs.ErrNotExist)
	}
	for _, h := range s.Holders {
		dir := fmt.Sprintf("/proc/%d", h.PID)
		if h.PID == 0 {
			continue
		}
		if shared, err := same(dir+"/ns/mnt", "/proc/self/ns/mnt"); shared || err != nil {
			continue
		}
		path = dir + "/root/etc/resolv.conf"
		data, err := read(path)
		return path, data, err == nil || errors.Is(err, fs.ErrNotExist)
	}
	return "", nil, false
}

// IsMachine reports whether this process is in the network namespace of process
// 1, and so stands for a machine and not for a part of one. Where that cannot be
// seen it is taken for a part.
func IsMachine() bool {
	is, err := same("/proc/self/ns/net", "/proc/1/ns/net")
	return err == nil && is
}

// same reports whether two links are to one namespace.
func same(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y), err
}
