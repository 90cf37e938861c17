//go:build linux

package nft

import (
	"runtime"
	"testing"

	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

func TestOverrunIsAnEvent(t *testing.T) {
	testnet.Require(t, "netns")
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		defer func() { done <- err }()
		if err == nil {
			overrun(t)
		}
	}()
	if err := <-done; err != nil {
		t.Fatalf("make namespace: %v", err)
	}
}

// overrun writes more than the monitor's buffer holds.
func overrun(t *testing.T) {
	m, err := Listen(-1)
	if err != nil {
		t.Error(err)
		return
	}
	defer m.Close()
	if err := m.sock.SetReadBuffer(4096); err != nil {
		t.Error(err)
		return
	}
	c, err := Dial(-1)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	table := rules.Table{Family: rules.FamilyInet, Name: "t"}
	for range 100 {
		var b Batch
		b.AddTable(table)
		b.DeleteTable(table)
		if err := c.Commit(t.Context(), &b); err != nil {
			t.Error(err)
			return
		}
	}
	for {
		e, err := m.Next(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if e.Overrun {
			return
		}
	}
}
