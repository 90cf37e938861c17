package draw

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
)

// ProbeText writes a probe as lines: the path that the packet took and, where the
// two differ, the one that was expected, with the place at which they part.
func ProbeText(w io.Writer, p api.Probe) error {
	var b strings.Builder
	actual := p.Actual
	actual.Fix = p.Fix
	if err := PathText(&b, actual); err != nil {
		return err
	}
	if p.RTTMicros > 0 {
		fmt.Fprintf(&b, "round trip: %.0f µs\n", p.RTTMicros)
	}
	if !actual.Complete {
		b.WriteString("more was seen than could be kept: hops may be missing\n")
	}
	if p.FirstDifference == nil {
		b.WriteString("as expected\n")
		if p.Expected.Verdict == api.Undecided {
			b.WriteString("as far as it could be known: " + p.Expected.Reason + "\n")
		}
	} else {
		fmt.Fprintf(&b, "\nnot as expected: %s\n", probeDifference(p))
		expected := p.Expected
		expected.Fix = ""
		if err := PathText(&b, expected); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// probeDifference says which hop of those expected was not seen first.
func probeDifference(p api.Probe) string {
	i := *p.FirstDifference
	if i < 0 || i >= len(p.Expected.Hops) {
		return "the end differs"
	}
	h := p.Expected.Hops[i]
	r := rowOf(h)
	if slices.ContainsFunc(p.Actual.Hops, func(a api.Hop) bool {
		return a.NS == h.NS && a.Device == h.Device && a.Action == h.Action && (a.Direction == api.Request) == (h.Direction == api.Request)
	}) {
		return beyond(p)
	}
	return strings.Join(strings.Fields(fmt.Sprintf("%s %s should have: %s %s", r.columns[0], r.columns[1], r.columns[2], r.columns[3])), " ") + ", and was not seen to"
}

// beyond says how the ends differ of two paths that are one. What is outside is
// not known beforehand: it is taken to listen.
func beyond(p api.Probe) string {
	out := fmt.Sprintf("%s, not %s", p.Actual.Verdict, p.Expected.Verdict)
	if p.Expected.To.NS == "" && p.Expected.Verdict == api.Delivered {
		out += fmt.Sprintf(" (that %s listens was taken for granted: it is beyond this machine)", p.Expected.Flow.Dst)
	}
	return out
}

// ProbeSVG draws the path that the packet took, and below it the one it should
// have taken where the two differ.
func ProbeSVG(w io.Writer, p api.Probe) error {
	actual := p.Actual
	if actual.Fix = p.Fix; p.FirstDifference == nil {
		return pathsSVG(w, actual)
	}
	return pathsSVG(w, actual, p.Expected)
}
