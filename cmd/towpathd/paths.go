package main

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/explain"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/look"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/topology"
)

// Explain walks a packet through what is in the kernel now.
func (s *sight) Explain(ctx context.Context, q api.PathQuery) (api.Path, error) {
	s.one.Lock()
	defer s.one.Unlock()
	m, err := s.machine(ctx)
	if err != nil {
		return api.Path{}, err
	}
	if q.Desired {
		if m.Host, err = s.desired(ctx, m.Host); err != nil {
			return api.Path{}, err
		}
	}
	return m.Explain(q)
}

// machine reads everything that an explanation is made of. Namespaces are called
// after those whose they are.
func (s *sight) machine(ctx context.Context) (*explain.Machine, error) {
	return s.machineSince(ctx, nil)
}

// machineSince does not read again what a look found before; nil: there was none.
func (s *sight) machineSince(ctx context.Context, before *look.Earlier) (*explain.Machine, error) {
	at := time.Now()
	c := s.looking(true)
	c.Earlier = before
	h, err := look.Machine(ctx, c)
	if err != nil {
		return nil, err
	}
	names, _ := s.names()
	h.Rename(topology.IDs(&h, names))
	m := &explain.Machine{At: at, Host: h, Names: names, Resolve: func(sandbox, name string) explain.Answer { return s.resolve(ctx, sandbox, name) }}
	if m.Sandboxes, err = s.engine.Sandboxes(ctx); err != nil {
		return nil, err
	}
	if m.Networks, err = s.engine.Networks(ctx); err != nil {
		return nil, err
	}
	m.Publications, err = s.engine.Publications(ctx, "")
	return m, err
}

// resolvePatience bounds how long servers outside are waited for.
const resolvePatience = 3 * time.Second

// resolve asks the resolver as the sandbox would.
func (s *sight) resolve(ctx context.Context, sandbox, name string) explain.Answer {
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	r, err := s.engine.ResolveName(ctx, sandbox, name, "")
	if err != nil || len(r.Answers) == 0 {
		return explain.Answer{}
	}
	var out explain.Answer
	var why string
	for _, a := range r.Answers {
		for _, record := range a.Records {
			if addr, err := netip.ParseAddr(record.Data); err == nil {
				out.Addresses = append(out.Addresses, addr)
			}
		}
		if why == "" || len(a.Records) > 0 {
			why = "from " + a.Source + ": " + a.Why
		}
	}
	var texts []string
	for _, a := range out.Addresses {
		texts = append(texts, a.String())
	}
	out.Line = name + " is " + strings.Join(texts, ", ") + ", " + why
	if len(texts) == 0 {
		out.Line = name + " does not resolve in " + sandbox + ", " + why
	}
	return out
}

// desired is the machine with Towpath's part as it is planned.
func (s *sight) desired(ctx context.Context, seen machine.Host) (machine.Host, error) {
	text, err := s.engine.Plan(ctx)
	if err != nil {
		return seen, err
	}
	state, err := kernel.Parse(text)
	if err != nil {
		return seen, err
	}
	planned, err := machine.FromState(state)
	if err != nil {
		return seen, err
	}
	return explain.Desired(planned, seen), nil
}
