//go:build linux

package linux

import (
	"context"

	"github.com/towpath/towpath/internal/kernel"
)

// Zones are those of a firewalld, which puts links into zones.
type Zones interface {
	// Running reports whether firewalld answers, and rules this namespace.
	Running(ctx context.Context) bool
	// ZoneOf is the zone of a link, "" when it is in none.
	ZoneOf(ctx context.Context, dev string) (string, error)
	// Add puts a link into a zone until the next reload. One that is in a zone
	// already stays there.
	Add(ctx context.Context, zone, dev string) error
	// Remove takes a link out of a zone; one that is not there is no error.
	Remove(ctx context.Context, zone, dev string) error
	// Watch sends why whenever what was added may be gone, until ctx ends, when
	// the channel is closed.
	Watch(ctx context.Context) <-chan string
}

// readZones asks for the zones of the links that are to be in one and, on a
// sweep, of all links of ours.
func (o *observer) readZones(ctx context.Context, _ *space, ns string) error {
	if ns != kernel.Host || o.k.Zones == nil {
		return nil
	}
	asked := wanted[kernel.Zone](o, ns)
	if o.sweep {
		for name, l := range o.links[ns] {
			z := kernel.Zone{NS: ns, Zone: kernel.TrustedZone, Dev: name}
			if ours(l) && l.Kind == "bridge" && !o.wants(z) {
				asked = append(asked, z)
			}
		}
	}
	if len(asked) == 0 {
		return nil
	}
	if there, err := o.k.hasFirewalld(ctx); err != nil || !there {
		return err
	}
	for _, z := range asked {
		zone, err := o.k.Zones.ZoneOf(ctx, z.Dev)
		switch {
		case err != nil:
			return err
		case zone == z.Zone, zone != "" && o.wants(z):
			o.add(z) // another zone is somebody's choice, and stays
		}
	}
	return nil
}

// changeZone puts a link into a zone, or takes it out. A firewalld that went
// away took its zones along.
func (k *Kernel) changeZone(ctx context.Context, verb kernel.Verb, z kernel.Zone) error {
	if there, err := k.hasFirewalld(ctx); err != nil || !there {
		return err
	}
	if verb == kernel.Delete {
		return k.Zones.Remove(ctx, z.Zone, z.Dev)
	}
	return k.Zones.Add(ctx, z.Zone, z.Dev)
}

// zones passes on when firewalld has thrown away what was added.
func (w *watcher) zones(ctx context.Context) {
	if w.k.Zones == nil {
		<-ctx.Done()
		return
	}
	for why := range w.k.Zones.Watch(ctx) {
		w.send(ctx, kernel.Event{Why: why})
	}
}
