package server_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/server"
	"github.com/towpath/towpath/internal/server/servertest"
)

func TestListenMode(t *testing.T) {
	path := filepath.Join(servertest.SocketDir(t), "s")
	l, err := server.Listen(path, strconv.Itoa(os.Getgid()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != os.ModeSocket|0o660 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestListenReplacesOnlyWhatIsStale(t *testing.T) {
	path := filepath.Join(servertest.SocketDir(t), "s")
	first, err := server.Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Listen(path, ""); err == nil || !strings.Contains(err.Error(), "another towpathd answers on "+path) {
		t.Errorf("beside a live one: %v", err)
	}
	// What a killed daemon leaves: the file without a listener.
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := server.Listen(path, "")
	if err != nil {
		t.Fatalf("over a stale one: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestListenRefuses(t *testing.T) {
	dir := servertest.SocketDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, group, want string }{
		{"a file", file, "", "not a socket"},
		{"a long path", filepath.Join(dir, strings.Repeat("x", 108)), "", "over 107 bytes"},
		{"no such group", filepath.Join(dir, "s"), "no-such-group", "no-such-group"},
		{"no such directory", filepath.Join(dir, "none", "s"), "", "no such file"},
	} {
		if _, err := server.Listen(c.path, c.group); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "precious" {
		t.Errorf("file after the refusal: %q %v", data, err)
	}
}

func TestStopLetsRequestsFinish(t *testing.T) {
	path := filepath.Join(servertest.SocketDir(t), "s")
	l, err := server.Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stop()
		<-ctx.Done()
		if r.Context().Err() == nil {
			w.WriteHeader(http.StatusAccepted)
		}
	})
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l, h, slog.New(slog.DiscardHandler)) }()
	if resp, _ := ask(t, path, "GET", "/", ""); resp.StatusCode != http.StatusAccepted {
		t.Errorf("request under way at the stop: %s", resp.Status)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
