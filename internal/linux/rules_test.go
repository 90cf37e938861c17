//go:build linux

package linux_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

// table is what the objects of these tests have in common.
func table() rules.Table { return rules.Table{Family: rules.FamilyInet, Name: "towpath"} }

func chain(name string) rules.Chain {
	return rules.Chain{Family: rules.FamilyInet, Table: "towpath", Name: name}
}

// commit carries out a transaction as somebody else.
func (h *host) commit(fill func(b *nft.Batch)) {
	h.Helper()
	var b nft.Batch
	fill(&b)
	must(h, h.rules().Commit(h.Context(), &b))
}

// TestProtected: a table with flags survives a flush of everything by others,
// and our own end; after a new start it is ours again.
func TestProtected(t *testing.T) {
	testnet.Require(t, "nft-binary")
	h := newHost(t, true)
	v, want := h.small()
	if v.Host.TableFlags == "" {
		t.Skip("skip: needs table flags owner and persist: this kernel has none")
	}
	h.put(nil, want)
	flush := func() {
		t.Helper()
		if _, err := h.ns.Output(t.Context(), "nft", "flush", "ruleset"); err != nil {
			t.Fatal(err)
		}
	}
	flush()
	h.agrees(want)

	must(t, h.Close())
	h.open(true)
	ops := kernel.Diff(h.see(want, true), want)
	takeOver := []string{
		"~ host: table inet towpath flags owner,persist", "~ host: table ip towpath flags owner,persist",
		"~ host: table netdev towpath flags owner,persist",
	}
	if !slices.EqualFunc(ops, takeOver, func(op kernel.Op, text string) bool { return op.String() == text }) {
		t.Fatalf("after a new start there is to do %v, want only to take the tables over", ops)
	}
	h.put(h.see(want, true), want)
	h.agrees(want)
	flush()
	h.agrees(want)
}

// TestProtectionComesAndGoes: tables without protection, as an older kernel, a
// daemon told so or a stranger left them, are exchanged for protected ones; the
// other way there is nothing to do.
func TestProtectionComesAndGoes(t *testing.T) {
	h := newHost(t, false)
	_, plain := h.small()
	h.put(nil, plain)
	h.commit(func(b *nft.Batch) { b.AddChain(chain("strangers")) })

	must(t, h.Close())
	h.open(true)
	v, want := h.small()
	if v.Host.TableFlags == "" {
		t.Skip("skip: needs table flags owner and persist: this kernel has none")
	}
	h.put(h.see(want, true), want)
	h.agrees(want)

	must(t, h.Close())
	h.open(false)
	h.agrees(plain)
}

// TestForeignHands: what somebody changes of an unprotected table is seen and
// put back, by the least that does.
func TestForeignHands(t *testing.T) {
	drop, err := rules.ParseRule(rules.FamilyInet, "counter drop")
	must(t, err)
	for name, tc := range map[string]struct {
		harm func(c *nft.Conn, b *nft.Batch)
		ops  []string // how the ops begin
	}{
		"rule added": {
			func(_ *nft.Conn, b *nft.Batch) { b.AddRule(chain("forward"), drop) },
			[]string{"~ host: chain inet towpath forward"},
		},
		"chain emptied": {
			func(_ *nft.Conn, b *nft.Batch) { b.FlushChain(chain("postrouting")) },
			[]string{"~ host: chain inet towpath postrouting"},
		},
		"chain deleted": {
			func(_ *nft.Conn, b *nft.Batch) { b.FlushChain(chain("forward")); b.DeleteChain(chain("forward")) },
			[]string{"+ host: chain inet towpath forward"},
		},
		"chain added": {
			func(_ *nft.Conn, b *nft.Batch) { b.AddChain(chain("mine")); b.AddRule(chain("mine"), drop) },
			[]string{"- host: chain inet towpath mine"},
		},
		"policy changed": {
			func(_ *nft.Conn, b *nft.Batch) {
				c := chain("forward")
				c.Type, c.Hook, c.Policy = "filter", "forward", "drop"
				b.AddChain(c)
			},
			nil, // the whole table is made anew
		},
		"set deleted": {
			func(_ *nft.Conn, b *nft.Batch) {
				b.FlushChain(chain("postrouting"))
				b.DeleteSet(rules.Set{Family: rules.FamilyInet, Table: "towpath", Name: "nat_out"})
			},
			[]string{
				"+ host: set inet towpath nat_out", "~ host: chain inet towpath postrouting",
				`+ host: element inet towpath nat_out { "tp-back" }`, `+ host: element inet towpath nat_out { "tp-front" }`,
			},
		},
		"verdict changed": {
			func(c *nft.Conn, b *nft.Batch) {
				same := set(t, c, "same")
				e, err := rules.ParseElement(same, `"tp-back" . "tp-back" : accept`)
				must(t, err)
				b.DeleteElements(same, []rules.Element{e})
				b.AddElements(same, []rules.Element{e})
			},
			[]string{`~ host: element inet towpath same { "tp-back" . "tp-back" : jump icc_off }`},
		},
		"map emptied": {
			func(c *nft.Conn, b *nft.Batch) { b.FlushSet(set(t, c, "leave")) },
			[]string{`+ host: element inet towpath leave { "tp-back" : accept }`, `+ host: element inet towpath leave { "tp-front" : accept }`},
		},
		"table deleted": {func(_ *nft.Conn, b *nft.Batch) { b.DeleteTable(table()) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, false)
			_, want := h.small()
			h.put(nil, want)
			h.commit(func(b *nft.Batch) { tc.harm(h.rules(), b) })
			seen := h.see(want, true)
			ops := kernel.Diff(seen, want)
			if len(ops) == 0 {
				t.Fatal("nobody saw it")
			}
			if tc.ops != nil && !slices.EqualFunc(ops, tc.ops, func(op kernel.Op, begin string) bool { return strings.HasPrefix(op.String(), begin) }) {
				t.Errorf("to do: %v\nwant: %q", ops, tc.ops)
			}
			h.put(seen, want)
			h.agrees(want)
		})
	}
}

// set finds a set of our table.
func set(t *testing.T, c *nft.Conn, name string) rules.Set {
	t.Helper()
	sets, err := c.Sets(t.Context(), rules.FamilyInet, "towpath")
	must(t, err)
	i := slices.IndexFunc(sets, func(s rules.Set) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no set %s among %v", name, sets)
	}
	return sets[i]
}

// TestRefusedTransaction: what the kernel refuses of the rules leaves all of
// them as they were, and the error names the operation.
func TestRefusedTransaction(t *testing.T) {
	h := newHost(t, false)
	_, have := h.small()
	h.put(nil, have)
	for name, tc := range map[string]struct {
		bad   kernel.Object
		words string
		errno unix.Errno
	}{
		"jump to no chain": {
			kernel.Chain{NS: kernel.Host, Family: "inet", Table: "towpath", Name: "bad", Rules: "counter jump nowhere\n"},
			"add rule inet towpath bad counter jump nowhere", unix.ENOENT,
		},
		"element that jumps to no chain": {
			kernel.Element{NS: kernel.Host, Family: "inet", Table: "towpath", Set: "leave", Elem: `"tp-x"`, Value: "jump nowhere"},
			"elements of inet towpath leave", unix.ENOENT,
		},
		"other table": {
			kernel.Chain{NS: kernel.Host, Family: "inet", Table: "other", Name: "bad"},
			"add chain inet other bad", unix.ENOENT,
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := have.Clone()
			good := kernel.Element{NS: kernel.Host, Family: "inet", Table: "towpath", Set: "nat_out", Elem: `"tp-new"`}
			must(t, want.Add(tc.bad, good))
			ops := kernel.Diff(have, want)
			fs := h.Apply(t.Context(), ops)
			if len(fs) != len(ops) {
				t.Errorf("%d of %d ops failed, want all: they are one transaction", len(fs), len(ops))
			}
			for _, f := range fs {
				if !errors.Is(f.Err, tc.errno) || !strings.Contains(f.Err.Error(), tc.words) {
					t.Errorf("error %q, want %q and %q", f.Err, tc.words, tc.errno)
				}
			}
			h.agrees(have)
		})
	}
}

// TestManyElements: a transaction of thousands of elements goes in and out.
func TestManyElements(t *testing.T) {
	h := newHost(t, false)
	_, have := h.small()
	h.put(nil, have)
	want := have.Clone()
	for i := range 3000 {
		name := `"x` + strings.Repeat("y", i%10) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)) + `"`
		must(t, want.Add(kernel.Element{NS: kernel.Host, Family: "inet", Table: "towpath", Set: "nat_out", Elem: name}))
	}
	h.put(have, want)
	h.agrees(want)
	h.put(want, have)
	h.agrees(have)
}

// TestRange: a range of ports is one object, whose elements are in the kernel
// one by one; what is lost or changed of them is told and put right, alone.
func TestRange(t *testing.T) {
	h := newHost(t, false)
	v, _ := h.small()
	v.Publications.Put(&api.Publication{Sandbox: "web", HostPort: 8000, Port: 9000, Count: 100, Proto: "udp", From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	v.Publications.Put(&api.Publication{Sandbox: "web", HostPort: 8000, Port: 9000, Count: 100, Proto: "tcp"})
	want := plan(t, v)
	h.put(nil, want)
	h.agrees(want)
	any4 := h.set("publish4_any")
	part := func(lines ...string) []rules.Element {
		var out []rules.Element
		for _, line := range lines {
			e, err := rules.ParseElement(any4, line)
			must(t, err)
			out = append(out, e)
		}
		return out
	}
	h.commit(func(b *nft.Batch) {
		b.DeleteElements(any4, part("tcp . 8001 : 0.0.0.0 . 0", "tcp . 8098 : 0.0.0.0 . 0"))
		b.AddElements(any4, part("tcp . 8098 : 198.51.100.1 . 1"))
	})
	for _, sweep := range []bool{false, true} {
		ops := kernel.Diff(h.see(want, sweep), want)
		var got []string
		for _, op := range ops {
			got = append(got, op.String())
		}
		lines := []string{
			"- host: element inet towpath publish4_any { tcp . 8098 : 198.51.100.1 . 1 }",
			"~ host: element inet towpath publish4_any { tcp . 8000-8099 : 172.20.0.2 . 9000-9099 }",
		}
		if diff := cmp.Diff(lines, got); diff != "" {
			t.Errorf("with sweep=%t to do (-want +got):\n%s", sweep, diff)
		}
	}
	h.put(h.see(want, false), want)
	h.agrees(want)

	// It leads elsewhere, and away again.
	moved := want.Clone()
	for k, o := range moved {
		if e, ok := o.(kernel.Element); ok && e.Count > 1 && strings.HasPrefix(e.Set, "publish4") {
			e.Value = "172.20.0.77 . 7000"
			moved[k] = e
		}
	}
	h.put(want, moved)
	h.agrees(moved)
	h.put(moved, want)
	h.agrees(want)
	v.Publications.Delete("*:8000-8099/udp")
	v.Publications.Delete("*:8000-8099/tcp")
	without := plan(t, v)
	h.put(want, without)
	h.agrees(without)
}

// set gives a set of the table as it is in the kernel.
func (h *host) set(name string) rules.Set {
	h.Helper()
	all, err := h.rules().Sets(h.Context(), rules.FamilyInet, "towpath")
	must(h, err)
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	h.Fatalf("no set %s", name)
	return rules.Set{}
}
