package trace

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
)

// inside notes what programs in the kernel saw.
func (l *Live) inside(w Watch) {
	for _, x := range w.Drops {
		f := l.flow(x.Packet, x.At, nil)
		switch {
		case f != nil && !f.told:
			f.drops = append(f.drops, x)
		case l.EachDrop && !x.copy() && !toMany(x.Flow.Dst):
			l.loose = append(l.loose, l.drop(x, w.Lost))
		}
	}
	for _, x := range w.Crossings {
		if f := l.flow(x.Packet, x.At, nil); f != nil && !f.told {
			f.crossings = append(f.crossings, x)
		}
	}
}

// toMany reports whether a packet is for a group or for all: who does not want it
// drops it, and nothing is wrong.
func toMany(a netip.Addr) bool {
	return a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// drop is the path of a packet that was dropped in the midst of its flow: of it
// no more is seen than its end.
func (l *Live) drop(x Drop, lost bool) api.Path {
	forth, back, _ := marks(x.Packet)
	w := Watch{Machine: l.Machine, Mark: forth, Level: l.Level, Lost: lost, Start: l.Start.Add(x.At), From: x.Space, Flow: x.Flow}
	if forth == 0 {
		w.Mark = back
	}
	w.From = cmp.Or(l.owner(x.Flow.Src), w.From)
	x.At = 0
	j := newJoin(w)
	j.alone(&x)
	return j.path
}

// owner is the namespace that has an address; "": none, or several.
func (l *Live) owner(a netip.Addr) string {
	found := ""
	for _, s := range l.Machine.Spaces {
		if slices.ContainsFunc(s.Addresses, func(x machine.Address) bool { return x.Prefix.Addr() == a }) {
			if found != "" {
				return ""
			}
			found = s.Name
		}
	}
	return found
}

// unheard reports whether an answer was dropped where it came back to, before a
// socket could have it.
func (w *Watch) unheard(x Drop) bool {
	d, ok := w.Direction(x.Packet)
	return ok && d == api.Reply && x.Space == w.From && !x.copy() && x.layer() != api.LayerSocket && x.Reason != "QUEUE_PURGE"
}

// before is how the packet was seen in a hook of its sender, where no link saw it
// go there; nil: one did, or no hook was watched. It waited for its next hop, and
// the first that a link saw is the error about it.
func (w *Watch) before() *Crossing {
	if slices.ContainsFunc(w.Sightings, func(s Sighting) bool { d, _ := w.Direction(s.Packet); return d == api.Request }) {
		return nil
	}
	for i := range w.Crossings {
		if d, _ := w.Direction(w.Crossings[i].Packet); d == api.Request {
			return &w.Crossings[i]
		}
	}
	return nil
}

// inside puts what programs in the kernel saw of the flow into its watch. Times
// count from when it was seen first.
func (f *flowSeen) inside(w *Watch) {
	for _, x := range f.crossings {
		x.At -= f.first
		w.Crossings = append(w.Crossings, x)
	}
	for _, x := range f.drops {
		x.At -= f.first
		w.Drops = append(w.Drops, x)
	}
}
