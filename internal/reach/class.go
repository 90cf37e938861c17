package reach

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
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
	named := map[uint16]bool{}
	for i := range t.h.Spaces {
		tables := t.h.Spaces[i].Filters()
		for j := range tables {
			ports(&tables[j], named)
		}
	}
	if len(named) > mostPorts {
		note := fmt.Sprintf("rules name %d ports: those that nobody listens at are taken for one class", len(named))
		if !slices.Contains(t.out.Notes, note) {
			t.out.Notes = append(t.out.Notes, note)
		}
		named = map[uint16]bool{}
	}
	out := []class{{proto: "icmp"}}
	for _, proto := range []string{"tcp", "udp"} {
		cuts := map[uint16]bool{1: true}
		for p := range named {
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

// ports notes what a table's filters compare with a port: numbers of two bytes
// in rules, and the last part of keys that have ports. That other numbers of two
// bytes are taken along only makes more classes.
func ports(t *nft.TableDef, into map[uint16]bool) {
	add := func(b []byte) {
		if len(b) == 2 {
			into[binary.BigEndian.Uint16(b)] = true
		}
	}
	elements := func(s nft.Set, all []nft.Element) {
		if !strings.HasSuffix(s.KeyType, "inet_service") || s.Map && !s.Verdicts() {
			return
		}
		for _, e := range all {
			at := (len(e.Key) - 1) / 4 * 4 // parts begin at 4 bytes
			if len(e.Key) >= at+2 && at >= 0 {
				add(e.Key[at : at+2])
			}
			if len(e.KeyEnd) >= at+2 && at >= 0 {
				add(e.KeyEnd[at : at+2])
			}
		}
	}
	for _, s := range t.Sets {
		elements(s.Set, s.Elements)
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case nft.Cmp:
					add(e.Data)
				case nft.Range:
					add(e.From)
					add(e.To)
				case nft.Lookup:
					if e.Anon != nil {
						elements(e.Anon.Set(), e.Anon.Elements)
					}
				case nft.Unknown:
					if x, ok := e.XT(); ok && (x.Name == "tcp" || x.Name == "udp") && len(x.Info) >= 8 {
						for off := 0; off < 8; off += 2 {
							into[binary.NativeEndian.Uint16(x.Info[off:])] = true
						}
					}
				}
			}
		}
	}
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
