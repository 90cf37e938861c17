package engine

import (
	"context"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
)

// Connect attaches a sandbox to a network.
func (e *Engine) Connect(ctx context.Context, sandbox string, spec api.EndpointSpec, dry bool) (api.Endpoint, []string, error) {
	op := "connect sandbox " + sandbox + " to network " + spec.Network
	if err := spec.Validate(); err != nil {
		return api.Endpoint{}, nil, api.InOp(op, err)
	}
	var id driver.EndpointID
	decide := func(d *draft) error {
		s, err := findSandbox(d.view, sandbox)
		if err != nil {
			return err
		}
		id = driver.EndpointID{Sandbox: s.Name, Ifname: spec.Ifname}
		if id.Ifname == "" {
			id.Ifname = d.freeIfname(s.Name)
		}
		asked := spec
		asked.Ifname = id.Ifname
		return e.draftEndpoint(d, s.Name, &asked)
	}
	if dry {
		view, ops, err := e.preview(ctx, decide)
		if err != nil {
			return api.Endpoint{}, nil, api.InOp(op, err)
		}
		return *view.Endpoints[id], ops, nil
	}
	out, err := e.create(ctx, decide, func(d *draft) error {
		if ep := d.view.Endpoints[id]; ep != nil {
			d.deleteEndpoint(ep)
		}
		return nil
	})
	if err != nil {
		return api.Endpoint{}, nil, api.InOp(op, err)
	}
	e.Tell(api.Event{Kind: "endpoint", Name: id.Sandbox + "/" + id.Ifname, Action: "connect", Detail: "network " + spec.Network})
	made := e.endpoint(out.view.Endpoints[id])
	made.Warnings = append(api.NameWarnings(id.Sandbox, made), e.warn(ctx, out.view, []string{made.Network})...)
	return made, nil, nil
}

// bridgePorts is the kernel's limit: BR_MAX_PORTS, less the number 0 that it
// never gives (net/bridge/br_private.h, find_portno).
const bridgePorts = 1023

// draftEndpoint chooses names and addresses of one attachment.
func (e *Engine) draftEndpoint(d *draft, sandbox string, spec *api.EndpointSpec) error {
	n, err := findNetwork(d.view, spec.Network)
	if err != nil {
		return err
	}
	id := driver.EndpointID{Sandbox: sandbox, Ifname: spec.Ifname}
	if id.Ifname == "" {
		id.Ifname = d.freeIfname(sandbox)
	}
	if other := d.view.Endpoints[id]; other != nil {
		return api.Errorf(api.AlreadyExists, "interface %s of sandbox %s is connected to network %s", id.Ifname, sandbox, other.Network).
			WithFix("choose another --ifname")
	}
	if d.view.CountOn(n.Name) >= bridgePorts {
		return api.Errorf(api.Exhausted, "network %s is full: a bridge has %d ports", n.Name, bridgePorts).
			WithFix("make another network, or disconnect a sandbox")
	}
	mac := spec.MAC
	if mac == "" {
		mac = newMAC()
	} else if other := d.view.WithMAC(n.Name, mac); other != nil {
		return api.Errorf(api.Conflict, "MAC address %s is taken by sandbox %s on network %s", mac, other.Sandbox, n.Name).WithFix("choose another, or leave it out")
	}
	addrs, gateways, err := d.chooseAddresses(n, spec)
	if err != nil {
		return err
	}
	sysctls := map[string]string{}
	for name, value := range spec.Sysctls {
		path, err := api.InterfaceSysctl(name, id.Ifname)
		if err != nil {
			return err
		}
		sysctls[path] = value
	}
	d.putEndpoint(&api.Endpoint{
		Sandbox: sandbox, Network: n.Name, Ifname: id.Ifname,
		HostIfname: ifname("v-", sandbox+"-"+id.Ifname, d.deviceTaken),
		MAC:        mac, Addresses: addrs, Gateways: gateways,
		Aliases: append([]string{}, spec.Aliases...), GwPriority: spec.GwPriority,
		Sysctls: sysctls, Index: d.nextIndex(sandbox),
	})
	return nil
}

func (d *draft) nextIndex(sandbox string) int {
	next := 0
	for _, e := range d.view.EndpointsOf(sandbox) {
		next = max(next, e.Index+1)
	}
	return next
}

// endpoint fills in what is not stored.
func (e *Engine) endpoint(ep *api.Endpoint) api.Endpoint {
	out := *ep
	out.Status = e.status(driver.EndpointUnit(driver.EndpointID{Sandbox: ep.Sandbox, Ifname: ep.Ifname}))
	return out
}

// Disconnect takes a sandbox off a network; ifname says which attachment when
// there are several. With force, what is not connected is no error.
func (e *Engine) Disconnect(ctx context.Context, sandbox, network, name string, force, dry bool) ([]string, error) {
	op := "disconnect sandbox " + sandbox
	if network != "" {
		op += " from network " + network
	}
	event := &api.Event{Kind: "endpoint", Action: "disconnect"}
	return e.remove(ctx, op, event, dry, func(d *draft) error {
		s, err := findSandbox(d.view, sandbox)
		if err != nil {
			return err
		}
		if network != "" {
			n, err := findNetwork(d.view, network)
			if err != nil {
				return err
			}
			network = n.Name
		}
		var found []*api.Endpoint
		var names []string
		for _, ep := range d.view.EndpointsOf(s.Name) {
			if (network == "" || ep.Network == network) && (name == "" || ep.Ifname == name) {
				found, names = append(found, ep), append(names, ep.Ifname)
			}
		}
		switch {
		case len(found) == 0 && force:
			return nil
		case len(found) == 0:
			return api.Errorf(api.NotFound, "it is not connected").WithFix("see: towpath sandbox inspect %s", s.Name)
		case len(found) > 1:
			return api.Errorf(api.Invalid, "it is connected more than once: %s", strings.Join(names, ", ")).WithFix("say which with --ifname")
		}
		event.Name, event.Detail = found[0].Sandbox+"/"+found[0].Ifname, "network "+found[0].Network
		d.deleteEndpoint(found[0])
		return nil
	})
}
