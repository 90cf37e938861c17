package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/towpath/towpath/internal/linux/rt"
)

// How much is measured at each size.
const (
	clients  = 32  // at once
	removals = 100 // at once
	serial   = 10  // endpoints made one after the other before they are removed
	batches  = 3   // of serial
	bursts   = 3   // of clients
	// burstBase is where bursts start from at most: a bridge takes 1 023 ports
	// (BR_PORT_BITS of net/bridge/br_private.h).
	burstBase = 900
)

// world is the two hosts, the store beside them, and their population: both
// hosts always have the same number of endpoints.
type world struct {
	daemon *daemon
	bare   *bareHost
	conns  []*rt.Conn // to the bare host, one a client
	ledger *ledger

	made      int // names given
	sandboxes []string
	endpoints []bareEndpoint
	growth    time.Duration // what making sandboxes by clients at once took, and
	grown     int           // how many those were
}

func newWorld(ctx context.Context, bin, state string) (*world, error) {
	run, err := os.MkdirTemp("/run", "bench")
	if err != nil {
		return nil, err
	}
	w := &world{}
	if w.daemon, err = newDaemon(ctx, bin, run, filepath.Join(state, "towpathd")); err != nil {
		return nil, err
	}
	w.bare, err = newBareHost(ctx, filepath.Join(run, "bare"))
	for range clients {
		var c *rt.Conn
		if err == nil {
			c, err = rt.Dial(int(w.bare.ns.Fd()))
			w.conns = append(w.conns, c)
		}
	}
	if err == nil {
		w.ledger, err = openLedger(ctx, state)
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// close ends the daemon. The namespaces are bound in a mount namespace that
// goes with this process, and they go with it.
func (w *world) close() {
	_ = w.daemon.close()
	if w.ledger != nil {
		_ = w.ledger.store.Close()
	}
}

// name gives a name that was not used before. It is short enough for the host's
// end of the pair to show it.
func (w *world) name() string {
	w.made++
	return fmt.Sprintf("s%05d", w.made)
}

func (w *world) names(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = w.name()
	}
	return list
}

// together calls do for each i below n in goroutines, at most width at once,
// each with a number below width of its own, and returns what it took.
func together(n, width int, do func(worker, i int) error) (time.Duration, error) {
	jobs := make(chan int, n)
	for i := range n {
		jobs <- i
	}
	close(jobs)
	errs := make([]error, width)
	var wg sync.WaitGroup
	began := time.Now()
	for worker := range width {
		wg.Go(func() {
			for i := range jobs {
				errs[worker] = errors.Join(errs[worker], do(worker, i))
			}
		})
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

// createTowpath makes sandboxes by clients at once.
func (w *world) createTowpath(ctx context.Context, n int) (time.Duration, error) {
	names := w.names(n)
	took, err := together(n, clients, func(worker, i int) error {
		_, err := w.daemon.create(ctx, w.daemon.clients[worker], names[i])
		return err
	})
	w.sandboxes = append(w.sandboxes, names...)
	return took, err
}

// createBare makes endpoints by as many at once.
func (w *world) createBare(ctx context.Context, n int) (time.Duration, error) {
	names, list := w.names(n), make([]bareEndpoint, n)
	took, err := together(n, clients, func(worker, i int) (err error) {
		list[i], err = w.bare.create(ctx, w.conns[worker], names[i])
		return err
	})
	w.endpoints = append(w.endpoints, list...)
	return took, err
}

// removeTowpath removes the last n sandboxes by as many calls at once.
func (w *world) removeTowpath(ctx context.Context, n int) (time.Duration, error) {
	keep := len(w.sandboxes) - n
	names := w.sandboxes[keep:]
	w.sandboxes = w.sandboxes[:keep]
	return together(n, min(n, removals), func(worker, i int) error {
		return w.daemon.clients[worker].RemoveSandbox(ctx, names[i], false)
	})
}

// takeBare takes the last n endpoints out of the list.
func (w *world) takeBare(n int) []bareEndpoint {
	keep := len(w.endpoints) - n
	list := w.endpoints[keep:]
	w.endpoints = w.endpoints[:keep]
	return list
}

// populate brings both hosts to n endpoints.
func (w *world) populate(ctx context.Context, n int) error {
	have := len(w.sandboxes)
	if n < have {
		if err := w.bare.drop(ctx, w.takeBare(have-n)); err != nil {
			return err
		}
		_, err := w.removeTowpath(ctx, have-n)
		return err
	}
	took, err := w.createTowpath(ctx, n-have)
	if err != nil {
		return err
	}
	w.growth, w.grown = w.growth+took, w.grown+n-have
	_, err = w.createBare(ctx, n-have)
	return err
}
