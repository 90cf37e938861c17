package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// grace is how long requests may go on after the daemon was told to stop;
	// systemd kills after 90 s.
	grace = 10 * time.Second
	// headerTimeout ends a connection that never asks for anything.
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

// Serve answers requests from l by h until ctx ends, then lets those under way
// finish. It closes l. A stop that was asked for is not an error.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	silent := &silent{conns: map[net.Conn]bool{}}
	srv := &http.Server{
		ConnState:         silent.note,
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		// Requests outlive ctx by the grace; streams, which never end by themselves, do not.
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.WithoutCancel(ctx), stopKey{}, ctx)
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	stopped := make(chan error, 1)
	keepGoing := context.AfterFunc(ctx, func() { stopped <- stop(ctx, srv, silent) })
	err := srv.Serve(listener{l})
	if !errors.Is(err, http.ErrServerClosed) {
		keepGoing()
		return fmt.Errorf("serve API: %w", err)
	}
	return <-stopped
}

// stop waits for requests under way, at most the grace, then cuts them off.
func stop(ctx context.Context, srv *http.Server, silent *silent) error {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	silent.close()
	if err := srv.Shutdown(limit); err != nil {
		return errors.Join(fmt.Errorf("stop API: requests were cut off: %w", err), srv.Close())
	}
	return nil
}

// stopKey is the key of the context that ends when the daemon is told to stop.
type stopKey struct{}

// streaming is r with a context that ends with the client and with the daemon.
func streaming(r *http.Request) (*http.Request, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	stop, ok := ctx.Value(stopKey{}).(context.Context)
	if !ok {
		return r.WithContext(ctx), cancel
	}
	forget := context.AfterFunc(stop, cancel)
	return r.WithContext(ctx), func() { forget(); cancel() }
}

// silent are the connections on which nothing was asked yet, as clients keep
// them in reserve. http.Server.Shutdown waits 5 s for their first request.
type silent struct {
	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

// note is a http.Server.ConnState. A connection is active with its first byte.
func (s *silent) note(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(s.conns, c)
	case s.closed:
		_ = c.Close()
	default:
		s.conns[c] = true
	}
}

// close closes them, and those that come later.
func (s *silent) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		_ = c.Close()
	}
}

// listener accepts connections that can receive descriptors.
type listener struct{ net.Listener }

// Accept waits for the next connection. One that is not on a Unix socket is
// served without descriptors.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if u, ok := c.(*net.UnixConn); ok {
		return newConn(u), nil
	}
	return c, nil
}
