//go:build linux

package nft_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
	"golang.org/x/sys/unix"
)

// TestExchangeInParts: over a socket with a small buffer, elements come and go in
// parts; when one is refused, what was done before is taken back.
func TestExchangeInParts(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		c := dial(t)
		def := load(t, c, "table inet t { map m { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { udp . 7 : 192.0.2.1 . 7, tcp . 3999 : 192.0.2.1 . 7 } } }")
		m := def.Sets[0].Set
		list := func(first, count int) []rules.Element {
			var out []rules.Element
			for i := range count {
				e, err := rules.ParseElement(m, fmt.Sprintf("tcp . %d : 10.0.0.2 . 80", first+i))
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, e)
			}
			return out
		}
		if err := c.LimitWriteBuffer(4608); err != nil { // SOCK_MIN_SNDBUF
			t.Fatal(err)
		}
		old, many := list(5000, 1000), list(10000, 2000)
		var b nft.Batch
		b.AddElements(m, old)
		if err := c.Commit(t.Context(), &b); !errors.Is(err, nft.ErrTooLarge) {
			t.Fatalf("commit %d elements over a small buffer: %v, want ErrTooLarge", len(old), err)
		}
		exchange := func(out, in []rules.Element) error {
			return c.Exchange(t.Context(), []nft.Elements{{Set: m, List: out}}, []nft.Elements{{Set: m, List: in}})
		}
		if err := exchange(nil, old); err != nil {
			t.Fatal(err)
		}
		// Elements are read in the order of a hash table, which changes as it is filled.
		elements := func() []rules.Element {
			list := read(t, c, rules.FamilyInet, "t").Sets[0].Elements
			slices.SortFunc(list, func(a, b rules.Element) int { return bytes.Compare(a.Key, b.Key) })
			return list
		}
		before := elements()
		if len(before) != 1002 {
			t.Fatalf("%d elements, want 1002", len(before))
		}
		// The last of them is there, with another value.
		if err := exchange(old, list(2000, 2000)); !errors.Is(err, unix.EEXIST) {
			t.Errorf("add what is there otherwise: %v, want EEXIST", err)
		}
		if diff := cmp.Diff(before, elements()); diff != "" {
			t.Errorf("a refused exchange left (-before +after):\n%s", diff)
		}
		if err := exchange(append(list(5000, 1000), list(60000, 1)...), many); !errors.Is(err, unix.ENOENT) {
			t.Errorf("remove what is not there: %v, want ENOENT", err)
		}
		if diff := cmp.Diff(before, elements()); diff != "" {
			t.Errorf("a refused exchange left (-before +after):\n%s", diff)
		}
		if err := exchange(old, many); err != nil {
			t.Fatal(err)
		}
		if n := len(elements()); n != 2002 {
			t.Errorf("%d elements after the exchange, want 2002", n)
		}
	})
}
