package draw

import (
	"fmt"
	"io"
	"strings"

	"github.com/towpath/towpath/api"
)

// mapCurves bounds how many conversations are drawn as lines: beyond it they
// hide what they join, and stand in the list below alone.
const mapCurves = 16

// mapStyle colours by classes. On a dark screen it is dark; on paper never.
const mapStyle = `<style>
text{font-family:system-ui,"Segoe UI","DejaVu Sans",sans-serif;fill:#1b2733}
.h1{font-size:20px;font-weight:700}.h2{font-size:13px;font-weight:700}.s{font-size:12px}.dim{fill:#5a6876}
.m{font-family:ui-monospace,"DejaVu Sans Mono",monospace}.r{text-anchor:end}.c{text-anchor:middle}
.t13{font-size:13px;font-weight:600}.t12{font-size:12px;font-weight:600}.t10{font-size:10.5px;font-weight:600}
.m11{font-size:11px}.m10{font-size:10.5px}.m9{font-size:9.5px}
.bg{fill:#fff}.out{fill:#e6ecf3;stroke:#b9c5d2}.host{fill:#f2f5f8;stroke:#b9c5d2}
.panel{fill:#fff;stroke:#d3dbe3}.card{fill:#fff;stroke:#9fb0c0}.gone{fill:none;stroke:#9fb0c0;stroke-dasharray:4 3}
.bar,.riser,.stem{fill:none;stroke:#7b8a99}.bar{stroke-width:4}.riser{stroke-width:2}.stem{stroke-width:1.5}
.thin{stroke-width:2}.talk{fill:none;stroke:#c2571a;stroke-width:1.6;opacity:.75}.pub{fill:#b04a12}.bad{fill:#b3261e}
.k0{stroke:#0b7a75}.k1{stroke:#1d63ed}.k2{stroke:#7d2fa8}.k3{stroke:#3949ab}.k4{stroke:#b26a00}.k5{stroke:#6b7885}
.f0{fill:#0b7a75}.f1{fill:#1d63ed}.f2{fill:#7d2fa8}.f3{fill:#3949ab}.f4{fill:#9a5b00}.f5{fill:#5a6876}
@media screen and (prefers-color-scheme:dark){
text{fill:#e3eaf1}.dim{fill:#9aa9b8}.bg{fill:#12181f}.out{fill:#1e2833;stroke:#3b4a5a}.host{fill:#18212a;stroke:#3b4a5a}
.panel{fill:#1d2731;stroke:#37444f}.card{fill:#243039;stroke:#566778}.gone{stroke:#566778}.bar,.riser,.stem{stroke:#8494a4}
.talk{stroke:#f0894a}.pub{fill:#f5a06a}.bad{fill:#ff8a80}
.k0{stroke:#35c2b8}.k1{stroke:#6ea0ff}.k2{stroke:#c78bea}.k3{stroke:#93a0f5}.k4{stroke:#f0b04a}.k5{stroke:#8494a4}
.f0{fill:#35c2b8}.f1{fill:#6ea0ff}.f2{fill:#c78bea}.f3{fill:#93a0f5}.f4{fill:#f0b04a}.f5{fill:#9aa9b8}}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="pub" d="M0 0L8 4L0 8z"/></marker></defs>`

// engineClass is the number of an engine's colour.
func engineClass(engine string) int {
	switch engine {
	case "Towpath":
		return 0
	case "Docker":
		return 1
	case "Podman":
		return 2
	case "CNI", "containerd", "CRI-O", "Kubernetes":
		return 3
	case "libvirt", "LXC", "systemd-nspawn":
		return 4
	}
	return 5
}

// MapSVG writes a map as one SVG document that needs nothing else: the host
// with its uplinks above, a panel a network, a card a namespace on it.
func MapSVG(w io.Writer, m api.Map) error {
	l := newLayout(newChart(m))
	v := &mapSVG{layout: l}
	v.grounds()
	v.curves() // below everything that is to be read
	v.uplinkCards()
	for _, p := range l.panels {
		v.panel(p)
		v.cards(p)
	}
	v.loose()
	height := v.lists(l.bottom + 8)
	var doc canvas
	doc.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img" aria-labelledby="title desc">`,
		mapWidth, height, mapWidth, height)
	doc.add(`<title id="title">Network map</title><desc id="desc">%s</desc>`, escape(l.counts()))
	doc.add("%s", mapStyle)
	doc.rect("bg", 0, 0, mapWidth, height, 0)
	doc.text("h1", margin, 38, "Network map")
	doc.text("s dim", margin, 58, l.counts())
	doc.b.WriteString(v.b.String())
	doc.add("</svg>")
	_, err := io.WriteString(w, doc.b.String())
	return err
}

// mapSVG paints a layout.
type mapSVG struct {
	canvas
	*layout
}

// grounds draws the boxes that others lie on.
func (v *mapSVG) grounds() {
	if v.outside.w > 0 {
		v.rect("out", v.outside.x, v.outside.y, v.outside.w, v.outside.h, 15)
		v.text("h2 c", v.outside.centre(), v.outside.y+20, "outside")
	}
	v.rect("host", v.host.x, v.host.y, v.host.w, v.host.h, 10)
	v.text("h2", v.host.x+inset, v.host.y+22, v.owner(hostID))
	for _, p := range v.panels {
		v.rect("panel", p.x, p.y, p.w, p.h, 8)
	}
}

func (v *mapSVG) uplinkCards() {
	for i, d := range v.chart.uplinks() {
		b := v.uplinks[i]
		v.line("stem k5", b.centre(), v.outside.bottom(), b.centre(), b.y)
		v.add("<g>")
		v.hint(join(d.Name, "uplink", kindWords(d), d.MAC, fmt.Sprintf("mtu %d", d.MTU), prefixes(d.Addresses)))
		v.rect("card k5", b.x, b.y, b.w, b.h, 6)
		v.text("t13", b.x+10, b.y+18, fit(d.Name, b.w-20, 13, sansWidth))
		v.text("s dim r", b.x+b.w-10, b.y+18, join(kindWords(d), down(d.State)))
		v.text("m m11", b.x+10, b.y+35, fit(prefixes(global(d.Addresses)), b.w-20, 11, monoWidth))
		v.text("m m11 dim", b.x+10, b.y+50, fit(v.defaultVia(d), b.w-20, 11, monoWidth))
		v.add("</g>")
	}
}

// hint is what a pointer that rests on a group is told.
func (v *mapSVG) hint(text string) { v.add("<title>%s</title>", escape(text)) }

// panel draws a network without its members: a bar a row, which they hang on.
func (v *mapSVG) panel(p panel) {
	n, class := p.network, engineClass(p.network.Engine)
	title := n.Name
	if n.Engine == "" {
		title = networkTitle(n)
	}
	v.text("h2", p.x+inset, p.y+20, fit(title, p.w-2*inset, 13, sansWidth))
	if room := p.w - 2*inset - float64(len(title))*13*sansWidth; room > 60 {
		v.text(fmt.Sprintf("s r f%d", class), p.x+p.w-inset, p.y+20, fit(join(n.Engine, kindOf(n), v.elsewhere(n)), room, 12, sansWidth))
	}
	v.text("m m11 dim", p.x+inset, p.y+36, fit(panelLine(n), p.w-2*inset, 11, monoWidth))
	if len(n.Members) == 0 {
		v.text("s dim", p.x+inset, p.y+panelHead+14, "nobody is on it")
		return
	}
	thin := ""
	if p.size.lines < 3 {
		thin = " thin"
	}
	first, last := 0.0, 0.0
	for i := 0; i < len(p.cards); i += p.columns {
		end := p.cards[min(i+p.columns, len(p.cards))-1]
		y := p.cards[i].y - p.size.stem
		v.line(fmt.Sprintf("bar%s k%d", thin, class), p.x+inset/2, y, end.x+end.w, y)
		if i == 0 {
			first = y
		}
		last = y
	}
	if last > first {
		v.line(fmt.Sprintf("riser k%d", class), p.x+inset/2, first, p.x+inset/2, last)
	}
}

// elsewhere names the namespace of a network that is not the host's.
func (v *mapSVG) elsewhere(n api.MapNetwork) string {
	if n.Namespace == hostID {
		return ""
	}
	return "in " + v.owner(n.Namespace)
}

// cards draws the members of a network.
func (v *mapSVG) cards(p panel) {
	for i, m := range p.network.Members {
		b := p.cards[i]
		v.line(fmt.Sprintf("stem k%d", engineClass(p.network.Engine)), b.x+14, b.y-p.size.stem, b.x+14, b.y)
		if p.size.lines == 3 {
			v.text("m m9 dim", b.x+20, b.y-5, fit(m.Port, b.w-30, 9.5, monoWidth))
		}
		v.card(b, p.size, m)
	}
}

// card draws a member: its name, its address, and what it publishes.
func (v *mapSVG) card(b box, s cardSize, m api.MapMember) {
	ns := v.spaces[m.Namespace]
	class, name, engine := "card", m.Namespace, ""
	if ns != nil {
		name, engine = ns.Name, ns.Engine
		if ns.Kind == "process" {
			name = strings.TrimPrefix(ns.Owner, "process ")
		}
	}
	if ns == nil {
		class, name = "gone", m.Port
	}
	published := v.published[m.Namespace]
	v.add("<g>")
	v.hint(joinLines(v.owner(m.Namespace), join(m.Port, m.Device, prefixes(m.Addresses), m.Detail, down(m.State)), strings.Join(published, ", ")))
	v.rect(class, b.x, b.y, b.w, b.h, 5)
	room := b.w - 14
	v.text(fmt.Sprintf("t%.0f", trunc(s.name)), b.x+7, b.y+s.name+3, fit(name, room, s.name, sansWidth))
	mono := fmt.Sprintf("m m%.0f", trunc(s.text))
	v.text(mono, b.x+7, b.y+s.name+s.text+8, fit(v.line2(s, m), room, s.text, monoWidth))
	if s.lines == 3 {
		if left := room - float64(len([]rune(name)))*s.name*sansWidth; left > 40 {
			v.text(fmt.Sprintf("s r f%d", engineClass(engine)), b.x+b.w-7, b.y+16, fit(engine, left, 12, sansWidth))
		}
		v.third(b, m, published, room)
	} else if len(published) > 0 {
		v.add(`<circle class="pub" cx="%.1f" cy="%.1f" r="3"/>`, b.x+b.w-8, b.y+8)
	}
	v.add("</g>")
}

func trunc(f float64) float64 { return float64(int(f)) }

// line2 is the address; large cards have room for the interface.
func (v *mapSVG) line2(s cardSize, m api.MapMember) string {
	shown := global(m.Addresses)
	if len(shown) == 0 {
		return join(m.Device, m.Detail, down(m.State))
	}
	if s.lines == 3 {
		return join(m.Device, prefixes(shown))
	}
	return shown[0].Addr().String()
}

// third is the last line of a large card: what is amiss, published, or elsewhere.
func (v *mapSVG) third(b box, m api.MapMember, published []string, room float64) {
	switch {
	case down(m.State) != "":
		v.text("m m11 bad", b.x+7, b.y+54, down(m.State))
	case len(published) > 0:
		v.text("m m11 pub", b.x+7, b.y+54, fit(strings.Join(published, " "), room, 11, monoWidth))
	case v.on[m.Namespace] > 1:
		v.text("s dim", b.x+7, b.y+54, fmt.Sprintf("on %d networks", v.on[m.Namespace]))
	}
}

// curves draws who talks to whom.
func (v *mapSVG) curves() {
	if len(v.Talks) > mapCurves {
		return
	}
	for _, t := range v.Talks {
		from, ok1 := v.at[t.From]
		to, ok2 := v.at[t.To]
		if !ok1 || !ok2 || t.From == t.To {
			continue
		}
		v.add("<g>")
		v.hint(v.owner(t.From) + " -> " + v.far(t.To, t.Addr) + " " + talkWords(t))
		v.add(`<path class="talk" marker-end="url(#tip)" d="%s"/>`, curve(from, to, t.From == "outside", t.To == "outside"))
		v.add("</g>")
	}
}

// curve leads from below one box to below another, or between a box and the
// outside above all.
func curve(from, to box, fromOutside, toOutside bool) string {
	switch {
	case fromOutside:
		x := to.centre()
		return fmt.Sprintf("M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f", x+40, from.bottom(), x+40, from.bottom()+40, x, to.y-40, x, to.y-2)
	case toOutside:
		x := from.centre() + 24
		return fmt.Sprintf("M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f", x, from.y, x, from.y-40, x+24, to.bottom()+40, x+24, to.bottom()+2)
	}
	x1, y1, x2, y2 := from.centre(), from.bottom(), to.centre(), to.bottom()
	return fmt.Sprintf("M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f", x1, y1, x1, y1+24, x2, y2+24, x2, y2+2)
}

// loose draws what is on no network.
func (v *mapSVG) loose() {
	if rest := v.chart.others(); len(rest) > 0 {
		words := make([]string, len(rest))
		for i, d := range rest {
			words[i] = join(d.Name, kindWords(d), v.leadsTo(d), prefixes(global(d.Addresses)))
		}
		v.text("m m11 dim", v.others.x, v.others.y+12, fit("also: "+strings.Join(words, "; "), v.others.w, 11, monoWidth))
	}
	all := v.chart.apart()
	if len(all) == 0 {
		return
	}
	v.text("h2", margin, v.apart[0].y-8, "on no network")
	s := sizeFor(max(13, len(all)))
	for i, ns := range all {
		m := api.MapMember{Namespace: ns.ID, State: "up"}
		if len(ns.Devices) > 0 {
			d := ns.Devices[0]
			m.Device, m.Addresses = d.Name, d.Addresses
		} else {
			m.Device = "loopback only"
		}
		v.card(v.apart[i], s, m)
	}
}

// lists writes published ports on the left and conversations on the right.
func (v *mapSVG) lists(y float64) float64 {
	const line = 17.0
	half := mapWidth/2 - margin - spacing
	left, right := y, y
	put := func(x float64, y *float64, heading string, rows []string) {
		if len(rows) == 0 {
			return
		}
		v.text("h2", x, *y+14, heading)
		*y += 22
		for _, r := range rows {
			*y += line
			v.text("m m11", x, *y-5, fit(r, half, 11, monoWidth))
		}
		*y += spacing
	}
	var ports, talks []string
	for i, p := range v.ports {
		if i == mapTalks {
			ports = append(ports, fmt.Sprintf("and %d more", len(v.ports)-mapTalks))
			break
		}
		ports = append(ports, join(hostSide(p.MapPublication)+" -> "+v.target(p), listening(p), by(p.Author)))
	}
	for i, t := range v.ranked() {
		if i == mapTalks {
			talks = append(talks, fmt.Sprintf("and %d more", len(v.Talks)-mapTalks))
			break
		}
		talks = append(talks, join(v.owner(t.From)+" -> "+v.far(t.To, t.Addr), talkWords(t), fmt.Sprintf("×%d", t.Connections)))
	}
	put(margin, &left, "published ports", ports)
	put(mapWidth/2+spacing/2, &right, "who talks to whom", talks)
	put(margin, &left, "not in the map", v.Notes)
	return max(left, right, y) + margin
}
