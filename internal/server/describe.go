package server

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/openapi"
)

const plain = "text/plain"

// streamOf is what a stream of values gives.
func streamOf(v any) map[string]any {
	return map[string]any{"text/event-stream": "", "application/x-ndjson": v}
}

// describe answers with all routes, and the types of what they take and give,
// as a document of OpenAPI.
func (s *service) describe(r *http.Request, _ params) (answer, error) {
	var operations []openapi.Operation
	for _, to := range s.routes() {
		operations = append(operations, to.operation())
	}
	doc, err := openapi.Document(openapi.Info{
		Title: "Towpath", Version: s.Engine.Version(r.Context()).Version,
		Description: "The API of towpathd on its Unix socket. A namespace to adopt is passed as a file descriptor " +
			"(SCM_RIGHTS) with the first bytes of the request. Errors are problem documents (RFC 9457). " +
			"More fields may be added to what is answered; one that is not known in a request is refused.",
	}, operations)
	return ok(json.RawMessage(doc)), err
}

// metrics hands over to who counts.
func (s *service) metrics(*http.Request, params) (answer, error) {
	return answer{stream: s.Metrics.ServeHTTP}, nil
}

// operation is the route as it is described.
func (to route) operation() openapi.Operation {
	op := openapi.Operation{Method: to.method, Path: to.path, Summary: to.op, Takes: to.takes}
	all := parameters()
	for _, name := range to.query {
		p := all[name]
		p.Name = name
		op.Query = append(op.Query, p)
	}
	content, byMedia := to.gives.(map[string]any)
	switch {
	case byMedia && len(content) == 0: // any JSON
		content = map[string]any{"application/json": map[string]any{}}
	case !byMedia && to.gives != nil:
		content = map[string]any{"application/json": to.gives}
	}
	done := openapi.Answer{Status: http.StatusOK, Description: "done", Content: content}
	if slices.Contains(to.query, "dryRun") {
		done.Status = http.StatusCreated
		if to.gives == nil {
			done.Status = http.StatusNoContent
		}
		op.Answers = append(op.Answers, openapi.Answer{
			Status: http.StatusOK, Description: "what would be done, with dryRun", Content: map[string]any{"application/json": api.Preview{}},
		})
	}
	op.Answers = append(op.Answers, done, openapi.Answer{Description: "refused or failed", Content: map[string]any{api.ProblemType: api.Problem{}}})
	return op
}

// parameters are all that a query may hold.
func parameters() map[string]openapi.Parameter {
	return map[string]openapi.Parameter{
		"dryRun":  {Description: "validate and allocate, change nothing, and answer with the ops", Value: false},
		"force":   {Description: "of a network: disconnect what is connected first; of a sandbox: end its command", Value: false},
		"network": {Description: "name of a network", Value: ""},
		"sandbox": {Description: "name of a sandbox", Value: ""},
		"name":    {Description: "the name to look up", Value: ""},
		"type":    {Description: "of the record; without it both kinds of addresses", Value: ""},
		"since":   {Description: "begin with what is remembered from this time on", Value: time.Time{}},
		"from":    {Description: "a sandbox, container, address, host or outside", Value: ""},
		"to":      {Description: "as from; explain takes a name that the source resolves and :PORT/PROTO behind it, too", Value: ""},
		"port":    {Description: "of the destination", Value: uint16(0)},
		"proto":   {Description: "tcp, udp or icmp", Value: ""},
		"level":   {Description: "by what means: full, tracepoints or taps", Value: ""},
		"drops":   {Description: "leave out what arrives", Value: false},
		"family":  {Description: "4 or 6", Value: 0},
		"size":    {Description: "of the packet, in bytes, which may not be cut up", Value: 0},
		"ttl":     {Description: "time to live of the packet, or hop limit", Value: 0},
		"source":  {Description: "address that the packet says it comes from", Value: ""},
		"desired": {Description: "walk what is desired, not what is there", Value: false},
		"over":    {Description: "how long to watch counters, as 3s", Value: ""},
	}
}
