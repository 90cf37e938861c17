package servertest

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/towpath/towpath/internal/event"
	"github.com/towpath/towpath/internal/server"
)

// Start serves engine on a socket of its own until the test ends, and returns
// the socket's path. A stop that fails fails the test.
func Start(t testing.TB, engine server.Engine) string {
	t.Helper()
	// Not t.TempDir: its path may be longer than a socket's is allowed to be.
	path := filepath.Join(SocketDir(t), "towpath.sock")
	stop, err := Serve(path, engine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop server: %v", err)
		}
	})
	return path
}

// Serve serves engine on a socket at path until stop.
func Serve(path string, engine server.Engine) (stop func() error, err error) {
	l, err := server.Listen(path, "")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	log := slog.New(slog.DiscardHandler)
	go func() {
		done <- server.Serve(ctx, l, server.New(server.Config{Engine: engine, Events: &event.Log{}, Log: log}), log)
	}()
	return func() error {
		cancel()
		return <-done
	}, nil
}
