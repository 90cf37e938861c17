// Package server is Towpath's HTTP API on a Unix socket: it reads requests,
// hands them to the engine as plain data, and writes down what it answers.
package server

import (
	"context"
	"log/slog"
	"net/http"
	"time"

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
	// RemoveSandbox with force ends the command that the sandbox goes with.
	RemoveSandbox(ctx context.Context, name string, from api.Caller, force, dry bool) ([]string, error)

	Connect(ctx context.Context, sandbox string, spec api.EndpointSpec, dry bool) (api.Endpoint, []string, error)
	// Disconnect takes the endpoints of sandbox that are on network and called
	// ifname; either, not both, may be empty, which means any.
	Disconnect(ctx context.Context, sandbox, network, ifname string, force, dry bool) ([]string, error)

	// Publish makes ports of a sandbox reachable at ports of the host: all or none.
	Publish(ctx context.Context, sandbox string, specs []api.Publication, dry bool) ([]api.Publication, []string, error)
	Unpublish(ctx context.Context, sandbox string, specs []api.Publication, dry bool) ([]string, error)
	// Publications are those of a sandbox, of all where it is "".
	Publications(ctx context.Context, sandbox string) ([]api.Publication, error)

	// ResolveName says what a sandbox is told when it asks for a name; without a
	// kind of record, for both kinds of addresses.
	ResolveName(ctx context.Context, sandbox, name, kind string) (api.Resolution, error)

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
	// takes is a value of the type of the body, gives one of what is answered, or
	// such values by media type: for /openapi.json.
	takes, gives any
	do           func(*http.Request, params) (answer, error)
	// done is told how it went.
	done func(r *http.Request, to route, err error, took time.Duration)
}

// routes is the whole API.
func (s *service) routes() []route {
	dry, forced := []string{"dryRun"}, []string{"dryRun", "force"}
	leave := []string{"dryRun", "force", "network"}
	list := []route{
		{"POST", "/v1/networks", "create network", dry, api.NetworkSpec{}, api.Network{}, s.createNetwork, nil},
		{"GET", "/v1/networks", "list networks", nil, nil, []api.Network{}, s.networks, nil},
		{"GET", "/v1/networks/{name}", "inspect network", nil, nil, api.Network{}, s.network, nil},
		{"DELETE", "/v1/networks/{name}", "remove network", forced, nil, nil, s.removeNetwork, nil},
		{"POST", "/v1/sandboxes", "create sandbox", dry, api.SandboxSpec{}, api.Sandbox{}, s.createSandbox, nil},
		{"GET", "/v1/sandboxes", "list sandboxes", nil, nil, []api.Sandbox{}, s.sandboxes, nil},
		{"GET", "/v1/sandboxes/{name}", "inspect sandbox", nil, nil, api.Sandbox{}, s.sandbox, nil},
		{"DELETE", "/v1/sandboxes/{name}", "remove sandbox", forced, nil, nil, s.removeSandbox, nil},
		{"POST", "/v1/sandboxes/{name}/endpoints", "connect sandbox", dry, api.EndpointSpec{}, api.Endpoint{}, s.connect, nil},
		{"DELETE", "/v1/sandboxes/{name}/endpoints", "disconnect sandbox", leave, nil, nil, s.disconnect, nil},
		{"DELETE", "/v1/sandboxes/{name}/endpoints/{ifname}", "disconnect sandbox", leave, nil, nil, s.disconnect, nil},
		{"GET", "/v1/publications", "list publications", []string{"sandbox"}, nil, []api.Publication{}, s.publications, nil},
		{"POST", "/v1/sandboxes/{name}/publications", "publish ports of sandbox", dry, []api.Publication{}, []api.Publication{}, s.publish, nil},
		{"DELETE", "/v1/sandboxes/{name}/publications", "unpublish ports of sandbox", dry, []api.Publication{}, nil, s.unpublish, nil},
		{"GET", "/v1/resolve", "resolve", []string{"sandbox", "name", "type"}, nil, api.Resolution{}, s.resolve, nil},
		{"GET", "/v1/state", "plan", nil, nil, map[string]any{plain: "", "application/json": api.State{}}, s.state, nil},
		{"GET", "/v1/diff", "diff", nil, nil, api.Preview{}, s.diff, nil},
		{"GET", "/v1/events", "watch events", []string{"since"}, nil, streamOf(api.Event{}), s.events, nil},
		{"GET", "/v1/version", "version", nil, nil, api.Version{}, s.version, nil},
		{"GET", "/healthz", "health", nil, nil, map[string]any{plain: ""}, s.health, nil},
		{"GET", "/openapi.json", "describe this API", nil, nil, map[string]any{}, s.describe, nil},
	}
	if s.Metrics != nil {
		list = append(list, route{"GET", "/metrics", "read metrics", nil, nil, map[string]any{plain: ""}, s.metrics, nil})
	}
	return append(list, s.sightRoutes()...)
}

// Events is what has happened lately, and what happens next.
type Events interface {
	Last() int64
	After(ctx context.Context, id int64) ([]api.Event, error)
	Since(t time.Time) []api.Event
}

// Config is what the API works with.
type Config struct {
	Engine Engine
	Events Events
	// Sight answers about the machine; nil: there are no such routes.
	Sight Sight
	// Metrics answers GET /metrics; nil: there is no such route.
	Metrics http.Handler
	// Count is told of every request that was answered, the streams aside: by
	// its verb and noun, and the code it failed with or "ok".
	Count func(op, code string, took time.Duration)
	Log   *slog.Logger
}

// service is what every route works with.
type service struct{ Config }

// New makes the API's handler.
func New(c Config) http.Handler {
	s := &service{Config: c}
	paths := map[string]resource{}
	for _, r := range s.routes() {
		if paths[r.path] == nil {
			paths[r.path] = resource{}
		}
		r.done = s.done
		paths[r.path][r.method] = r
	}
	mux := http.NewServeMux()
	for path, res := range paths {
		mux.Handle(path, res)
	}
	mux.HandleFunc("/", unknownRoute)
	return s.recovered(withCaller(mux))
}

// done logs and counts a request that was answered. Reading is told at a level
// of its own: it changes nothing, and is done often.
func (s *service) done(r *http.Request, to route, err error, took time.Duration) {
	code, level := "ok", slog.LevelInfo
	if r.Method == http.MethodGet {
		level = slog.LevelDebug
	}
	args := []any{"op", to.title(r), "us", took.Microseconds()}
	if err != nil {
		code = string(api.CodeOf(err))
		level = slog.LevelWarn
		args = append(args, "code", code, "err", err)
	}
	s.Log.Log(r.Context(), level, "request", args...)
	if s.Count != nil {
		s.Count(to.op, code, took)
	}
}
