package trace

import (
	"cmp"
	"slices"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

const (
	// mostFlows is how many flows are followed at once.
	mostFlows = 1024
	// still is how long nothing more must have been seen of a packet whose end is
	// known, and patience how long one is waited for whose end is not.
	still    = 100 * time.Millisecond
	patience = 3500 * time.Millisecond
	// remembered is how long a flow that was told of is known, so that what comes
	// after its first packet is not told of again.
	remembered = 30 * time.Second
	// delay is how long what was heard waits, since what tells which packets are of
	// one flow may be heard after them.
	delay = 50 * time.Millisecond
)

// Live parts what is seen of many packets by the flows that they begin, and
// tells the path of each.
type Live struct {
	Machine *machine.Host
	Start   time.Time
	// Level is by what means it is watched.
	Level api.PathLevel
	// EachDrop tells of drops of packets that begin no flow, too.
	EachDrop bool
	// Ask asks the kernel for routes; nil: they are not told.
	Ask     func([]Question) []Routed
	flows   []*flowSeen
	begun   map[traceID]*flowSeen
	loose   []api.Path
	renamed renames
	waiting []heard
}

// flowSeen is what was seen of the first packet of a flow and of its answer.
type flowSeen struct {
	proto       string
	mark        Mark
	ends        Ends
	known       []api.Flow // all that it was on its way
	sightings   []Sighting
	rulings     []Ruling
	crossings   []Crossing
	drops       []Drop
	renamed     *Renamed // nil: it is known again by what translation leaves
	first, last time.Duration
	told        bool
	lost        bool // something of that time could not be kept
}

// traceID is what the messages about a packet in one table have in common.
type traceID struct {
	space string
	id    uint32
	table string
	nft.Family
}

// heard is what was heard of at a time.
type heard struct {
	Watch
	at time.Duration
}

// Add notes what was seen, and was heard of at a time. With w.Lost there was more,
// of any flow.
func (l *Live) Add(w Watch, at time.Duration) {
	for _, x := range w.Renamed {
		l.renamed.add(x)
	}
	if len(w.Sightings)+len(w.Rulings)+len(w.Crossings)+len(w.Drops) > 0 || w.Lost {
		l.waiting = append(l.waiting, heard{w, at})
	}
}

// take parts what was seen by the flows.
func (l *Live) take(w Watch) {
	if l.begun == nil {
		l.begun = map[traceID]*flowSeen{}
	}
	l.rename(&w)
	slices.SortStableFunc(w.Sightings, func(a, b Sighting) int { return cmp.Compare(a.At, b.At) })
	for _, x := range w.Sightings {
		if f := l.flow(x.Packet, x.At, &x); f != nil && !f.told {
			f.sightings = append(f.sightings, x)
		}
	}
	for _, x := range w.Rulings {
		k := traceID{x.Space, x.ID, x.Table, x.Family}
		f := l.begun[k]
		if x.Packet != nil {
			f = l.flow(*x.Packet, x.At, nil)
			l.begun[k] = f
		}
		if f != nil && !f.told {
			f.rulings = append(f.rulings, x)
		}
	}
	l.inside(w)
	for _, f := range l.flows {
		f.lost = f.lost || w.Lost
	}
}

// flow is the one a packet is of; nil: it begins none, and answers none.
func (l *Live) flow(p Packet, at time.Duration, s *Sighting) *flowSeen {
	about := p
	if p.Quoted != nil {
		about = *p.Quoted
	}
	forth, back, begins := marks(p)
	for _, m := range []Mark{forth, back} {
		if f := l.known(m, about, s); m != 0 && f != nil {
			f.first, f.last = min(f.first, at), max(f.last, at)
			f.learn(about.Flow)
			return f
		}
	}
	if !begins || forth == 0 || !about.Flow.Dst.IsValid() || toMany(about.Flow.Dst) {
		return nil
	}
	if !l.room() {
		return nil
	}
	f := &flowSeen{proto: about.Flow.Proto, mark: forth, first: at, last: at, renamed: l.renamed.was[about.called()]}
	if about.Renamed != nil { // it may be seen after the translation first
		f.renamed = about.Renamed
		f.learn(f.renamed.Was)
	}
	f.learn(about.Flow)
	l.flows = append(l.flows, f)
	return f
}

// room makes room for one more flow: the oldest of those that were told of is
// forgotten. Not ok: none was.
func (l *Live) room() (ok bool) {
	if len(l.flows) < mostFlows {
		return true
	}
	i := slices.IndexFunc(l.flows, func(f *flowSeen) bool { return f.told })
	if i < 0 {
		return false
	}
	l.flows = slices.Delete(l.flows, i, i+1)
	return true
}

// known is the flow that a packet of a mark is of: one that was the same at
// another place or, since translation may have changed it, the newest that it can
// belong to; nil: none.
func (l *Live) known(m Mark, about Packet, s *Sighting) *flowSeen {
	var found *flowSeen
	for _, f := range slices.Backward(l.flows) {
		if f.proto != about.Flow.Proto || f.mark != m || !f.may(about) || !f.has(about, s) {
			continue
		}
		if slices.Contains(f.known, about.Flow) || slices.Contains(f.known, reversed(about.Flow)) {
			return f
		}
		if found == nil && !l.begins(f, s) {
			found = f
		}
	}
	return found
}

// begins reports whether a packet that is sent begins at that place, so that it is
// of no flow that comes from elsewhere: its source is there, and nothing of the
// flow was seen there before.
func (l *Live) begins(f *flowSeen, s *Sighting) bool {
	if s == nil || !s.Out || slices.ContainsFunc(f.sightings, func(o Sighting) bool { return o.Space == s.Space }) {
		return false
	}
	sp := l.Machine.Space(s.Space)
	return sp != nil && slices.ContainsFunc(sp.Addresses, func(a machine.Address) bool { return a.Prefix.Addr() == s.Flow.Src })
}

// marks are those that a packet has if it goes forth and if it is an answer, and
// whether it may be the first of its flow.
func marks(p Packet) (forth, back Mark, begins bool) {
	f := p.Flow
	src, dst := p.ports()
	switch {
	case p.Quoted != nil:
		forth, back, _ = marks(p.quoted())
		return forth, back, false
	case f.Proto == "tcp" && p.TCP&(flagSYN|flagACK) == flagSYN:
		return Mark(src), 0, true
	case f.Proto == "tcp":
		return 0, Mark(dst), false
	case f.Proto == "icmp" || f.Proto == "icmpv6":
		if f.ICMPType == 8 || f.ICMPType == 128 {
			return Mark(p.echo()), 0, true
		}
		return 0, Mark(p.echo()), false
	}
	return Mark(src), Mark(dst), true
}

// has reports whether a packet can be of the flow: translation changes one of its
// ends at a time, or it is told what the packet was; and at one place only one such
// packet goes by.
func (f *flowSeen) has(p Packet, s *Sighting) bool {
	x := p.Flow
	if f.told {
		return slices.Contains(f.known, x)
	}
	if p.Renamed == nil && !f.ends.has(x.Src) && !f.ends.has(x.Dst) {
		return false
	}
	if s == nil {
		return true
	}
	d, _ := f.direction(s.Packet)
	return !slices.ContainsFunc(f.sightings, func(o Sighting) bool {
		was, _ := f.direction(o.Packet)
		return o.Space == s.Space && o.Link == s.Link && o.Out == s.Out && was == d && o.Flow != s.Flow
	})
}

// direction is what a packet is to the first of the flow; not ok: nothing.
func (f *flowSeen) direction(p Packet) (d api.Direction, ok bool) { return f.mark.direction(p, f.ends) }

// learn notes what the packet is at some place.
func (f *flowSeen) learn(x api.Flow) {
	if f.told || slices.Contains(f.known, x) {
		return
	}
	f.known = append(f.known, x)
	f.ends.learn(x)
}

// Ready are the paths of which by now no more will be seen.
func (l *Live) Ready(now time.Duration) []api.Path {
	for len(l.waiting) > 0 && l.waiting[0].at <= now-delay {
		l.take(l.waiting[0].Watch)
		l.waiting = l.waiting[1:]
	}
	out := l.loose
	l.loose = nil
	for _, f := range l.flows {
		if f.told || now-delay-f.last < still || len(f.sightings)+len(f.rulings)+len(f.drops) == 0 {
			continue
		}
		w := l.watch(f)
		j := tell(w)
		if j.path.Verdict == api.Lost && now-f.first < patience {
			continue
		}
		out = append(out, l.path(f, w, j))
		f.told, f.sightings, f.rulings, f.crossings, f.drops = true, nil, nil, nil, nil
	}
	l.flows = slices.DeleteFunc(l.flows, func(f *flowSeen) bool { return f.told && now-f.last > remembered })
	for k, f := range l.begun {
		if f == nil || f.told {
			delete(l.begun, k)
		}
	}
	return out
}

// watch is what was seen of one flow. Times count from when it was seen first.
func (l *Live) watch(f *flowSeen) Watch {
	w := Watch{Machine: l.Machine, Mark: f.mark, Ends: f.ends, Lost: f.lost, Start: l.Start.Add(f.first), Level: l.Level}
	for _, s := range f.sightings {
		s.At -= f.first
		w.Sightings = append(w.Sightings, s)
	}
	for _, r := range f.rulings {
		r.At -= f.first
		w.Rulings = append(w.Rulings, r)
	}
	f.inside(&w)
	slices.SortStableFunc(w.Sightings, func(a, b Sighting) int { return cmp.Compare(a.At, b.At) })
	began := w.before()
	switch {
	case began != nil:
		w.From, w.Flow = began.Space, began.Flow
	case len(w.Sightings) > 0:
		s := w.Sightings[0]
		w.From, w.Flow = s.Space, s.Flow
		if s.Quoted != nil { // of what it is about no more was seen
			w.Flow = s.Quoted.Flow
		}
		if !s.Out && l.fromOutside(s) {
			w.Entry = &s
		}
		if s.Out && f.renamed != nil && w.Flow == f.renamed.Is { // by the sender itself, before any link
			w.Flow = f.renamed.Was
		}
	case len(w.Rulings) == 0:
		w.From, w.Flow = w.Drops[0].Space, w.Drops[0].Flow
	default:
		i := max(slices.IndexFunc(w.Rulings, func(r Ruling) bool { return r.Packet != nil }), 0)
		w.From = w.Rulings[i].Space
		if p := w.Rulings[i].Packet; p != nil {
			w.Flow = p.Flow
			w.From = cmp.Or(l.owner(p.Flow.Src), w.From)
		}
	}
	w.Got = !slices.ContainsFunc(w.Drops, w.unheard)
	return w
}

// path tells one flow, when no more will be seen of it.
func (l *Live) path(f *flowSeen, w Watch, j *join) api.Path {
	p := j.path
	if l.Ask != nil && len(j.questions) > 0 {
		w.Routes = l.Ask(j.questions)
		p = Join(w)
	}
	if p.Verdict == api.Lost && f.proto == "udp" && p.To.NS != "" {
		// Nobody said that nothing listens, and a datagram need not be answered.
		p.Verdict, p.Reason = api.Delivered, ""
	}
	return fromFirst(p)
}

// fromFirst counts times from the first hop, if that is where the packet began: a
// hook of its sender may have seen it before. One that was given up has waited so
// long.
func fromFirst(p api.Path) api.Path {
	if len(p.Hops) == 0 || p.Hops[0].Action == "drop" || p.Hops[0].Action == "reject" {
		return p
	}
	first := p.Hops[0].AtMicros
	p.Start = p.Start.Add(time.Duration(first * float64(time.Microsecond)))
	for i := range p.Hops {
		p.Hops[i].AtMicros = max(p.Hops[i].AtMicros-first, 0)
	}
	return p
}

// fromOutside reports whether a packet that came in by a link comes from where
// nothing is watched.
func (l *Live) fromOutside(s Sighting) bool {
	sp := l.Machine.Space(s.Space)
	if sp == nil {
		return true
	}
	link := sp.Link(s.Link)
	return link == nil || link.PeerNS == "" && link.Type != "loopback" && link.Type != "bridge"
}
