package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// Sighting is a packet as a tap on a link saw it.
type Sighting struct {
	At    time.Duration // since the packet was sent
	Space string        // namespace, by its name in the machine
	Link  string
	Out   bool // it leaves by the link
	// Stopped: it was about to, and was kept from leaving the machine.
	Stopped bool
	Packet
}

// Ruling is what a rule, or a chain's policy, told of a packet (NFT_MSG_TRACE).
type Ruling struct {
	At     time.Duration
	Space  string
	ID     uint32 // of the packet; it changes on the way
	Family nft.Family
	Table  string
	Chain  string
	Handle uint64 // 0: the policy, or the end of the chain
	// Verdict is "accept", "drop", "continue", "jump", "goto", "return" or "queue".
	Verdict string
	// In and Out are the indexes of the links; 0: none. They are there as Packet is.
	In, Out int
	// Packet is there in the first message of each base chain only.
	Packet *Packet
}

// Watch is everything that was seen.
type Watch struct {
	Machine *machine.Host
	From    string // namespace that sent
	Mark    Mark
	Ends    Ends     // where the mark is both ports
	Flow    api.Flow // as it was to be sent
	Start   time.Time
	// Entry is where the packet came in from outside of all that is watched; nil:
	// From sent it.
	Entry *Sighting
	// Refusal is the errno with which the sender's own kernel did not send; "": it did.
	Refusal string
	// Got: the socket that sent it has got an answer.
	Got       bool
	Sightings []Sighting
	Rulings   []Ruling
	// Level is by what means it was watched; "": taps. What is inside of the
	// kernel only programs there see.
	Level     api.PathLevel
	Crossings []Crossing
	Drops     []Drop
	// Renamed are flows whose source port, or both addresses, were changed.
	Renamed []Renamed
	// Routes are what the kernel answered to Questions.
	Routes []Routed
	// Lost: there was more to see than could be kept.
	Lost bool
	// Risen are counters of drops that rose meanwhile, by namespace.
	Risen map[string][]string
}

// Direction is what a packet is to the one that is watched; not ok: nothing.
func (w *Watch) Direction(p Packet) (d api.Direction, ok bool) { return w.Mark.direction(p, w.Ends) }

// Join tells the path.
func Join(w Watch) api.Path { return tell(w).path }

// tell puts together all that there is to tell.
func tell(w Watch) *join {
	j := newJoin(w)
	j.sort()
	for _, d := range []api.Direction{api.Request, api.Reply, api.ErrorBack} {
		j.leg(d)
	}
	j.decide()
	for i := range j.path.Hops {
		h := &j.path.Hops[i]
		h.Index = i
		// What rules tell has no time; it is after what is told before.
		if i > 0 && h.Direction == j.path.Hops[i-1].Direction && h.Sources[0] == "nftrace" {
			h.AtMicros = max(h.AtMicros, j.path.Hops[i-1].AtMicros)
		}
	}
	return j
}

// join is one path in the making.
type join struct {
	Watch
	path api.Path
	seen map[api.Direction][]Sighting
	// decided are all decisions of chains; told those of them that are to be told, by namespace.
	decided []decision
	told    map[api.Direction]map[string][]decision
	// hooks are those that it was seen in, by namespace.
	hooks map[api.Direction]map[string][]crossing
	// questions are what was asked for of routes.
	questions []Question
}

// sort parts what was seen by direction, in the order of time.
func (j *join) sort() {
	j.seen = map[api.Direction][]Sighting{}
	for i := range j.Sightings {
		j.stop(&j.Sightings[i])
	}
	slices.SortStableFunc(j.Sightings, func(a, b Sighting) int { return cmp.Compare(a.At, b.At) })
	for _, s := range j.Sightings {
		if d, ok := j.Direction(s.Packet); ok && !j.folded(s) && !repeated(j.seen[d], s) {
			j.seen[d] = append(j.seen[d], s)
		}
	}
	j.told = map[api.Direction]map[string][]decision{api.Request: {}, api.Reply: {}, api.ErrorBack: {}}
	j.decided = j.decisions()
	for _, d := range j.decided {
		j.told[d.direction][d.space] = append(j.told[d.direction][d.space], d)
	}
	j.crossed()
}

// folded reports whether a sighting is told by another: a bridge takes in what
// its port took in, and what is sent by the bridge leaves by a port too.
func (j *join) folded(s Sighting) bool {
	if e := j.Entry; e != nil && s.Space == e.Space && s.Link == e.Link {
		return false // it came in there, and by no port
	}
	l := j.link(s.Space, s.Link)
	return l != nil && !s.Out && (l.Type == "loopback" || l.Type == "bridge" && !j.arrived(s))
}

// arrived reports whether a packet that came in by a link stays in that namespace.
func (j *join) arrived(s Sighting) bool {
	sp := j.Machine.Space(s.Space)
	if !slices.ContainsFunc(sp.Addresses, func(a machine.Address) bool { return a.Prefix.Addr() == s.Flow.Dst }) {
		return false
	}
	d, _ := j.Direction(s.Packet)
	return !slices.ContainsFunc(j.Sightings, func(x Sighting) bool {
		xd, ok := j.Direction(x.Packet)
		return ok && xd == d && x.Space == s.Space && x.Out && x.At >= s.At
	})
}

// repeated reports whether the packet was seen there already: it was sent again.
func repeated(list []Sighting, s Sighting) bool {
	return slices.ContainsFunc(list, func(x Sighting) bool {
		return x.Space == s.Space && x.Link == s.Link && x.Out == s.Out && x.Flow == s.Flow && x.TCP == s.TCP
	})
}

func (j *join) link(space, name string) *machine.Link {
	if s := j.Machine.Space(space); s != nil {
		return s.Link(name)
	}
	return nil
}

// leg tells one direction, namespace by namespace.
func (j *join) leg(d api.Direction) {
	list := j.seen[d]
	if len(list) == 0 && d == api.Request { // gone before any link
		j.unleft(d, j.From, nil)
		return
	}
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].Space == list[0].Space {
			n++
		}
		visit, space := list[:n], list[0].Space
		list = list[n:]
		again := slices.ContainsFunc(list, func(s Sighting) bool { return s.Space == space })
		left := len(j.told[d][space])
		if again {
			left = begun(j.told[d][space], !visit[0].Out)
		}
		all := j.told[d][space]
		j.told[d][space] = all[:left]
		j.visit(d, visit)
		j.told[d][space] = all[left:]
	}
	// Namespaces in which only a rule has seen it: an answer that its own maker's
	// rules drop.
	for space := range j.told[d] {
		j.rulings(d, space, "", nil)
	}
}

// begun is how many decisions are of the first visit of several to a namespace:
// until the hooks begin anew. A packet that came in passes prerouting first.
func begun(list []decision, cameIn bool) int {
	arrives := func(r decision) bool { return r.hook == "ingress" || r.hook == "prerouting" }
	n := 0
	if cameIn {
		for n < len(list) && arrives(list[n]) {
			n++
		}
	}
	for n < len(list) && !arrives(list[n]) {
		n++
	}
	return n
}

// visit tells what happened to the packet in one namespace: how it came in, what
// the hooks did, and how it left.
func (j *join) visit(d api.Direction, list []Sighting) {
	in, out := []Sighting{}, []Sighting{}
	for _, s := range list {
		if s.Out {
			out = append(out, s)
		} else {
			in = append(in, s)
		}
	}
	at := list[0].At
	for i, s := range in {
		if i > 0 && s.Flow != in[0].Flow { // br_netfilter: the port has passed it through the hook
			j.rulings(d, s.Space, "prerouting", &at)
			j.changed(d, s.Space, "prerouting")
		}
		j.received(d, s)
		j.rulings(d, s.Space, "ingress", &at) // of the port of a bridge, before the bridge
	}
	before := list[0].Flow
	if len(in) == 0 {
		before = j.asked(d, before)
	}
	j.rulings(d, list[0].Space, "ingress", &at)
	j.rulings(d, list[0].Space, "prerouting", &at)
	j.rulings(d, list[0].Space, "output", &at)
	if len(out) == 0 {
		j.unleft(d, list[0].Space, &at)
		return
	}
	// The last link has it as it left: what is bridged passes the chains after it
	// was sent by the bridge (br_netfilter).
	left := out[len(out)-1]
	left.At = out[0].At
	if !j.changed(d, list[0].Space, "prerouting", "output") {
		j.translated(d, left, before, true)
	}
	if len(in) > 0 && out[0].TTL < in[0].TTL {
		came := in[len(in)-1]
		came.Flow = before
		j.path.Hops = append(j.path.Hops, j.routes(d, came, out[0], left.Flow))
	}
	for len(out) > 1 && out[0].Flow != left.Flow { // br_netfilter: the hooks come after the bridge
		j.sent(d, out[0], len(in) > 0)
		out = out[1:]
	}
	j.rulings(d, list[0].Space, "", &at)
	if !j.changed(d, list[0].Space, "input", "forward", "postrouting") {
		j.translated(d, left, before, false)
	}
	for _, s := range out {
		j.sent(d, s, len(in) > 0)
	}
}

// asked is the packet as it was sent, before the sender's own rules.
func (j *join) asked(d api.Direction, seen api.Flow) api.Flow {
	if d != api.Request || j.Flow.Proto != seen.Proto {
		return seen
	}
	f := j.Flow
	if !f.Src.IsValid() {
		f.Src = seen.Src
	}
	return f
}

// hop is what a sighting says of place and time.
func (j *join) hop(d api.Direction, s Sighting) api.Hop {
	h := api.Hop{
		Direction: d, NS: s.Space, Device: s.Link, AtMicros: micros(s.At),
		Before: new(s.Flow), Sources: []string{j.source()}, Certain: true,
	}
	j.place(&h)
	return h
}

func (j *join) received(d api.Direction, s Sighting) {
	h := j.hop(d, s)
	h.Layer, h.Action, h.Detail = api.LayerLink, "receives", flowText(s.Flow)
	if l := j.link(s.Space, s.Link); l != nil && l.Master != "" {
		h.Layer, h.Port, h.Detail = api.LayerBridge, s.Link, "port of bridge "+l.Master
	}
	j.path.Hops = append(j.path.Hops, h)
}

func (j *join) sent(d api.Direction, s Sighting, passed bool) {
	h := j.hop(d, s)
	h.Layer, h.Action, h.Detail = api.LayerLink, "sends", flowText(s.Flow)
	if !passed {
		h.Layer = api.LayerRoute
	}
	if s.Stopped {
		h.Detail, h.Sources = h.Detail+", stopped there", []string{"nftrace"}
	}
	if l := j.link(s.Space, s.Link); l != nil && l.Master != "" {
		h.Layer, h.Action, h.Port, h.Device, h.Detail = api.LayerBridge, "bridges", s.Link, l.Master, "to port "+s.Link
	}
	j.path.Hops = append(j.path.Hops, h)
}

func micros(d time.Duration) float64 { return float64(max(d, 0).Nanoseconds()) / 1000 }

func flowText(f api.Flow) string {
	return endText(f.Src, f.Sport) + " > " + endText(f.Dst, f.Dport)
}

func endText(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}

// rulings tells what the chains of a hook decided in a namespace; with "" those
// of all hooks that were not told yet. A chain that let the packet through by
// its policy is not told.
func (j *join) rulings(d api.Direction, space, hook string, at *time.Duration) {
	list := j.told[d][space]
	for i := range list {
		r := &list[i]
		if r.done || hook != "" && r.hook != hook {
			continue
		}
		r.done = true
		if r.nat || r.rule.Handle == 0 && r.action == "accept" {
			continue
		}
		when := r.at
		if at != nil {
			when = *at
		}
		if c := j.crossing(d, space, r.hook); c != nil {
			when = c.At
		}
		j.path.Hops = append(j.path.Hops, api.Hop{
			Direction: d, NS: space, Device: r.device, Layer: api.Layer(r.hook), Action: r.action, Detail: ruleText(*r.rule), Rule: r.rule,
			Before: new(r.flow), AtMicros: micros(when), Sources: []string{"nftrace"}, Certain: true,
		})
	}
}

func ruleText(r api.Rule) string {
	where := fmt.Sprintf("%s %s %s", r.Family, r.Table, r.Chain)
	switch {
	case r.Handle == 0:
		return "the policy of chain " + where
	case r.Comment != "":
		return fmt.Sprintf("rule %q of chain %s", r.Comment, where)
	}
	return fmt.Sprintf("rule %#q of chain %s", r.Text, where)
}
