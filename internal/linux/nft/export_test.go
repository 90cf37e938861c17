//go:build linux

package nft

// LimitWriteBuffer makes the socket one whose buffer cannot be raised.
func (c *Conn) LimitWriteBuffer(bytes int) error { return c.sock.SetWriteBuffer(bytes) }
