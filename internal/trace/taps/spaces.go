//go:build linux

package taps

import (
	"errors"
	"os"
	"slices"

	"github.com/towpath/towpath/internal/machine"
)

// mostSpaces is how many namespaces are watched.
const mostSpaces = 64

// Spaces opens the namespaces to watch: those named first, the host, and as many
// others as may be. One that is gone is left out. What was opened is the
// caller's to close, also with an error.
func Spaces(h *machine.Host, first []string, open func(*machine.Space) (*os.File, error)) ([]Space, error) {
	names := append(slices.Clone(first), machine.HostName)
	for i := range h.Spaces {
		names = append(names, h.Spaces[i].Name)
	}
	var out []Space
	for i, name := range names {
		s := h.Space(name)
		if s == nil || slices.Contains(names[:i], name) || len(out) >= mostSpaces {
			continue
		}
		f, err := open(s)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return out, err
		}
		links := map[int]string{}
		for _, l := range s.Links {
			links[l.Index] = l.Name
		}
		out = append(out, Space{Name: name, Inode: s.Inode, File: f, Links: links})
	}
	return out, nil
}
