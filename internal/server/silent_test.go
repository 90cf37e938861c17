package server_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/towpath/towpath/internal/server"
)

// pipes is a listener in memory, so that time is that of a bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error { close(p.closed); return nil }

func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// TestStopDoesNotWaitForSilence: a connection that never asked for anything
// does not hold up a stop.
func TestStopDoesNotWaitForSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipes{make(chan net.Conn), make(chan struct{})}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- server.Serve(ctx, l, http.NotFoundHandler(), slog.New(slog.DiscardHandler)) }()
		ours, theirs := net.Pipe()
		l.conns <- theirs
		synctest.Wait()
		asked := time.Now()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		// Shutdown may look once too early and again 1 ms later, doubling that.
		if took := time.Since(asked); took > 50*time.Millisecond {
			t.Errorf("the stop took %s", took)
		}
		if n, err := ours.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("the silent connection got %d bytes, %v", n, err)
		}
	})
}
