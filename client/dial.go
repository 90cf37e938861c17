package client

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

// busy is how long a daemon is waited for that takes no connection at the moment.
const busy = 5 * time.Second

// dial connects to a daemon. Where more wait for it already than its queue holds
// (EAGAIN, unix(7)), it waits for its turn.
func dial(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	end := time.Now().Add(busy)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		c, err := d.DialContext(ctx, "unix", socket)
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(end) {
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}
