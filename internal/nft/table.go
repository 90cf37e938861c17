package nft

import (
	"fmt"
	"slices"
	"strings"
)

// tableFlagSymbols and setFlagSymbols are in nft's order.
var (
	tableFlagSymbols = []symbol{{"dormant", uint64(TableDormant)}, {"owner", uint64(TableOwner)}, {"persist", uint64(TablePersist)}}
	setFlagSymbols   = []symbol{
		{"constant", uint64(SetConstant)},
		{"dynamic", uint64(SetDynamic)},
		{"interval", uint64(SetInterval)},
		{"timeout", uint64(SetTimeout)},
	}
)

// flagNames joins the names of the flags set.
func flagNames(table []symbol, flags uint64) string {
	var out []string
	for _, f := range table {
		if flags&f.value != 0 {
			out = append(out, f.name)
		}
	}
	return strings.Join(out, ",")
}

// String writes the table in the layout of `nft -s list table`, elements
// sorted by SortElements.
func (t TableDef) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", t.Family, t.Name)
	if t.Flags != 0 {
		fmt.Fprintf(&b, "\tflags %s\n", flagNames(tableFlagSymbols, uint64(t.Flags)))
	}
	var blocks []string
	for _, s := range t.Sets {
		blocks = append(blocks, s.String())
	}
	for _, c := range t.Chains {
		blocks = append(blocks, c.String())
	}
	b.WriteString(strings.Join(blocks, "\n"))
	b.WriteString("}\n")
	return b.String()
}

// String writes the set as it stands inside a table.
func (s SetDef) String() string {
	var b strings.Builder
	kind, types := "set", s.KeyType
	if s.Map {
		kind, types = "map", s.KeyType+" : "+s.DataType
	}
	fmt.Fprintf(&b, "\t%s %s {\n\t\ttype %s\n", kind, s.Name, types)
	if s.Size != 0 {
		fmt.Fprintf(&b, "\t\tsize %d\n", s.Size)
	}
	// With a default timeout nft leaves the lone flag out.
	if s.Flags != 0 && (s.Flags != SetTimeout || s.Timeout == 0) {
		fmt.Fprintf(&b, "\t\tflags %s\n", flagNames(setFlagSymbols, uint64(s.Flags)))
	}
	if s.Timeout != 0 {
		fmt.Fprintf(&b, "\t\ttimeout %s\n", formatDuration(s.Timeout))
	}
	if len(s.Elements) > 0 {
		fmt.Fprintf(&b, "\t\telements = { %s }\n", s.formatElements())
	}
	b.WriteString("\t}\n")
	return b.String()
}

// formatElements joins the elements, as many on a line as nft puts there.
func (s SetDef) formatElements() string {
	sorted := slices.Clone(s.Elements)
	SortElements(s.Set, sorted)
	perLine := s.perLine()
	var b strings.Builder
	for i, e := range sorted {
		switch {
		case i > 0 && i%perLine == 0:
			b.WriteString(",\n\t\t\t     ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(FormatElement(s.Set, e))
	}
	return b.String()
}

// perLine tells how many elements nft writes on a line.
func (s Set) perLine() int {
	types := s.keyTypes()
	if len(types) > 1 {
		return 1
	}
	switch types[0].style {
	case styleIPv4:
		return 2
	case styleIPv6, styleIfname, styleEther:
		return 1
	}
	return 5
}

// String writes the chain as it stands inside a table.
func (c ChainDef) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
	if c.Base() {
		fmt.Fprintf(&b, "\t\t%s\n", c.Header())
	}
	for _, r := range c.Rules {
		fmt.Fprintf(&b, "\t\t%s\n", r)
	}
	b.WriteString("\t}\n")
	return b.String()
}
