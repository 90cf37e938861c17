package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/doctor"
	"github.com/towpath/towpath/internal/engine"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/linux/engines"
	"github.com/towpath/towpath/internal/linux/look"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/owner"
	"github.com/towpath/towpath/internal/ports"
	"github.com/towpath/towpath/internal/reach"
	"github.com/towpath/towpath/internal/reconcile"
	"github.com/towpath/towpath/internal/topology"
)

// sight answers about the machine as it is.
type sight struct {
	runDir string
	self   *os.File // the host's namespace
	engine *engine.Engine
	loop   *reconcile.Loop
	kernel *linux.Kernel
	ports  *ports.Holder
	// one look at a time: each reads the whole machine.
	one *sync.Mutex
	// onStop calls f when the daemon stops.
	onStop func(f func()) (cancel func() bool)
}

func (c *config) sight(ctx context.Context, e *engine.Engine, loop *reconcile.Loop, k *linux.Kernel, held *ports.Holder) (*sight, error) {
	self, err := netns.Self()
	if err != nil {
		return nil, err
	}
	return &sight{
		runDir: c.runDir, self: self, engine: e, loop: loop, kernel: k, ports: held, one: &sync.Mutex{},
		onStop: func(f func()) func() bool { return context.AfterFunc(ctx, f) },
	}, nil
}

// held reports whether a socket of the host is one that keeps a port, and whom
// it passes on.
func (s *sight) held(l machine.Listener) (*machine.Passing, bool) {
	if l.V6Only {
		l.Proto += "6"
	}
	p, held := s.ports.Find(ports.Port{Proto: l.Proto, Addr: netip.AddrPortFrom(l.Addr, l.Port)})
	if !held {
		return nil, false
	}
	passes, err := machine.PassedBy(kernel.Socket{To: p.To, From: p.From})
	return passes, err == nil
}

// look reads the machine; everything, or what counts packets only. A daemon that
// stands for a part of a machine looks at what is linked to that part.
func (s *sight) look(ctx context.Context, everything bool) (machine.Host, error) {
	return look.Machine(ctx, s.looking(everything))
}

func (s *sight) looking(everything bool) look.Config {
	c := look.Config{Self: s.self, RunDir: s.runDir, All: engines.IsMachine(), Owners: everything, Held: s.held, Limits: look.DefaultLimits()}
	if !everything {
		c.Limits.Connections = 0
	}
	return c
}

// names are those of the namespaces, by what the engines have written down.
func (s *sight) names() (*owner.Names, []string) {
	facts, notes := engines.Read("/")
	facts.RunDir = s.runDir
	return owner.New(facts), notes
}

// Map is the topology.
func (s *sight) Map(ctx context.Context) (api.Map, error) {
	s.one.Lock()
	defer s.one.Unlock()
	h, err := s.look(ctx, true)
	if err != nil {
		return api.Map{}, err
	}
	names, notes := s.names()
	m := topology.Map(&h, names)
	m.Notes = append(m.Notes, notes...)
	return m, nil
}

// Reach is who can reach whom.
func (s *sight) Reach(ctx context.Context, from, to string, port uint16) (api.Reach, error) {
	s.one.Lock()
	defer s.one.Unlock()
	h, err := s.look(ctx, true)
	if err != nil {
		return api.Reach{}, err
	}
	names, _ := s.names()
	return reach.Table(ctx, &h, names, reach.Ask{From: from, To: to, Port: port})
}

// Doctor makes all checks, and with fix mends and makes them again.
func (s *sight) Doctor(ctx context.Context, over time.Duration, fix *api.Fix) (api.Diagnosis, error) {
	s.one.Lock()
	defer s.one.Unlock()
	if err := knownChecks(fix); err != nil {
		return api.Diagnosis{}, err
	}
	before, err := s.examine(ctx, over)
	if err != nil || fix == nil {
		return before, err
	}
	if err := s.mend(ctx, before, fix.Checks); err != nil {
		return api.Diagnosis{}, err
	}
	after, err := s.examine(ctx, 0)
	for _, f := range before.Findings {
		gone := !slices.ContainsFunc(after.Findings, func(o api.Finding) bool { return o.Check == f.Check && o.Summary == f.Summary })
		if f.Fixed = gone; gone && (f.Ours || slices.Contains(fix.Checks, f.Check)) {
			after.Findings = append(after.Findings, f)
		}
	}
	after.Checks = before.Checks // what the second look could not compare is no doubt
	return after, err
}

func knownChecks(fix *api.Fix) error {
	if fix == nil {
		return nil
	}
	for _, name := range fix.Checks {
		if !slices.ContainsFunc(doctor.Checks(), func(c doctor.Check) bool { return c.Name == name }) {
			return api.Errorf(api.NotFound, "there is no check %q", name).WithFix("towpath doctor names the check of each finding")
		}
	}
	return nil
}

// examine reads the machine, counters twice, and makes all checks.
func (s *sight) examine(ctx context.Context, over time.Duration) (api.Diagnosis, error) {
	in := doctor.Input{Internal: map[string]bool{}, Resolvers: map[string]doctor.Resolver{}}
	if over > 0 {
		earlier, err := s.look(ctx, false)
		if err != nil {
			return api.Diagnosis{}, err
		}
		in.Earlier = &earlier
		select {
		case <-time.After(over):
		case <-ctx.Done():
			return api.Diagnosis{}, ctx.Err()
		}
	}
	// No check asks for connections, and to list a full table takes seconds.
	everything := s.looking(true)
	everything.Limits.Connections = 0
	var err error
	if in.Machine, err = look.Machine(ctx, everything); err != nil {
		return api.Diagnosis{}, err
	}
	in.Names, in.Unread = s.names()
	if err := s.own(ctx, &in); err != nil {
		return api.Diagnosis{}, err
	}
	for i := range in.Machine.Spaces {
		space := &in.Machine.Spaces[i]
		if path, data, ok := engines.ResolvConf("/", space); ok {
			r := doctor.ParseResolver(path, data)
			r.Missing = data == nil
			in.Resolvers[space.Name] = r
		}
	}
	return doctor.Examine(&in), nil
}

// own adds what the daemon knows of its own.
func (s *sight) own(ctx context.Context, in *doctor.Input) error {
	var err error
	if in.Drift, err = s.engine.Diff(ctx); err != nil {
		in.Unread = append(in.Unread, "towpath diff: "+err.Error())
	}
	networks, err := s.engine.Networks(ctx)
	if err != nil {
		return err
	}
	for _, n := range networks {
		in.Internal[n.Name] = n.Internal || n.GatewayMode == api.GatewayIsolated
	}
	in.Doors = s.loop.Facts().Doors
	return nil
}

// mend makes the kernel what Towpath's objects say, and sets what the checks
// named ask for.
func (s *sight) mend(ctx context.Context, d api.Diagnosis, checks []string) error {
	var errs []error
	if slices.ContainsFunc(d.Findings, func(f api.Finding) bool { return f.Ours }) {
		errs = append(errs, s.loop.Once(ctx))
	}
	for _, f := range d.Findings {
		if !slices.Contains(checks, f.Check) {
			continue
		}
		for _, p := range f.Set {
			if err := sysctl.Write(s.self, p.Name, p.Value); err != nil {
				errs = append(errs, fmt.Errorf("mend %s: %w", f.Check, err))
			}
		}
	}
	return errors.Join(errs...)
}
