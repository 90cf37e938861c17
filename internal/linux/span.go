//go:build linux

package linux

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"

	"github.com/towpath/towpath/internal/kernel"
	rules "github.com/towpath/towpath/internal/nft"
)

// A range of published ports is one object, and as many elements in the kernel.
// They are made and recognized by their bytes: to write each as text would cost
// a hundred times what they take in the kernel.

// parseElement is the first of the elements that e stands for.
func parseElement(set rules.Set, e kernel.Element) (rules.Element, error) {
	text := e.Elem
	if e.Value != "" {
		text += " : " + e.Value
	}
	return rules.ParseElement(set, text)
}

// expand gives the elements at some places of a range that begins with first.
func expand(first rules.Element, places iter.Seq[uint16]) []rules.Element {
	list := slices.Collect(places)
	if len(list) == 1 && list[0] == 0 {
		return []rules.Element{first}
	}
	out := make([]rules.Element, len(list))
	room := make([]byte, 0, len(list)*(len(first.Key)+len(first.KeyEnd)+len(first.Data)))
	at := func(b []byte, n uint16) []byte {
		if b == nil {
			return nil
		}
		room = append(room, b...)
		copied := room[len(room)-len(b):]
		setPort(copied, port(b)+n)
		return copied
	}
	for i, n := range list {
		out[i] = first
		out[i].Key, out[i].KeyEnd, out[i].Data = at(first.Key, n), at(first.KeyEnd, n), at(first.Data, n)
	}
	return out
}

// A concatenation ends with its port, which is padded to 32 bits.
const portRoom = 4

func port(b []byte) uint16 { return binary.BigEndian.Uint16(b[len(b)-portRoom:]) }

func setPort(b []byte, n uint16) { binary.BigEndian.PutUint16(b[len(b)-portRoom:], n) }

// stretch is a wanted range, and which of its elements were seen.
type stretch struct {
	kernel.Element
	first rules.Element
	there []bool
	count int
}

// stretches are the wanted ranges of one set, by what their elements have in
// common: all of the key but the port.
type stretches map[string][]*stretch

// stem is what the elements of a range have in common.
func stem(e rules.Element) string {
	s := string(e.Key[:len(e.Key)-portRoom])
	if e.KeyEnd != nil {
		s += string(e.KeyEnd[:len(e.KeyEnd)-portRoom])
	}
	return s
}

// stretchesOf gathers the ranges that are wanted of a set.
func stretchesOf(set rules.Set, wanted []kernel.Element) stretches {
	all := stretches{}
	for _, e := range wanted {
		if e.Count <= 1 || e.Set != set.Name || !strings.HasSuffix(set.KeyType, " . inet_service") {
			continue
		}
		first, err := parseElement(set, e)
		if err != nil {
			continue // of another type than the set has: not there
		}
		all[stem(first)] = append(all[stem(first)], &stretch{Element: e, first: first, there: make([]bool, e.Count)})
	}
	return all
}

// take notes an element that belongs to a range. near says that it is in the
// place of one, but leads elsewhere.
func (all stretches) take(e rules.Element) (taken, near bool) {
	if len(all) == 0 || len(e.Key) < portRoom {
		return false, false
	}
	for _, s := range all[stem(e)] {
		i := int(port(e.Key)) - int(port(s.first.Key))
		if i < 0 || i >= len(s.there) {
			continue
		}
		want := slices.Clone(s.first.Data)
		setPort(want, port(want)+uint16(i))
		if !slices.Equal(e.Data, want) {
			return false, true
		}
		if !s.there[i] {
			s.there[i] = true
			s.count++
		}
		return true, false
	}
	return false, false
}

// seen gives the ranges of which something is there.
func (all stretches) seen() []kernel.Object {
	var out []kernel.Object
	for _, list := range all {
		for _, s := range list {
			switch s.count {
			case 0:
			case len(s.there):
				out = append(out, s.Element)
			default:
				out = append(out, s.Present(s.there))
			}
		}
	}
	return out
}
