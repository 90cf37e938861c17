package nft

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// ParseRule compiles one rule of nft(8) syntax for a table of the family, with
// the registers nft itself would choose. sets declares named maps the rule
// uses: whether the values of "dnat to ... map @m" have a port cannot be told
// from the rule, and sets of intervals need numbers in network order.
//
// It reads the subset that Rule.String prints. Adjacent header fields are not
// merged into one load, as nft does. An interface index is a number or "lo".
func ParseRule(f Family, text string, sets ...Set) (Rule, error) {
	toks, err := tokenize(text)
	if err != nil {
		return Rule{}, fmt.Errorf("parse rule %q: %w", text, err)
	}
	toks = slices.DeleteFunc(toks, func(t token) bool { return t.is("\n") })
	r, err := compile(f, toks, sets)
	if err != nil {
		return Rule{}, fmt.Errorf("parse rule %q: %w", text, err)
	}
	return r, nil
}

// compile turns the tokens of one rule into expressions.
func compile(f Family, toks []token, sets []Set) (Rule, error) {
	c := compiler{reader: reader{toks: toks}, known: newHeaders(f), sets: sets}
	for !c.done() {
		if err := c.statement(); err != nil {
			return Rule{}, err
		}
	}
	if len(c.out) == 0 {
		return Rule{}, errors.New("rule is empty")
	}
	return Rule{Family: f, Exprs: c.out, Comment: c.comment}, nil
}

// reader walks over tokens.
type reader struct {
	toks []token
	pos  int
}

func (r *reader) done() bool { return r.pos >= len(r.toks) }

// peek gives the next token, or an empty one at the end.
func (r *reader) peek() token {
	if r.done() {
		return token{}
	}
	return r.toks[r.pos]
}

func (r *reader) next() token {
	t := r.peek()
	r.pos++
	return t
}

// accept takes the next token if it is one of the words, and says so.
func (r *reader) accept(words ...string) bool {
	if !r.done() && slices.ContainsFunc(words, r.peek().is) {
		r.pos++
		return true
	}
	return false
}

// expect takes the next token, which must be the word.
func (r *reader) expect(word string) error {
	if !r.accept(word) {
		return r.unexpected(strconv.Quote(word))
	}
	return nil
}

// unexpected says what was wanted in place of the next token.
func (r *reader) unexpected(want string) error {
	if r.done() {
		return fmt.Errorf("want %s, not the end", want)
	}
	return fmt.Errorf("want %s, not %s", want, r.peek())
}

// number takes a decimal or hex number of at most the given bits.
func (r *reader) number(bits int) (uint64, error) {
	v, err := strconv.ParseUint(r.peek().text, 0, bits)
	if err != nil {
		return 0, r.unexpected("a number")
	}
	r.pos++
	return v, nil
}

// str takes a quoted string.
func (r *reader) str() (string, error) {
	if t := r.peek(); !t.quoted {
		return "", r.unexpected("a string")
	}
	return r.next().text, nil
}

// compiler collects the expressions of one rule.
type compiler struct {
	reader
	known   headers
	sets    []Set
	out     []Expr
	comment string
}

func (c *compiler) emit(e ...Expr) { c.out = append(c.out, e...) }

// set finds a declared set.
func (c *compiler) set(name string) (Set, bool) {
	i := slices.IndexFunc(c.sets, func(s Set) bool { return s.Name == name })
	if i < 0 {
		return Set{}, false
	}
	return c.sets[i], true
}

// require emits the matches that make a header known.
func (c *compiler) require(proto string) error {
	matches, ok := c.known.require(proto)
	if !ok {
		return fmt.Errorf("read %s header: the packet has another one, or none in family %s", proto, c.known.family)
	}
	for _, m := range matches {
		c.emit(m.exprs()...)
	}
	return nil
}

// statement reads one statement or match.
func (c *compiler) statement() error {
	t := c.peek()
	if t.quoted {
		return c.unexpected("a statement")
	}
	if v, ok, err := c.verdict(); ok || err != nil {
		if err == nil {
			c.emit(v)
		}
		return err
	}
	parsers := map[string]func() error{
		"counter": c.counter, "log": c.log, "limit": c.limit, "reject": c.reject,
		"masquerade": c.masquerade, "redirect": c.redirect, "snat": c.nat, "dnat": c.nat,
		"notrack": c.notrack, "comment": c.ruleComment,
	}
	if parse, ok := parsers[t.text]; ok {
		c.pos++
		return parse()
	}
	return c.expression()
}

// verdict reads a verdict, if one is next.
func (r *reader) verdict() (Verdict, bool, error) {
	codes := map[string]VerdictCode{
		"accept": Accept, "drop": Drop, "continue": Continue, "break": Break,
		"return": Return, "jump": Jump, "goto": Goto,
	}
	code, ok := codes[r.peek().text]
	if !ok || r.peek().quoted {
		return Verdict{}, false, nil
	}
	r.pos++
	v := Verdict{Code: code}
	if code == Jump || code == Goto {
		if v.Chain = r.peek().text; v.Chain == "" || !isName(v.Chain) {
			return v, false, r.unexpected("a chain name")
		}
		r.pos++
	}
	return v, true, nil
}

// isName reports whether s can be the name of a chain or set: a letter, then
// letters, digits and / \ _ . (nft's scanner).
func isName(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && r != '_' && (i == 0 || r != '-' && r != '/' && r != '\\' && r != '.' && (r < '0' || r > '9')) {
			return false
		}
	}
	return s != ""
}

func (c *compiler) ruleComment() error {
	s, err := c.str()
	if err != nil {
		return err
	}
	if len(s) > MaxComment {
		return fmt.Errorf("comment of %d bytes: at most %d", len(s), MaxComment)
	}
	c.comment = s
	if !c.done() {
		return c.unexpected("the end after the comment")
	}
	return nil
}

// MaxComment is the longest comment of a rule or element in bytes
// (NFTNL_UDATA_COMMENT_MAXLEN of nft).
const MaxComment = 128

func (c *compiler) notrack() error {
	c.emit(Notrack{})
	return nil
}

// counter reads the values, if given, and starts at them.
func (c *compiler) counter() error {
	var e Counter
	var err error
	if c.accept("packets") {
		if e.Packets, err = c.number(64); err != nil {
			return err
		}
		if err = c.expect("bytes"); err != nil {
			return err
		}
		if e.Bytes, err = c.number(64); err != nil {
			return err
		}
	}
	c.emit(e)
	return nil
}
