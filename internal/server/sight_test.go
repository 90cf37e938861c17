package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/server"
	"github.com/towpath/towpath/internal/server/servertest"
)

// told answers with what it was asked.
type told struct{}

func (told) Map(context.Context) (api.Map, error) { return api.Map{Notes: []string{"map"}}, nil }

func (told) Doctor(_ context.Context, over time.Duration, fix *api.Fix) (api.Diagnosis, error) {
	return api.Diagnosis{Checks: []api.CheckResult{{Name: fmt.Sprint(over, fix != nil)}}}, nil
}

func (told) Reach(_ context.Context, from, to string, port uint16) (api.Reach, error) {
	return api.Reach{Notes: []string{fmt.Sprint(from, " ", to, " ", port)}}, nil
}

func (told) Explain(_ context.Context, q api.PathQuery) (api.Path, error) {
	return api.Path{Reason: fmt.Sprint(q)}, nil
}

func (told) Probe(_ context.Context, q api.ProbeQuery) (api.Probe, error) {
	return api.Probe{Fix: fmt.Sprint(q)}, nil
}

// once tells what was asked, and then nothing more.
type once struct{ query *api.TraceQuery }

func (told) Trace(_ context.Context, q api.TraceQuery) (server.Tracing, error) { return once{&q}, nil }

func (once) Level() api.PathLevel { return api.LevelTaps }

func (once) Watched() []string { return []string{"host", "web"} }

func (o once) Next(context.Context) ([]api.Path, error) {
	if o.query.From == "" {
		return nil, io.EOF
	}
	p := api.Path{Reason: fmt.Sprint(*o.query)}
	o.query.From = ""
	return []api.Path{p}, nil
}

func (once) Close() error { return nil }

func TestSight(t *testing.T) {
	h := server.New(server.Config{Engine: servertest.New(), Sight: told{}, Log: slog.New(slog.DiscardHandler)})
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/v1/map", "", 200, `"notes":["map"]`},
		{"GET", "/v1/doctor", "", 200, `"name":"0s false"`},
		{"GET", "/v1/doctor?over=3s", "", 200, `"name":"3s false"`},
		{"POST", "/v1/doctor?over=0s", `{"checks":["pmtu"]}`, 200, `"name":"0s true"`},
		{"POST", "/v1/doctor", `{"chekcs":[]}`, 400, `unknown field`},
		{"GET", "/v1/doctor?over=61s", "", 400, `is no time from 0s to 1m`},
		{"GET", "/v1/doctor?over=-1s", "", 400, `is no time from 0s to 1m`},
		{"GET", "/v1/reach?from=web&to=db&port=80", "", 200, `"notes":["web db 80"]`},
		{"GET", "/v1/explain?from=web&to=db:80&family=6&size=1500&ttl=3&source=fd00::2&desired=true", "", 200, `"reason":"{web db:80 6 1500 3 fd00::2 true}"`},
		{"GET", "/v1/explain?from=web", "", 400, `a source and a destination must be given`},
		{"GET", "/v1/explain?from=web&to=db&family=5", "", 400, `is neither 4 nor 6`},
		{"GET", "/v1/explain?from=web&to=db&size=27", "", 400, `is no number of bytes from 28 to 65535`},
		{"GET", "/v1/explain?from=web&to=db&ttl=256", "", 400, `is no time to live from 1 to 255`},
		{"GET", "/v1/explain?from=web&to=db&source=web", "", 400, `is no address`},
		{"POST", "/v1/probe", `{"from":"web","to":"db:80","connect":true,"size":100,"ttl":9,"source":"10.0.0.9"}`, 200, `"fix":"{{web db:80 0 100 9 10.0.0.9 false} true }"`},
		{"POST", "/v1/probe", `{"from":"web"}`, 400, `a source and a destination must be given`},
		{"POST", "/v1/probe", `{"from":"web","to":"db","family":5}`, 400, `is neither 4 nor 6`},
		{"POST", "/v1/probe", `{"from":"web","to":"db","size":27}`, 400, `is no number of bytes from 28 to 65535`},
		{"POST", "/v1/probe", `{"from":"web","to":"db","ttl":-1}`, 400, `is no time to live from 1 to 255`},
		{"POST", "/v1/probe", `{"from":"web","to":"db","desired":true}`, 501, `cannot be desired`},
		{"GET", "/v1/trace?from=web&to=db&port=80&proto=udp&level=taps&drops=true", "", 200, `"reason":"{web db 80 udp taps true}"`},
		{"GET", "/v1/trace?proto=gre", "", 400, `is none of tcp, udp and icmp`},
		{"GET", "/v1/trace?form=web", "", 400, `parameter \"form\" is not known here`},
		{"GET", "/v1/trace?drops=many", "", 400, `is neither true nor false`},
		{"GET", "/v1/reach?port=0", "", 400, `is not a port, 1 to 65535`},
		{"GET", "/v1/reach?port=65536", "", 400, `is not a port, 1 to 65535`},
		{"GET", "/v1/reach?form=web", "", 400, `parameter \"form\" is not known here`},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, w.Code, w.Body, c.status, c.says)
		}
	}
	blind := server.New(server.Config{Engine: servertest.New(), Log: slog.New(slog.DiscardHandler)})
	w := httptest.NewRecorder()
	blind.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/map", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("a map without a sight: %d %s", w.Code, w.Body)
	}
}
