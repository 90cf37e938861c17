package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/towpath/towpath/api"
)

// value is a flag with one value of type T.
type value[T any] struct {
	to    *T
	parse func(string) (T, error)
	kind  string
	text  string
}

// Set reads the flag's value.
func (v *value[T]) Set(s string) error {
	parsed, err := v.parse(s)
	if err != nil {
		return err
	}
	*v.to, v.text = parsed, s
	return nil
}

// String is the value as it was written.
func (v *value[T]) String() string { return v.text }

// Type is the word for the value in the help text.
func (v *value[T]) Type() string { return v.kind }

// list is a flag that may be given several times, or several values with
// commas between them.
type list[T any] struct {
	to    *[]T
	parse func(string) (T, error)
	kind  string
	// whole says that a comma is part of a value, and does not separate two.
	whole bool
	texts []string
}

// Set adds values.
func (l *list[T]) Set(s string) error {
	parts := []string{s}
	if !l.whole {
		parts = strings.Split(s, ",")
	}
	for _, part := range parts {
		parsed, err := l.parse(part)
		if err != nil {
			return err
		}
		*l.to = append(*l.to, parsed)
		l.texts = append(l.texts, part)
	}
	return nil
}

// String is the values as they were written.
func (l *list[T]) String() string { return strings.Join(l.texts, ",") }

// Type is the word for a value in the help text.
func (l *list[T]) Type() string { return l.kind }

// pairs is a flag KEY=VALUE that may be given several times; the last of a key
// counts, unless each may come once only.
type pairs[T any] struct {
	to    *map[string]T
	parse func(string) (T, error)
	kind  string
	// bare says that KEY alone is KEY=.
	bare bool
	// once says that a key may not come twice.
	once bool
}

// Set adds a pair.
func (p *pairs[T]) Set(s string) error {
	key, text, ok := strings.Cut(s, "=")
	if key == "" || !ok && !p.bare {
		return api.Errorf(api.Invalid, "%q is not of the form %s", s, p.kind).WithFix("write it so")
	}
	parsed, err := p.parse(text)
	if err != nil {
		return err
	}
	if was, ok := (*p.to)[key]; ok && p.once {
		return api.Errorf(api.Invalid, "%s was given before, as %v", key, was).WithFix("give each its own name")
	}
	if *p.to == nil {
		*p.to = map[string]T{}
	}
	(*p.to)[key] = parsed
	return nil
}

// String is empty: there are no pairs unless they are given.
func (p *pairs[T]) String() string {
	if p.to == nil || len(*p.to) == 0 {
		return ""
	}
	return fmt.Sprint(*p.to)
}

// Type is the form of the pair in the help text.
func (p *pairs[T]) Type() string { return p.kind }

// verbatim is the parse of a value that is any text.
func verbatim(s string) (string, error) { return s, nil }

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err == nil {
		return p, nil
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return p, api.Errorf(api.Invalid, "%q is an address, not a range", s).WithFix("add the length of its prefix, as in 172.20.0.0/24")
	}
	return p, api.Errorf(api.Invalid, "%q is not an address range", s).WithFix("write it as 172.20.0.0/24 or fd00:1::/64")
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, api.Errorf(api.Invalid, "%q is not an IP address", s).WithFix("write it as 172.20.0.9 or fd00:1::9")
	}
	return a.Unmap(), nil
}

func parseMAC(s string) (string, error) { return api.ParseMAC(s) }
