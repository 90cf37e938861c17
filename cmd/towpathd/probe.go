package main

import (
	"context"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/topology"
	"github.com/towpath/towpath/internal/trace/probe"
)

// Probe sends one packet and tells the way that it took.
func (s *sight) Probe(ctx context.Context, q api.ProbeQuery) (api.Probe, error) {
	s.one.Lock()
	defer s.one.Unlock()
	m, err := s.machine(ctx)
	if err != nil {
		return api.Probe{}, err
	}
	again := func(ctx context.Context) (machine.Host, error) {
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
