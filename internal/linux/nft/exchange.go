//go:build linux

package nft

import (
	"context"
	"errors"
	"fmt"

	rules "github.com/towpath/towpath/internal/nft"
)

// Elements are elements of one set or map.
type Elements struct {
	Set  rules.Set
	List []rules.Element
}

// DeleteAll removes elements of several sets.
func (b *Batch) DeleteAll(all []Elements) {
	for _, e := range all {
		b.DeleteElements(e.Set, e.List)
	}
}

// AddAll adds elements to several sets.
func (b *Batch) AddAll(all []Elements) {
	for _, e := range all {
		b.AddElements(e.Set, e.List)
	}
}

// Exchange removes elements and adds others. It is for what is too large for one
// transaction: it takes as many as are needed and, when one of them is refused,
// takes back those before it. What is removed has to be given whole, so that it
// can be put back.
func (c *Conn) Exchange(ctx context.Context, out, in []Elements) error {
	x := exchange{c: c}
	for _, e := range out {
		if err := x.move(ctx, e, true); err != nil {
			return x.back(ctx, err)
		}
	}
	for _, e := range in {
		if err := x.move(ctx, e, false); err != nil {
			return x.back(ctx, err)
		}
	}
	return nil
}

// exchange is an Exchange under way.
type exchange struct {
	c    *Conn
	done []move
}

// move is elements that went or came.
type move struct {
	Elements
	gone bool
}

// move carries out a part, in halves when it is too large.
func (x *exchange) move(ctx context.Context, e Elements, gone bool) error {
	err := x.c.move(ctx, move{e, gone})
	if !errors.Is(err, ErrTooLarge) || len(e.List) < 2 {
		if err == nil {
			x.done = append(x.done, move{e, gone})
		}
		return err
	}
	half := len(e.List) / 2
	if err := x.move(ctx, Elements{e.Set, e.List[:half]}, gone); err != nil {
		return err
	}
	return x.move(ctx, Elements{e.Set, e.List[half:]}, gone)
}

// back undoes what was done, the last first, and gives the cause.
func (x *exchange) back(ctx context.Context, cause error) error {
	for i := len(x.done) - 1; i >= 0; i-- {
		m := x.done[i]
		m.gone = !m.gone
		// Whoever asked may have lost patience; half of it must not stay.
		if err := x.c.move(context.WithoutCancel(ctx), m); err != nil {
			return errors.Join(cause, fmt.Errorf("take back: %w", err))
		}
	}
	return cause
}

// move is one transaction.
func (c *Conn) move(ctx context.Context, m move) error {
	var b Batch
	if m.gone {
		b.DeleteElements(m.Set, m.List)
	} else {
		b.AddElements(m.Set, m.List)
	}
	return c.Commit(ctx, &b)
}
