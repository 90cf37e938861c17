package kernel

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A range of ports is one object however long it is: an element, or a socket,
// that stands for as many as Count says. The first one is written out; in each
// that follows, the port with which key and value end is one more.

// Each gives the elements that e stands for, which are not lacking, in order.
func (e Element) Each() iter.Seq[Element] {
	return func(yield func(Element) bool) {
		for i := range e.Places() {
			if !yield(e.At(i)) {
				return
			}
		}
	}
}

// Places are those of the elements that e stands for, without what it lacks.
func (e Element) Places() iter.Seq[uint16] { return e.places(false) }

// Missing are the places of the elements that e lacks.
func (e Element) Missing() iter.Seq[uint16] { return e.places(true) }

func (e Element) places(missing bool) iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		lacks := e.lacking()
		for i := range max(e.Count, 1) {
			if (len(lacks) > 0 && lacks[i]) == missing && !yield(i) {
				return
			}
		}
	}
}

// At is one of the elements that e stands for.
func (e Element) At(i uint16) Element {
	if e.Count <= 1 {
		return e
	}
	return Element{NS: e.NS, Family: e.Family, Table: e.Table, Set: e.Set, Elem: later(e.Elem, i), Value: later(e.Value, i)}
}

// Present is e with those of its elements that are there.
func (e Element) Present(there []bool) Element {
	var parts []string
	for i := 0; i < len(there); i++ {
		if there[i] {
			continue
		}
		last := i
		for last+1 < len(there) && !there[last+1] {
			last++
		}
		parts = append(parts, portSpan(i, last-i+1))
		i = last
	}
	e.Lacks = strings.Join(parts, ",")
	return e
}

// lacking reads Lacks; nil when there is none.
func (e Element) lacking() []bool {
	if e.Lacks == "" {
		return nil
	}
	out := make([]bool, max(e.Count, 1))
	for part := range strings.SplitSeq(e.Lacks, ",") {
		first, count, err := parseSpan(part)
		if err != nil || first+count > len(out) {
			continue // ours, from Present
		}
		for i := range count {
			out[first+i] = true
		}
	}
	return out
}

// later adds to the number that a text ends with.
func later(text string, n uint16) string {
	at := strings.LastIndexByte(text, ' ') + 1
	first, err := strconv.Atoi(text[at:])
	if err != nil {
		return text
	}
	return text[:at] + strconv.Itoa(first+int(n))
}

// spanned writes a text that ends with a number, and stands for count of them.
func spanned(text string, count uint16) string {
	if count <= 1 || text == "" {
		return text
	}
	at := strings.LastIndexByte(text, ' ') + 1
	return text + "-" + later(text, count-1)[at:]
}

// portSpan writes "80", or "80-89" for ten.
func portSpan(first, count int) string {
	if count <= 1 {
		return strconv.Itoa(first)
	}
	return strconv.Itoa(first) + "-" + strconv.Itoa(first+count-1)
}

// parseSpan is the inverse of portSpan.
func parseSpan(s string) (first, count int, err error) {
	a, b, isSpan := strings.Cut(s, "-")
	if first, err = strconv.Atoi(a); err != nil || !isSpan {
		return first, 1, err
	}
	last, err := strconv.Atoi(b)
	if err != nil || last <= first {
		return 0, 0, fmt.Errorf("%q is no range", s)
	}
	return first, last - first + 1, nil
}

// text is the socket's address with all its ports.
func (s Socket) text() string {
	if s.Count <= 1 {
		return s.Addr.String()
	}
	return s.Addr.String() + "-" + strconv.Itoa(int(s.Addr.Port())+int(s.Count)-1)
}

// Each gives the addresses of the sockets that s stands for, in order.
func (s Socket) Each() iter.Seq[netip.AddrPort] {
	return func(yield func(netip.AddrPort) bool) {
		for i := range max(s.Count, 1) {
			if !yield(netip.AddrPortFrom(s.Addr.Addr(), s.Addr.Port()+i)) {
				return
			}
		}
	}
}

// parseSocket reads what Socket.text writes.
func parseSocket(s string) (addr netip.AddrPort, count uint16, err error) {
	colon := strings.LastIndexByte(s, ':') + 1
	first, n, err := parseSpan(s[colon:])
	if err != nil || first+n > 1<<16 {
		return addr, 0, fmt.Errorf("%q is no address with ports", s)
	}
	addr, err = netip.ParseAddrPort(s[:colon] + strconv.Itoa(first))
	if n == 1 {
		n = 0
	}
	return addr, uint16(n), err
}

// elementLines are the lines of a set's elements, sorted.
func elementLines(elems []Element) []string {
	var all []Element
	for _, e := range elems {
		all = slices.AppendSeq(all, e.Each())
	}
	slices.SortFunc(all, func(a, b Element) int { return strings.Compare(a.Elem, b.Elem) })
	lines := make([]string, len(all))
	for i, e := range all {
		lines[i] = e.text()
	}
	return lines
}
