package trace

import (
	"fmt"
	"slices"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
)

// Question is a packet of which the kernel is asked how it routes it.
type Question struct {
	Space string
	// In is the link it comes in by; "": it is sent there.
	In   string
	Flow api.Flow
}

// Routed is the kernel's answer to a question.
type Routed struct {
	Question
	machine.Route // of it the link, the gateway and the table
	// Refusal is the errno with which the kernel does not route it; "": it does.
	Refusal string
}

// Questions are what has to be known of routes to tell the path: ask, and put the
// answers into w.Routes.
func Questions(w Watch) []Question {
	w.Sightings, w.Rulings = slices.Clone(w.Sightings), slices.Clone(w.Rulings)
	w.Crossings, w.Drops = slices.Clone(w.Crossings), slices.Clone(w.Drops)
	return tell(w).questions
}

// routed is how the kernel says that it routes a packet; nil: it has not been
// asked, or has not answered.
func (j *join) routed(q Question) *Routed {
	if !slices.Contains(j.questions, q) {
		j.questions = append(j.questions, q)
	}
	i := slices.IndexFunc(j.Routes, func(r Routed) bool { return r.Question == q })
	if i < 0 {
		return nil
	}
	return &j.Routes[i]
}

// routes is the hop of a packet that came in and was sent on by a router: its time
// to live shows that.
func (j *join) routes(d api.Direction, in, out Sighting, dst api.Flow) api.Hop {
	h := j.hop(d, out)
	if c := j.crossing(d, h.NS, "forward"); c != nil {
		h.AtMicros = micros(c.At)
	}
	h.Layer, h.Action, h.Device = api.LayerRoute, "routes", j.upper(h.NS, in.Link)
	h.Detail, h.Sources, h.Before = out.Flow.Dst.String()+" dev "+out.Link, []string{j.source()}, new(in.Flow)
	f := in.Flow
	f.Dst, f.Dport = dst.Dst, dst.Dport
	// It may be routed by a mark that nobody sees: only an answer that fits is one.
	if r := j.routed(Question{h.NS, h.Device, f}); r != nil && r.Dev == out.Link {
		h.Detail, h.Sources = r.Way(r.Flow.Dst), append(h.Sources, "route")
	}
	return h
}

// upper is the link by which IP takes in what a link receives: of a port of a
// bridge the bridge.
func (j *join) upper(space, link string) string {
	if l := j.link(space, link); l != nil && l.Master != "" {
		return l.Master
	}
	return link
}

// unrouted tells why a packet that was seen last when it came in went no further,
// if the kernel, asked for its route, refuses it. It is asked later, and not of
// the packet itself: so it is a conclusion.
func (j *join) unrouted(d api.Direction, last Sighting) bool {
	q, ok := j.arriving(d, last)
	if !ok {
		return false
	}
	r := j.routed(q)
	sent := j.routed(Question{q.Space, "", api.Flow{Proto: q.Flow.Proto, Dst: q.Flow.Dst}})
	back := j.routed(Question{q.Space, "", api.Flow{Proto: q.Flow.Proto, Dst: q.Flow.Src}})
	if r == nil || sent == nil || back == nil || r.Refusal == "" {
		return false
	}
	h := j.hop(d, last)
	h.Device, h.Layer, h.Action, h.Detail = q.In, api.LayerRoute, "drop", refusalWords(r, sent, back)
	h.Before, h.Sources, h.Certain = new(q.Flow), []string{"route"}, false
	j.place(&h)
	j.path.Hops = slices.Insert(j.path.Hops, j.end(d), h)
	j.path.Verdict, j.path.Reason = api.Dropped, fmt.Sprintf("at %s of %s: %s", h.Device, h.NS, h.Detail)
	if d != api.Request {
		j.path.Reason = "its answer does not come back: " + j.path.Reason
	}
	return true
}

// arriving is a packet as IP took it in, before it is routed. Not ok: that is not
// known, it was routed, or it may have been bridged.
func (j *join) arriving(d api.Direction, s Sighting) (Question, bool) {
	sp := j.Machine.Space(s.Space)
	q := Question{s.Space, j.upper(s.Space, s.Link), s.Flow}
	if sp == nil || s.Out || s.Quoted != nil {
		return q, false
	}
	for _, r := range sp.Rules {
		if r.Mark != 0 || r.Mask != 0 || r.Unknown != "" {
			return q, false // nobody sees the mark
		}
	}
	if !slices.ContainsFunc(sp.Addresses, func(a machine.Address) bool {
		return a.Dev == q.In && a.Prefix.Addr().Is4() == s.Flow.Dst.Is4()
	}) {
		return q, false
	}
	for _, r := range j.decided {
		switch {
		case r.direction != d || r.space != s.Space:
		case r.hook != "ingress" && r.hook != "prerouting":
			return q, false
		case r.nat:
			return q, false // to what is not told
		}
	}
	return q, true
}

// refusalWords says why the kernel does not route what comes in: asked for the
// packet, for one that is sent from there, and for one back to its source.
func refusalWords(r, sent, back *Routed) string {
	switch {
	case r.Refusal == "ENETUNREACH":
		return "there is no route to its destination"
	case r.Refusal == "EACCES":
		return "its route is a prohibition"
	case r.Refusal == "EHOSTUNREACH" && sent.Refusal == "" && r.Flow.Dst.Is4():
		return "this namespace does not forward IPv4" // of IPv6 a look-up does not tell
	case r.Refusal == "EHOSTUNREACH":
		return "its route says that it is unreachable"
	case sent.Refusal == "EINVAL":
		return "its route leads nowhere: a blackhole"
	case back.Refusal != "" || back.Dev != r.In:
		return "the way back to its source is by another link (rp_filter)"
	}
	return "one of its addresses may not come in by that link (a martian)"
}
