package trace

import (
	"slices"
	"time"

	"github.com/towpath/towpath/api"
)

// translated tells what changed of the destination, or of the source, between
// coming in and going out.
func (j *join) translated(d api.Direction, out Sighting, before api.Flow, dst bool) {
	after := out.Flow
	mid := before
	mid.Dst, mid.Dport = after.Dst, after.Dport
	from, to := before, mid
	if !dst {
		from, to = mid, after
	}
	if from == to || from.Proto != to.Proto || from.ICMPType != to.ICMPType {
		return
	}
	h := j.hop(d, out)
	h.Layer, h.Before, h.After, h.Sources = api.LayerPostrouting, new(from), new(to), []string{j.source()}
	if dst {
		h.Layer = api.LayerPrerouting
	}
	h.Action, h.Detail = changeText(d, from, to, dst)
	for _, r := range j.told[d][out.Space] {
		if r.nat && (r.hook == "prerouting" || r.hook == "output") == dst {
			h.Rule, h.Layer, h.Sources, h.Action = r.rule, api.Layer(r.hook), []string{j.source(), "nftrace"}, r.translation(h.Action)
		}
	}
	j.path.Hops = append(j.path.Hops, h)
}

// unleft tells what the hooks made of a packet that did not leave the namespace.
func (j *join) unleft(d api.Direction, space string, at *time.Duration) {
	first := []string{"prerouting", "input", "output"}
	j.changed(d, space, first...)
	j.unfinished(d, space, at, first...)
	j.rulings(d, space, "forward", at)
	j.changed(d, space, "postrouting")
	j.unfinished(d, space, at, "postrouting")
	j.rulings(d, space, "", at)
}

// unfinished tells translations by some hooks of a packet that did not leave. What
// it became is known where a later chain told of it.
func (j *join) unfinished(d api.Direction, space string, at *time.Duration, hooks ...string) {
	list := j.told[d][space]
	for i, r := range list {
		if !r.nat || j.passed(d, space, r.hook) || !slices.Contains(hooks, r.hook) {
			continue
		}
		h := api.Hop{
			Direction: d, NS: space, Device: r.device, Layer: api.Layer(r.hook), Action: "snat", Detail: ruleText(*r.rule), Rule: r.rule,
			Before: new(r.flow), AtMicros: micros(r.at), Sources: []string{"nftrace"}, Certain: true,
		}
		if at != nil {
			h.AtMicros = micros(*at)
		}
		if r.hook == "prerouting" || r.hook == "output" {
			h.Action = "dnat"
		}
		h.Action = r.translation(h.Action)
		for _, later := range list[i+1:] {
			if later.flow != r.flow {
				h.After = new(later.flow)
				h.Detail = endText(r.flow.Dst, r.flow.Dport) + " -> " + endText(later.flow.Dst, later.flow.Dport)
				break
			}
		}
		j.path.Hops = append(j.path.Hops, h)
	}
}

// changeText is what a translation is called, and from what to what it leads: of
// the destination, or of the source. On the way back it undoes the other one.
func changeText(d api.Direction, from, to api.Flow, dst bool) (action, detail string) {
	action, detail = "snat", endText(from.Src, from.Sport)+" -> "+endText(to.Src, to.Sport)
	if dst {
		action, detail = "dnat", endText(from.Dst, from.Dport)+" -> "+endText(to.Dst, to.Dport)
	}
	if d != api.Request {
		action = map[string]string{"dnat": "un-snat", "snat": "un-dnat"}[action]
	}
	return action, detail
}

// translation is what the rule calls the translation that it makes; else it is
// what the packet shows.
func (d decision) translation(shown string) string {
	switch {
	case d.masquerade:
		return "masquerade"
	case d.redirect:
		return "redirect"
	}
	return shown
}
