// Package driver turns Towpath's objects into wanted kernel state. It is pure:
// the same view gives the same objects, on every run.
package driver

import (
	"maps"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
)

// View is what there is to plan: the records of the store and what the host is
// like. A View that was handed out is never changed.
type View struct {
	Host      kernel.Facts
	Networks  map[string]*api.Network
	Sandboxes map[string]*api.Sandbox
	Endpoints map[EndpointID]*api.Endpoint
	// Publications are by their ID, which is unique on the host.
	Publications Publications
	// Down asks for nothing at all, and for what was there before us.
	Down bool
	// Saved are the values that sysctls of the host had before Towpath set them.
	Saved map[string]string

	index *index
}

// EndpointID is what an endpoint is known by: its sandbox and interface.
type EndpointID struct{ Sandbox, Ifname string }

// Clone is a View whose maps can be changed; the records are shared.
func (v View) Clone() View {
	v.Networks = maps.Clone(v.Networks)
	v.Sandboxes = maps.Clone(v.Sandboxes)
	v.Endpoints = maps.Clone(v.Endpoints)
	v.Publications = v.Publications.Clone()
	v.Saved = maps.Clone(v.Saved)
	v.index = v.index.clone()
	return v
}

// NewView is an empty View.
func NewView() View {
	return View{
		Networks:  map[string]*api.Network{},
		Sandboxes: map[string]*api.Sandbox{},
		Endpoints: map[EndpointID]*api.Endpoint{},
		Saved:     map[string]string{},

		Publications: NewPublications(),
	}
}

// PublicationsOf are the publications of a sandbox, by ID.
func (v View) PublicationsOf(sandbox string) []*api.Publication {
	return slices.Collect(v.Publications.Of(sandbox))
}

// Unit is a part of the plan that is planned, compared and applied by itself:
// "host", "network/NAME", "sandbox/NAME", "endpoint/SANDBOX/IFNAME",
// "publication/ID". Each
// object belongs to exactly one unit.
type Unit string

// HostUnit is what does not grow: the table with its chains, and forwarding.
const HostUnit Unit = "host"

// NetworkUnit is the unit of a network: its bridge and its elements.
func NetworkUnit(name string) Unit { return Unit("network/" + name) }

// SandboxUnit is the unit of a sandbox: its namespace.
func SandboxUnit(name string) Unit { return Unit("sandbox/" + name) }

// EndpointUnit is the unit of an endpoint: its veth pair, addresses and routes.
func EndpointUnit(id EndpointID) Unit { return Unit("endpoint/" + id.Sandbox + "/" + id.Ifname) }

// PublicationUnit is the unit of a publication: its elements and sockets.
func PublicationUnit(id string) Unit { return Unit("publication/" + id) }

// Mark is the ifalias of a link of the unit: whose it is.
func (u Unit) Mark() string { return MarkPrefix + string(u) }

// MarkPrefix begins the ifalias of every link that is ours.
const MarkPrefix = "towpath "

// Units are all units of a view, sorted.
func Units(v View) []Unit {
	units := []Unit{HostUnit}
	for name := range v.Networks {
		units = append(units, NetworkUnit(name))
	}
	for name := range v.Sandboxes {
		units = append(units, SandboxUnit(name))
	}
	for id := range v.Endpoints {
		units = append(units, EndpointUnit(id))
	}
	for id := range v.Publications.All() {
		units = append(units, PublicationUnit(id))
	}
	slices.Sort(units)
	return units
}

// Plan is the wanted state of one unit; nothing when its object is not in the view.
func Plan(u Unit, v View) []kernel.Object {
	kind, name, _ := strings.Cut(string(u), "/")
	switch kind {
	case string(HostUnit):
		return planHost(v)
	case "network":
		if n, ok := v.Networks[name]; ok {
			return planNetwork(n, v)
		}
	case "sandbox":
		if s, ok := v.Sandboxes[name]; ok {
			return planSandbox(s, v)
		}
	case "endpoint":
		sandbox, ifname, _ := strings.Cut(name, "/")
		if e, ok := v.Endpoints[EndpointID{sandbox, ifname}]; ok {
			return planEndpoint(e, v)
		}
	case "publication":
		if p := v.Publications.Get(name); p != nil {
			return planPublication(p, v)
		}
	}
	return nil
}

// TouchedByNetwork are the units to plan again when a network comes, goes or
// changes; to be asked of the view before and of the view after. What a network
// is decides on the routes of all endpoints of the sandboxes on it.
func TouchedByNetwork(v View, name string) []Unit {
	units := []Unit{HostUnit, NetworkUnit(name)}
	seen := ""
	for _, e := range v.EndpointsOn(name) {
		if e.Sandbox != seen {
			units = append(units, TouchedBySandbox(v, e.Sandbox)...)
		}
		seen = e.Sandbox
	}
	return units
}

// TouchedBySandbox are the units to plan again when a sandbox or one of its
// endpoints comes, goes or changes: the others' routes may depend on it.
func TouchedBySandbox(v View, name string) []Unit {
	units := []Unit{SandboxUnit(name)}
	for _, e := range v.EndpointsOf(name) {
		units = append(units, EndpointUnit(EndpointID{e.Sandbox, e.Ifname}))
	}
	for _, p := range v.PublicationsOf(name) {
		units = append(units, PublicationUnit(p.ID()))
	}
	return units
}
