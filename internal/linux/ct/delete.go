//go:build linux

package ct

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// purgeTime is the most that a Purge takes. The largest usual table, 262 144
	// entries, takes some four seconds to read.
	purgeTime = 30 * time.Second
	// dumpAttempts bounds how often a listing is begun again because the table
	// changed while it was read.
	dumpAttempts = 8
	// together is how many deletions go to the kernel in one datagram. Each that
	// is refused is answered by a datagram of about 1 KB of the receive buffer,
	// which holds 208 KB.
	together = 64
)

// ErrInterrupted says that the table changed during each of several readings, so
// that none was consistent.
var ErrInterrupted = errors.New("connections changed while being listed")

// Purge deletes the entries that stale reports, of both families, and returns
// how many were deleted. An entry that went by itself meanwhile, or that another
// took the place of, is not among them and is no error. Stale may be asked about
// an entry twice, and must not use the Conn.
//
// It reads the whole table once: some 15 ms for 1 000 entries that all go.
func (c *Conn) Purge(ctx context.Context, stale func(Entry) bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, purgeTime)
	defer cancel()
	total := 0
	err := c.with(ctx, func(sock *netlink.Conn) error {
		// Both families in one dump: the walk over the buckets, most of them
		// empty, is what a dump costs.
		names, err := find(sock, everything(), stale)
		if err != nil {
			return err
		}
		total, err = remove(sock, names)
		return err
	})
	if err != nil {
		return total, fmt.Errorf("purge conntrack: %w", err)
	}
	return total, nil
}

// everything asks for all entries of both families.
func everything() message { return message{typ: msgGet, family: unix.AF_UNSPEC} }

// find names the entries that a question for some gets and stale reports.
func find(sock *netlink.Conn, question message, stale func(Entry) bool) ([]name, error) {
	for range dumpAttempts {
		names, interrupted, err := findOnce(sock, question, stale)
		if err != nil || !interrupted {
			return names, err
		}
	}
	return nil, ErrInterrupted
}

// findOnce reads the table once, and tells whether it changed meanwhile.
func findOnce(sock *netlink.Conn, question message, stale func(Entry) bool) (names []name, interrupted bool, err error) {
	if _, err := sock.Send(question.request(netlink.Dump)); err != nil {
		return nil, false, err
	}
	for m, err := range sock.ReceiveIter() {
		if err != nil {
			return nil, false, err
		}
		interrupted = interrupted || m.Header.Flags&netlink.DumpInterrupted != 0
		e, n, err := decodeEntry(m.Data)
		if err != nil {
			return nil, false, err
		}
		if stale(e) {
			names = append(names, n)
		}
	}
	return names, interrupted, nil
}

// remove deletes entries by name, and returns how many were still there.
func remove(sock *netlink.Conn, names []name) (int, error) {
	total := 0
	for len(names) > 0 {
		n := min(together, len(names))
		there, err := removeTogether(sock, names[:n])
		total += there
		if err != nil {
			return total, err
		}
		names = names[n:]
	}
	return total, nil
}

// removeTogether deletes entries by one datagram. Only the last deletion asks
// for an answer; others answer when they are refused.
func removeTogether(sock *netlink.Conn, names []name) (int, error) {
	msgs := make([]netlink.Message, len(names))
	for i, n := range names {
		m, err := n.deletion()
		if err != nil {
			return 0, err
		}
		msgs[i] = m.request(0)
	}
	last := &msgs[len(msgs)-1].Header
	last.Flags |= netlink.Acknowledge
	if _, err := sock.SendMessages(msgs); err != nil {
		return 0, err
	}
	there := len(names)
	var failure error
	for {
		_, err := sock.Receive()
		var refusal *netlink.OpError
		switch {
		case err == nil: // the acknowledgement of the last
			return there, failure
		case !errors.As(err, &refusal) || refusal.Sequence == 0:
			return 0, err
		}
		there--
		if !errors.Is(err, unix.ENOENT) && failure == nil {
			failure = err
		}
		if refusal.Sequence == last.Sequence {
			return there, failure
		}
	}
}
