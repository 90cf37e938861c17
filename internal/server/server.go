// Package server is Towpath's HTTP API on a Unix socket: it reads requests,
// hands them to the engine as plain data, and writes down what it answers.
package server

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/towpath/towpath/api"
)

// Engine carries out what requests ask for. With dry set it validates and
// allocates without committing; the strings are the ops it applied or, with
// dry, would apply, one a line.
type Engine interface {
	CreateNetwork(ctx context.Context, spec api.NetworkSpec, dry bool) (api.Network, []string, error)
	Networks(ctx context.Context) ([]api.Network, error)
	Network(ctx context.Context, name string) (api.Network, error)
	RemoveNetwork(ctx context.Context, name string, force, dry bool) ([]string, error)

	// CreateSandbox must not use from.Netns after it returned.
	CreateSandbox(ctx context.Context, spec api.SandboxSpec, from api.Caller, dry bool) (api.Sandbox, []string, error)
	Sandboxes(ctx context.Context) ([]api.Sandbox, error)
	// Sandbox includes what is live in the kernel.
	Sandbox(ctx context.Context, name string) (api.Sandbox, error)
	RemoveSandbox(ctx context.Context, name string, dry bool) ([]string, error)

	Connect(ctx context.Context, sandbox string, spec api.EndpointSpec, dry bool) (api.Endpoint, []string, error)
	// Disconnect takes the endpoints of sandbox that are on network and called
	// ifname; either, not both, may be empty, which means any.
	Disconnect(ctx context.Context, sandbox, network, ifname string, force, dry bool) ([]string, error)

	// Plan is the desired kernel state as text, one object a line.
	Plan(ctx context.Context) (string, error)
	// Diff is the ops that would be applied now.
	Diff(ctx context.Context) ([]string, error)
	Version(ctx context.Context) api.Version
}

// route is one line of the API.
type route struct {
	method, path string
	// op is the verb and noun that a failure is told of.
	op string
	// query names the parameters the route understands; any other is refused,
	// so that a misspelt dryRun never becomes a real change.
	query []string
	do    func(*http.Request, params) (answer, error)
}

// routes is the whole API.
func (s *service) routes() []route {
	dry, forced := []string{"dryRun"}, []string{"dryRun", "force"}
	leave := []string{"dryRun", "force", "network"}
	return []route{
		{"POST", "/v1/networks", "create network", dry, s.createNetwork},
		{"GET", "/v1/networks", "list networks", nil, s.networks},
		{"GET", "/v1/networks/{name}", "inspect network", nil, s.network},
		{"DELETE", "/v1/networks/{name}", "remove network", forced, s.removeNetwork},
		{"POST", "/v1/sandboxes", "create sandbox", dry, s.createSandbox},
		{"GET", "/v1/sandboxes", "list sandboxes", nil, s.sandboxes},
		{"GET", "/v1/sandboxes/{name}", "inspect sandbox", nil, s.sandbox},
		{"DELETE", "/v1/sandboxes/{name}", "remove sandbox", dry, s.removeSandbox},
		{"POST", "/v1/sandboxes/{name}/endpoints", "connect sandbox", dry, s.connect},
		{"DELETE", "/v1/sandboxes/{name}/endpoints", "disconnect sandbox", leave, s.disconnect},
		{"DELETE", "/v1/sandboxes/{name}/endpoints/{ifname}", "disconnect sandbox", leave, s.disconnect},
		{"GET", "/v1/state", "plan", nil, s.state},
		{"GET", "/v1/diff", "diff", nil, s.diff},
		{"GET", "/v1/version", "version", nil, s.version},
		{"GET", "/healthz", "health", nil, s.health},
	}
}

// service is what every route works with.
type service struct {
	engine Engine
	log    *slog.Logger
}

// New makes the API's handler.
func New(engine Engine, log *slog.Logger) http.Handler {
	s := &service{engine: engine, log: log}
	paths := map[string]resource{}
	for _, r := range s.routes() {
		if paths[r.path] == nil {
			paths[r.path] = resource{}
		}
		paths[r.path][r.method] = r
	}
	mux := http.NewServeMux()
	for path, res := range paths {
		mux.Handle(path, res)
	}
	mux.HandleFunc("/", unknownRoute)
	return s.recovered(withCaller(mux))
}
