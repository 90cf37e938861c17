// Package servertest is a small engine in memory, for the tests of what lies
// around the real one: the server, the client and the command line.
package servertest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/towpath/towpath/api"
)

// Engine keeps networks and sandboxes in memory. Its zero value is not usable;
// New makes one.
type Engine struct {
	// MakeNetns makes the namespace of a sandbox, and returns its path and what
	// takes it away. nil: sandboxes have none.
	MakeNetns func(name string) (path string, remove func(), err error)
	// Seen is called with the caller of each CreateSandbox. nil: it is not told.
	Seen func(api.Caller)

	mu        sync.Mutex
	drift     []string
	networks  map[string]api.Network
	sandboxes map[string]api.Sandbox
	remove    map[string]func()
}

// New makes an engine with the default network.
func New() *Engine {
	e := &Engine{networks: map[string]api.Network{}, sandboxes: map[string]api.Sandbox{}, remove: map[string]func(){}}
	e.networks[api.DefaultNetwork] = api.Network{
		Name: api.DefaultNetwork, Driver: api.DriverBridge, Device: api.DefaultDevice, ICC: true,
		Subnets: []api.Subnet{{Subnet: netip.MustParsePrefix("172.20.0.0/24"), Gateway: netip.MustParseAddr("172.20.0.1")}},
	}
	return e
}

// CreateNetwork keeps a network with the subnets asked for.
func (e *Engine) CreateNetwork(_ context.Context, spec api.NetworkSpec, dry bool) (api.Network, []string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := spec.Validate(); err != nil {
		return api.Network{}, nil, err
	}
	if _, ok := e.networks[spec.Name]; ok {
		return api.Network{}, nil, api.Errorf(api.AlreadyExists, "network %s exists already", spec.Name).WithFix("choose another name")
	}
	n := api.Network{
		Name: spec.Name, Driver: api.DriverBridge, Device: "tp-" + spec.Name, Internal: spec.Internal,
		ICC: spec.ICC == nil || *spec.ICC, MTU: spec.MTU, Labels: spec.Labels, Options: spec.Options,
	}
	if spec.Device != "" {
		n.Device = spec.Device
	}
	for _, p := range spec.Subnets {
		n.Subnets = append(n.Subnets, api.Subnet{Subnet: p, Gateway: p.Addr().Next()})
	}
	if !dry {
		e.networks[n.Name] = n
	}
	return n, []string{"+ link " + n.Device}, nil
}

// Networks is all networks by name.
func (e *Engine) Networks(context.Context) ([]api.Network, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return sorted(e.networks), nil
}

// Network is one network with the endpoints of all sandboxes on it.
func (e *Engine) Network(_ context.Context, name string) (api.Network, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, ok := e.networks[name]
	if !ok {
		return n, notFound("network", name)
	}
	for _, s := range sorted(e.sandboxes) {
		for _, p := range s.Endpoints {
			if p.Network == name {
				n.Endpoints = append(n.Endpoints, p)
			}
		}
	}
	return n, nil
}

// RemoveNetwork forgets a network; what is connected to it is not looked at.
func (e *Engine) RemoveNetwork(_ context.Context, name string, _, dry bool) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n, ok := e.networks[name]
	if !ok {
		return nil, notFound("network", name)
	}
	if !dry {
		delete(e.networks, name)
	}
	return []string{"- link " + n.Device}, nil
}

// CreateSandbox keeps a sandbox and makes its namespace.
func (e *Engine) CreateSandbox(_ context.Context, spec api.SandboxSpec, from api.Caller, dry bool) (api.Sandbox, []string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Seen != nil {
		e.Seen(from)
	}
	if err := spec.Validate(); err != nil {
		return api.Sandbox{}, nil, err
	}
	if spec.Networks == nil {
		spec.Networks = []api.EndpointSpec{{Network: api.DefaultNetwork}}
	}
	s := api.Sandbox{Name: spec.Name, Hostname: spec.Hostname, Labels: spec.Labels, Naming: spec.Naming, Origin: api.OriginMade, Endpoints: []api.Endpoint{}}
	for _, p := range spec.Networks {
		if err := e.attach(&s, p); err != nil {
			return s, nil, err
		}
	}
	s.ResolvConf, s.Hosts, s.Warnings = s.ResolvLines(nil, nil), s.HostsLines(), s.NameWarnings()
	ops := []string{"+ netns " + s.Name}
	if dry {
		return s, ops, nil
	}
	if e.MakeNetns != nil {
		path, remove, err := e.MakeNetns(s.Name)
		if err != nil {
			return s, nil, err
		}
		s.Netns, e.remove[s.Name] = path, remove
	}
	e.sandboxes[s.Name] = s
	return s, ops, nil
}

// attach adds an endpoint to s, with the address asked for or its number.
func (e *Engine) attach(s *api.Sandbox, spec api.EndpointSpec) error {
	n, ok := e.networks[spec.Network]
	if !ok {
		return notFound("network", spec.Network)
	}
	p := api.Endpoint{
		Sandbox: s.Name, Network: n.Name, Ifname: spec.Ifname, MAC: spec.MAC, Aliases: spec.Aliases,
		GwPriority: spec.GwPriority, Index: len(s.Endpoints),
	}
	if p.Ifname == "" {
		p.Ifname = fmt.Sprintf("eth%d", p.Index)
	}
	p.HostIfname = "v-" + s.Name + "-" + p.Ifname
	for _, sub := range n.Subnets {
		a := sub.Gateway.Next()
		if spec.IP.IsValid() {
			a = spec.IP
		}
		p.Addresses = append(p.Addresses, netip.PrefixFrom(a, sub.Subnet.Bits()))
		p.Gateways = append(p.Gateways, sub.Gateway)
	}
	s.Endpoints = append(s.Endpoints, p)
	return nil
}

// Sandboxes is all sandboxes by name.
func (e *Engine) Sandboxes(context.Context) ([]api.Sandbox, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return sorted(e.sandboxes), nil
}

// Sandbox is one sandbox.
func (e *Engine) Sandbox(_ context.Context, name string) (api.Sandbox, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, ok := e.sandboxes[name]
	if !ok {
		return s, notFound("sandbox", name)
	}
	s.Live = &api.Live{Links: []string{"1: lo: <LOOPBACK>"}}
	return s, nil
}

// RemoveSandbox forgets a sandbox and takes its namespace away.
func (e *Engine) RemoveSandbox(_ context.Context, name string, _ api.Caller, _, dry bool) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.sandboxes[name]; !ok {
		return nil, notFound("sandbox", name)
	}
	if !dry {
		if remove := e.remove[name]; remove != nil {
			remove()
		}
		delete(e.remove, name)
		delete(e.sandboxes, name)
	}
	return []string{"- netns " + name}, nil
}

// Connect adds an endpoint to a sandbox.
func (e *Engine) Connect(_ context.Context, sandbox string, spec api.EndpointSpec, dry bool) (api.Endpoint, []string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, ok := e.sandboxes[sandbox]
	if !ok {
		return api.Endpoint{}, nil, notFound("sandbox", sandbox)
	}
	s.Endpoints = slices.Clone(s.Endpoints)
	if err := e.attach(&s, spec); err != nil {
		return api.Endpoint{}, nil, err
	}
	if !dry {
		e.sandboxes[sandbox] = s
	}
	made := s.Endpoints[len(s.Endpoints)-1]
	return made, []string{"+ link " + made.HostIfname}, nil
}

// Disconnect drops the endpoints that match.
func (e *Engine) Disconnect(_ context.Context, sandbox, network, ifname string, _, dry bool) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, ok := e.sandboxes[sandbox]
	if !ok {
		return nil, notFound("sandbox", sandbox)
	}
	var ops []string
	s.Endpoints = slices.DeleteFunc(slices.Clone(s.Endpoints), func(p api.Endpoint) bool {
		match := (network == "" || p.Network == network) && (ifname == "" || p.Ifname == ifname)
		if match {
			ops = append(ops, "- link "+p.HostIfname)
		}
		return match
	})
	if ops == nil {
		return nil, api.Errorf(api.NotFound, "sandbox %s is not connected to network %s", sandbox, network)
	}
	if !dry {
		e.sandboxes[sandbox] = s
	}
	return ops, nil
}

// Plan is the devices of the networks.
func (e *Engine) Plan(context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := ""
	for _, n := range sorted(e.networks) {
		text += "link " + n.Device + " type bridge\n"
	}
	return text, nil
}

// SetDrift sets what Diff answers.
func (e *Engine) SetDrift(ops ...string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drift = ops
}

// Diff is what SetDrift set.
func (e *Engine) Diff(context.Context) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.drift, nil
}

// Version is that of the test.
func (e *Engine) Version(context.Context) api.Version { return api.Version{Version: "test"} }

func sorted[T any](by map[string]T) []T {
	out := []T{}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		out = append(out, by[name])
	}
	return out
}

func notFound(what, name string) error {
	return api.Errorf(api.NotFound, "%s %s does not exist", what, name).WithFix("see: towpath %s ls", what)
}

// Publish adds publications to a sandbox; a host port that was not given is 49152.
func (e *Engine) Publish(_ context.Context, sandbox string, specs []api.Publication, dry bool) ([]api.Publication, []string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, there := e.sandboxes[sandbox]
	if !there {
		return nil, nil, notFound("sandbox", sandbox)
	}
	var ops []string
	for i := range specs {
		specs[i].Sandbox, specs[i].State = sandbox, "ready"
		if specs[i].HostPort == 0 {
			specs[i].HostPort = 49152
		}
		ops = append(ops, "+ host: publication "+specs[i].ID())
	}
	if !dry {
		s.Publications = append(s.Publications, specs...)
		e.sandboxes[sandbox] = s
	}
	return specs, ops, nil
}

// Unpublish takes publications to the same ports away.
func (e *Engine) Unpublish(_ context.Context, sandbox string, specs []api.Publication, dry bool) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, there := e.sandboxes[sandbox]
	if !there {
		return nil, notFound("sandbox", sandbox)
	}
	var ops []string
	keep := []api.Publication{}
	for _, p := range s.Publications {
		if slices.ContainsFunc(specs, func(q api.Publication) bool { return q.Port == p.Port && q.Proto == p.Proto }) {
			ops = append(ops, "- host: publication "+p.ID())
			continue
		}
		keep = append(keep, p)
	}
	if !dry {
		s.Publications = keep
		e.sandboxes[sandbox] = s
	}
	return ops, nil
}

// Publications are those of one sandbox, or of all.
func (e *Engine) Publications(_ context.Context, sandbox string) ([]api.Publication, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []api.Publication
	for _, name := range slices.Sorted(maps.Keys(e.sandboxes)) {
		if sandbox == "" || name == sandbox {
			out = append(out, e.sandboxes[name].Publications...)
		}
	}
	return out, nil
}

// ResolveName finds the addresses of sandboxes by their names.
func (e *Engine) ResolveName(_ context.Context, sandbox, name, kind string) (api.Resolution, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.sandboxes[sandbox]; !ok {
		return api.Resolution{}, notFound("sandbox", sandbox)
	}
	a := api.Answer{Type: "A", Code: "NXDOMAIN", Records: []api.Record{}, Source: "nobody", Why: "there is no such name"}
	if kind != "" {
		a.Type = kind
	}
	if s, ok := e.sandboxes[name]; ok {
		a.Code, a.Source, a.Network, a.Why = "NOERROR", "names", s.Endpoints[0].Network, "a name on network "+s.Endpoints[0].Network
		a.Records = append(a.Records, api.Record{Name: name, Type: "A", TTL: 5, Data: s.Endpoints[0].Addresses[0].Addr().String()})
	}
	return api.Resolution{Sandbox: sandbox, Name: name, Answers: []api.Answer{a}}, nil
}
