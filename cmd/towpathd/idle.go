//go:build linux

package main

import (
	"sync"
	"time"
)

const (
	// idleAfter is how long nothing must have been done, and idleEach the least time
	// between two times that memory is given back: it takes a collection of garbage.
	idleAfter = 2 * time.Second
	idleEach  = 10 * time.Second
)

// idle calls free when nothing was done for a while. What a crowd of verbs took
// stays with the process for minutes otherwise, since the runtime gives memory back
// slowly.
type idle struct {
	free func()

	mu    sync.Mutex
	timer *time.Timer
	last  time.Time
}

// busy notes that something was done.
func (i *idle) busy() {
	i.mu.Lock()
	defer i.mu.Unlock()
	wait := max(idleAfter, time.Until(i.last.Add(idleEach)))
	if i.timer == nil {
		i.timer = time.AfterFunc(wait, i.giveBack)
		return
	}
	i.timer.Reset(wait)
}

func (i *idle) giveBack() {
	i.mu.Lock()
	i.last = time.Now()
	i.mu.Unlock()
	i.free()
}

// stop ends it.
func (i *idle) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.timer != nil {
		i.timer.Stop()
	}
}
