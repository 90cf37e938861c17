package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/towpath/towpath/api"
)

// trace sends paths of flows as they are seen until the client goes:
// server-sent events, or one JSON document a line to who accepts
// application/x-ndjson. The headers are sent when the watch has begun.
func (s *service) trace(r *http.Request, p params) (answer, error) {
	p.trace.From, p.trace.To, p.trace.Port = p.from, p.to, p.port
	t, err := s.Sight.Trace(r.Context(), p.trace)
	return answer{stream: func(w http.ResponseWriter, r *http.Request) { streamPaths(w, r, t) }}, err
}

func streamPaths(w http.ResponseWriter, r *http.Request, t Tracing) {
	r, end := streaming(r)
	defer end()
	defer t.Close() //nolint:errcheck // the sockets are gone either way
	lines := strings.Contains(r.Header.Get("Accept"), "application/x-ndjson")
	out := stream{w: w, flush: http.NewResponseController(w), lines: lines}
	w.Header().Set(api.TraceHeader, fmt.Sprintf("level=%s namespaces=%d", t.Level(), len(t.Watched())))
	out.begin()
	for err := out.flush.Flush(); err == nil; {
		err = nextPaths(r, t, &out)
	}
}

// nextPaths waits for paths and sends them, or a heartbeat.
func nextPaths(r *http.Request, t Tracing, out *stream) error {
	ctx, cancel := context.WithTimeout(r.Context(), heartbeat)
	defer cancel()
	paths, err := t.Next(ctx)
	if err != nil && ctx.Err() != nil && r.Context().Err() == nil {
		return out.beat()
	}
	if err != nil {
		return err
	}
	for _, p := range paths {
		data, err := json.Marshal(p)
		if err != nil {
			return err
		}
		format := "event: path\ndata: %s\n\n"
		if out.lines {
			format = "%s\n"
		}
		if _, err := fmt.Fprintf(out.w, format, data); err != nil {
			return err
		}
	}
	return out.flush.Flush()
}

// setTrace takes one parameter of a trace.
func setTrace(q *api.TraceQuery, key, value string) error {
	switch {
	case key == "level":
		q.Level = api.PathLevel(value)
	case value != "tcp" && value != "udp" && value != "icmp":
		return api.Errorf(api.Invalid, "parameter proto=%q is none of tcp, udp and icmp", value)
	default:
		q.Proto = value
	}
	return nil
}
