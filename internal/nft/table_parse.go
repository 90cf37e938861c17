package nft

import (
	"errors"
	"fmt"
	"strings"
)

// ParseTable reads one table in the form of `nft list table` or of a file for
// `nft -f`. Rules must not be written before the sets they use as maps.
func ParseTable(text string) (TableDef, error) {
	tables, err := ParseTables(text)
	if err != nil {
		return TableDef{}, err
	}
	if len(tables) != 1 {
		return TableDef{}, fmt.Errorf("parse table: text has %d tables", len(tables))
	}
	return tables[0], nil
}

// ParseTables reads the tables of `nft list ruleset`.
func ParseTables(text string) ([]TableDef, error) {
	toks, err := tokenize(text)
	if err != nil {
		return nil, fmt.Errorf("parse table: %w", err)
	}
	r := &tableReader{reader: reader{toks: toks}}
	var out []TableDef
	for {
		r.skipEnds()
		if r.done() {
			return out, nil
		}
		t, err := r.table()
		if err != nil {
			return nil, fmt.Errorf("parse table: line %d: %w", r.line(), err)
		}
		out = append(out, t)
	}
}

// tableReader reads tables.
type tableReader struct{ reader }

// line gives the line of the next token, or of the last.
func (r *tableReader) line() int {
	if len(r.toks) == 0 {
		return 1
	}
	return r.toks[min(r.pos, len(r.toks)-1)].line
}

// skipEnds takes line ends and semicolons.
func (r *tableReader) skipEnds() {
	for r.accept("\n", ";") {
	}
}

// name takes the name of a table, chain or set.
func (r *tableReader) name() (string, error) {
	if t := r.peek(); t.quoted || !isName(t.text) {
		return "", r.unexpected("a name")
	}
	return r.next().text, nil
}

func (r *tableReader) table() (TableDef, error) {
	var t TableDef
	if err := r.expect("table"); err != nil {
		return t, err
	}
	f, err := ParseFamily(r.next().text)
	if err != nil {
		return t, err
	}
	t.Family = f
	if t.Name, err = r.name(); err != nil {
		return t, err
	}
	if err := r.expect("{"); err != nil {
		return t, err
	}
	for {
		r.skipEnds()
		if r.accept("}") {
			return t, nil
		}
		if err := r.entry(&t); err != nil {
			return t, err
		}
	}
}

// entry reads one part of a table.
func (r *tableReader) entry(t *TableDef) error {
	switch {
	case r.accept("flags"):
		v, err := r.flags(tableFlagSymbols)
		t.Flags = TableFlags(v)
		return err
	case r.accept("comment"):
		_, err := r.str()
		return err
	case r.accept("set"):
		return r.set(t, false)
	case r.accept("map"):
		return r.set(t, true)
	case r.accept("chain"):
		return r.chain(t)
	}
	return r.unexpected("set, map, chain or flags")
}

// flags reads names joined by commas.
func (r *tableReader) flags(table []symbol) (uint64, error) {
	var sum uint64
	for {
		v, ok := symbolValue(table, r.peek().text)
		if !ok {
			return 0, r.unexpected("a flag")
		}
		r.pos++
		sum |= v
		if !r.accept(",") {
			return sum, nil
		}
	}
}

func (r *tableReader) set(t *TableDef, isMap bool) error {
	name, err := r.name()
	if err != nil {
		return err
	}
	s := SetDef{Set: Set{Family: t.Family, Table: t.Name, Name: name, Map: isMap}}
	if err := r.expect("{"); err != nil {
		return err
	}
	for {
		r.skipEnds()
		if r.accept("}") {
			break
		}
		if err := r.setEntry(&s); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	if s.KeyType == "" {
		return fmt.Errorf("set %s: has no type", name)
	}
	t.Sets = append(t.Sets, s)
	return nil
}

func (r *tableReader) setEntry(s *SetDef) error {
	var err error
	var v uint64
	switch {
	case r.accept("type"):
		return r.types(s)
	case r.accept("flags"):
		v, err = r.flags(setFlagSymbols)
		s.Flags |= SetFlags(v)
	case r.accept("size"):
		v, err = r.number(32)
		s.Size = uint32(v)
	case r.accept("timeout"):
		s.Timeout, err = parseDuration(r.next().text)
		s.Flags |= SetTimeout
	case r.accept("elements"):
		return r.elements(s)
	case r.accept("comment"):
		_, err = r.str()
	default:
		return r.unexpected("type, flags, size, timeout or elements")
	}
	return err
}

// types reads "ifname . ifname : verdict".
func (r *tableReader) types(s *SetDef) error {
	var err error
	if s.KeyType, err = r.typeName(false); err != nil || !s.Map {
		return err
	}
	if err := r.expect(":"); err != nil {
		return err
	}
	s.DataType, err = r.typeName(true)
	return err
}

// typeName reads type names joined by dots. Only values may be verdicts.
func (r *tableReader) typeName(value bool) (string, error) {
	var names []string
	for {
		t, ok := typeByName(r.peek().text)
		if !ok || t.size == 0 && (!value || t.style != styleVerdict) {
			return "", r.unexpected("a type")
		}
		r.pos++
		names = append(names, t.name)
		if !r.accept(".") {
			return strings.Join(names, " . "), nil
		}
	}
}

// elements reads "= { a, b }" over any number of lines.
func (r *tableReader) elements(s *SetDef) error {
	if s.KeyType == "" {
		return errors.New("elements before the type")
	}
	if err := r.expect("="); err != nil {
		return err
	}
	if err := r.expect("{"); err != nil {
		return err
	}
	for {
		r.skipEnds()
		if r.accept("}") {
			return nil
		}
		e, err := r.element(s.Set)
		if err != nil {
			return err
		}
		s.Elements = append(s.Elements, e)
		r.skipEnds()
		if !r.accept(",") && !r.peek().is("}") {
			return r.unexpected(`"," or "}"`)
		}
	}
}

func (r *tableReader) chain(t *TableDef) error {
	name, err := r.name()
	if err != nil {
		return err
	}
	c := ChainDef{Chain: Chain{Family: t.Family, Table: t.Name, Name: name}}
	if err := r.expect("{"); err != nil {
		return err
	}
	for {
		r.skipEnds()
		if r.accept("}") {
			t.Chains = append(t.Chains, c)
			return nil
		}
		if err := r.chainEntry(t, &c); err != nil {
			return fmt.Errorf("chain %s: %w", name, err)
		}
	}
}

// chainEntry reads the header, the policy or a rule.
func (r *tableReader) chainEntry(t *TableDef, c *ChainDef) error {
	if r.peek().is("type") || r.peek().is("policy") {
		return r.header(&c.Chain)
	}
	line := r.rule()
	if len(line) == 0 {
		return r.unexpected("a rule")
	}
	if line[0].is("comment") && len(c.Rules) == 0 {
		return nil // the chain's own comment
	}
	rule, err := compile(t.Family, line, t.declarations())
	if err != nil {
		return fmt.Errorf("rule %q: %w", joinTokens(line), err)
	}
	c.Rules = append(c.Rules, rule)
	return nil
}

// rule takes the tokens up to the end of the line, a semicolon, or the brace
// that closes the chain. Inside braces lines may end anywhere.
func (r *tableReader) rule() []token {
	var line []token
	for depth := 0; !r.done(); r.pos++ {
		t := r.peek()
		switch {
		case t.is("{"):
			depth++
		case t.is("}") && depth == 0, depth == 0 && (t.is("\n") || t.is(";")):
			return line
		case t.is("}"):
			depth--
		case t.is("\n"):
			continue
		}
		line = append(line, t)
	}
	return line
}

func joinTokens(toks []token) string {
	out := make([]string, len(toks))
	for i, t := range toks {
		out[i] = t.String()
	}
	return strings.Join(out, " ")
}
