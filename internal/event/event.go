// Package event keeps what has happened lately and passes it on as it happens.
package event

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/towpath/towpath/api"
)

// kept is how many events are remembered.
const kept = 1024

// Log is a ring of events. The zero Log is ready to use.
type Log struct {
	mu     sync.Mutex
	ring   []api.Event // the oldest first; of twice as many as are kept the last are
	last   int64
	change chan struct{} // closed and replaced with each event
}

// Tell adds an event, with the time and number it gets here.
func (l *Log) Tell(e api.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	e.ID, e.Time = l.last, time.Now().UTC()
	if l.ring = append(l.ring, e); len(l.ring) >= 2*kept {
		l.ring = slices.Delete(l.ring, 0, len(l.ring)-kept)
	}
	if l.change != nil {
		close(l.change)
	}
	l.change = make(chan struct{})
}

// Last is the number of the newest event, 0 before the first.
func (l *Log) Last() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// After waits until there are events numbered above id, and gives them. A
// reader that is slower than the ring turns sees a gap in the numbers.
func (l *Log) After(ctx context.Context, id int64) ([]api.Event, error) {
	for {
		events, change := l.since(func(e api.Event) bool { return e.ID > id })
		if len(events) > 0 {
			return events, nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Since gives the remembered events from a time on.
func (l *Log) Since(t time.Time) []api.Event {
	events, _ := l.since(func(e api.Event) bool { return !e.Time.Before(t) })
	return events
}

func (l *Log) since(match func(api.Event) bool) ([]api.Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.change == nil {
		l.change = make(chan struct{})
	}
	list := l.ring[max(len(l.ring)-kept, 0):]
	if i := slices.IndexFunc(list, match); i >= 0 {
		return slices.Clone(list[i:]), l.change
	}
	return nil, l.change
}
