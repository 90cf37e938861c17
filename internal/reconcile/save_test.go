package reconcile

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/kernel/fake"
)

// TestRevisionOfSavedSysctls: a pass that saves sysctls makes a revision of its
// own, and who waits for that one is answered too.
func TestRevisionOfSavedSysctls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, fake.New())
		asked := b.source.change(addNetwork("front", 1))
		b.loop.Trigger(driver.HostUnit, driver.NetworkUnit("front"))
		synctest.Wait()
		_, now := b.source.View()
		if now <= asked {
			t.Fatalf("revision %d after %d: nothing was saved", now, asked)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.loop.Wait(ctx, now, driver.HostUnit); err != nil {
			t.Error(err)
		}
		b.agrees()
	})
}

// TestOnceSavesSysctls: one pass without the loop ends although it saves.
func TestOnceSavesSysctls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &intent{view: driver.NewView()}
		src.change(addNetwork("front", 1))
		l := New(fake.New(), src, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Once(ctx); err != nil {
			t.Error(err)
		}
	})
}
