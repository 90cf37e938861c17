package draw

import (
	"strings"

	"github.com/towpath/towpath/api"
)

// Measures of the drawing, in pixels.
const (
	mapWidth  = 1200.0
	margin    = 24.0
	inset     = 16.0 // between a box and what is in it
	spacing   = 14.0 // between boxes
	panelHead = 46.0 // of a network: its name and its addresses
)

// cardSize is how large the members of a network are drawn: the smaller, the
// more there are.
type cardSize struct {
	w, h, stem, gap float64
	name, text      float64 // sizes of the fonts
	lines           int
}

func sizeFor(members int) cardSize {
	switch {
	case members <= 12:
		return cardSize{w: 210, h: 66, stem: 18, gap: 14, name: 13, text: 11, lines: 3}
	case members <= 60:
		return cardSize{w: 148, h: 42, stem: 9, gap: 10, name: 12, text: 10.5, lines: 2}
	}
	return cardSize{w: 106, h: 33, stem: 6, gap: 7, name: 10.5, text: 9.5, lines: 2}
}

// box is a place in the drawing.
type box struct{ x, y, w, h float64 }

func (b box) centre() float64 { return b.x + b.w/2 }
func (b box) bottom() float64 { return b.y + b.h }

// panel is a network with a place, and its members in rows.
type panel struct {
	box
	network api.MapNetwork
	size    cardSize
	columns int
	cards   []box
}

// layout is where everything is.
type layout struct {
	*chart
	outside box
	uplinks []box
	host    box
	panels  []panel
	others  box // a line of text
	apart   []box
	bottom  float64
	// at is the first place of each namespace.
	at map[string]box
}

func newLayout(c *chart) *layout {
	l := &layout{chart: c, at: map[string]box{}}
	y := 74.0
	if up := c.uplinks(); len(up) > 0 {
		l.outside = box{x: margin, y: y, w: mapWidth - 2*margin, h: 30}
		l.at["outside"] = l.outside
		y += l.outside.h + 26
	}
	l.host = box{x: margin, y: y, w: mapWidth - 2*margin}
	l.at[hostID] = box{x: margin, y: y, w: 120, h: 24}
	y = l.placeUplinks(y + 34)
	y = l.placePanels(y)
	if len(c.others()) > 0 {
		l.others = box{x: l.host.x + inset, y: y, w: l.host.w - 2*inset, h: 20}
		y = l.others.bottom() + spacing
	}
	l.host.h = y - l.host.y
	l.bottom = l.placeApart(l.host.bottom() + spacing)
	return l
}

// placeUplinks puts the uplinks side by side below y.
func (l *layout) placeUplinks(y float64) float64 {
	up := l.chart.uplinks()
	if len(up) == 0 {
		return y
	}
	const w, h = 250.0, 58.0
	x, top := l.host.x+inset, y
	for range up {
		if x+w > l.host.x+l.host.w-inset {
			x, top = l.host.x+inset, top+h+spacing
		}
		l.uplinks = append(l.uplinks, box{x, top, w, h})
		x += w + spacing
	}
	return top + h + spacing + 6
}

// placePanels fills shelves with networks below y.
func (l *layout) placePanels(y float64) float64 {
	left, right := l.host.x+inset, l.host.x+l.host.w-inset
	x, shelf, height := left, y, 0.0
	for _, n := range l.Networks {
		p := measure(n, right-left)
		if x > left && x+p.w > right {
			x, shelf, height = left, shelf+height+spacing, 0
		}
		p.move(x, shelf)
		l.panels = append(l.panels, p)
		x, height = x+p.w+spacing, max(height, p.h)
		for i, m := range n.Members {
			if _, placed := l.at[m.Namespace]; m.Namespace != "" && !placed {
				l.at[m.Namespace] = p.cards[i]
			}
		}
	}
	if height == 0 {
		return y
	}
	return shelf + height + spacing
}

// measure gives a network its size, with its corner at 0, 0.
func measure(n api.MapNetwork, most float64) panel {
	p := panel{network: n, size: sizeFor(len(n.Members))}
	s := p.size
	fits := max(1, int((most-2*inset+s.gap)/(s.w+s.gap)))
	p.columns = max(1, min(fits, len(n.Members)))
	if len(n.Members) > fits { // the last row as full as the others
		rows := (len(n.Members) + fits - 1) / fits
		p.columns = (len(n.Members) + rows - 1) / rows
	}
	title := float64(len(networkTitle(n)))*13*sansWidth + 2*inset
	under := float64(len(panelLine(n)))*11*monoWidth + 2*inset
	p.w = min(most, max(title, under, 2*inset+float64(p.columns)*(s.w+s.gap)-s.gap))
	row := s.stem + s.h + s.gap
	for i := range n.Members {
		x := inset + float64(i%p.columns)*(s.w+s.gap)
		y := panelHead + s.stem + float64(i/p.columns)*row
		p.cards = append(p.cards, box{x, y, s.w, s.h})
	}
	rows := (len(n.Members) + p.columns - 1) / p.columns
	p.h = panelHead + float64(rows)*row + 6
	if rows == 0 {
		p.h = panelHead + 26
	}
	return p
}

func (p *panel) move(x, y float64) {
	p.x, p.y = x, y
	for i := range p.cards {
		p.cards[i].x += x
		p.cards[i].y += y
	}
}

// panelLine is what stands below the name of a network.
func panelLine(n api.MapNetwork) string {
	return strings.ReplaceAll(join(n.Device, prefixes(n.Subnets), gatewayWords(n), down(n.State)), "  ", " · ")
}

// placeApart puts namespaces on no network side by side below y.
func (l *layout) placeApart(y float64) float64 {
	all := l.chart.apart()
	if len(all) == 0 {
		return y
	}
	s := sizeFor(max(13, len(all)))
	x, top := margin, y+22
	for _, ns := range all {
		if x+s.w > mapWidth-margin {
			x, top = margin, top+s.h+s.gap
		}
		b := box{x, top, s.w, s.h}
		l.apart = append(l.apart, b)
		l.at[ns.ID] = b
		x += s.w + s.gap
	}
	return top + s.h + spacing
}
