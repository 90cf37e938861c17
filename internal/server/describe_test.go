package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"github.com/towpath/towpath/internal/event"
	"github.com/towpath/towpath/internal/server"
	"github.com/towpath/towpath/internal/server/servertest"
)

// described is the API with all its routes, and its own description.
func described(t *testing.T) (server.Config, http.Handler, *openapi3.T) {
	t.Helper()
	c := server.Config{
		Engine: servertest.New(), Events: &event.Log{}, Sight: told{}, Metrics: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler),
	}
	h := server.New(c)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/openapi.json", nil))
	doc, err := openapi3.NewLoader().LoadFromData(w.Body.Bytes())
	if err != nil {
		t.Fatalf("%v\n%s", err, w.Body)
	}
	return c, h, doc
}

// TestDescription: the document is one of OpenAPI, has every route with every
// parameter, and nothing else.
func TestDescription(t *testing.T) {
	c, _, doc := described(t)
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	want, unclear := server.Routes(c)
	if len(unclear) > 0 {
		t.Errorf("what they take or give is not said of %q", unclear)
	}
	var got []string
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			var query []string
			for _, p := range op.Parameters {
				if p.Value.In == "query" {
					query = append(query, p.Value.Name)
				}
			}
			got = append(got, method+" "+path+" "+strings.Join(query, ","))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("described:\n%s\nrouted:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestDescriptionHolds: requests and answers are as the document says.
func TestDescriptionHolds(t *testing.T) {
	_, h, doc := described(t)
	find, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		request, body string
		status        int
	}{
		{"POST /v1/networks", `{"name":"front","subnets":["10.5.0.0/24"],"labels":{"a":"b"}}`, 201},
		{"POST /v1/networks?dryRun=true", `{"name":"back"}`, 200},
		{"POST /v1/networks", `{"name":"front"}`, 409},
		{"GET /v1/networks", "", 200},
		{"GET /v1/networks/front", "", 200},
		{"GET /v1/networks/nobody", "", 404},
		{"POST /v1/sandboxes", `{"name":"web","networks":[{"network":"front","ip":"10.5.0.9"}],"dns":["192.0.2.53"]}`, 201},
		{"GET /v1/sandboxes", "", 200},
		{"GET /v1/sandboxes/web", "", 200},
		{"POST /v1/sandboxes/web/endpoints", `{"network":"bridge","ifname":"eth1"}`, 201},
		{"POST /v1/sandboxes/web/publications", `[{"port":80,"count":1,"proto":"tcp"}]`, 201},
		{"GET /v1/publications?sandbox=web", "", 200},
		{"GET /v1/resolve?sandbox=web&name=web&type=A", "", 200},
		{"DELETE /v1/sandboxes/web/publications", `[{"port":80,"count":1,"proto":"tcp"}]`, 204},
		{"DELETE /v1/sandboxes/web/endpoints/eth1?dryRun=true", "", 200},
		{"DELETE /v1/sandboxes/web/endpoints?network=bridge", "", 204},
		{"DELETE /v1/sandboxes/web?force=true", "", 204},
		{"DELETE /v1/networks/front", "", 204},
		{"GET /v1/state", "", 200},
		{"GET /v1/diff", "", 200},
		{"GET /v1/version", "", 200},
		{"GET /healthz", "", 200},
		{"GET /openapi.json", "", 200},
	} {
		if err := holds(t.Context(), h, find, c.request, c.body, c.status); err != nil {
			t.Errorf("%s %s: %v", c.request, c.body, err)
		}
	}
}

// holds sends a request and compares it, and the answer, with the description.
func holds(ctx context.Context, h http.Handler, find routers.Router, request, body string, status int) error {
	method, target, _ := strings.Cut(request, " ")
	ask := func() *http.Request {
		r := httptest.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		return r
	}
	r := ask()
	to, params, err := find.FindRoute(r)
	if err != nil {
		return err
	}
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: to}
	if err := openapi3filter.ValidateRequest(ctx, in); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, ask())
	if w.Code != status {
		return fmt.Errorf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	text := w.Body.String()
	err = openapi3filter.ValidateResponse(ctx, &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: w.Code, Header: w.Header(), Body: io.NopCloser(bytes.NewReader(w.Body.Bytes())),
	})
	if err != nil {
		return fmt.Errorf("answer: %w: %s", err, text)
	}
	return nil
}
