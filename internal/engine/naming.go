package engine

import (
	"context"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
)

// Names is who answers for the names of sandboxes.
type Names interface {
	// Put says by what a sandbox is to be found: by itself and at its Endpoints,
	// with one of its Publications for each port that is published; networks has
	// the networks of those.
	Put(s *api.Sandbox, networks map[string]*api.Network)
	// Drop says that it is not to be found any more.
	Drop(sandbox string)
}

// noNames is for an Engine that nobody asks for names.
type noNames struct{}

// Put does nothing.
func (noNames) Put(*api.Sandbox, map[string]*api.Network) {}

// Drop does nothing.
func (noNames) Drop(string) {}

// hide keeps what has just been committed from being found until it is in the kernel.
func (e *Engine) hide(units []driver.Unit) {
	e.naming.Lock()
	defer e.naming.Unlock()
	for _, u := range units {
		e.hidden[u] = true
	}
}

// reveal ends that.
func (e *Engine) reveal(units []driver.Unit) {
	e.naming.Lock()
	defer e.naming.Unlock()
	for _, u := range units {
		delete(e.hidden, u)
	}
}

// name tells Names how sandboxes are to be found now. It is told in the order
// of the commits: each time the view is read that is current then.
func (e *Engine) name(sandboxes ...string) {
	e.naming.Lock()
	defer e.naming.Unlock()
	v, _ := e.View()
	for _, name := range sandboxes {
		s := v.Sandboxes[name]
		if s == nil {
			e.Names.Drop(name)
			continue
		}
		found := *s
		found.Endpoints, found.Publications = nil, nil
		for _, ep := range v.EndpointsOf(name) {
			if !e.hidden[driver.EndpointUnit(driver.EndpointID{Sandbox: name, Ifname: ep.Ifname})] {
				found.Endpoints = append(found.Endpoints, *ep)
			}
		}
		found.Publications = e.shown(v, name)
		e.Names.Put(&found, v.Networks)
	}
}

// shown are publications of a sandbox that are not hidden: one for each port that
// it serves, which may be published at very many ports of the host.
func (e *Engine) shown(v driver.View, sandbox string) []api.Publication {
	hidden := map[*api.Publication]bool{}
	for u := range e.hidden {
		if id, ok := strings.CutPrefix(string(u), string(driver.PublicationUnit(""))); ok {
			hidden[v.Publications.Get(id)] = true
		}
	}
	var out []api.Publication
	for p := range v.Publications.Services(sandbox, func(p *api.Publication) bool { return !hidden[p] }) {
		out = append(out, *p)
	}
	return out
}

// named notes in a draft that a sandbox is to be found by something else.
func (d *draft) named(sandbox string) {
	if !slices.Contains(d.names, sandbox) {
		d.names = append(d.names, sandbox)
	}
}

// Resolv is what the host's resolv.conf says besides its servers.
type Resolv struct{ Search, Options []string }

// ResolveName says what a sandbox is told when it asks for a name, and by whom.
func (e *Engine) ResolveName(ctx context.Context, sandbox, name, kind string) (api.Resolution, error) {
	op := "resolve " + name
	v, _ := e.View()
	s, err := findSandbox(v, sandbox)
	if err != nil {
		return api.Resolution{}, api.InOp(op, err)
	}
	answers, err := e.Resolve(ctx, s.Name, name, kind)
	return api.Resolution{Sandbox: s.Name, Name: name, Answers: answers}, api.InOp(op, err)
}

// files fills in what belongs into files of the sandbox.
func (e *Engine) files(s *api.Sandbox) {
	host := e.HostResolv()
	s.ResolvConf = s.ResolvLines(host.Search, host.Options)
	s.Hosts = s.HostsLines()
}

// endpointsAs are copies of the endpoints of a sandbox, as a View has them.
func endpointsAs(v driver.View, name string) []api.Endpoint {
	out := []api.Endpoint{}
	for _, ep := range v.EndpointsOf(name) {
		out = append(out, *ep)
	}
	return out
}
