//go:build linux

package nft

import "sync"

// Buffers lends receive buffers to connections, for the length of a request
// each: connections to a thousand namespaces that are read one after the other
// need one buffer together. The zero value is ready, and may be used by several
// goroutines.
type Buffers struct{ pool sync.Pool }

func (b *Buffers) take() *[readSize]byte {
	if buf, ok := b.pool.Get().(*[readSize]byte); ok {
		return buf
	}
	return new([readSize]byte)
}

func (b *Buffers) give(buf *[readSize]byte) { b.pool.Put(buf) }
