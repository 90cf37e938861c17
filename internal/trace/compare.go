package trace

import (
	"slices"

	"github.com/towpath/towpath/api"
)

// Difference is the first hop of the expected path that the actual one does not
// have; nil: there is none. Compared is what both can know: who received, sent,
// translated, dropped and rejected; not every rule on the way. A path that could
// not be walked to its end is compared as far as it goes.
func Difference(expected, actual api.Path) *int {
	at := 0
	var last *int
	// Whether a datagram is answered is up to who took it.
	silent := expected.Flow.Proto == "udp" && expected.Verdict == api.Delivered &&
		!slices.ContainsFunc(actual.Hops, func(h api.Hop) bool { return h.Direction != api.Request })
	for i := range expected.Hops {
		want := expected.Hops[i]
		if !comparable(want) || unseen(expected.Hops[i:]) || silent && want.Direction != api.Request {
			continue
		}
		last = &expected.Hops[i].Index
		found := false
		for j := at; j < len(actual.Hops); j++ {
			if same(want, actual.Hops[j]) {
				at, found = j+1, true
				break
			}
		}
		if !found {
			return &expected.Hops[i].Index
		}
	}
	if !Agree(expected, actual) && expected.Verdict != api.Undecided {
		return last
	}
	return nil
}

// comparable reports whether a hop is one that taps and rules show.
func comparable(h api.Hop) bool {
	switch h.Action {
	case "receives", "dnat", "snat", "masquerade", "redirect", "un-snat", "un-dnat":
		return true
	case "sends":
		return h.Layer == api.LayerLink
	case "drop", "reject":
		return h.Rule != nil && h.Layer != api.LayerNeighbour && !legacy(h.Rule)
	}
	return false
}

// legacy reports whether a rule is of the older iptables, which does not tell
// what it decides.
func legacy(r *api.Rule) bool {
	_, tool := r.Legacy()
	return tool != ""
}

// unseen reports whether the first of some hops undoes a translation where the
// answer then ends: what is behind the last link no tap sees.
func unseen(hops []api.Hop) bool {
	h := hops[0]
	if h.Action != "un-snat" && h.Action != "un-dnat" {
		return false
	}
	return !slices.ContainsFunc(hops, func(x api.Hop) bool {
		return x.NS == h.NS && x.Direction == h.Direction && (x.Action == "sends" || x.Action == "bridges")
	})
}

// same reports whether two hops are one. A reset is an answer to who sees it, and
// an error to who knows that a rule made it.
func same(a, b api.Hop) bool {
	if (a.Direction == api.Request) != (b.Direction == api.Request) || a.NS != b.NS {
		return false
	}
	if a.Rule != nil && b.Rule != nil && a.Before != nil && a.After != nil && b.After == nil {
		return a.Rule.Handle == b.Rule.Handle && a.Rule.Table == b.Rule.Table
	}
	if a.Action == "drop" || a.Action == "reject" {
		return a.Action == b.Action && a.Rule != nil && b.Rule != nil && a.Rule.Handle == b.Rule.Handle && a.Rule.Table == b.Rule.Table
	}
	if a.Before != nil && a.After != nil {
		return b.After != nil && *a.After == *b.After
	}
	return a.Action == b.Action && a.Device == b.Device
}

// Agree reports whether two paths come to one end: what is delivered, as far as
// can be expected, is answered. Undecided never agrees.
func Agree(expected, actual api.Path) bool {
	switch {
	case expected.Verdict == api.Delivered && expected.Reason == "":
		return actual.Verdict == api.Answered || actual.Verdict == api.Delivered
	case expected.Verdict == api.Delivered, expected.Verdict == api.Dropped: // the answer does not come back
		return actual.Verdict == api.Dropped || actual.Verdict == api.Lost || actual.Verdict == api.Delivered && expected.Verdict == api.Delivered
	}
	return expected.Verdict == actual.Verdict
}
