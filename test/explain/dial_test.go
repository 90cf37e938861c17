package explain

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// dial connects, and says what came of it.
func (w *world) dial(ns *testnet.NS, to netip.AddrPort, wait time.Duration) string {
	ctx, cancel := context.WithTimeout(w.Context(), wait)
	defer cancel()
	c, err := ns.DialTCP(ctx, to)
	switch {
	case err == nil:
		_ = c.Close()
		return "answered"
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil:
		return "nothing"
	}
	return "error"
}
