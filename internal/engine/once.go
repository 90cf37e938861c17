package engine

import (
	"context"
	"fmt"

	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/reconcile"
)

// Check says what a start would do to the kernel, and changes nothing. The
// default network of a first start is not among it: its subnet is chosen then.
func (e *Engine) Check(ctx context.Context, k reconcile.Kernel) ([]string, error) {
	if err := e.load(ctx); err != nil {
		return nil, fmt.Errorf("load store: %w", err)
	}
	ops, err := reconcile.New(k, e, e.Log).Diff(ctx)
	return lines(ops), err
}

// Cleanup takes everything of ours out of the kernel, puts back what was there
// before, and forgets the saved values. The objects stay in the store: the
// next start makes them again.
func (e *Engine) Cleanup(ctx context.Context, k reconcile.Kernel) error {
	if err := e.load(ctx); err != nil {
		return fmt.Errorf("load store: %w", err)
	}
	stored, rev := e.View()
	down := driver.NewView()
	down.Down, down.Saved = true, stored.Saved
	e.now.Store(&snapshot{view: down, rev: rev})
	loop := reconcile.New(k, e, e.Log)
	for name, s := range stored.Sandboxes {
		// A namespace of our own goes with all that is in it; out of one that nobody
		// knows, whose owner may keep it, our part would be taken piece by piece.
		loop.Know(driver.SandboxUnit(name), kernel.Namespace{Name: name, Cookie: s.Cookie})
	}
	if err := loop.Once(ctx); err != nil {
		return err
	}
	e.now.Store(&snapshot{view: stored, rev: rev})
	_, err := e.commit(ctx, func(d *draft) error {
		for name := range d.view.Saved {
			d.deleteSaved(name)
		}
		return nil
	})
	return err
}
