package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/store"
	"github.com/towpath/towpath/internal/store/bolt"
	"github.com/towpath/towpath/internal/testnet"
)

// TestCleanup: after --cleanup the host is as before the first start. A namespace
// of our own goes whole, which is what makes it quick; out of one that has
// another owner, and out of one that nobody knows, our part is taken.
func TestCleanup(t *testing.T) {
	w := newWorld(t)
	w.settle()
	before := w.snapshot()
	w.start()
	w.must("network", "create", "front", "--ipv6")
	theirs, stray := newOwned(w, "theirs"), newOwned(w, "stray")
	for name, ns := range map[string]*owned{"theirs": theirs, "stray": stray} {
		w.must("sandbox", "create", name, "--network", "front", "--netns", ns.bind(w, filepath.Join(w.run, "x", name)))
	}
	for i := range 5 {
		w.must("sandbox", "create", fmt.Sprint("made", i), "--network", "front", "--network", "bridge")
	}
	made, _ := w.sandbox("made0")
	tables := tablesIn(w, made)
	if tables == 0 {
		t.Error("a sandbox has no table: nothing can be seen of it")
	}
	w.kill()
	w.forget("sandboxes/stray", "endpoints/stray/eth0")
	w.takeDown(before)
	for _, ns := range []*owned{theirs, stray} {
		ns.asBefore(w, "cleaned up")
		if n := tablesIn(w, ns.NS); n != 0 {
			t.Errorf("%d tables are left in %s", n, ns.Name)
		}
	}
	if n := tablesIn(w, made); n != tables {
		t.Errorf("a namespace that only this test keeps has %d tables, had %d: it was taken apart", n, tables)
	}
	w.start()
	w.must("sandbox", "rm", "theirs")
	w.clean()
}

// tablesIn counts the nftables tables of a namespace.
func tablesIn(w *world, ns *testnet.NS) int {
	w.Helper()
	c, err := nft.Dial(ns.FD())
	w.check(err)
	defer c.Close()
	tables, err := c.ReadTables(w.Context())
	w.check(err)
	return len(tables)
}

// forget takes keys out of the store of a daemon that has ended.
func (w *world) forget(keys ...string) {
	w.Helper()
	s, err := bolt.Open(w.Context(), filepath.Join(w.state, "towpath.db"))
	w.check(err)
	_, err = s.Commit(w.Context(), store.Txn{Deletes: keys})
	w.check(err)
	w.check(s.Close())
}
