package server

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

// TestReadAfterReset: a caller that goes without reading its answer resets the
// connection (unix(7)); a reader gets no bytes then, and not -1 of them.
func TestReadAfterReset(t *testing.T) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pair[0]), "ours")
	ours, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if _, err := ours.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Close(pair[1]); err != nil {
		t.Fatal(err)
	}
	if n, err := newConn(ours.(*net.UnixConn)).Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d, %v; want 0, %v", n, err, syscall.ECONNRESET)
	}
}
