package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/client"
	"github.com/towpath/towpath/internal/term"
)

// printJSON prints one document.
func (c *cli) printJSON(v any) error {
	e := json.NewEncoder(c.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print answer: %w", err)
	}
	return nil
}

// println prints a line of text.
func (c *cli) println(line string) error {
	if _, err := fmt.Fprintln(c.out, line); err != nil {
		return fmt.Errorf("print answer: %w", err)
	}
	return nil
}

// made prints what was created: its name, or itself as JSON.
func (c *cli) made(name string, v any, err error) error {
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(v)
	}
	if name == "" {
		return nil
	}
	return c.println(name)
}

// ops prints the ops of a dry run.
func (c *cli) ops(ops []string, err error) error {
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(api.Preview{Ops: append([]string{}, ops...)})
	}
	for _, op := range ops {
		if err := c.println(op); err != nil {
			return err
		}
	}
	return nil
}

// view is how things of a kind are listed.
type view[T any] struct {
	header []string
	row    func(T) []string
	name   func(T) string
}

// show prints things as the view says, as names only, or as JSON.
func show[T any](c *cli, v view[T], quiet bool, items []T, err error) error {
	if err != nil {
		return err
	}
	var rows [][]string
	var names []string
	for _, item := range items {
		rows, names = append(rows, v.row(item)), append(names, v.name(item))
	}
	switch {
	case c.json && quiet:
		return c.printJSON(append([]string{}, names...))
	case c.json:
		return c.printJSON(append([]T{}, items...))
	case !quiet:
		return term.Table(c.out, v.header, rows)
	}
	for _, name := range names {
		if err := c.println(name); err != nil {
			return err
		}
	}
	return nil
}

// inspect prints an array of what there is of the names; of the rest it tells.
func inspect[T any](ctx context.Context, c *cli, names []string, get func(context.Context, string) (T, error)) error {
	found := []T{}
	var missing []error
	for _, name := range names {
		item, err := get(ctx, name)
		if lost(err) {
			return err
		}
		if err != nil {
			missing = append(missing, err)
			continue
		}
		found = append(found, item)
	}
	return errors.Join(append([]error{c.printJSON(found)}, missing...)...)
}

// lost reports whether err means that to go on is of no use.
func lost(err error) bool {
	var none *client.NoDaemon
	return errors.As(err, &none)
}

// removal is how things of a kind are removed.
type removal struct {
	remove func(name string) error
	plan   func(name string) ([]string, error)
}

// each removes the names, or prints the ops that would, and goes on after an
// error.
func (c *cli) each(names []string, dry bool, r removal) error {
	var failed []error
	var done, ops []string
	for _, name := range names {
		err := func() error {
			if !dry {
				return r.remove(name)
			}
			some, err := r.plan(name)
			ops = append(ops, some...)
			return err
		}()
		if lost(err) {
			return err
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		done = append(done, name)
	}
	return errors.Join(append([]error{c.printEach(done, ops, dry)}, failed...)...)
}

func (c *cli) printEach(done, ops []string, dry bool) error {
	if dry {
		return c.ops(ops, nil)
	}
	if c.json {
		return c.printJSON(append([]string{}, done...))
	}
	for _, name := range done {
		if err := c.println(name); err != nil {
			return err
		}
	}
	return nil
}
