package trace

import (
	"cmp"
	"slices"

	"github.com/towpath/towpath/api"
)

// mostRenamed is how many flows that were renamed are known at once.
const mostRenamed = 4096

// renames are flows whose source port, or both addresses, were changed, by what they
// were and are.
type renames struct {
	was, is map[called]*Renamed
	order   []*Renamed
}

// called is what a flow is known by: of echo messages the identifier, and no type.
type called struct {
	api.Flow
	echo uint16
}

func (p Packet) called() called {
	c := called{Flow: p.Flow}
	if p.echoing() {
		c.ICMPType, c.echo = 0, p.Echo
	}
	return c
}

// reversed is what answers to the flow are called.
func (c called) reversed() called { return called{reversed(c.Flow), c.echo} }

// names are what the flow is called before and after.
func (x *Renamed) names() (was, is called) {
	return Packet{Flow: x.Was, Echo: x.WasEcho}.called(), Packet{Flow: x.Is, Echo: x.IsEcho}.called()
}

func (r *renames) add(x Renamed) {
	if r.was == nil {
		r.was, r.is = map[called]*Renamed{}, map[called]*Renamed{}
	}
	if len(r.order) >= mostRenamed {
		old := r.order[0]
		r.order = r.order[1:]
		was, is := old.names()
		if r.was[was] == old { // or it has been renamed again
			delete(r.was, was)
		}
		if r.is[is] == old {
			delete(r.is, is)
		}
	}
	was, is := x.names()
	r.was[was], r.is[is] = &x, &x
	r.order = append(r.order, &x)
}

// of is how the flow of a packet was renamed, if it was; the packet may be one
// before that or after.
func (r *renames) of(p *Packet) *Renamed {
	if p.Quoted != nil {
		p.Quoted.Renamed = r.of(p.Quoted)
	}
	forth := p.called()
	back := forth.reversed()
	return cmp.Or(r.is[forth], r.is[back], r.was[forth], r.was[back])
}

// rename notes of which renamed flows what was seen is.
func (l *Live) rename(w *Watch) {
	if len(l.renamed.order) == 0 {
		return
	}
	for i := range w.Sightings {
		w.Sightings[i].Renamed = l.renamed.of(&w.Sightings[i].Packet)
	}
	for _, x := range w.Rulings {
		if x.Packet != nil {
			x.Packet.Renamed = l.renamed.of(x.Packet)
		}
	}
	for i := range w.Crossings {
		w.Crossings[i].Renamed = l.renamed.of(&w.Crossings[i].Packet)
	}
	for i := range w.Drops {
		w.Drops[i].Renamed = l.renamed.of(&w.Drops[i].Packet)
	}
}

// may reports whether a packet may be of the flow, by what is known of ports that
// were changed: it has the new port of this flow, and of no other.
func (f *flowSeen) may(p Packet) bool {
	switch {
	case p.Renamed != nil:
		return slices.Contains(f.known, p.Renamed.Was)
	case f.renamed == nil:
		return true
	}
	// Where the new address is, the new port is too.
	is := f.renamed.Is
	return p.Flow.Src != is.Src && p.Flow.Dst != is.Src
}
