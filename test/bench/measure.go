package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/testnet"
)

// at measures at a population of n.
func (w *world) at(ctx context.Context, n int) (size, error) {
	s := size{population: n}
	if err := w.populate(ctx, n); err != nil {
		return s, err
	}
	like, err := w.daemon.clients[0].Sandbox(ctx, w.sandboxes[0])
	if err != nil {
		return s, err
	}
	if err := w.ledger.fill(ctx, n, like); err != nil {
		return s, err
	}
	for i := range batches {
		if err := w.batch(ctx, &s, i, like); err != nil {
			return s, err
		}
	}
	for i := range bursts {
		if err := w.populate(ctx, min(n, burstBase)); err != nil {
			return s, err
		}
		if err := w.burst(ctx, &s, i%2 == 1); err != nil {
			return s, err
		}
	}
	return s, w.populate(ctx, n)
}

// turns runs the steps one after the other in an order that changes from round
// to round: rotated, and the other way round every second time, so that what one
// leaves behind slows now the one, now the other.
func turns(round int, steps ...func() error) error {
	order := append(slices.Clone(steps[round%len(steps):]), steps[:round%len(steps)]...)
	if round%2 == 1 {
		slices.Reverse(order)
	}
	for _, step := range order {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// timed gives a step that notes what it took.
func timed(into *time.Duration, do func() error) func() error {
	return func() error {
		began := time.Now()
		err := do()
		*into = time.Since(began)
		return err
	}
}

// batch makes some endpoints one after the other, each way in a row of its own,
// and then removes them in turns. New containers make work for seconds (settling),
// which a way so has of its own and not of the others.
func (w *world) batch(ctx context.Context, s *size, round int, like api.Sandbox) error {
	names := make([]string, serial)
	bare, naive := make([]bareEndpoint, serial), make([]bareEndpoint, serial)
	took := make([]creation, serial)
	row := func(create func(i int) error) func() error {
		return func() error {
			err := settle(ctx)
			for i := 0; i < serial && err == nil; i++ {
				err = create(i)
			}
			return err
		}
	}
	err := turns(round,
		row(func(i int) error {
			names[i] = w.name()
			return timed(&took[i].towpath, func() error {
				_, err := w.daemon.create(ctx, w.daemon.clients[0], names[i])
				return err
			})()
		}),
		row(func(i int) error {
			err := timed(&took[i].bare, func() (err error) {
				bare[i], err = w.bare.create(ctx, w.bare.conn, w.name())
				return err
			})()
			if err == nil {
				took[i].commit, err = w.ledger.commit(ctx, like)
			}
			return err
		}),
		row(func(i int) error {
			return timed(&took[i].naive, func() (err error) {
				naive[i], err = w.bare.naive(ctx, w.bare.conn, w.name())
				return err
			})()
		}),
	)
	if err != nil {
		return err
	}
	s.creations = append(s.creations, took...)
	if err := w.unbatch(ctx, s, names, bare); err != nil {
		return err
	}
	return w.bare.drop(ctx, naive)
}

// unbatch removes what a batch made, one after the other, each way in turn.
func (w *world) unbatch(ctx context.Context, s *size, names []string, bare []bareEndpoint) error {
	if err := settle(ctx); err != nil {
		return err
	}
	for i := range names {
		var r removal
		err := turns(i,
			timed(&r.towpath, func() error { return w.daemon.clients[0].RemoveSandbox(ctx, names[i], false) }),
			timed(&r.bare, func() error { return w.bare.remove(ctx, bare[i]) }),
		)
		if err != nil {
			return err
		}
		s.removals = append(s.removals, r)
	}
	return nil
}

// burst makes endpoints by all clients at once each way, and removes a hundred:
// the daemon's by as many calls at once, the bare ones link by link.
func (w *world) burst(ctx context.Context, s *size, swap bool) error {
	var c, r creation
	round := 0
	if swap {
		round = 1
	}
	err := turns(round,
		func() (err error) { c.towpath, err = w.createTowpath(ctx, clients); return err },
		func() (err error) { c.bare, err = w.createBare(ctx, clients); return err },
	)
	if err != nil {
		return err
	}
	s.bursts = append(s.bursts, removal{towpath: c.towpath / clients, bare: c.bare / clients})
	if err := w.populate(ctx, len(w.sandboxes)+removals-clients); err != nil {
		return err
	}
	if err := settle(ctx); err != nil {
		return err
	}
	list := w.takeBare(removals)
	err = turns(round,
		func() (err error) { r.towpath, err = w.removeTowpath(ctx, removals); return err },
		timed(&r.bare, func() error { return w.bare.removeSerially(ctx, list) }),
	)
	if err != nil {
		return err
	}
	if err := release(list); err != nil {
		return err
	}
	batch, err := w.batchRemoval(ctx)
	s.clearings = append(s.clearings, removal{towpath: r.towpath, bare: r.bare, batch: batch})
	return err
}

// settling is how long new containers still make work: each reports its multicast
// groups twice within some two seconds (RFC 3810, 9.1 and 9.11), and the bridge
// floods every report to all of its ports. What is removed has mostly lived longer.
const settling = 3 * time.Second

func settle(ctx context.Context) error { return rest(ctx, settling) }

// resting is how long a daemon must have had nothing to do to be at rest: it gives
// memory back every ten seconds at most.
const resting = 13 * time.Second

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// batchRemoval is what the bare calls take to remove a hundred together, at the
// same population.
func (w *world) batchRemoval(ctx context.Context) (took time.Duration, err error) {
	if _, err := w.createBare(ctx, removals); err != nil {
		return 0, err
	}
	if err := settle(ctx); err != nil {
		return 0, err
	}
	list := w.takeBare(removals)
	err = timed(&took, func() error { return w.bare.drop(ctx, list) })()
	return took, err
}

// pingInterval is between two packets of the flow that must not break.
const pingInterval = 10 * time.Millisecond

// restart kills the daemon and starts it again over its population, while a
// container pings another.
func (w *world) restart(ctx context.Context) (restart, error) {
	n := len(w.sandboxes)
	r := restart{population: n, created: w.growth * time.Duration(n) / time.Duration(w.grown)}
	if n < 2 {
		return r, errors.New("it takes two sandboxes")
	}
	err := rest(ctx, resting)
	if err != nil {
		return r, err
	}
	if r.resident, err = w.daemon.resident(); err != nil {
		return r, err
	}
	far, err := w.daemon.clients[0].Sandbox(ctx, w.sandboxes[1])
	if err != nil {
		return r, err
	}
	f, err := netns.Open(filepath.Join(w.daemon.run, "netns", w.sandboxes[0]))
	if err != nil {
		return r, err
	}
	defer f.Close()
	ns := &testnet.NS{Name: w.sandboxes[0], F: f}
	var flows []*testnet.Pinger
	for _, a := range far.Endpoints[0].Addresses {
		p, err := ns.EchoEvery(ctx, a.Addr(), pingInterval)
		if err != nil {
			return r, err
		}
		flows = append(flows, p)
	}
	w.daemon.kill()
	r.adopted, err = w.daemon.start(ctx)
	for _, p := range flows {
		report := p.Stop(time.Second)
		r.sent, r.lost = r.sent+len(report.Probes), r.lost+len(report.Lost())
	}
	if err != nil {
		return r, err
	}
	r.differ, err = w.daemon.clients[0].Diff(ctx)
	return r, err
}
