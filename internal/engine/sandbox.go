package engine

import (
	"context"
	"maps"
	"slices"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
)

// CreateSandbox makes a sandbox, or adopts the caller's namespace, and connects
// it to its networks.
func (e *Engine) CreateSandbox(ctx context.Context, spec api.SandboxSpec, from api.Caller, dry bool) (api.Sandbox, []string, error) {
	op := "create sandbox " + spec.Name
	if spec.Networks == nil {
		spec.Networks = []api.EndpointSpec{{Network: api.DefaultNetwork}}
	}
	if err := spec.Validate(); err != nil {
		return api.Sandbox{}, nil, api.InOp(op, err)
	}
	base, err := e.origin(spec, from)
	if err != nil {
		return api.Sandbox{}, nil, api.InOp(op, err)
	}
	decide := func(d *draft) error { return e.draftSandbox(d, base, spec) }
	if dry {
		view, ops, err := e.preview(ctx, decide)
		if err != nil {
			return api.Sandbox{}, nil, api.InOp(op, err)
		}
		s := *view.Sandboxes[spec.Name]
		s.Endpoints = endpointsAs(view, s.Name)
		s.Warnings = s.NameWarnings()
		return s, ops, nil
	}
	out, err := e.create(ctx, decide, func(d *draft) error {
		if d.view.Sandboxes[spec.Name] != nil {
			d.deleteSandbox(spec.Name)
		}
		return nil
	})
	if err != nil {
		return api.Sandbox{}, nil, api.InOp(op, err)
	}
	s := out.view.Sandboxes[spec.Name]
	e.Tell(api.Event{Kind: "sandbox", Name: s.Name, Action: "create", Detail: s.Origin})
	e.follow(e.life, s)
	made := e.sandbox(ctx, out.view, s.Name)
	e.files(&made)
	var ids []string
	for i := range made.Publications {
		p := &made.Publications[i]
		made.Warnings = append(made.Warnings, p.Warnings...)
		ids = append(ids, p.ID())
	}
	made.Warnings = append(made.Warnings, e.warn(ctx, out.view, networksOf(out.view, s.Name), ids...)...)
	return made, nil, nil
}

// origin says where the namespace comes from.
func (e *Engine) origin(spec api.SandboxSpec, from api.Caller) (api.Sandbox, error) {
	s := api.Sandbox{
		Name: spec.Name, Netns: e.Namespaces.Path(spec.Name), Origin: api.OriginMade,
		Hostname: spec.Hostname, Labels: orEmpty(spec.Labels), Naming: spec.Naming,
	}
	switch {
	case spec.Adopt && from.Netns == nil:
		return s, api.Errorf(api.Invalid, "no namespace came with the request").WithFix("pass it as a file descriptor: towpath sandbox create --netns PATH or --pid PID")
	case spec.Adopt:
		cookie, err := e.Namespaces.Adopt(from.Netns)
		s.Origin, s.Cookie = api.OriginAdopted, cookie
		return s, err
	case spec.Run:
		p, err := e.Processes.Identify(from.PID)
		if err != nil {
			return s, api.Errorf(api.Invalid, "the calling process cannot be followed: %w", err)
		}
		s.Origin, s.Process = api.OriginRun, &p
	}
	return s, nil
}

func (e *Engine) draftSandbox(d *draft, base api.Sandbox, spec api.SandboxSpec) error {
	if s := d.view.SandboxNamed(spec.Name); s != nil {
		return api.Errorf(api.AlreadyExists, "sandbox %s exists", s.Name).WithFix("choose another name, or remove it: towpath sandbox rm %s", s.Name)
	}
	for name, s := range d.view.Sandboxes {
		if base.Cookie == 0 { // not adopted
			break
		}
		if s.Cookie == base.Cookie {
			return api.Errorf(api.AlreadyExists, "the namespace is sandbox %s already", name).WithFix("use that one, or remove it: towpath sandbox rm %s", name)
		}
	}
	d.putSandbox(&base)
	for i := range spec.Networks {
		if err := e.draftEndpoint(d, spec.Name, &spec.Networks[i]); err != nil {
			return err
		}
	}
	_, err := e.draftPublications(d, spec.Name, spec.Publish)
	return err
}

// sandbox fills in what is not stored.
func (e *Engine) sandbox(ctx context.Context, v driver.View, name string) api.Sandbox {
	s := *v.Sandboxes[name]
	s.Endpoints = []api.Endpoint{}
	units := []driver.Unit{driver.SandboxUnit(name)}
	for _, ep := range v.EndpointsOf(name) {
		s.Endpoints = append(s.Endpoints, e.endpoint(ep))
		units = append(units, driver.EndpointUnit(driver.EndpointID{Sandbox: name, Ifname: ep.Ifname}))
	}
	ids := []string{}
	for _, p := range v.PublicationsOf(name) {
		ids = append(ids, p.ID())
		units = append(units, driver.PublicationUnit(p.ID()))
	}
	s.Publications = e.publications(ctx, v, ids)
	s.Warnings = s.NameWarnings()
	s.Status = e.status(units...)
	return s
}

// Sandboxes are all sandboxes, by name.
func (e *Engine) Sandboxes(ctx context.Context) ([]api.Sandbox, error) {
	v, _ := e.View()
	out := []api.Sandbox{}
	for _, name := range slices.Sorted(maps.Keys(v.Sandboxes)) {
		out = append(out, e.sandbox(ctx, v, name))
	}
	return out, nil
}

// Sandbox is one sandbox by name, with what the kernel shows of it now.
func (e *Engine) Sandbox(ctx context.Context, name string) (api.Sandbox, error) {
	v, _ := e.View()
	s, err := findSandbox(v, name)
	if err != nil {
		return api.Sandbox{}, api.InOp("inspect sandbox "+name, err)
	}
	out := e.sandbox(ctx, v, s.Name)
	e.files(&out)
	out.Live, err = e.Live(ctx, s, v.EndpointsOf(s.Name))
	if err != nil { // the rest is still worth telling
		e.Log.Warn("read live state", "sandbox", name, "err", err)
		out.Status = &api.Status{State: "error", Message: err.Error()}
	}
	return out, nil
}

func findSandbox(v driver.View, name string) (*api.Sandbox, error) {
	if s := v.SandboxNamed(name); s != nil {
		return s, nil
	}
	return nil, api.Errorf(api.NotFound, "sandbox %q does not exist", name).WithFix("see: towpath sandbox ls")
}

// RemoveSandbox removes a sandbox with its endpoints. An adopted namespace
// stays with its owner, without them. The sandbox of a command that runs is
// refused to all but that command's own process; with force the command is ended.
func (e *Engine) RemoveSandbox(ctx context.Context, name string, from api.Caller, force, dry bool) ([]string, error) {
	view, _ := e.View()
	s := view.SandboxNamed(name)
	if s == nil || s.Process == nil {
		return e.removeSandbox(ctx, name, nil, dry)
	}
	if err := e.endCommand(s, from, force, dry); err != nil {
		return nil, api.InOp("remove sandbox "+name, err)
	}
	ops, err := e.removeSandbox(ctx, name, s.Process, dry)
	if code := api.CodeOf(err); err != nil && !dry && (code == api.NotFound || code == api.Conflict) {
		return nil, nil // it went with its command
	}
	return ops, err
}

// removeSandbox removes the sandbox that goes with a process; nil: with none.
// Another may have got the name meanwhile.
func (e *Engine) removeSandbox(ctx context.Context, name string, of *api.Process, dry bool) ([]string, error) {
	event := &api.Event{Kind: "sandbox", Name: name, Action: "remove"}
	return e.remove(ctx, "remove sandbox "+name, event, dry, func(d *draft) error {
		s, err := findSandbox(d.view, name)
		if err == nil && !goesWith(s, of) {
			err = api.Errorf(api.Conflict, "another sandbox got the name meanwhile").WithFix("try again")
		}
		if err != nil {
			return err
		}
		d.deleteSandbox(s.Name)
		return nil
	})
}
