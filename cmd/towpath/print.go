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

// inspect prints what there is of the names as the format says, an array
// unless it is a template; of the rest it tells.
func inspect[T any](ctx context.Context, c *cli, names []string, format term.Format, get func(context.Context, string) (T, error)) error {
	found, items := []T{}, []any{}
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
		found, items = append(found, item), append(items, item)
	}
	show := func() error { return c.printJSON(found) }
	if format.IsTemplate() {
		show = func() error { return format.Print(c.out, *new(T), items) }
	}
	return errors.Join(append([]error{show()}, missing...)...)
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
	// pass says of an error that the name is to be passed over; nil: none is.
	pass func(error) bool
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
		switch {
		case lost(err):
			return err
		case err == nil:
			done = append(done, name)
		case r.pass == nil || !r.pass(err):
			failed = append(failed, err)
		}
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
	return c.printNames(done)
}
