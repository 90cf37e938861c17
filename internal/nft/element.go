package nft

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FormatElement writes an element of the set as nft lists it.
func FormatElement(s Set, e Element) string {
	var b strings.Builder
	if e.CatchAll {
		b.WriteString("*")
	} else {
		b.WriteString(formatParts(s.keyTypes(), e.Key, e.KeyEnd))
	}
	if e.Timeout != 0 {
		b.WriteString(" timeout " + formatDuration(e.Timeout))
	}
	if e.Comment != "" {
		b.WriteString(" comment " + quote(e.Comment))
	}
	switch {
	case s.Verdicts():
		b.WriteString(" : " + e.Verdict.String())
	case s.Map:
		b.WriteString(" : " + formatParts(s.dataTypes(), e.Data, nil))
	}
	return b.String()
}

// formatParts writes the parts of a concatenation. last is nil for a single
// value.
func formatParts(types []dataType, first, last []byte) string {
	var out []string
	for i, t := range types {
		n := t.size
		if n == 0 || n > len(first) || i == len(types)-1 && len(types) == 1 {
			n = len(first)
		}
		var end []byte
		if len(last) == len(first) {
			end = last[:n]
		}
		out = append(out, t.formatSpan(first[:n], end))
		step := min(pad4(n), len(first))
		first, last = first[step:], last[min(step, len(last)):]
	}
	return strings.Join(out, " . ")
}

// String writes the verdict as nft does.
func (v Verdict) String() string {
	switch v.Code {
	case Drop:
		return "drop"
	case Accept:
		return "accept"
	case Continue:
		return "continue"
	case Break:
		return "break"
	case Return:
		return "return"
	case Queue:
		return "queue"
	case Jump:
		return "jump " + v.Chain
	case Goto:
		return "goto " + v.Chain
	}
	return fmt.Sprintf("verdict#%d", int32(v.Code))
}

// ParseElement is the inverse of FormatElement.
func ParseElement(s Set, text string) (Element, error) {
	toks, err := tokenize(text)
	if err != nil {
		return Element{}, fmt.Errorf("parse element %q: %w", text, err)
	}
	r := reader{toks: toks}
	e, err := r.element(s)
	if err == nil && !r.done() {
		err = r.unexpected("the end")
	}
	if err == nil && e.KeyEnd != nil && s.Flags&SetInterval == 0 {
		err = errors.New("a range in a set without intervals")
	}
	if err != nil {
		return Element{}, fmt.Errorf("parse element %q: %w", text, err)
	}
	return e, nil
}

// element reads one element.
func (r *reader) element(s Set) (Element, error) {
	var e Element
	var err error
	if r.accept("*") {
		e.CatchAll = true
	} else if e.Key, e.KeyEnd, err = r.parts(s.keyTypes()); err != nil {
		return e, err
	}
	if err := r.attributes(&e); err != nil || !s.Map {
		return e, err
	}
	if err := r.expect(":"); err != nil {
		return e, err
	}
	if s.Verdicts() {
		var ok bool
		if e.Verdict, ok, err = r.verdict(); err == nil && !ok {
			err = r.unexpected("a verdict")
		}
		return e, err
	}
	var end []byte
	if e.Data, end, err = r.parts(s.dataTypes()); err == nil && end != nil {
		err = errors.New("the value of a map is a range")
	}
	return e, err
}

// attributes reads what may stand between key and value. How long the element
// has left to live and its counter are not kept.
func (r *reader) attributes(e *Element) error {
	for {
		var err error
		switch {
		case r.accept("comment"):
			if e.Comment, err = r.str(); err == nil && len(e.Comment) > MaxComment {
				err = fmt.Errorf("comment of %d bytes: at most %d", len(e.Comment), MaxComment)
			}
		case r.accept("timeout"):
			e.Timeout, err = parseDuration(r.next().text)
		case r.accept("expires"):
			_, err = parseDuration(r.next().text)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// parts reads the parts of a concatenation.
func (r *reader) parts(types []dataType) (first, last []byte, err error) {
	isRange := false
	for i, t := range types {
		if i > 0 {
			if err := r.expect("."); err != nil {
				return nil, nil, err
			}
		}
		if r.done() || t.size == 0 {
			return nil, nil, r.unexpected("a value of type " + t.name)
		}
		a, b, err := t.parseSpan(r.next())
		if err != nil {
			return nil, nil, err
		}
		isRange = isRange || b != nil && !bytes.Equal(a, b)
		if b == nil {
			b = a
		}
		first, last = append(first, a...), append(last, b...)
		if len(types) > 1 {
			pad := make([]byte, pad4(len(first))-len(first))
			first, last = append(first, pad...), append(last, pad...)
		}
	}
	if !isRange {
		return first, nil, nil
	}
	return first, last, nil
}

// anonymous reads "{ element, element }" of a set whose types are given,
// decides whether it has intervals, and sorts it.
func (c *compiler) anonymous(a *AnonymousSet) error {
	start := c.pos
	for {
		err := c.elements(a)
		if err != nil {
			return err
		}
		ranged := slices.ContainsFunc(a.Elements, func(e Element) bool { return e.KeyEnd != nil })
		if !ranged || a.Flags&SetInterval != 0 {
			break
		}
		// With intervals the keys have another byte order: read again.
		a.Flags, a.Elements, c.pos = SetInterval, nil, start
	}
	SortElements(a.Set(), a.Elements)
	return nil
}

func (c *compiler) elements(a *AnonymousSet) error {
	if err := c.expect("{"); err != nil {
		return err
	}
	for {
		e, err := c.element(a.Set())
		if err != nil {
			return err
		}
		a.Elements = append(a.Elements, e)
		if !c.accept(",") {
			return c.expect("}")
		}
		if c.accept("}") {
			return nil
		}
	}
}

// SortElements puts elements in the order nft prints them: by value, where nft
// takes a whole concatenation for one number in host byte order; the catch-all
// element last.
func SortElements(s Set, elements []Element) {
	types := s.keyTypes()
	host := len(types) > 1 || types[0].host
	slices.SortStableFunc(elements, func(a, b Element) int {
		if a.CatchAll != b.CatchAll {
			if a.CatchAll {
				return 1
			}
			return -1
		}
		if host && littleHost() {
			return compareReversed(a.Key, b.Key)
		}
		return bytes.Compare(a.Key, b.Key)
	})
}

// compareReversed compares little-endian numbers of one length.
func compareReversed(a, b []byte) int {
	for i := min(len(a), len(b)) - 1; i >= 0; i-- {
		if a[i] != b[i] {
			return int(a[i]) - int(b[i])
		}
	}
	return len(a) - len(b)
}

// durationUnits are nft's units, in nanoseconds.
var durationUnits = []symbol{
	{"d", uint64(24 * time.Hour)},
	{"h", uint64(time.Hour)},
	{"m", uint64(time.Minute)},
	{"s", uint64(time.Second)},
	{"ms", uint64(time.Millisecond)},
}

// formatDuration writes 1d2h3m4s5ms.
func formatDuration(d time.Duration) string {
	out := ""
	for _, u := range durationUnits {
		if n := d / time.Duration(u.value); n > 0 {
			out += fmt.Sprintf("%d%s", n, u.name)
			d -= n * time.Duration(u.value)
		}
	}
	if out == "" {
		return "0s"
	}
	return out
}

// parseDuration is the inverse of formatDuration.
func parseDuration(s string) (time.Duration, error) {
	var sum time.Duration
	for rest := s; rest != "" || s == ""; {
		digits := strings.TrimLeft(rest, "0123456789")
		n, err := strconv.ParseUint(rest[:len(rest)-len(digits)], 10, 31)
		unit := digits[:len(digits)-len(strings.TrimLeft(digits, "dhms"))]
		v, ok := symbolValue(durationUnits, unit)
		if err != nil || !ok {
			return 0, fmt.Errorf("parse duration %q: not like 1d2h3m4s5ms", s)
		}
		sum += time.Duration(n) * time.Duration(v)
		rest = digits[len(unit):]
	}
	return sum, nil
}
