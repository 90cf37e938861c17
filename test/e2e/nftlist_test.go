package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/internal/testnet"
)

// TestPlanIsWhatNftLists: the tables in `towpath plan` are those that nft lists,
// line for line, elements sorted and the line of flags aside.
func TestPlanIsWhatNftLists(t *testing.T) {
	testnet.Require(t, "nft-binary")
	w := newWorld(t)
	w.start()
	w.sameTable("at first")
	for _, args := range [][]string{
		{"network", "create", "front", "--ipv6"},
		{"network", "create", "back", "--internal"},
		{"network", "create", "quiet", "--icc=false", "--ipv6"},
		{"network", "create", "both", "--icc=false", "--internal"},
		{"network", "create", "six", "--ipv4=false", "--ipv6"},
		{"sandbox", "create", "web", "--network", "front", "--network", "quiet"},
		{"network", "connect", "back", "web"},
		{"network", "rm", "six"},
		{"sandbox", "rm", "web"},
		{"network", "rm", "front"},
	} {
		w.must(args...)
		w.sameTable(strings.Join(args, " "))
	}
	w.must("sandbox", "create", "db")
	w.sameInside("db")
	w.kill()
	w.start()
	w.sameTable("after a new start")
	w.sameInside("db")
	w.clean()
}

// sameTable compares the planned tables with the listed ones.
func (w *world) sameTable(when string) {
	w.Helper()
	plan := w.must("plan")
	for family, chain := range map[string]string{"inet": "chain forward", "ip": "chain martian", "netdev": "chain guard_towpath0"} {
		listed, err := w.host.Output(w.Context(), "nft", "-s", "list", "table", family, "towpath")
		if err != nil {
			w.Fatal(err)
		}
		planned := tableBlock(plan, family)
		if !strings.Contains(planned, chain) {
			w.Fatalf("%s: the plan has no table %s:\n%s", when, family, planned)
		}
		if diff := cmp.Diff(byBlock(planned), byBlock(listed)); diff != "" {
			w.Errorf("%s: the table differs (-plan +nft):\n%s", when, diff)
		}
	}
}

// sameInside compares the planned table of a sandbox with the listed one.
func (w *world) sameInside(sandbox string) {
	w.Helper()
	ns, _ := w.sandbox(sandbox)
	listed, err := ns.Output(w.Context(), "nft", "-s", "list", "table", "netdev", "towpath")
	if err != nil {
		w.Fatal(err)
	}
	_, plan, _ := strings.Cut(w.must("plan"), "\nnetns "+sandbox+":\n")
	planned := tableBlock(plan, "netdev")
	if !strings.Contains(planned, "chain resolver") {
		w.Fatalf("the plan has no table in %s:\n%s", sandbox, plan)
	}
	if diff := cmp.Diff(normal(planned), normal(listed)); diff != "" {
		w.Errorf("the table in %s differs (-plan +nft):\n%s", sandbox, diff)
	}
}

// tableBlock cuts our table of a family out of the plan, which indents it by one
// tab.
func tableBlock(plan, family string) string {
	var out strings.Builder
	in := false
	for line := range strings.Lines(plan) {
		in = in || line == "\ttable "+family+" towpath {\n"
		if in {
			out.WriteString(strings.TrimPrefix(line, "\t"))
		}
		if in && line == "\t}\n" {
			break
		}
	}
	return out.String()
}

// byBlock is a listing by set and chain, sorted: nft lists them as they were made.
func byBlock(table string) []string {
	blocks := strings.Split(strings.TrimSuffix(strings.Join(normal(table), "\n"), "\n}"), "\n\n")
	first, rest, _ := strings.Cut(blocks[0], "\n")
	blocks[0] = rest
	slices.Sort(blocks)
	return append([]string{first}, blocks...)
}

// normal is a listing by the line, with the elements of a set sorted, one a
// line, without the table's flags and what nft says of them: who owns it.
func normal(table string) []string {
	var out []string
	var elements *strings.Builder
	for line := range strings.Lines(table) {
		line = strings.TrimRight(line, "\n")
		line, _, _ = strings.Cut(line, " # progname ")
		if line == "" && len(out) == 1 {
			continue // after the flags
		}
		_, first, begins := strings.Cut(line, "elements = {")
		switch {
		case begins:
			elements, line = &strings.Builder{}, first
		case elements == nil:
			if !strings.HasPrefix(line, "\tflags ") {
				out = append(out, line)
			}
			continue
		}
		body, end := strings.CutSuffix(line, "}")
		elements.WriteString(body)
		if end {
			list := strings.Split(elements.String(), ",")
			for i := range list {
				list[i] = "\t\telement " + strings.TrimSpace(list[i])
			}
			slices.Sort(list)
			out, elements = append(out, list...), nil
		}
	}
	return out
}
