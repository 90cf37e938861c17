package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/server"
	"github.com/towpath/towpath/internal/server/servertest"
)

// ask sends one request over the socket and returns the answer with its body.
func ask(t *testing.T, socket, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

func TestProblems(t *testing.T) {
	socket := servertest.Start(t, servertest.New())
	large := `{"name":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		code                     api.Code
		title, detail            string
	}{
		{"unknown route", "GET", "/v1/nothing", "", 404, api.NotFound, "find route", "GET /v1/nothing"},
		{"method", "PUT", "/v1/networks", "", 405, api.Invalid, "find route", "PUT is not a method of /v1/networks"},
		{"unknown field", "POST", "/v1/networks", `{"name":"a","subnett":1}`, 400, api.Invalid, "create network", `unknown field "subnett"`},
		{"wrong type", "POST", "/v1/networks", `{"name":"a","mtu":"9000"}`, 400, api.Invalid, "create network", `field "mtu" cannot be of JSON type string`},
		{"no object", "POST", "/v1/networks", `["a"]`, 400, api.Invalid, "create network", "request body: it cannot be of JSON type array"},
		{"bad address", "POST", "/v1/networks", `{"name":"a","subnets":["10.0.0.0"]}`, 400, api.Invalid, "create network", "10.0.0.0"},
		{"garbage behind", "POST", "/v1/networks", `{"name":"a"} x`, 400, api.Invalid, "create network", "invalid character"},
		{"second document", "POST", "/v1/networks", `{"name":"a"}{}`, 400, api.Invalid, "create network", "goes on"},
		{"empty body", "POST", "/v1/networks", "", 400, api.Invalid, "create network", "empty"},
		{"half a body", "POST", "/v1/networks", `{"name":`, 400, api.Invalid, "create network", "middle"},
		{"large body", "POST", "/v1/networks", large, 413, api.Invalid, "create network", "over 1048576 bytes"},
		{"misspelt dry run", "POST", "/v1/networks?dryrun=true", `{"name":"a"}`, 400, api.Invalid, "create network", `"dryrun" is not known`},
		{"neither true nor false", "DELETE", "/v1/networks/bridge?force=maybe", "", 400, api.Invalid, "remove network bridge", "force"},
		{"exists", "POST", "/v1/networks", `{"name":"bridge"}`, 409, api.AlreadyExists, "create network bridge", "exists"},
		{"missing", "DELETE", "/v1/sandboxes/web", "", 404, api.NotFound, "remove sandbox web", "does not exist"},
		{"disconnect from nothing", "DELETE", "/v1/sandboxes/web/endpoints", "", 400, api.Invalid, "disconnect sandbox web", "neither"},
		{"adopt nothing", "POST", "/v1/sandboxes", `{"name":"a","networks":[],"adopt":true}`, 400, api.Invalid, "create sandbox a", "no namespace came"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := ask(t, socket, c.method, c.path, c.body)
			if got := resp.Header.Get("Content-Type"); got != api.ProblemType {
				t.Errorf("content type %q", got)
			}
			var p api.Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			if resp.StatusCode != c.status || p.Status != c.status || p.Code != c.code || p.Title != c.title || !strings.Contains(p.Detail, c.detail) {
				t.Errorf("%d %+v", resp.StatusCode, p)
			}
		})
	}
	if _, body := ask(t, socket, "GET", "/v1/networks", ""); strings.Count(body, `"name"`) != 1 {
		t.Errorf("a refused request left something behind: %s", body)
	}
}

func TestAnswers(t *testing.T) {
	engine := servertest.New()
	engine.SetDrift("~ address eth0")
	socket := servertest.Start(t, engine)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"no sandboxes", "GET", "/v1/sandboxes", "", 200, "[]\n"},
		{"dry", "POST", "/v1/networks?dryRun=true", `{"name":"a"}`, 200, `{"ops":["+ link tp-a"]}` + "\n"},
		{"not kept", "GET", "/v1/networks/a", "", 404, ""},
		{"diff", "GET", "/v1/diff", "", 200, `{"ops":["~ address eth0"]}` + "\n"},
		{"state", "GET", "/v1/state", "", 200, "link towpath0 type bridge\n"},
		{"version", "GET", "/v1/version", "", 200, `{"version":"test"}` + "\n"},
		{"health", "GET", "/healthz", "", 200, "ok\n"},
		{"create", "POST", "/v1/networks", `{"name":"a"}`, 201, ""},
		{"remove", "DELETE", "/v1/networks/a", "", 204, ""},
		{"head", "HEAD", "/v1/networks", "", 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := ask(t, socket, c.method, c.path, c.body)
			if resp.StatusCode != c.status || c.want != "" && body != c.want {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		})
	}
	_, body := ask(t, socket, "GET", "/v1/state", "", "Accept", "application/json")
	if body != `{"text":"link towpath0 type bridge\n"}`+"\n" {
		t.Errorf("state as JSON: %s", body)
	}
}

// crashing panics in one verb.
type crashing struct{ *servertest.Engine }

func (crashing) Diff(context.Context) ([]string, error) { panic("boom") }

func TestPanicIsAProblemAndALogLine(t *testing.T) {
	var log bytes.Buffer
	h := server.New(server.Config{Engine: crashing{servertest.New()}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	path := filepath.Join(servertest.SocketDir(t), "s")
	l, err := server.Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l, h, slog.New(slog.DiscardHandler)) }()
	resp, body := ask(t, path, "GET", "/v1/diff", "")
	if resp.StatusCode != 500 || !strings.Contains(body, "boom") || !strings.Contains(body, `"code":"failed"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, _ := ask(t, path, "GET", "/healthz", ""); resp.StatusCode != 200 {
		t.Errorf("after the panic: %s", resp.Status)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "boom") || !strings.Contains(log.String(), "server_test.go") {
		t.Errorf("log: %s", log.String())
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket after the stop: %v", err)
	}
}
