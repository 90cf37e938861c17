//go:build linux

package main

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestIdle: memory is given back after the last of what was done, and not often.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var freed []time.Duration
		i := &idle{free: func() { freed = append(freed, time.Since(began)) }}
		defer i.stop()
		at := func(d time.Duration) {
			<-time.After(time.Until(began.Add(d)))
			synctest.Wait()
		}
		for s := range 5 {
			at(time.Duration(s) * time.Second)
			i.busy()
		}
		at(10 * time.Second)
		i.busy()
		at(100 * time.Second)
		i.busy()
		i.stop()
		at(200 * time.Second)
		if len(freed) != 2 || freed[0] != 4*time.Second+idleAfter || freed[1] != freed[0]+idleEach {
			t.Errorf("given back at %v", freed)
		}
	})
}
