//go:build linux

package ct

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
)

// ErrTooMany says that there are more connections than were asked for.
var ErrTooMany = errors.New("more connections than the limit")

// Entries lists the connections of both families, at most limit of them if it is
// above zero. More are an ErrTooMany beside the first ones.
func (c *Conn) Entries(ctx context.Context, limit int) ([]Entry, error) {
	var out []Entry
	err := c.with(ctx, func(sock *netlink.Conn) error {
		for range dumpAttempts {
			var interrupted bool
			var err error
			out, interrupted, err = entriesOnce(sock, limit)
			if err != nil || !interrupted {
				return err
			}
		}
		return ErrInterrupted
	})
	if err != nil {
		return out, fmt.Errorf("list conntrack: %w", err)
	}
	return out, nil
}

// Each shows all connections of both families to see; again, when the table
// changed while it was read.
func (c *Conn) Each(ctx context.Context, see func(Entry)) error {
	err := c.with(ctx, func(sock *netlink.Conn) error {
		_, err := find(sock, everything(), func(e Entry) bool { see(e); return false })
		return err
	})
	if err != nil {
		return fmt.Errorf("list conntrack: %w", err)
	}
	return nil
}

// entriesOnce reads the table once. What is left of a dump that is given up goes
// with the socket.
func entriesOnce(sock *netlink.Conn, limit int) (out []Entry, interrupted bool, err error) {
	if _, err := sock.Send(everything().request(netlink.Dump)); err != nil {
		return nil, false, err
	}
	for m, err := range sock.ReceiveIter() {
		if err != nil {
			return nil, false, err
		}
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		if limit > 0 && len(out) == limit {
			return out, false, fmt.Errorf("%w of %d", ErrTooMany, limit)
		}
		e, _, err := decodeEntry(m.Data)
		if err != nil {
			return nil, false, err
		}
		out = append(out, e)
	}
	return out, interrupted, nil
}
