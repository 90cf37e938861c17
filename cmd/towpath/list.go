package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/term"
)

// view is how things of a kind are listed.
type view[T any] struct {
	// table is the template of a row; heading is the row of the words above.
	table   string
	heading any
	row     func(T) any
	name    func(T) string
	filters criteria[T]
}

// criteria are the keys of --filter; each makes a test of its value.
type criteria[T any] map[string]func(value string) (func(T) bool, error)

// keys are the keys in order.
func (c criteria[T]) keys() []string { return slices.Sorted(maps.Keys(c)) }

// filter is the flag --filter KEY=VALUE, which may be given several times. As
// in Docker, one of the values of a key must hold, and all of its labels.
type filter[T any] struct {
	known criteria[T]
	tests map[string][]func(T) bool
}

// Set adds a test.
func (f *filter[T]) Set(s string) error {
	key, text, ok := strings.Cut(s, "=")
	criterion, known := f.known[key]
	if !known {
		return notKnown("filter", key, f.known.keys())
	}
	if !ok {
		return api.Errorf(api.Invalid, "filter %q has no value", s).WithFix("write it as %s=VALUE", key)
	}
	test, err := criterion(text)
	if err != nil {
		return err
	}
	if f.tests == nil {
		f.tests = map[string][]func(T) bool{}
	}
	f.tests[key] = append(f.tests[key], test)
	return nil
}

// String is empty: there is no filter unless it is given.
func (f *filter[T]) String() string { return "" }

// Type is the form of the flag's value in the help text.
func (f *filter[T]) Type() string { return "KEY=VALUE" }

// keep reports whether item passes.
func (f *filter[T]) keep(item T) bool {
	for key, tests := range f.tests {
		holds := func(test func(T) bool) bool { return test(item) }
		fails := func(test func(T) bool) bool { return !test(item) }
		all := strings.HasPrefix(key, "label")
		if all && slices.ContainsFunc(tests, fails) || !all && !slices.ContainsFunc(tests, holds) {
			return false
		}
	}
	return true
}

// notKnown says that a word is none of those known, and which it may have been.
func notKnown(what, word string, known []string) error {
	e := api.Errorf(api.Invalid, "%s %q is not known", what, word)
	if near := term.Near(word, known); len(near) > 0 {
		return e.WithFix("did you mean %s?", strings.Join(near, " or "))
	}
	return e.WithFix("known: %s", strings.Join(known, ", "))
}

// byName holds where a pattern is found in the name: as in Docker, a part of
// the name, or a regular expression.
func byName[T any](name func(T) string) func(string) (func(T) bool, error) {
	return func(pattern string) (func(T) bool, error) {
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, api.Errorf(api.Invalid, "name %q is no pattern: %w", pattern, err)
		}
		return func(item T) bool { return re.MatchString(name(item)) }, nil
	}
}

// byID holds where the name begins so: a name is what Docker's ID is.
func byID[T any](name func(T) string) func(string) (func(T) bool, error) {
	return func(prefix string) (func(T) bool, error) {
		return func(item T) bool { return strings.HasPrefix(name(item), prefix) }, nil
	}
}

// byLabel holds where there is the label KEY or KEY=VALUE; want says whether
// it shall be there.
func byLabel[T any](labels func(T) map[string]string, want bool) func(string) (func(T) bool, error) {
	return func(label string) (func(T) bool, error) {
		key, value, exact := strings.Cut(label, "=")
		return func(item T) bool {
			got, ok := labels(item)[key]
			return (ok && (!exact || got == value)) == want
		}, nil
	}
}

// byWord holds where a word of the item is the value, which is one of those
// known, if there are any.
func byWord[T any](what string, words func(T) []string, known ...string) func(string) (func(T) bool, error) {
	return func(value string) (func(T) bool, error) {
		if len(known) > 0 && !slices.Contains(known, value) {
			return nil, notKnown(what, value, known)
		}
		return func(item T) bool { return slices.Contains(words(item), value) }, nil
	}
}

// labelled is the part of a row that is about labels.
type labelled struct {
	Labels string
	all    map[string]string
	// heading says that this is the row above.
	heading bool
}

func newLabelled(labels map[string]string) labelled {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return labelled{Labels: strings.Join(pairs, ","), all: labels}
}

// Label is the value of one label, for templates: {{.Label "tier"}}.
func (l labelled) Label(key string) string {
	if l.heading {
		return strings.ToUpper(key)
	}
	return l.all[key]
}

// listing is the flags of a list.
type listing[T any] struct {
	quiet  bool
	filter filter[T]
	format term.Format
}

// listFlags adds the flags of a list.
func listFlags[T any](c *cli, cmd *cobra.Command, v view[T], l *listing[T]) *cobra.Command {
	cmd.Flags().BoolVarP(&l.quiet, "quiet", "q", false, "print names only")
	filterFlag(cmd, "f", v, &l.filter)
	formatFlag(cmd, &l.format)
	return c.output(cmd)
}

// filterFlag adds --filter; Docker's short name for it is -f in lists only.
func filterFlag[T any](cmd *cobra.Command, short string, v view[T], f *filter[T]) {
	f.known = v.filters
	cmd.Flags().VarP(f, "filter", short, fmt.Sprintf("only those where it holds (repeatable); keys: %s", strings.Join(v.filters.keys(), ", ")))
	var keys []string
	for _, key := range v.filters.keys() {
		keys = append(keys, key+"=")
	}
	completeFlag(cmd, "filter", fixed(keys...), cobra.ShellCompDirectiveNoSpace)
}

// formatFlag adds --format to a list.
func formatFlag(cmd *cobra.Command, to *term.Format) {
	cmd.Flags().Var(&value[term.Format]{to: to, parse: term.ParseFormat, kind: "FORMAT"}, "format",
		"json, table, 'table TEMPLATE', or a Go template: '{{.Name}}'")
	completeFlag(cmd, "format", fixed("json", "table"), cobra.ShellCompDirectiveDefault)
}

// inspectFormatFlag adds --format to inspect; Docker's short name for it is -f.
func inspectFormatFlag(cmd *cobra.Command, to *term.Format) {
	plainFormatFlag(cmd, "f", "what is inspected", to)
}

// plainFormatFlag adds --format where there are no tables.
func plainFormatFlag(cmd *cobra.Command, short, of string, to *term.Format) {
	parse := func(s string) (term.Format, error) {
		f, err := term.ParseFormat(s)
		if err == nil && (s == "table" || f.IsTable()) {
			err = api.Errorf(api.Invalid, "there is no table of %s", of).WithFix("use json or a template; lists have tables")
		}
		return f, err
	}
	cmd.Flags().VarP(&value[term.Format]{to: to, parse: parse, kind: "FORMAT"}, "format", short, "json, or a Go template: '{{.Name}}'")
	completeFlag(cmd, "format", fixed("json"), cobra.ShellCompDirectiveDefault)
}

// show prints things as the flags say: a table unless they say otherwise.
func show[T any](c *cli, v view[T], l listing[T], all []T, err error) error {
	if err != nil {
		return err
	}
	items, names, rows := []T{}, []string{}, []any{}
	for _, item := range all {
		if l.filter.keep(item) {
			items, names, rows = append(items, item), append(names, v.name(item)), append(rows, v.row(item))
		}
	}
	switch {
	case l.format.IsTemplate():
		return l.format.Print(c.out, v.heading, rows)
	case c.json || l.format.IsJSON():
		return c.printList(l.quiet, names, items)
	case l.quiet:
		return c.printNames(names)
	}
	usual, err := term.ParseFormat(v.table)
	if err != nil {
		return err
	}
	return usual.Print(c.out, v.heading, rows)
}

func (c *cli) printList(quiet bool, names []string, items any) error {
	if quiet {
		return c.printJSON(names)
	}
	return c.printJSON(items)
}

// printNames prints one name a line.
func (c *cli) printNames(names []string) error {
	for _, name := range names {
		if err := c.println(name); err != nil {
			return err
		}
	}
	return nil
}
