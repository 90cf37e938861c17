//go:build linux

package rt

import "sync"

// Buffers lends receive buffers to connections, for the length of a request
// each: connections to a thousand namespaces that are read one after the other
// need one buffer together. The zero value is ready, and may be used by several
// goroutines.
type Buffers struct{ pool sync.Pool }

func (b *Buffers) take() *[recvBuffer]byte {
	if buf, ok := b.pool.Get().(*[recvBuffer]byte); ok {
		return buf
	}
	return new([recvBuffer]byte)
}

func (b *Buffers) give(buf *[recvBuffer]byte) { b.pool.Put(buf) }
