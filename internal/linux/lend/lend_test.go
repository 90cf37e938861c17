package lend

import (
	"sync"
	"testing"
)

// TestBuffers: nobody has a buffer that another has.
func TestBuffers(t *testing.T) {
	var b Buffers[[8]byte]
	var all sync.WaitGroup
	for i := range byte(8) {
		all.Go(func() {
			for range 1000 {
				buf := b.Take()
				*buf = [8]byte{i, i, i, i, i, i, i, i}
				if buf[0] != i || buf[7] != i {
					t.Errorf("buffer of %d has %v", i, *buf)
				}
				b.Give(buf)
			}
		})
	}
	all.Wait()
}
