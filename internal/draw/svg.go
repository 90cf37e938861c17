package draw

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// canvas collects the elements of an SVG document.
type canvas struct{ b strings.Builder }

// add writes a line of markup; strings in it must be escaped.
func (c *canvas) add(format string, args ...any) { fmt.Fprintf(&c.b, format+"\n", args...) }

// rect writes a rectangle with rounded corners.
func (c *canvas) rect(class string, x, y, w, h, round float64) {
	c.add(`<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="%.1f"/>`, class, x, y, w, h, round)
}

// line writes a straight line.
func (c *canvas) line(class string, x1, y1, x2, y2 float64) {
	c.add(`<path class="%s" d="M%.1f %.1fL%.1f %.1f"/>`, class, x1, y1, x2, y2)
}

// text writes a line of text.
func (c *canvas) text(class string, x, y float64, text string) {
	if text != "" {
		c.add(`<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, escape(text))
	}
}

// Widths of a letter by the size of the font, a little more than those of the
// fonts that are usual.
const (
	sansWidth = 0.62
	monoWidth = 0.61
)

// fit cuts a text that is too wide.
func fit(text string, width, size, letter float64) string {
	n := int(width / (size * letter))
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	if n < 2 {
		return ""
	}
	return string([]rune(text)[:n-1]) + "…"
}

// escape makes text markup. Control characters have no place in XML.
func escape(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == utf8.RuneError || r == 0xfffe || r == 0xffff {
			return -1
		}
		return r
	}, s)
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}
