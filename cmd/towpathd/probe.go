package main

import (
	"context"
	"errors"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/explain"
	"github.com/towpath/towpath/internal/linux/look"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/server"
	"github.com/towpath/towpath/internal/topology"
	"github.com/towpath/towpath/internal/trace/follow"
	"github.com/towpath/towpath/internal/trace/probe"
)

// Probe sends one packet and tells the way that it took. While it waits for the
// packet, others may look at the machine.
func (s *sight) Probe(ctx context.Context, q api.ProbeQuery) (api.Probe, error) {
	s.one.Lock()
	m, err := s.machine(ctx)
	s.one.Unlock()
	if err != nil {
		return api.Probe{}, err
	}
	again := func(ctx context.Context) (machine.Host, error) {
		s.one.Lock()
		defer s.one.Unlock()
		h, err := s.look(ctx, false)
		if err != nil {
			return h, err
		}
		names, _ := s.names()
		h.Rename(topology.IDs(&h, names))
		return h, nil
	}
	return probe.Run(ctx, probe.Config{Machine: m, Again: again, Open: s.looking(true).Open}, q)
}

// Trace begins to watch for flows.
func (s *sight) Trace(ctx context.Context, q api.TraceQuery) (server.Tracing, error) {
	m, err := s.traced(ctx, nil)
	if err != nil {
		return nil, err
	}
	w, err := follow.Open(ctx, m, s.looking(true).Open, q)
	if err != nil {
		return nil, err
	}
	t := tracing{w, look.List(s.looking(false)), s.onStop}
	news := follow.News{List: t.list.Inodes, Again: func(ctx context.Context, was *explain.Machine, young []uint64) (*explain.Machine, error) {
		return s.traced(ctx, &look.Earlier{Host: &was.Host, Again: young})
	}}
	if err := w.Renew(ctx, news); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// traced reads the machine, but for what was read before.
func (s *sight) traced(ctx context.Context, before *look.Earlier) (*explain.Machine, error) {
	s.one.Lock()
	defer s.one.Unlock()
	m, err := s.machineSince(ctx, before)
	if err == nil {
		// A name is resolved for explanations only, in the time of a request.
		m.Resolve = nil
	}
	return m, err
}

// tracing is a trace that ends with the daemon too.
type tracing struct {
	*follow.Watcher
	list   *look.Lister
	onStop func(f func()) (cancel func() bool)
}

// Close ends it; nothing stays behind.
func (t tracing) Close() error { return errors.Join(t.Watcher.Close(), t.list.Close()) }

// Next waits for paths.
func (t tracing) Next(ctx context.Context) ([]api.Path, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer t.onStop(func() { cancel(context.Canceled) })()
	return t.Watcher.Next(ctx)
}
