package engine

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
)

// CreateNetwork makes a network. With dry it only says what it would do: the
// network as it would be, and the ops.
func (e *Engine) CreateNetwork(ctx context.Context, spec api.NetworkSpec, dry bool) (api.Network, []string, error) {
	op := "create network " + spec.Name
	if err := spec.Validate(); err != nil {
		return api.Network{}, nil, api.InOp(op, err)
	}
	decide := func(d *draft) error { return e.draftNetwork(ctx, d, spec) }
	if dry {
		view, ops, err := e.preview(ctx, decide)
		if err != nil {
			return api.Network{}, nil, api.InOp(op, err)
		}
		return *view.Networks[spec.Name], ops, nil
	}
	out, err := e.create(ctx, decide, func(d *draft) error {
		if d.view.Networks[spec.Name] != nil {
			d.deleteNetwork(spec.Name)
		}
		return nil
	})
	if err != nil {
		return api.Network{}, nil, api.InOp(op, err)
	}
	e.Tell(api.Event{Kind: "network", Name: spec.Name, Action: "create"})
	n := e.network(out.view, spec.Name)
	n.Warnings = append(e.unguarded(&n), e.warn(ctx, out.view, []string{n.Name})...)
	return n, nil, nil
}

// draftNetwork checks a spec against what there is, and chooses device,
// address and subnets.
func (e *Engine) draftNetwork(ctx context.Context, d *draft, spec api.NetworkSpec) error {
	for name := range d.view.Networks {
		if strings.EqualFold(name, spec.Name) {
			return api.Errorf(api.AlreadyExists, "network %s exists", name).WithFix("choose another name, or remove it: towpath network rm %s", name)
		}
	}
	device := spec.Device
	if device == "" {
		device = ifname("tp-", spec.Name, d.deviceTaken)
	} else if d.deviceTaken(device) {
		return api.Errorf(api.Conflict, "device %s belongs to another network", device).WithFix("choose another device name, or leave it out")
	}
	host, err := e.Prefixes(ctx)
	if err != nil {
		return api.Errorf(api.Failed, "read the host's routes: %w", err)
	}
	subnets, err := e.draftSubnets(d, &spec, host)
	if err != nil {
		return err
	}
	mode := spec.GatewayMode
	if mode == "" {
		mode = api.GatewayNAT
	}
	d.putNetwork(&api.Network{
		Name: spec.Name, Driver: api.DriverBridge, Device: device, MAC: newMAC(), Subnets: subnets,
		Internal: spec.Internal, ICC: spec.ICC == nil || *spec.ICC, GatewayMode: mode, MTU: spec.MTU,
		Labels: orEmpty(spec.Labels), Options: orEmpty(spec.Options),
	})
	return nil
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// network fills in what is not stored.
func (e *Engine) network(v driver.View, name string) api.Network {
	n := *v.Networks[name]
	n.Endpoints = []api.Endpoint{}
	for _, ep := range v.EndpointsOn(name) {
		n.Endpoints = append(n.Endpoints, e.endpoint(ep))
	}
	if n.MTU == 0 {
		n.MTU = e.loop.Facts().UplinkMTU
	}
	n.Status = e.status(driver.NetworkUnit(name))
	return n
}

// Networks are all networks, by name.
func (e *Engine) Networks(context.Context) ([]api.Network, error) {
	v, _ := e.View()
	out := []api.Network{}
	for _, name := range slices.Sorted(maps.Keys(v.Networks)) {
		out = append(out, e.network(v, name))
	}
	return out, nil
}

// Network is one network by name.
func (e *Engine) Network(_ context.Context, name string) (api.Network, error) {
	v, _ := e.View()
	n, err := findNetwork(v, name)
	if err != nil {
		return api.Network{}, api.InOp("inspect network "+name, err)
	}
	return e.network(v, n.Name), nil
}

// findNetwork looks a name up, ignoring case as names are unique without it.
func findNetwork(v driver.View, name string) (*api.Network, error) {
	if n, ok := v.Networks[name]; ok {
		return n, nil
	}
	for _, n := range v.Networks {
		if strings.EqualFold(n.Name, name) {
			return n, nil
		}
	}
	return nil, api.Errorf(api.NotFound, "network %q does not exist", name).WithFix("see: towpath network ls")
}

// RemoveNetwork removes a network without endpoints; with force it disconnects
// them first.
func (e *Engine) RemoveNetwork(ctx context.Context, name string, force, dry bool) ([]string, error) {
	event := &api.Event{Kind: "network", Name: name, Action: "remove"}
	return e.remove(ctx, "remove network "+name, event, dry, func(d *draft) error {
		n, err := findNetwork(d.view, name)
		if err != nil {
			return err
		}
		if n.Name == api.DefaultNetwork {
			return api.Errorf(api.Invalid, "%s is the default network and stays", n.Name).WithFix("take sandboxes off it: towpath network disconnect %s SANDBOX", n.Name)
		}
		users := d.view.EndpointsOn(n.Name)
		if len(users) > 0 && !force {
			return api.Errorf(api.InUse, "%s", usedBy(users)).WithFix("disconnect them, or use -f")
		}
		for _, ep := range users {
			d.deleteEndpoint(ep)
		}
		d.deleteNetwork(n.Name)
		return nil
	})
}

func usedBy(users []*api.Endpoint) string {
	names := map[string]bool{}
	for _, u := range users {
		names[u.Sandbox] = true
	}
	list := slices.Sorted(maps.Keys(names))
	if len(list) > 5 {
		list = append(list[:5], "others")
	}
	return "in use by " + strings.Join(list, ", ")
}

// remove carries out a decision that deletes. It waits until the kernel has
// followed; what could not be removed stays with the loop to try again.
func (e *Engine) remove(ctx context.Context, op string, event *api.Event, dry bool, decide func(*draft) error) ([]string, error) {
	if dry {
		_, ops, err := e.preview(ctx, decide)
		return ops, api.InOp(op, err)
	}
	out, err := e.carry(ctx, decide)
	if err != nil && out.rev != 0 {
		err = kernelError(err)
	}
	if len(out.units) > 0 {
		e.Tell(*event)
	}
	return nil, api.InOp(op, err)
}
