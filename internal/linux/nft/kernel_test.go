//go:build linux

package nft_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
	"golang.org/x/sys/unix"
)

// ignoreHandles leaves out what the kernel numbers.
var ignoreHandles = cmp.Options{cmpopts.IgnoreFields(rules.Rule{}, "Handle"), cmpopts.EquateEmpty()}

// load commits a table written as text.
func load(t *testing.T, c *nft.Conn, text string) rules.TableDef {
	t.Helper()
	def, err := rules.ParseTable(text)
	if err != nil {
		t.Fatal(err)
	}
	var b nft.Batch
	b.AddTableDef(def)
	if err := c.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return def
}

// read reads a table.
func read(t *testing.T, c *nft.Conn, f rules.Family, name string) rules.TableDef {
	t.Helper()
	def, err := c.ReadTable(t.Context(), f, name)
	if err != nil {
		t.Fatal(err)
	}
	return def
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sortedElements joins the lines of each element list and sorts its elements:
// nft's order of concatenations is its own.
func sortedElements(text string) string {
	list := regexp.MustCompile(`elements = \{ ([^}]*) \}`)
	return list.ReplaceAllStringFunc(text, func(m string) string {
		elements := regexp.MustCompile(`,\s+`).Split(list.FindStringSubmatch(m)[1], -1)
		slices.Sort(elements)
		return "elements = { " + strings.Join(elements, ", ") + " }"
	})
}

// Each file is one table as nft 1.0.6 lists it.
func TestTablesThroughTheKernel(t *testing.T) {
	for _, file := range []string{"towpath.nft", "guard.nft"} {
		t.Run(file, func(t *testing.T) {
			inNamespace(t, func(t *testing.T) {
				text := readFile(t, "../../nft/testdata/"+file)
				c := dial(t)
				want := load(t, c, text)
				got := read(t, c, want.Family, want.Name)
				for i := range want.Sets {
					rules.SortElements(want.Sets[i].Set, want.Sets[i].Elements)
				}
				if diff := cmp.Diff(want, got, ignoreHandles); diff != "" {
					t.Errorf("read back (-want +got):\n%s", diff)
				}
				listed := nftOutput(t, "", "-s", "list", "table", want.Family.String(), want.Name)
				if diff := cmp.Diff(sortedElements(listed), sortedElements(got.String())); diff != "" {
					t.Errorf("against nft (-nft +ours):\n%s", diff)
				}
			})
		})
	}
}

// section is one chain of testdata/rules.txt.
type section struct {
	family, hook, kind string
	declarations       []string
	texts, listed      []string
}

func sections(t *testing.T) []section {
	t.Helper()
	var out []section
	for _, line := range strings.Split(strings.TrimSpace(readFile(t, "../../nft/testdata/rules.txt")), "\n") {
		switch line[0] {
		case ';':
		case '#':
			w := strings.Fields(line)
			out = append(out, section{family: w[1], hook: w[2], kind: w[3]})
		case '%':
			s := &out[len(out)-1]
			s.declarations = append(s.declarations, line[2:])
		default:
			s := &out[len(out)-1]
			text, listed, differs := strings.Cut(line, " => ")
			if !differs {
				listed = text
			}
			s.texts, s.listed = append(s.texts, text), append(s.listed, listed)
		}
	}
	return out
}

// table writes the section as a table for nft or for ParseTable.
func (s section) table() string {
	device := ""
	if s.hook == "ingress" {
		device = ` device "lo"`
	}
	return fmt.Sprintf("table %s t {\n%s\nchain foo {\n}\nchain c {\ntype %s hook %s%s priority 0; policy accept;\n%s\n}\n}\n",
		s.family, strings.ReplaceAll(strings.Join(s.declarations, "\n"), "; }", "\n}"), s.kind, s.hook, device, strings.Join(s.texts, "\n"))
}

// Our rules and those of the nft program must be the same expressions in the
// kernel, and nft must list ours as it lists its own.
func TestRulesAreWhatNftCompiles(t *testing.T) {
	for _, s := range sections(t) {
		t.Run(s.family+" "+s.hook+" "+s.kind, func(t *testing.T) {
			inNamespace(t, func(t *testing.T) {
				c := dial(t)
				want := load(t, c, s.table())
				ours := read(t, c, want.Family, "t")
				if diff := cmp.Diff(want.Chain("c").Rules, ours.Chain("c").Rules, ignoreHandles); diff != "" {
					t.Errorf("read back (-want +got):\n%s", diff)
				}
				compareListing(t, s)
				nftOutput(t, "", "flush", "ruleset")
				nftOutput(t, s.table(), "-f", "-")
				theirs := read(t, c, want.Family, "t")
				for i, r := range theirs.Chain("c").Rules {
					if got := r.String(); got != s.listed[i] {
						t.Errorf("nft's %q is printed as %q", s.listed[i], got)
					}
					if diff := cmp.Diff(r, ours.Chain("c").Rules[i], ignoreHandles); diff != "" && !mergesLoads(s.texts[i]) {
						t.Errorf("%s (-nft +ours):\n%s", s.texts[i], diff)
					}
				}
			})
		})
	}
}

// mergesLoads reports whether nft compiles the rule into other loads than we:
// it joins matches of adjacent fields, and swaps single bytes in vain.
func mergesLoads(text string) bool {
	return strings.Contains(text, "udp sport 1 udp dport 2") || strings.Contains(text, "@publish4_from") ||
		strings.HasPrefix(text, "ether saddr 02:00:00:00:00:01 i")
}

// compareListing compares what nft lists of our chain with what it listed of
// its own when the corpus was made.
func compareListing(t *testing.T, s section) {
	t.Helper()
	listing := nftOutput(t, "", "-s", "list", "chain", s.family, "t", "c")
	lines := strings.Split(listing, "\n")
	start := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "type "+s.kind) })
	for i, want := range s.listed {
		if got := strings.TrimSpace(lines[start+1+i]); got != want {
			t.Errorf("nft lists ours as %q, want %q", got, want)
		}
	}
}

func TestManyElementsInOneTransaction(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		c := dial(t)
		def := load(t, c, "table inet t { map m { type inet_proto . inet_service : ipv4_addr . inet_service; } }")
		m := def.Sets[0].Set
		var elements []rules.Element
		for i := range 10000 {
			e, err := rules.ParseElement(m, fmt.Sprintf("tcp . %d comment \"p\" : 10.0.%d.%d . 80", i+1, i>>8, i&255))
			if err != nil {
				t.Fatal(err)
			}
			elements = append(elements, e)
		}
		var b nft.Batch
		b.AddElements(m, elements)
		if err := c.Commit(t.Context(), &b); err != nil {
			if errors.Is(err, nft.ErrTooLarge) {
				t.Skip("needs a larger net.core.wmem_max or CAP_NET_ADMIN: " + err.Error())
			}
			t.Fatal(err)
		}
		rules.SortElements(m, elements)
		got := read(t, c, rules.FamilyInet, "t")
		if diff := cmp.Diff(elements, got.Sets[0].Elements, ignoreHandles); diff != "" {
			t.Errorf("read back (-want +got):\n%s", diff)
		}
		var del nft.Batch
		del.DeleteElements(m, elements)
		if err := c.Commit(t.Context(), &del); err != nil {
			t.Fatal(err)
		}
		if got := read(t, c, rules.FamilyInet, "t"); len(got.Sets[0].Elements) != 0 {
			t.Errorf("%d elements are left", len(got.Sets[0].Elements))
		}
	})
}

func TestIntervalElements(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		c := dial(t)
		def := load(t, c, `table inet t {
			set a { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 11.0.0.0/8, 192.0.2.1, 255.255.255.0/24 } }
			map v { type inet_service : verdict; flags interval; elements = { 1-5 : accept, 6-9 comment "b" : drop, 65535 : return } }
			set m { type mark; flags interval; elements = { 1-5, 7, 300-0x10000 } }
			set i { type iface_index . mark; flags interval; elements = { 1 . 1-5, 2 . 9 } }
			set all4 { type ipv4_addr; flags interval; elements = { 0.0.0.0/0 } }
			set tm { type ipv4_addr; flags timeout; timeout 1h; elements = { 1.2.3.4 timeout 1d } } }`)
		got := read(t, c, rules.FamilyInet, "t")
		for i := range def.Sets {
			rules.SortElements(def.Sets[i].Set, def.Sets[i].Elements)
		}
		if diff := cmp.Diff(def.Sets, got.Sets, ignoreHandles); diff != "" {
			t.Errorf("read back (-want +got):\n%s", diff)
		}
		var b nft.Batch
		b.DeleteElements(def.Sets[0].Set, def.Sets[0].Elements[1:3])
		b.FlushSet(def.Sets[2].Set)
		if err := c.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		got = read(t, c, rules.FamilyInet, "t")
		if diff := cmp.Diff([]rules.Element{def.Sets[0].Elements[0], def.Sets[0].Elements[3]}, got.Sets[0].Elements); diff != "" {
			t.Errorf("after deletion (-want +got):\n%s", diff)
		}
		if n := len(got.Sets[2].Elements); n != 0 {
			t.Errorf("%d elements after flush", n)
		}
		// Foreign sets have another layout of ends; the meaning is the same.
		listed, err := rules.ParseTable(nftOutput(t, "", "-s", "list", "table", "inet", "t"))
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != listed.String() {
			t.Errorf("nft lists\n%s\nwe\n%s", listed, got)
		}
	})
}

func TestRefusalRollsBackAndNamesTheOperation(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		c := dial(t)
		def := load(t, c, "table inet t { set s { type ipv4_addr; elements = { 1.1.1.1 } } }")
		s := def.Sets[0].Set
		add, _ := rules.ParseElement(s, "2.2.2.2")
		absent, _ := rules.ParseElement(s, "3.3.3.3")
		before, err := c.Generation(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var b nft.Batch
		b.AddElements(s, []rules.Element{add})
		b.DeleteElements(s, []rules.Element{absent})
		b.AddChain(rules.Chain{Family: s.Family, Table: "t", Name: "c"})
		err = c.Commit(t.Context(), &b)
		var op *nft.OpError
		if !errors.As(err, &op) || op.Index != 1 || !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "3.3.3.3") {
			t.Errorf("error %v, want ENOENT of operation 1 with 3.3.3.3", err)
		}
		after, err := c.Generation(t.Context())
		if err != nil || after != before {
			t.Errorf("generation %d, %v after a refused transaction, was %d", after, err, before)
		}
		if diff := cmp.Diff(def, read(t, c, s.Family, "t"), ignoreHandles); diff != "" {
			t.Errorf("after a refused transaction (-want +got):\n%s", diff)
		}
		var stale nft.Batch
		stale.IfGeneration(before - 1)
		stale.DeleteTable(def.Table)
		if err := c.Commit(t.Context(), &stale); !errors.Is(err, unix.ERESTART) {
			t.Errorf("commit on another generation: %v, want ERESTART", err)
		}
		var replace nft.Batch
		replace.DeleteTable(def.Table)
		replace.AddTableDef(def)
		if err := c.Commit(t.Context(), &replace); err != nil {
			t.Error(err)
		}
	})
}

func TestTooLargeIsSaid(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		c := dial(t)
		s := rules.Set{Family: rules.FamilyInet, Table: "t", Name: "s", KeyType: "ipv6_addr"}
		elements := make([]rules.Element, 250000)
		for i := range elements {
			elements[i].Key = []byte{15: byte(i), 14: byte(i >> 8), 13: byte(i >> 16)}
			elements[i].Comment = strings.Repeat("x", rules.MaxComment)
		}
		var b nft.Batch
		b.AddElements(s, elements)
		if err := c.Commit(t.Context(), &b); !errors.Is(err, nft.ErrTooLarge) {
			t.Errorf("error %v, want ErrTooLarge", err)
		}
	})
}

func TestOwnedTableIsAdopted(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		first := dial(t)
		def, err := rules.ParseTable("table inet t { flags owner,persist\n set s { type ifname; } chain c { accept } }")
		if err != nil {
			t.Fatal(err)
		}
		var b nft.Batch
		b.AddTableDef(def)
		if err := first.Commit(t.Context(), &b); errors.Is(err, nft.ErrTableFlags) {
			t.Skip("needs Linux 6.9: " + err.Error())
		} else if err != nil {
			t.Fatal(err)
		}
		second := dial(t)
		var foreign nft.Batch
		foreign.FlushChain(def.Chains[0].Chain)
		if err := second.Commit(t.Context(), &foreign); !errors.Is(err, unix.EPERM) {
			t.Errorf("another socket changes the table: %v, want EPERM", err)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		left := read(t, second, rules.FamilyInet, "t")
		if left.Flags&rules.TableOwner != 0 || len(left.Chains) != 1 {
			t.Errorf("after the owner is gone: %+v", left)
		}
		var adopt nft.Batch
		adopt.AddTable(def.Table)
		adopt.FlushChain(def.Chains[0].Chain)
		if err := second.Commit(t.Context(), &adopt); err != nil {
			t.Fatal(err)
		}
		if got := read(t, second, rules.FamilyInet, "t"); got.Flags != def.Flags || len(got.Chains[0].Rules) != 0 {
			t.Errorf("adopted table: %+v", got)
		}
	})
}

func TestUnknownTableFlagIsDistinct(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		c := dial(t)
		var b nft.Batch
		b.AddTable(rules.Table{Family: rules.FamilyInet, Name: "t", Flags: rules.TableOwner | 1<<30})
		if err := c.Commit(t.Context(), &b); !errors.Is(err, nft.ErrTableFlags) {
			t.Errorf("error %v, want ErrTableFlags", err)
		}
	})
}
