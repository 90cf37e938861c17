package server

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/towpath/towpath/api"
)

// Sight answers about the machine as its kernel has it, whoever made what is there.
type Sight interface {
	// Map is the topology.
	Map(ctx context.Context) (api.Map, error)
	// Doctor makes all checks, reading counters again after a while (0: once
	// only), and with fix mends what is Towpath's own and what the checks named
	// in it can set.
	Doctor(ctx context.Context, over time.Duration, fix *api.Fix) (api.Diagnosis, error)
	// Explain is the way that a packet should take; nothing is sent.
	Explain(ctx context.Context, q api.PathQuery) (api.Path, error)
	// Probe sends one packet and tells its way.
	Probe(ctx context.Context, q api.ProbeQuery) (api.Probe, error)
	// Trace begins to watch for flows.
	Trace(ctx context.Context, q api.TraceQuery) (Tracing, error)
	// Reach is who can reach whom; names and port narrow it down, "" and 0 do not.
	Reach(ctx context.Context, from, to string, port uint16) (api.Reach, error)
}

// Tracing is a trace under way.
type Tracing interface {
	// Watched are the namespaces that are watched.
	Watched() []string
	// Level is by what means.
	Level() api.PathLevel
	// Next waits for paths; with ctx, or when the daemon stops, it ends.
	Next(ctx context.Context) ([]api.Path, error)
	Close() error
}

// longestLook bounds how long a diagnosis waits between two readings.
const longestLook = time.Minute

// sightRoutes are those that need a Sight.
func (s *service) sightRoutes() []route {
	if s.Sight == nil {
		return nil
	}
	return []route{
		{"GET", "/v1/map", "map", nil, nil, api.Map{}, s.topology, nil},
		{"GET", "/v1/doctor", "doctor", []string{"over"}, nil, api.Diagnosis{}, s.doctor, nil},
		{"POST", "/v1/doctor", "doctor, with repair", []string{"over"}, api.Fix{}, api.Diagnosis{}, s.cure, nil},
		{"GET", "/v1/explain", "explain", []string{"from", "to", "family", "size", "ttl", "source", "desired"}, nil, api.Path{}, s.explain, nil},
		{"POST", "/v1/probe", "probe", nil, api.ProbeQuery{}, api.Probe{}, s.probe, nil},
		{"GET", "/v1/trace", "trace", []string{"from", "to", "port", "proto", "level", "drops"}, nil, streamOf(api.Path{}), s.trace, nil},
		{"GET", "/v1/reach", "reach", []string{"from", "to", "port"}, nil, api.Reach{}, s.reach, nil},
	}
}

func (s *service) topology(r *http.Request, _ params) (answer, error) {
	m, err := s.Sight.Map(r.Context())
	return ok(m), err
}

func (s *service) doctor(r *http.Request, p params) (answer, error) {
	d, err := s.Sight.Doctor(r.Context(), p.over, nil)
	return ok(d), err
}

// cure is the diagnosis that mends.
func (s *service) cure(r *http.Request, p params) (answer, error) {
	fix, err := decode[api.Fix](r)
	if err != nil {
		return answer{}, err
	}
	d, err := s.Sight.Doctor(r.Context(), p.over, &fix)
	return ok(d), err
}

func (s *service) reach(r *http.Request, p params) (answer, error) {
	t, err := s.Sight.Reach(r.Context(), p.from, p.to, p.port)
	return ok(t), err
}

// parseOver reads how long to look.
func parseOver(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > longestLook {
		return 0, api.Errorf(api.Invalid, "parameter over=%q is no time from 0s to %s", value, strings.TrimSuffix(longestLook.String(), "0s"))
	}
	return d, nil
}
