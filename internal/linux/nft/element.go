//go:build linux

package nft

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	rules "github.com/towpath/towpath/internal/nft"
)

// Limits of one message: an attribute's length has 16 bits, and one message is
// kept well below what a socket buffer of the usual size holds.
const (
	maxElements      = 500
	maxElementsBytes = 48 << 10
)

// rawElement is an element as the kernel has it: in a set of intervals with
// keys of one part, a range is a beginning and an end one past it.
type rawElement struct {
	rules.Element
	end bool
}

// toRaw divides elements into the kernel's.
func toRaw(s rules.Set, elements []rules.Element) []rawElement {
	out := make([]rawElement, 0, len(elements))
	concat := concatFields(s) != nil
	interval := s.Flags&rules.SetInterval != 0
	for _, e := range elements {
		switch {
		case e.CatchAll || !interval:
			out = append(out, rawElement{Element: e})
		case concat:
			if e.KeyEnd == nil {
				e.KeyEnd = e.Key
			}
			out = append(out, rawElement{Element: e})
		default:
			last := e.KeyEnd
			if last == nil {
				last = e.Key
			}
			e.KeyEnd = nil
			out = append(out, rawElement{Element: e})
			if past, ok := increment(last); ok {
				out = append(out, rawElement{Element: rules.Element{Key: past}, end: true})
			}
		}
	}
	return out
}

// increment gives the next key; false after the last.
func increment(key []byte) ([]byte, bool) {
	out := bytes.Clone(key)
	for i := len(out) - 1; i >= 0; i-- {
		out[i]++
		if out[i] != 0 {
			return out, true
		}
	}
	return nil, false
}

// decrement is the inverse of increment.
func decrement(key []byte) []byte {
	out := bytes.Clone(key)
	for i := len(out) - 1; i >= 0; i-- {
		out[i]--
		if out[i] != 0xff {
			break
		}
	}
	return out
}

// fromRaw is the inverse of toRaw, for a whole set. nft leaves out the end of
// an interval that another one follows, and the end of the last.
func fromRaw(s rules.Set, raw []rawElement) []rules.Element {
	out := make([]rules.Element, 0, len(raw))
	if s.Flags&rules.SetInterval == 0 || concatFields(s) != nil {
		for _, e := range raw {
			if bytes.Equal(e.Key, e.KeyEnd) {
				e.KeyEnd = nil
			}
			out = append(out, e.Element)
		}
		return out
	}
	slices.SortStableFunc(raw, func(a, b rawElement) int {
		if c := bytes.Compare(a.Key, b.Key); c != 0 || a.end == b.end {
			return c
		}
		if a.end {
			return -1
		}
		return 1
	})
	open := false
	for _, e := range raw {
		if open {
			closeInterval(&out[len(out)-1], decrement(e.Key))
		}
		if open = !e.end && !e.CatchAll; open || e.CatchAll {
			out = append(out, e.Element)
		}
	}
	if open {
		last := &out[len(out)-1]
		closeInterval(last, bytes.Repeat([]byte{0xff}, len(last.Key)))
	}
	return out
}

func closeInterval(e *rules.Element, last []byte) {
	if !bytes.Equal(e.Key, last) {
		e.KeyEnd = last
	}
}

// elementMessages writes elements into as many messages as they need. id is
// the number of an anonymous set in this transaction, or 0. For a deletion
// only keys are written.
func elementMessages(typ uint8, flags netlink.HeaderFlags, s rules.Set, id uint32, elements []rules.Element) ([]message, error) {
	raw := toRaw(s, elements)
	var out []message
	for len(raw) > 0 {
		n, size := 0, 0
		for n < len(raw) && n < maxElements && size < maxElementsBytes {
			size += elementSize(raw[n])
			n++
		}
		chunk := raw[:n]
		raw = raw[n:]
		attrs, err := encodeElements(s, id, chunk, typ == msgDelSetElem)
		if err != nil {
			return nil, err
		}
		out = append(out, message{typ: typ, flags: flags, family: s.Family, attrs: attrs})
	}
	return out, nil
}

// elementSize is an upper bound of what an element takes in a message.
func elementSize(e rawElement) int {
	return 96 + len(e.Key) + len(e.KeyEnd) + len(e.Data) + len(e.Comment) + len(e.Verdict.Chain)
}

// encodeElements names the set and elements of it; with none it names all.
func encodeElements(s rules.Set, id uint32, elements []rawElement, keysOnly bool) ([]byte, error) {
	for _, e := range elements {
		if len(e.Comment) > rules.MaxComment {
			return nil, fmt.Errorf("encode element %s: comment of %d bytes: at most %d",
				rules.FormatElement(s, e.Element), len(e.Comment), rules.MaxComment)
		}
	}
	return attributes(func(ae *netlink.AttributeEncoder) {
		ae.String(attrElemListTable, s.Table)
		ae.String(attrElemListSet, s.Name)
		if id != 0 {
			ae.Uint32(attrElemListSetID, id)
		}
		if len(elements) == 0 {
			return
		}
		nested(ae, attrElemListElements, func(l *netlink.AttributeEncoder) {
			for _, e := range elements {
				nested(l, attrListElem, func(n *netlink.AttributeEncoder) { encodeElement(n, s, e, keysOnly) })
			}
		})
	})
}

func encodeElement(ae *netlink.AttributeEncoder, s rules.Set, e rawElement, keyOnly bool) {
	var flags uint32
	if e.end {
		flags |= elemIntervalEnd
	}
	if e.CatchAll {
		flags |= elemCatchAll
	} else {
		marshalData(ae, attrElemKey, e.Key)
	}
	if e.KeyEnd != nil {
		marshalData(ae, attrElemKeyEnd, e.KeyEnd)
	}
	if flags != 0 {
		ae.Uint32(attrElemFlags, flags)
	}
	if keyOnly || e.end {
		return
	}
	if e.Timeout != 0 {
		ae.Uint64(attrElemTimeout, uint64(e.Timeout.Milliseconds()))
	}
	if e.Comment != "" {
		ae.Bytes(attrElemUserData, udata(nil, udataElemComment, append([]byte(e.Comment), 0)))
	}
	switch {
	case s.Verdicts():
		marshalVerdict(ae, attrElemData, e.Verdict)
	case s.Map:
		marshalData(ae, attrElemData, e.Data)
	}
}

// decodeElements reads the elements of one message.
func decodeElements(attrs []byte) ([]rawElement, error) {
	var out []rawElement
	ad, err := decoder(attrs)
	if err != nil {
		return nil, err
	}
	for ad.Next() {
		if ad.Type() != attrElemListElements {
			continue
		}
		ad.Nested(func(l *netlink.AttributeDecoder) error {
			for l.Next() {
				e, err := decodeElement(l.Bytes())
				if err != nil {
					return err
				}
				out = append(out, e)
			}
			return nil
		})
	}
	return out, ad.Err()
}

func decodeElement(b []byte) (rawElement, error) {
	var e rawElement
	ad, err := decoder(b)
	if err != nil {
		return e, err
	}
	for ad.Next() {
		switch ad.Type() {
		case attrElemKey:
			e.Key = unmarshalData(ad.Bytes())
		case attrElemKeyEnd:
			e.KeyEnd = unmarshalData(ad.Bytes())
		case attrElemData:
			if v, ok := unmarshalVerdict(ad.Bytes()); ok {
				e.Verdict = v
			} else {
				e.Data = unmarshalData(ad.Bytes())
			}
		case attrElemFlags:
			flags := ad.Uint32()
			e.end, e.CatchAll = flags&elemIntervalEnd != 0, flags&elemCatchAll != 0
		case attrElemTimeout:
			e.Timeout = time.Duration(ad.Uint64()) * time.Millisecond
		case attrElemUserData:
			e.Comment = commentOf(ad.Bytes(), udataElemComment)
		}
	}
	return e, ad.Err()
}
