package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/linux/rt"
)

// TestEventsAndMetrics: verbs, repairs and refusals are told and counted.
func TestEventsAndMetrics(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "front")
	w.must("sandbox", "create", "web", "--network", "front")
	w.must("network", "connect", "bridge", "web")
	w.must("network", "disconnect", "bridge", "web")
	if r := w.towpath("network", "create", "front"); r.code != 1 {
		t.Errorf("twice the same network: exit %d", r.code)
	}
	host := w.host.Conn(t)
	l, err := host.LinkByName(t.Context(), "v-web-eth0")
	if err == nil {
		err = host.DelLink(t.Context(), l.Index)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.eventually("the veth pair is back", func() bool {
		l, err := host.LinkByName(t.Context(), "v-web-eth0")
		return err == nil && l.Up && l.OperState == rt.OperUp
	})
	events := w.must("events", "--since", "1m", "--until", "0s")
	for _, want := range []string{
		"network create front", "sandbox create web made", "endpoint connect web/eth1 network bridge",
		"endpoint disconnect web/eth1 network bridge",
	} {
		if !strings.Contains(events, want) {
			t.Errorf("events do not tell %q:\n%s", want, events)
		}
	}
	_, heal, _ := strings.Cut(events, "endpoint heal web/eth0 ")
	if why, _, _ := strings.Cut(heal, "; "); !strings.Contains(why, "host: ") {
		t.Errorf("no event of the repair says what happened on the host:\n%s", events)
	}
	if json := w.must("events", "--since", "1m", "--until", "0s", "--json"); !strings.Contains(json, `"action":"heal"`) {
		t.Errorf("events as JSON:\n%s", json)
	}
	metrics := w.get("/metrics")
	for _, want := range []string{
		`towpath_requests_total{code="ok",op="create sandbox"} 1`, `towpath_requests_total{code="alreadyExists",op="create network"} 1`,
		`towpath_objects{kind="network"} 2`, `towpath_objects{kind="failing"} 0`, `towpath_events_total{action="heal"}`, `towpath_build_info{version=`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics do not have %q:\n%s", want, metrics)
		}
	}
	w.clean()
}

// get asks the daemon for a page.
func (w *world) get(path string) string {
	w.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(w.run, "towpath.sock"))
	}}}
	resp, err := c.Get("http://towpath" + path)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	return string(body)
}
