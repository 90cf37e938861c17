package reach

import (
	"fmt"
	"slices"
	"strings"

	"github.com/towpath/towpath/internal/machine"
)

// mostPorts bounds into how many parts the ports are divided.
const mostPorts = 256

// classes divides all packets to a namespace so that no rule and no socket
// tells two of a class apart: at each port that a rule of a filter names, on the
// way or anywhere, and at each that somebody listens at. Beyond mostPorts only
// the sockets count, and a note says so.
func (t *table) classes(to *machine.Space) []class {
	if t.ask.Port != 0 {
		return []class{{"tcp", t.ask.Port, t.ask.Port}, {"udp", t.ask.Port, t.ask.Port}}
	}
	out := []class{{proto: "icmp"}}
	for _, proto := range []string{"tcp", "udp"} {
		cuts := map[uint16]bool{1: true}
		for p := range t.named {
			cut(cuts, p)
		}
		if to != nil {
			for _, l := range to.Listeners {
				if l.Proto == proto && !l.Addr.IsLoopback() {
					cut(cuts, l.Port)
				}
			}
		}
		out = append(out, segments(proto, cuts)...)
	}
	return out
}

// namePorts finds the ports that rules name, once for all classes.
func (t *table) namePorts() {
	t.named = map[uint16]bool{}
	for i := range t.h.Spaces {
		tables := t.h.Spaces[i].Filters()
		for j := range tables {
			ports(&tables[j], t.named)
		}
	}
	if len(t.named) > mostPorts {
		t.out.Notes = append(t.out.Notes, fmt.Sprintf("rules name %d ports: those that nobody listens at are taken for one class", len(t.named)))
		t.named = nil
	}
}

// cut makes a port a class of its own: one begins there, and one behind it.
func cut(cuts map[uint16]bool, p uint16) {
	if p != 0 {
		cuts[p] = true
		if p != 0xffff {
			cuts[p+1] = true
		}
	}
}

func segments(proto string, cuts map[uint16]bool) []class {
	var starts []uint16
	for p := range cuts {
		starts = append(starts, p)
	}
	slices.Sort(starts)
	var out []class
	for i, p := range starts {
		last := uint16(0xffff)
		if i+1 < len(starts) {
			last = starts[i+1] - 1
		}
		out = append(out, class{proto, p, last})
	}
	return out
}

// words writes classes that fare the same: icmp, tcp 80, udp 1-52,54-65535.
func words(all []class) []string {
	var out []string
	for _, proto := range []string{"icmp", "tcp", "udp", "sctp"} {
		var runs []class
		for _, c := range all {
			switch n := len(runs); {
			case c.proto != proto:
			case n > 0 && runs[n-1].last+1 == c.first && c.first != 0:
				runs[n-1].last = c.last
			default:
				runs = append(runs, c)
			}
		}
		var parts []string
		for _, c := range runs {
			switch {
			case proto == "icmp", c.first == 1 && c.last == 0xffff:
			case c.first == c.last:
				parts = append(parts, fmt.Sprint(c.first))
			default:
				parts = append(parts, fmt.Sprintf("%d-%d", c.first, c.last))
			}
		}
		if len(runs) > 0 {
			out = append(out, strings.TrimSpace(proto+" "+strings.Join(parts, ",")))
		}
	}
	return out
}
