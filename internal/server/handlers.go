package server

import (
	"net/http"
	"strings"

	"github.com/towpath/towpath/api"
)

func (s *service) createNetwork(r *http.Request, p params) (answer, error) {
	spec, err := decode[api.NetworkSpec](r)
	if err != nil {
		return answer{}, err
	}
	made, ops, err := s.Engine.CreateNetwork(r.Context(), spec, p.dry)
	return created(made, ops, p.dry), api.InOp("create network "+spec.Name, err)
}

func (s *service) networks(r *http.Request, _ params) (answer, error) {
	all, err := s.Engine.Networks(r.Context())
	return list(all), err
}

func (s *service) network(r *http.Request, _ params) (answer, error) {
	found, err := s.Engine.Network(r.Context(), r.PathValue("name"))
	return ok(found), err
}

func (s *service) removeNetwork(r *http.Request, p params) (answer, error) {
	ops, err := s.Engine.RemoveNetwork(r.Context(), r.PathValue("name"), p.force, p.dry)
	return removed(ops, p.dry), err
}

func (s *service) createSandbox(r *http.Request, p params) (answer, error) {
	spec, err := decode[api.SandboxSpec](r)
	if err != nil {
		return answer{}, err
	}
	from, err := callerFor(r, spec.Adopt)
	if err != nil {
		return answer{}, api.InOp("create sandbox "+spec.Name, err)
	}
	made, ops, err := s.Engine.CreateSandbox(r.Context(), spec, from, p.dry)
	return created(made, ops, p.dry), api.InOp("create sandbox "+spec.Name, err)
}

func (s *service) sandboxes(r *http.Request, _ params) (answer, error) {
	all, err := s.Engine.Sandboxes(r.Context())
	return list(all), err
}

func (s *service) sandbox(r *http.Request, _ params) (answer, error) {
	found, err := s.Engine.Sandbox(r.Context(), r.PathValue("name"))
	return ok(found), err
}

func (s *service) removeSandbox(r *http.Request, p params) (answer, error) {
	from, err := callerFor(r, false)
	if err != nil {
		return answer{}, err
	}
	ops, err := s.Engine.RemoveSandbox(r.Context(), r.PathValue("name"), from, p.force, p.dry)
	return removed(ops, p.dry), err
}

func (s *service) connect(r *http.Request, p params) (answer, error) {
	spec, err := decode[api.EndpointSpec](r)
	if err != nil {
		return answer{}, err
	}
	made, ops, err := s.Engine.Connect(r.Context(), r.PathValue("name"), spec, p.dry)
	return created(made, ops, p.dry), err
}

func (s *service) disconnect(r *http.Request, p params) (answer, error) {
	ifname := r.PathValue("ifname")
	if ifname == "" && p.network == "" {
		return answer{}, api.Errorf(api.Invalid, "neither a network nor an interface is given").
			WithFix("add ?network=NAME, or /IFNAME to the path")
	}
	ops, err := s.Engine.Disconnect(r.Context(), r.PathValue("name"), p.network, ifname, p.force, p.dry)
	return removed(ops, p.dry), err
}

// state is plain text unless the caller asks for JSON.
func (s *service) state(r *http.Request, _ params) (answer, error) {
	text, err := s.Engine.Plan(r.Context())
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		return ok(api.State{Text: text}), err
	}
	return ok(text), err
}

func (s *service) diff(r *http.Request, _ params) (answer, error) {
	ops, err := s.Engine.Diff(r.Context())
	return preview(ops), err
}

func (s *service) version(r *http.Request, _ params) (answer, error) {
	return ok(s.Engine.Version(r.Context())), nil
}

// health says that requests are answered, nothing of the state of networks.
func (s *service) health(*http.Request, params) (answer, error) {
	return ok("ok\n"), nil
}

func (s *service) publish(r *http.Request, p params) (answer, error) {
	specs, err := decode[[]api.Publication](r)
	if err != nil {
		return answer{}, err
	}
	made, ops, err := s.Engine.Publish(r.Context(), r.PathValue("name"), specs, p.dry)
	return created(made, ops, p.dry), err
}

func (s *service) unpublish(r *http.Request, p params) (answer, error) {
	specs, err := decode[[]api.Publication](r)
	if err != nil {
		return answer{}, err
	}
	ops, err := s.Engine.Unpublish(r.Context(), r.PathValue("name"), specs, p.dry)
	return removed(ops, p.dry), err
}

func (s *service) publications(r *http.Request, p params) (answer, error) {
	all, err := s.Engine.Publications(r.Context(), p.sandbox)
	return list(all), err
}

func (s *service) resolve(r *http.Request, p params) (answer, error) {
	if p.sandbox == "" || p.name == "" {
		return answer{}, api.Errorf(api.Invalid, "no sandbox or no name is given").WithFix("add ?sandbox=SANDBOX&name=NAME")
	}
	found, err := s.Engine.ResolveName(r.Context(), p.sandbox, p.name, p.kind)
	return ok(found), err
}
