package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/event"
	"github.com/towpath/towpath/internal/server"
	"github.com/towpath/towpath/internal/server/servertest"
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

// TestStopEndsStreams: a stream on which nothing happens does not hold up a
// stop, and its reader sees the end of it, no error.
func TestStopEndsStreams(t *testing.T) {
	for _, path := range []string{"/v1/events", "/v1/trace"} {
		synctest.Test(t, func(t *testing.T) {
			l := pipes{make(chan net.Conn), make(chan struct{})}
			ctx, stop := context.WithCancel(t.Context())
			h := server.New(server.Config{Engine: servertest.New(), Events: &event.Log{}, Sight: quiet{}, Log: slog.New(slog.DiscardHandler)})
			done := make(chan error, 1)
			go func() { done <- server.Serve(ctx, l, h, slog.New(slog.DiscardHandler)) }()
			ours, theirs := net.Pipe()
			defer ours.Close()
			l.conns <- theirs
			if _, err := fmt.Fprintf(ours, "GET %s HTTP/1.1\r\nHost: towpath\r\n\r\n", path); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(ours), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			asked := time.Now()
			stop()
			if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
				t.Errorf("%s: the stream ends with %q, %v", path, rest, err)
			}
			if err := <-done; err != nil {
				t.Errorf("%s: %v", path, err)
			}
			if took := time.Since(asked); took > time.Second {
				t.Errorf("%s: the stop took %s", path, took)
			}
		})
	}
}

// quiet sees no flow.
type quiet struct{ told }

func (quiet) Trace(context.Context, api.TraceQuery) (server.Tracing, error) { return nothing{}, nil }

type nothing struct{ once }

func (nothing) Next(ctx context.Context) ([]api.Path, error) { <-ctx.Done(); return nil, ctx.Err() }
