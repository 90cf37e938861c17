//go:build linux

package linux

import (
	"errors"
	"fmt"
	"os"

	"github.com/towpath/towpath/internal/linux/netns"
)

// ErrSelf is what Adopt gives for the host's own namespace.
var ErrSelf = errors.New("it is the namespace towpathd itself runs in")

// BoundError is what Adopt gives for the namespace of a sandbox.
type BoundError struct{ Sandbox string }

func (e *BoundError) Error() string { return "the namespace is sandbox " + e.Sandbox + " already" }

// boundTo is the sandbox that a namespace is bound for, "" if there is none.
func (k *Kernel) boundTo(f *os.File) string {
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	entries, _ := netns.List(k.Path("")) // what cannot be listed cannot be told
	for _, e := range entries {
		bound, err := os.Stat(k.Path(e.Name))
		if err == nil && os.SameFile(info, bound) {
			return e.Name
		}
	}
	return ""
}

// Adopt identifies the namespace behind f by its cookie and keeps a handle on
// it until an op binds it.
func (k *Kernel) Adopt(f *os.File) (uint64, error) {
	cookie, err := netns.Cookie(f)
	if err != nil {
		return 0, fmt.Errorf("identify namespace: %w", err)
	}
	same, err := netns.Same(f, k.self)
	if err != nil {
		return 0, fmt.Errorf("identify namespace: %w", err)
	}
	if same {
		return 0, ErrSelf
	}
	if name := k.boundTo(f); name != "" {
		return 0, &BoundError{Sandbox: name}
	}
	kept, err := netns.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return 0, fmt.Errorf("keep namespace: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.offered[cookie]; old != nil {
		_ = old.Close()
	}
	k.offered[cookie] = kept
	return cookie, nil
}
