package event

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/towpath/towpath/api"
)

func TestAfterWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Log
		got := make(chan []api.Event)
		go func() {
			events, err := l.After(t.Context(), 0)
			if err != nil {
				t.Error(err)
			}
			got <- events
		}()
		synctest.Wait()
		l.Tell(api.Event{Action: "create"})
		if events := <-got; len(events) != 1 || events[0].ID != 1 || events[0].Action != "create" {
			t.Errorf("got %+v", events)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.After(ctx, l.Last()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
	})
}

func TestRingForgetsTheOldest(t *testing.T) {
	var l Log
	for n := range int64(5 * kept) {
		l.Tell(api.Event{})
		events, err := l.After(t.Context(), 0)
		if err != nil || len(events) != int(min(n+1, kept)) || events[0].ID != max(n+2-kept, 1) || l.Last() != n+1 {
			t.Fatalf("after %d: %d events from %d, %v", n+1, len(events), events[0].ID, err)
		}
	}
}

func TestSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Log
		l.Tell(api.Event{Action: "old"})
		<-time.After(time.Minute)
		from := time.Now()
		l.Tell(api.Event{Action: "new"})
		if events := l.Since(from); len(events) != 1 || events[0].Action != "new" {
			t.Errorf("got %+v", events)
		}
	})
}
