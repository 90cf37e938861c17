package draw

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/towpath/towpath/api"
)

// PathText writes a path as lines: who sends what to whom, a line a hop, what
// came of it, and what to do about it.
func PathText(w io.Writer, p api.Path) error {
	var b strings.Builder
	head := pathTitle(p)
	fmt.Fprintf(&b, "%s%s\n", padded(head, 68), pathVerdict(p))
	rows := pathRows(p)
	widths := [4]int{7, 11, 12, 0}
	for _, r := range rows {
		for i := range widths {
			if n := utf8.RuneCountInString(r.columns[i]); n > widths[i] && n <= pathColumn {
				widths[i] = n
			}
		}
	}
	back := false
	for i, r := range rows {
		if h := p.Hops[i]; h.Direction != api.Request && !back {
			back = true
			fmt.Fprintf(&b, "  %s\n", backWord(h))
		}
		b.WriteString(strings.TrimRight(r.line(p, i, widths), " ") + "\n")
	}
	for _, l := range pathEnd(p) {
		b.WriteString(l + "\n")
	}
	if p.Alike > 0 {
		fmt.Fprintf(&b, "and %d more like it\n", p.Alike)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// backWord stands above what comes back.
func backWord(h api.Hop) string {
	switch {
	case h.Direction == api.Reply:
		return "the answer:"
	case h.Before != nil && (h.Before.Proto == "icmp" || h.Before.Proto == "icmpv6"):
		return "the error, " + h.Before.Proto + " " + h.Before.ICMPError() + ":"
	}
	return "the error:"
}

// pathColumn is the widest that a column gets: what is longer sticks out.
const pathColumn = 46

// pathTitle is "web -> db:5432  tcp syn".
func pathTitle(p api.Path) string {
	return fmt.Sprintf("%s -> %s  %s", pathFrom(p), pathTo(p), packetWord(p.Flow))
}

func pathFrom(p api.Path) string {
	if p.From.Name == "" || p.From.Name == "outside" {
		return p.Flow.Src.String()
	}
	return p.From.Name
}

func pathTo(p api.Path) string {
	who := p.To.Name
	// An address is told rather than the name of who turned out to have it,
	// where the two are not one thing.
	if who == "" || who == "outside" || who == "host" || strings.HasPrefix(who, "net:[") {
		who = p.Flow.Dst.String()
	}
	if p.Flow.Dport == 0 {
		return who
	}
	if a, err := netip.ParseAddr(who); err == nil {
		return netip.AddrPortFrom(a, p.Flow.Dport).String()
	}
	return fmt.Sprintf("%s:%d", who, p.Flow.Dport)
}

// packetWord is what kind of packet a flow begins with.
func packetWord(f api.Flow) string {
	switch f.Proto {
	case "tcp":
		return "tcp syn"
	case "sctp":
		return "sctp init"
	case "icmp", "icmpv6":
		return f.Proto + " " + icmpWord(f)
	}
	return f.Proto
}

// pathVerdict stands right of the title: how the packet went if it arrived, else
// what became of it.
func pathVerdict(p api.Path) string {
	if (p.Verdict == api.Delivered || p.Verdict == api.Answered) && p.Reason == "" && p.Summary != "" {
		return p.Summary
	}
	return string(p.Verdict)
}

// pathRow is a hop as a line: namespace, device or hook, what happened, how, and
// what there is to say of it.
type pathRow struct {
	columns [4]string
	note    string
}

func pathRows(p api.Path) []pathRow {
	var out []pathRow
	for _, h := range p.Hops {
		out = append(out, rowOf(h))
	}
	return out
}

func rowOf(h api.Hop) pathRow {
	r := pathRow{columns: [4]string{h.NS, h.Device, h.Action, h.Detail}}
	if isHook(h.Layer) {
		r.columns[1] = string(h.Layer)
	}
	switch {
	case h.Layer == api.LayerName:
		r.columns[1] = "resolver"
	case h.Encap != nil:
		r.note = fmt.Sprintf("%s %d to %s", h.Encap.Kind, h.Encap.VNI, h.Encap.Dst)
	}
	if h.Rule == nil {
		return r
	}
	if h.Before != nil && h.After != nil { // the translation is what is told
		r.note = ruleName(*h.Rule) + "  " + ruleWhere(*h.Rule)
		return r
	}
	r.columns[3], r.note = ruleName(*h.Rule), ruleWhere(*h.Rule)
	if h.Action == "undecided" {
		r.note = ruleWhere(*h.Rule) + ": " + h.Detail
	} else if why := ruleMeans(*h.Rule); why != "" && h.Action == "drop" {
		r.note = why
	}
	return r
}

// isHook reports whether a hop is at a hook of the packet filter.
func isHook(l api.Layer) bool {
	switch l {
	case api.LayerIngress, api.LayerPrerouting, api.LayerInput, api.LayerForward, api.LayerOutput, api.LayerPostrouting, api.LayerEgress:
		return true
	}
	return false
}

// ruleName is `rule "out"`, or the chain's policy.
func ruleName(r api.Rule) string {
	switch {
	case r.Comment != "":
		return fmt.Sprintf("rule %q", r.Comment)
	case r.Text != "":
		return fmt.Sprintf("rule %#q", shortened(r.Text, pathColumn-7))
	}
	return "policy of " + r.Chain
}

func shortened(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// ruleWhere is "nft inet towpath forward handle 14", with its author if that is
// another program.
func ruleWhere(r api.Rule) string {
	out, number := fmt.Sprintf("nft %s %s %s", r.Family, r.Table, r.Chain), "handle"
	if table, tool := r.Legacy(); tool != "" {
		out, number = fmt.Sprintf("%s %s %s", tool, table, r.Chain), "rule"
	}
	if r.Handle != 0 {
		out += fmt.Sprintf(" %s %d", number, r.Handle)
	}
	if r.Author != "" && r.Author != "towpath" {
		out += " (" + r.Author + ")"
	}
	return out
}

// ruleMeans says in words why one of Towpath's rules drops.
func ruleMeans(r api.Rule) string {
	switch {
	case r.Object == "":
		return ""
	case r.Author != "towpath" && strings.HasPrefix(r.Object, "networks "):
		return r.Object + " are isolated"
	case r.Author != "towpath":
		return r.Object + " is internal"
	case r.Comment == "isolation":
		return r.Object + " are isolated"
	case r.Comment == "icc off":
		return r.Object + " lets no container talk to another"
	case r.Comment == "direct access from outside":
		return r.Object + " is not open to the outside"
	case strings.Contains(r.Text, "invalid"):
		return "connection tracking has not seen what it answers"
	case r.Comment == "":
		return r.Object + " is internal"
	}
	return ""
}

// line writes the row, with the time where there is one.
func (r pathRow) line(p api.Path, i int, widths [4]int) string {
	at := "    "
	if p.Kind == api.Actual {
		at = fmt.Sprintf("%8.1f    ", p.Hops[i].AtMicros)
		if i == 0 {
			at = fmt.Sprintf("%8.1f µs ", p.Hops[i].AtMicros)
		}
	}
	var b strings.Builder
	b.WriteString(at)
	for i, text := range r.columns {
		b.WriteString(padded(text, widths[i]) + " ")
		if i == 3 {
			b.WriteString("  ")
		}
	}
	b.WriteString(r.note)
	if !p.Hops[i].Certain {
		b.WriteString("  (not certain)")
	}
	return b.String()
}

// padded fills a text up to a width.
func padded(s string, width int) string {
	if n := width - utf8.RuneCountInString(s); n > 0 {
		return s + strings.Repeat(" ", n)
	}
	return s
}

// pathEnd says what came of the packet, whose the rule was that ended it, and
// what to do.
func pathEnd(p api.Path) []string {
	var out []string
	switch {
	case p.Verdict == api.Delivered && p.Reason == "":
		out = append(out, "delivered")
	case p.Verdict == api.Answered && p.Reason == "":
		out = append(out, "answered")
	case p.Reason != "":
		out = append(out, fmt.Sprintf("%s: %s", p.Verdict, p.Reason))
	}
	if c := p.Culprit; c != nil {
		out = append(out, fmt.Sprintf("by: %s, %s", ruleName(*c), ruleWhere(*c)))
	}
	if p.Fix != "" {
		out = append(out, "fix: "+p.Fix)
	}
	return out
}
