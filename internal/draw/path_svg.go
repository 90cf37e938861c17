package draw

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/towpath/towpath/api"
)

// Measures of a drawn path, in pixels.
const (
	pathWidth = 1040.0
	pathRowH  = 40.0
	pathTop   = 112.0
	pathLeft  = 24.0
	boxHeight = 30.0
)

// pathStyle adds to the colours of a map those of what happens to a packet.
const pathStyle = `<style>
.lane{fill:#f2f5f8;stroke:#d3dbe3}.box{fill:#fff;stroke:#9fb0c0}.flow{fill:none;stroke:#0b7a75;stroke-width:2}
.back{fill:none;stroke:#7d2fa8;stroke-width:2;stroke-dasharray:5 3}.nat{fill:#fff4e0;stroke:#b26a00}
.end{fill:#fdeaea;stroke:#b3261e;stroke-width:2}.fine{fill:#e2f5f3;stroke:#0b7a75;stroke-width:2}
.m12{font-size:11.5px}.tipg{fill:#0b7a75}.tipb{fill:#7d2fa8}
@media screen and (prefers-color-scheme:dark){
.lane{fill:#18212a;stroke:#37444f}.box{fill:#243039;stroke:#566778}.flow{stroke:#35c2b8}.back{stroke:#c78bea}
.nat{fill:#3a2f1a;stroke:#f0b04a}.end{fill:#3d2224;stroke:#ff8a80}.fine{fill:#17342f;stroke:#35c2b8}.tipg{fill:#35c2b8}.tipb{fill:#c78bea}}
</style>
<defs><marker id="fwd" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto"><path class="tipg" d="M0 0L8 4L0 8z"/></marker>
<marker id="bck" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto"><path class="tipb" d="M0 0L8 4L0 8z"/></marker></defs>`

// PathSVG writes a path as one SVG document that needs nothing else: a lane a
// namespace, a box a hop from top to bottom, and the answer dashed.
func PathSVG(w io.Writer, p api.Path) error { return pathsSVG(w, p) }

// pathsSVG writes paths below each other.
func pathsSVG(w io.Writer, paths ...api.Path) error {
	var body canvas
	width, height := 0.0, 0.0
	for _, p := range paths {
		v := &pathSVG{path: p}
		v.layOut()
		v.draw()
		if height == 0 {
			body.b.WriteString(v.b.String())
		} else {
			body.add(`<g transform="translate(0 %.0f)">`, height)
			body.b.WriteString(v.b.String())
			body.add("</g>")
		}
		width, height = max(width, v.width), height+v.height
	}
	var doc canvas
	doc.add(`<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img" aria-labelledby="title desc">`,
		width, height, width, height)
	doc.add(`<title id="title">%s</title><desc id="desc">%s</desc>`, escape(pathTitle(paths[0])), escape(strings.Join(pathEnd(paths[0]), "; ")))
	doc.add("%s", mapStyle)
	doc.add("%s", pathStyle)
	doc.rect("bg", 0, 0, width, height, 0)
	doc.b.WriteString(body.b.String())
	doc.add("</svg>")
	_, err := io.WriteString(w, doc.b.String())
	return err
}

// pathSVG paints a path.
type pathSVG struct {
	canvas
	path          api.Path
	lanes         []string
	laneWidth     float64
	width, height float64
}

// layOut gives each namespace a lane, in the order in which the packet comes by.
func (v *pathSVG) layOut() {
	for _, h := range v.path.Hops {
		if !slices.Contains(v.lanes, h.NS) {
			v.lanes = append(v.lanes, h.NS)
		}
	}
	if len(v.lanes) == 0 {
		v.lanes = []string{pathFrom(v.path)}
	}
	n := float64(len(v.lanes))
	v.laneWidth = max((pathWidth-2*pathLeft-(n-1)*16)/n, 300)
	v.width = 2*pathLeft + n*v.laneWidth + (n-1)*16
	v.height = pathTop + 10 + float64(len(v.path.Hops))*pathRowH + float64(len(pathEnd(v.path)))*20 + 36
}

// x is where a lane begins.
func (v *pathSVG) x(ns string) float64 {
	return pathLeft + float64(slices.Index(v.lanes, ns))*(v.laneWidth+16)
}

// y is where the box of a hop begins.
func (v *pathSVG) y(i int) float64 { return pathTop + 10 + float64(i)*pathRowH }

func (v *pathSVG) draw() {
	p := v.path
	v.text("h1", pathLeft, 40, pathTitle(p))
	v.text("s dim", pathLeft, 62, strings.Join(nonEmpty(string(p.Verdict), p.Summary, levelWord(p)), " · "))
	bottom := v.y(len(p.Hops)) + 4
	for _, ns := range v.lanes {
		v.rect("lane", v.x(ns), pathTop-24, v.laneWidth, bottom-pathTop+24, 10)
		v.text("h2", v.x(ns)+12, pathTop-4, fit(v.laneTitle(ns), v.laneWidth-24, 13, sansWidth))
	}
	for i := 1; i < len(p.Hops); i++ {
		v.arrow(i)
	}
	for i := range p.Hops {
		v.box(i)
	}
	for i, line := range pathEnd(p) {
		class := "s"
		if i == 0 && p.Verdict != api.Delivered && p.Verdict != api.Answered {
			class = "s bad"
		}
		v.text(class, pathLeft, bottom+26+float64(i)*20, fit(line, v.width-2*pathLeft, 12, sansWidth))
	}
}

// laneTitle is the namespace and whose it is.
func (v *pathSVG) laneTitle(ns string) string {
	for _, h := range v.path.Hops {
		if h.NS == ns && h.Owner != "" && h.Owner != ns {
			return ns + " · " + h.Owner
		}
	}
	return ns
}

func nonEmpty(words ...string) []string {
	return slices.DeleteFunc(words, func(s string) bool { return s == "" })
}

// levelWord says by what means the path is known.
func levelWord(p api.Path) string {
	if p.Level == api.LevelWalk {
		return "expected, by the state of the kernel"
	}
	return "seen, level " + string(p.Level)
}

// arrow leads from the hop before to a hop.
func (v *pathSVG) arrow(i int) {
	from, to := v.path.Hops[i-1], v.path.Hops[i]
	class, tip := "flow", "fwd"
	if to.Direction != api.Request {
		class, tip = "back", "bck"
	}
	y1, y2 := v.y(i-1)+boxHeight, v.y(i)
	x1, x2 := v.x(from.NS)+v.laneWidth/2, v.x(to.NS)+v.laneWidth/2
	if from.NS == to.NS {
		v.add(`<path class="%s" marker-end="url(#%s)" d="M%.1f %.1fL%.1f %.1f"/>`, class, tip, x1, y1, x2, y2)
		return
	}
	middle := (y1 + y2) / 2
	v.add(`<path class="%s" marker-end="url(#%s)" d="M%.1f %.1fV%.1fH%.1fV%.1f"/>`, class, tip, x1, y1, middle, x2, y2)
}

// box draws a hop.
func (v *pathSVG) box(i int) {
	h := v.path.Hops[i]
	r := rowOf(h)
	class := "box"
	switch h.Action {
	case "drop", "reject", "refuses", "undecided":
		class = "end"
	case "delivers":
		class = "fine"
	}
	if h.After != nil {
		class = "nat"
	}
	x, y := v.x(h.NS)+10, v.y(i)
	v.add("<g>")
	v.add("<title>%s</title>", escape(strings.Join(nonEmpty(fmt.Sprintf("%s %s", h.NS, r.columns[1]), h.Action, h.Detail, r.note), " · ")))
	v.rect(class, x, y, v.laneWidth-20, boxHeight, 5)
	v.text("t12", x+8, y+13, fit(strings.Join(nonEmpty(r.columns[1], h.Action), " "), v.laneWidth*0.62, 12, sansWidth))
	if v.path.Kind == api.Actual {
		v.text("m m10 dim r", x+v.laneWidth-28, y+13, fmt.Sprintf("%.1f µs", h.AtMicros))
	} else if h.Rule != nil && h.Rule.Handle != 0 {
		v.text("m m10 dim r", x+v.laneWidth-28, y+13, fmt.Sprintf("handle %d", h.Rule.Handle))
	}
	v.text("m m10 dim", x+8, y+26, fit(r.columns[3], v.laneWidth-36, 10.5, monoWidth))
	letters := utf8.RuneCountInString(r.columns[3]) + utf8.RuneCountInString(r.note) + 2
	if float64(letters)*10.5*monoWidth < v.laneWidth-36 { // where there is room for all of it
		v.text("m m10 dim r", x+v.laneWidth-28, y+26, r.note)
	}
	v.add("</g>")
}
