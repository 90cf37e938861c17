package draw

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/towpath/towpath/api"
)

// mapTalks bounds how many conversations a drawing lists.
const mapTalks = 40

// MapText writes a map as a tree, a line a device.
func MapText(w io.Writer, m api.Map) error {
	c := newChart(m)
	t := &tree{}
	t.add(0, "host", c.counts())
	for _, d := range c.uplinks() {
		t.add(1, d.Name, join("uplink", kindWords(d), prefixes(global(d.Addresses)), c.defaultVia(d), down(d.State)))
	}
	for _, n := range m.Networks {
		c.textNetwork(t, n)
	}
	for _, d := range c.others() {
		t.add(1, d.Name, join(kindWords(d), c.leadsTo(d), prefixes(global(d.Addresses)), down(d.State)))
	}
	if apart := c.apart(); len(apart) > 0 {
		t.add(0, "on no network", "")
		for _, s := range apart {
			t.add(1, s.Owner, devicesWords(s))
		}
	}
	if len(c.ports) > 0 {
		t.add(0, "published ports", "")
		for _, p := range c.ports {
			t.add(1, hostSide(p.MapPublication), join("-> "+c.target(p), listening(p), by(p.Author)))
		}
	}
	c.textTalks(t)
	if len(m.Notes) > 0 {
		t.add(0, "not in the map", "")
		for _, n := range m.Notes {
			t.add(1, n, "")
		}
	}
	return t.write(w)
}

func (c *chart) textNetwork(t *tree, n api.MapNetwork) {
	where := ""
	if n.Namespace != hostID {
		where = "in " + c.owner(n.Namespace)
	}
	t.add(1, n.Device, join(networkTitle(n), where, kindOf(n), prefixes(n.Subnets), gatewayWords(n), down(n.State)))
	for _, e := range n.Members {
		name := e.Port
		if name == "" {
			name = "-"
		}
		if e.Namespace == "" {
			t.add(2, name, join(e.Detail, down(e.State)))
			continue
		}
		published := ""
		if p := c.published[e.Namespace]; len(p) > 0 {
			published = "published " + strings.Join(p, ", ")
		}
		t.add(2, name, join(c.owner(e.Namespace), e.Device, prefixes(global(e.Addresses)), published, down(e.State)))
	}
}

func (c *chart) textTalks(t *tree) {
	talks := c.ranked()
	if len(talks) == 0 {
		return
	}
	t.add(0, "who talks to whom", "")
	for i, k := range talks {
		if i == mapTalks {
			t.add(1, fmt.Sprintf("and %d more", len(talks)-mapTalks), "")
			break
		}
		t.add(1, c.owner(k.From)+" -> "+c.far(k.To, k.Addr), join(talkWords(k), count(k.Connections, "connection", "connections")))
	}
}

// defaultVia says where the default route leads, at the uplink that has its
// next hop on its link.
func (c *chart) defaultVia(d api.MapDevice) string {
	var words []string
	for _, g := range c.spaces[hostID].Gateways {
		for _, p := range d.Addresses {
			if p.Contains(g) {
				words = append(words, g.String())
				break
			}
		}
	}
	if len(words) == 0 {
		return ""
	}
	return "default via " + strings.Join(words, ", ")
}

// leadsTo is the other end of a device of the host.
func (c *chart) leadsTo(d api.MapDevice) string {
	for _, w := range c.Wires {
		near, far := w.From, w.To
		if far == (api.MapEnd{Namespace: hostID, Device: d.Name}) && w.Kind == "veth" {
			near, far = far, near
		}
		if near != (api.MapEnd{Namespace: hostID, Device: d.Name}) {
			continue
		}
		if w.Kind == "veth" {
			return "to " + c.owner(far.Namespace) + " " + far.Device
		}
		if w.Kind == "above" {
			return "on " + far.Device
		}
	}
	return ""
}

func (c *chart) target(p port) string {
	var words []string
	for _, a := range p.to {
		if a.Port() == 0 {
			words = append(words, a.Addr().String())
			continue
		}
		words = append(words, a.String())
	}
	to := strings.Join(words, ", ")
	if p.Namespace == "" {
		return to + ", an address that nobody has"
	}
	return c.owner(p.Namespace) + " " + to
}

func listening(p port) string {
	if silent(p.MapPublication) {
		return "nothing listens there"
	}
	return ""
}

func by(author string) string {
	if author == "" {
		return ""
	}
	return "by " + author
}

func hostSide(p api.MapPublication) string {
	host := "*"
	if p.HostIP.IsValid() {
		if host = p.HostIP.String(); p.HostIP.Is6() {
			host = "[" + host + "]"
		}
	}
	return fmt.Sprintf("%s:%s/%s", host, p.HostPort, p.Proto)
}

func kindWords(d api.MapDevice) string {
	if d.Kind == "physical" {
		return d.Detail
	}
	return strings.TrimSpace(d.Kind + " " + d.Detail)
}

func kindOf(n api.MapNetwork) string {
	if strings.HasPrefix(networkTitle(n), n.Kind) {
		return ""
	}
	return n.Kind
}

func gatewayWords(n api.MapNetwork) string {
	if len(n.Gateways) == 0 {
		return ""
	}
	return "gateway " + addrs(n.Gateways)
}

// down tells a state that is not the usual one.
func down(state string) string {
	if state == "" || state == "up" {
		return ""
	}
	return strings.ToUpper(state)
}

// devicesWords are the devices of a namespace.
func devicesWords(s *api.MapNamespace) string {
	if len(s.Devices) == 0 {
		return "loopback only"
	}
	var words []string
	for _, d := range s.Devices {
		words = append(words, strings.TrimSpace(d.Name+" "+prefixes(global(d.Addresses))))
	}
	return strings.Join(words, "; ")
}

// join leaves out what is empty.
func join(words ...string) string {
	var out []string
	for _, w := range words {
		if w != "" {
			out = append(out, w)
		}
	}
	return strings.Join(out, "  ")
}

// tree is an indented list whose second column is aligned among neighbours.
type tree struct{ lines []branch }

type branch struct {
	depth      int
	name, text string
}

func (t *tree) add(depth int, name, text string) {
	t.lines = append(t.lines, branch{depth, name, text})
}

// write draws the branches.
func (t *tree) write(w io.Writer) error {
	var b strings.Builder
	open := make([]bool, 8) // by depth: a sibling follows
	width := t.widths()
	for i, l := range t.lines {
		for d := 1; d <= l.depth; d++ {
			switch {
			case d < l.depth && open[d]:
				b.WriteString("│  ")
			case d < l.depth:
				b.WriteString("   ")
			case t.follows(i):
				open[d] = true
				b.WriteString("├─ ")
			default:
				open[d] = false
				b.WriteString("└─ ")
			}
		}
		b.WriteString(l.name)
		if l.text != "" {
			b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(l.name)) + "  " + l.text)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// follows reports whether a sibling of a line comes before its parent's next.
func (t *tree) follows(i int) bool {
	for _, l := range t.lines[i+1:] {
		if l.depth <= t.lines[i].depth {
			return l.depth == t.lines[i].depth
		}
	}
	return false
}

// widths are those of the first column, the same for siblings.
func (t *tree) widths() []int {
	out := make([]int, len(t.lines))
	for i, l := range t.lines {
		n := utf8.RuneCountInString(l.name)
		if out[i] = n; l.depth == 0 {
			continue // headings are no column
		}
		for j := i - 1; j >= 0 && t.lines[j].depth >= l.depth; j-- {
			if t.lines[j].depth == l.depth {
				n = max(n, out[j])
				break
			}
		}
		out[i] = n
	}
	for i := len(t.lines) - 1; i >= 0; i-- { // the widest of them is the last's
		if t.lines[i].depth == 0 {
			continue
		}
		for j := i - 1; j >= 0 && t.lines[j].depth >= t.lines[i].depth; j-- {
			if t.lines[j].depth == t.lines[i].depth {
				out[j] = max(out[j], out[i])
				break
			}
		}
	}
	return out
}
