package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// listen makes the socket that systemd would listen on.
func listen(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "tp") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return sock
}

// heard is the next thing said, "" when it is not said in time.
func heard(t *testing.T, sock *net.UnixConn, wait time.Duration) string {
	t.Helper()
	if err := sock.SetReadDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := sock.Read(buf)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// TestWatchdog: nothing is said while the loop hangs.
func TestWatchdog(t *testing.T) {
	sock := listen(t)
	t.Setenv("WATCHDOG_USEC", "3000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	asked, answer, ended := make(chan bool), make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		watchdog(ctx, func() {
			select {
			case asked <- true:
				<-answer
			case <-ctx.Done(): // of two that are ready, select takes either
			}
		}, slog.New(slog.DiscardHandler))
	}()
	for range 2 {
		<-asked
		if got := heard(t, sock, 10*time.Millisecond); got != "" {
			t.Errorf("the loop hangs, and systemd hears %q", got)
		}
		answer <- true
		if got := heard(t, sock, 10*time.Second); got != "WATCHDOG=1" {
			t.Errorf("the loop goes on, and systemd hears %q", got)
		}
	}
	<-asked
	cancel()
	answer <- true
	<-ended
}

// TestWatchdogOff: without a watchdog there is nothing to do.
func TestWatchdogOff(t *testing.T) {
	for name, usec := range map[string]string{"not asked for": "", "no number": "soon"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", usec)
			t.Setenv("WATCHDOG_PID", "")
			watchdog(t.Context(), func() { t.Error("asked whether it is alive") }, slog.New(slog.DiscardHandler))
		})
	}
}

// TestTellNobody: what nobody listens to is a line in the log, and no more.
func TestTellNobody(t *testing.T) {
	listen(t).Close()
	var log lines
	tell("READY=1", slog.New(slog.NewTextHandler(&log, nil)))
	if len(log) != 1 {
		t.Errorf("log %q, want one line", log)
	}
}

// lines are what was written, one write each.
type lines []string

func (l *lines) Write(b []byte) (int, error) {
	*l = append(*l, string(b))
	return len(b), nil
}
