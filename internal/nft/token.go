package nft

import (
	"fmt"
	"strings"
)

// token is a word, a quoted string or a sign of nft's language. A line end is
// the token "\n".
type token struct {
	text   string
	quoted bool
	line   int // from 1
}

// is reports whether the token is the bare word or sign.
func (t token) is(s string) bool { return !t.quoted && t.text == s }

// String prints the token as it was read.
func (t token) String() string {
	if t.quoted {
		return quote(t.text)
	}
	return t.text
}

// signs are tokens of one byte wherever they stand.
const signs = "{},;()|&^\n"

// tokenize splits text into tokens, leaving out blanks and comments.
func tokenize(text string) ([]token, error) {
	var out []token
	line := 1
	for i := 0; i < len(text); {
		c := text[i]
		n := 1
		switch {
		case c == ' ' || c == '\t' || c == '\r':
		case c == '#':
			n = lengthUntil(text[i:], "\n")
		case c == '"':
			end := strings.IndexAny(text[i+1:], "\"\n")
			if end < 0 || text[i+1+end] == '\n' {
				return nil, fmt.Errorf("read line %d: string without end", line)
			}
			n = end + 2
			out = append(out, token{text: text[i+1 : i+1+end], quoted: true, line: line})
		case strings.IndexByte(signs, c) >= 0:
			out = append(out, token{text: text[i : i+1], line: line})
			if c == '\n' {
				line++
			}
		default:
			n = wordLength(text[i:])
			out = append(out, token{text: text[i : i+n], line: line})
		}
		i += n
	}
	return out, nil
}

// wordLength gives the length of the word or operator at the start of s.
func wordLength(s string) int {
	if strings.ContainsRune("=!<>", rune(s[0])) {
		if len(s) > 1 && s[1] == '=' {
			return 2
		}
		return 1
	}
	// A raw load "@nh,96,32" holds commas.
	for _, base := range []string{"@ll,", "@nh,", "@th,"} {
		if strings.HasPrefix(s, base) {
			return lengthUntil(s, " \t\r\n{};\"")
		}
	}
	return lengthUntil(s, " \t\r\"#=!<>"+signs)
}

// lengthUntil gives the number of bytes before the first of stops, at least 1.
func lengthUntil(s, stops string) int {
	if n := strings.IndexAny(s[1:], stops); n >= 0 {
		return n + 1
	}
	return len(s)
}
