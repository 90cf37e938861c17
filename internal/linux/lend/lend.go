// Package lend lends buffers to connections.
package lend

import "sync"

// Buffers lends receive buffers of type B, an array, to connections for the
// length of a request each: connections to a thousand namespaces that are read
// one after the other need one buffer together. The zero value is ready, and may
// be used by several goroutines.
type Buffers[B any] struct{ pool sync.Pool }

// Take lends a buffer, which holds what the last borrower left in it.
func (b *Buffers[B]) Take() *B {
	if buf, ok := b.pool.Get().(*B); ok {
		return buf
	}
	return new(B)
}

// Give takes a buffer back.
func (b *Buffers[B]) Give(buf *B) { b.pool.Put(buf) }
