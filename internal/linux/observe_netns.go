//go:build linux

package linux

import (
	"fmt"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/netns"
)

// namespaces reads which are bound under the run directory: all on a sweep, else
// those asked for.
func (o *observer) namespaces() error {
	if !o.sweep {
		for _, w := range wanted[kernel.Namespace](o, kernel.Host) {
			o.boundNamespace(w)
		}
		return nil
	}
	entries, err := netns.List(o.k.Path(""))
	if err != nil {
		return fmt.Errorf("observe namespaces: %w", err)
	}
	for _, e := range entries {
		ns := kernel.Namespace{Name: e.Name}
		w, asked := o.want[ns.Key()].(kernel.Namespace)
		switch {
		case !asked && e.Mounted: // it may be its owner's, who keeps it
			o.boundNamespace(kernel.Namespace{Name: e.Name, Cookie: anyCookie})
		case !asked: // the file alone: the daemon died before the mount
			o.add(ns)
		case e.Mounted && w.Cookie == 0:
			o.add(w)
		case e.Mounted:
			o.boundNamespace(w)
		}
	}
	return nil
}

// anyCookie asks for the cookie of a namespace that nobody wants.
const anyCookie = 1

// boundNamespace adds a wanted namespace, if one is bound under its name.
func (o *observer) boundNamespace(w kernel.Namespace) {
	f, err := netns.Open(o.k.Path(w.Name))
	if err != nil {
		return
	}
	defer f.Close() //nolint:errcheck // only read
	ns := kernel.Namespace{Name: w.Name}
	if w.Cookie != 0 {
		ns.Cookie, _ = netns.Cookie(f) // 0 differs from the one wanted
	}
	o.add(ns)
}
