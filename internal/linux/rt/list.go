//go:build linux

package rt

import (
	"context"
	"errors"
	"fmt"
)

// list runs a dump, decodes what it gives, and keeps what decode says to keep.
// A limit above zero, or else the Conn's, bounds the result: when there is more,
// the dump is given up, not read to its end, and what fits comes with an
// ErrTooMany. A dump that the kernel calls inconsistent is begun again.
func list[T any](ctx context.Context, c *Conn, req request, limit int, decode func(typ uint16, body []byte) (T, bool, error)) ([]T, error) {
	if limit <= 0 {
		limit = c.limit
	}
	for range dumpAttempts {
		var out []T
		err := c.dump(ctx, req, func(typ uint16, body []byte) error {
			v, keep, err := decode(typ, body)
			if err != nil || !keep {
				return err
			}
			if limit > 0 && len(out) == limit {
				return fmt.Errorf("%w of %d", ErrTooMany, limit)
			}
			out = append(out, v)
			return nil
		})
		if !errors.Is(err, ErrInterrupted) {
			if err != nil && !errors.Is(err, ErrTooMany) {
				out = nil
			}
			return out, err
		}
	}
	return nil, ErrInterrupted
}
