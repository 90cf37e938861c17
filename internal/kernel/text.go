package kernel

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// dstText is a destination as ip-route(8) writes it.
func dstText(p netip.Prefix) string {
	switch {
	case p.Bits() == 0 && p.Addr().Is4():
		return "default"
	case p.Bits() == 0:
		return "::/0"
	default:
		return p.String()
	}
}

// words joins what is not empty: name value pairs with an empty value are left out.
type words []string

func (w *words) add(name, value string) {
	if value != "" && value != "0" {
		*w = append(*w, name, value)
	}
}

func (w words) String() string { return strings.Join(w, " ") }

// String is "netns web".
func (n Namespace) String() string {
	w := words{"netns", n.Name}
	w.add("cookie", strconv.FormatUint(n.Cookie, 10))
	return w.String()
}

// String is "link eth0 type veth address 02:... mtu 1500".
func (l Link) String() string {
	w := words{"link", l.Name}
	w.add("type", l.Type)
	w.add("address", l.MAC)
	w.add("mtu", strconv.Itoa(l.MTU))
	w.add("master", l.Master)
	w.add("peer", l.Peer)
	w.add("netns", l.PeerNS)
	w.add("peer-of", l.PeerOf)
	if l.Hairpin {
		w = append(w, "hairpin", "on")
	}
	if l.Isolated {
		w = append(w, "isolated", "on")
	}
	if l.Locked {
		w = append(w, "locked", "on", "learning", "off")
	}
	if l.Mark != "" {
		w.add("alias", strconv.Quote(l.Mark))
	}
	return w.String()
}

// String is "up eth0".
func (u Up) String() string { return "up " + u.Dev }

// String is "addr 172.20.0.2/24 dev eth0".
func (a Address) String() string { return "addr " + a.Prefix.String() + " dev " + a.Dev }

// String is "route default via 172.20.0.1 dev eth0".
func (r Route) String() string {
	w := words{"route", dstText(r.Dst)}
	if r.Local {
		w = append(w, "type", "local")
	}
	if r.Via.IsValid() {
		w.add("via", r.Via.String())
	}
	w.add("dev", r.Dev)
	w.add("table", utoa(r.Table))
	w.add("metric", utoa(r.Metric))
	return w.String()
}

// String is "rule from 172.20.1.2/32 lookup 1001 priority 1001".
func (r Rule) String() string {
	return "rule from " + r.From.String() + " lookup " + utoa(r.Table) + " priority " + utoa(r.Priority)
}

// String is "neigh 172.20.0.2 lladdr 02:... dev eth0 nud permanent", or
// "fdb 02:... dev v-web-eth0 master tp-front static".
func (n Neighbour) String() string {
	if !n.IP.IsValid() {
		return "fdb " + n.MAC + " dev " + n.Dev + " master " + n.Master + " static"
	}
	return "neigh " + n.IP.String() + " lladdr " + n.MAC + " dev " + n.Dev + " nud permanent"
}

// String is "sysctl net.ipv4.ip_forward = 1", as sysctl(8) prints it: where
// an interface name has a dot, it is written with a slash.
func (s Sysctl) String() string {
	value := s.Value
	if value == "" || strings.ContainsAny(value, " \t\"") {
		value = strconv.Quote(value)
	}
	w := words{"sysctl", DottedSysctl(s.Name), "=", value}
	w.add("dev", s.Dev)
	return w.String()
}

// DottedSysctl turns a path below /proc/sys into sysctl(8)'s notation.
func DottedSysctl(path string) string {
	return strings.NewReplacer("/", ".", ".", "/").Replace(path)
}

// String is "socket udp 127.0.0.11:40053", or, where the daemon passes clients
// on, "socket tcp [::]:8080-8081 to 172.20.0.2:80 from 2001:db8::/32".
func (s Socket) String() string {
	w := words{"socket", s.Proto, s.text()}
	if s.To.IsValid() {
		w.add("to", s.To.String())
	}
	w.add("from", s.From)
	return w.String()
}

// String is "table inet towpath".
func (t Table) String() string {
	w := words{"table", t.Family, t.Name}
	w.add("flags", t.Flags)
	return w.String()
}

// String is "set inet towpath bridges { type ifname; }".
func (s Set) String() string {
	body := "type " + s.Type + "; "
	if s.Flags != "" {
		body += "flags " + s.Flags + "; "
	}
	return s.noun() + " " + s.Family + " " + s.Table + " " + s.Name + " { " + body + "}"
}

// noun is what nft calls it: a set whose elements have values is a map.
func (s Set) noun() string {
	if strings.Contains(s.Type, " : ") {
		return "map"
	}
	return "set"
}

// String is the chain on one line.
func (c Chain) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "chain %s %s %s {", c.Family, c.Table, c.Name)
	if c.Base != "" {
		b.WriteString(" " + c.Base)
	}
	for rule := range strings.Lines(c.Rules) {
		b.WriteString(" " + strings.TrimRight(rule, "\n") + ";")
	}
	return b.String() + " }"
}

// String is `element inet towpath leave { "tp-a" : accept }`, for a range
// `element inet towpath publish4_any { tcp . 80-89 : 172.20.0.2 . 8080-8089 }`.
func (e Element) String() string {
	return "element " + e.Family + " " + e.Table + " " + e.Set + " { " + e.text() + " }"
}

func (e Element) text() string {
	if e.Value == "" {
		return spanned(e.Elem, e.Count)
	}
	return spanned(e.Elem, e.Count) + " : " + spanned(e.Value, e.Count)
}

// String is the state as a page: a section a namespace, one object a line,
// nftables in the layout of `nft -s list table` with elements sorted, one a line.
func (s State) String() string {
	var b strings.Builder
	ns := ""
	seen := map[Key]bool{}
	for _, k := range s.Keys() {
		if k.NS != ns {
			ns = k.NS
			fmt.Fprintf(&b, "netns %s:\n", ns)
		}
		switch o := s[k].(type) {
		case Table:
			s.writeTable(&b, o, seen)
		case Set, Chain, Element, Hook:
			if !seen[k] { // without its table: a part of a state
				fmt.Fprintf(&b, "\t%s\n", o)
			}
		default:
			fmt.Fprintf(&b, "\t%s\n", o)
		}
	}
	return b.String()
}

// TableString is one table as `nft -s list table` prints it.
func (s State) TableString(t Table) string {
	var b strings.Builder
	s.writeTable(&b, t, map[Key]bool{})
	var out strings.Builder
	for line := range strings.Lines(b.String()) {
		out.WriteString(strings.TrimPrefix(line, "\t"))
	}
	return out.String()
}

func (s State) writeTable(b *strings.Builder, t Table, seen map[Key]bool) {
	fmt.Fprintf(b, "\ttable %s %s {\n", t.Family, t.Name)
	if t.Flags != "" {
		fmt.Fprintf(b, "\t\tflags %s\n", t.Flags)
	}
	elems, devices := map[string][]Element{}, map[string][]string{}
	var parts []Key
	for _, k := range s.Keys() {
		switch o := s[k].(type) {
		case Element:
			if o.NS == t.NS && o.Family == t.Family && o.Table == t.Name {
				elems[o.Set] = append(elems[o.Set], o)
				seen[k] = true
			}
		case Hook:
			if o.NS == t.NS && o.Family == t.Family && o.Table == t.Name {
				devices[o.Chain] = append(devices[o.Chain], o.Dev)
				seen[k] = true
			}
		case Set, Chain:
			if o.Parents()[0] == t.Key() {
				parts = append(parts, k)
				seen[k] = true
			}
		}
	}
	for i, k := range parts {
		if i > 0 {
			b.WriteString("\n")
		}
		switch o := s[k].(type) {
		case Set:
			writeSet(b, o, elems[o.Name])
		case Chain:
			o.Base = withDevices(o.Base, devices[o.Name])
			writeChain(b, o)
		}
	}
	b.WriteString("\t}\n")
}

func writeSet(b *strings.Builder, set Set, elems []Element) {
	fmt.Fprintf(b, "\t\t%s %s {\n\t\t\ttype %s\n", set.noun(), set.Name, set.Type)
	if set.Flags != "" {
		fmt.Fprintf(b, "\t\t\tflags %s\n", set.Flags)
	}
	lines := elementLines(elems)
	for i, line := range lines {
		lead, end := "\t\t\t\t     ", ",\n"
		if i == 0 {
			lead = "\t\t\telements = { "
		}
		if i == len(lines)-1 {
			end = " }\n"
		}
		b.WriteString(lead + line + end)
	}
	b.WriteString("\t\t}\n")
}

func writeChain(b *strings.Builder, c Chain) {
	fmt.Fprintf(b, "\t\tchain %s {\n", c.Name)
	if c.Base != "" {
		fmt.Fprintf(b, "\t\t\t%s\n", c.Base)
	}
	for rule := range strings.Lines(c.Rules) {
		fmt.Fprintf(b, "\t\t\t%s\n", strings.TrimRight(rule, "\n"))
	}
	b.WriteString("\t\t}\n")
}
