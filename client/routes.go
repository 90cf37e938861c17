package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/towpath/towpath/api"
)

// get reads a thing or a list of them.
func get[T any](ctx context.Context, c *Client, noun string, names ...string) (T, error) {
	var out T
	p, err := path(noun, names...)
	if err != nil {
		return out, err
	}
	err = c.do(ctx, request{method: http.MethodGet, path: p, out: &out})
	return out, err
}

// CreateNetwork makes a network and returns it as it is in the kernel.
func (c *Client) CreateNetwork(ctx context.Context, spec api.NetworkSpec) (api.Network, error) {
	var out api.Network
	err := c.createNetwork(ctx, spec, nil, &out)
	return out, err
}

func (c *Client) createNetwork(ctx context.Context, spec api.NetworkSpec, q url.Values, out any) error {
	return c.do(ctx, request{method: http.MethodPost, path: "/v1/networks", query: q, in: spec, out: out})
}

// Networks is all networks by name.
func (c *Client) Networks(ctx context.Context) ([]api.Network, error) {
	return get[[]api.Network](ctx, c, "networks")
}

// Network is one network with its endpoints.
func (c *Client) Network(ctx context.Context, name string) (api.Network, error) {
	return get[api.Network](ctx, c, "networks", name)
}

// RemoveNetwork removes a network. One in use is refused (api.InUse), unless
// force disconnects its endpoints first.
func (c *Client) RemoveNetwork(ctx context.Context, name string, force bool) error {
	return c.removeNetwork(ctx, name, forced(force), nil)
}

func (c *Client) removeNetwork(ctx context.Context, name string, q url.Values, out any) error {
	p, err := path("networks", name)
	if err != nil {
		return err
	}
	return c.do(ctx, request{method: http.MethodDelete, path: p, query: q, out: out})
}

// CreateSandbox makes a sandbox. netns is the open network namespace to adopt,
// nil to have the daemon make one; it stays the caller's to close.
func (c *Client) CreateSandbox(ctx context.Context, spec api.SandboxSpec, netns *os.File) (api.Sandbox, error) {
	var out api.Sandbox
	err := c.createSandbox(ctx, spec, netns, nil, &out)
	return out, err
}

func (c *Client) createSandbox(ctx context.Context, spec api.SandboxSpec, netns *os.File, q url.Values, out any) error {
	spec.Adopt = netns != nil
	return c.do(ctx, request{method: http.MethodPost, path: "/v1/sandboxes", query: q, in: spec, out: out, pass: netns})
}

// Sandboxes is all sandboxes by name, without what is live in the kernel.
func (c *Client) Sandboxes(ctx context.Context) ([]api.Sandbox, error) {
	return get[[]api.Sandbox](ctx, c, "sandboxes")
}

// Sandbox is one sandbox with what the kernel holds of it now.
func (c *Client) Sandbox(ctx context.Context, name string) (api.Sandbox, error) {
	return get[api.Sandbox](ctx, c, "sandboxes", name)
}

// RemoveSandbox removes a sandbox with its endpoints. One of a command that runs
// is refused (api.InUse), unless force ends the command first.
func (c *Client) RemoveSandbox(ctx context.Context, name string, force bool) error {
	return c.removeSandbox(ctx, name, forced(force), nil)
}

func (c *Client) removeSandbox(ctx context.Context, name string, q url.Values, out any) error {
	p, err := path("sandboxes", name)
	if err != nil {
		return err
	}
	return c.do(ctx, request{method: http.MethodDelete, path: p, query: q, out: out})
}

// Connect attaches a sandbox to a network.
func (c *Client) Connect(ctx context.Context, sandbox string, spec api.EndpointSpec) (api.Endpoint, error) {
	var out api.Endpoint
	err := c.connect(ctx, sandbox, spec, nil, &out)
	return out, err
}

func (c *Client) connect(ctx context.Context, sandbox string, spec api.EndpointSpec, q url.Values, out any) error {
	p, err := path("sandboxes", sandbox)
	if err != nil {
		return err
	}
	return c.do(ctx, request{method: http.MethodPost, path: p + "/endpoints", query: q, in: spec, out: out})
}

// Disconnect takes a sandbox off a network. Either network or ifname may be
// empty, which means any; force goes on although a part of it is gone already.
func (c *Client) Disconnect(ctx context.Context, sandbox, network, ifname string, force bool) error {
	return c.disconnect(ctx, sandbox, network, ifname, forced(force), nil)
}

func (c *Client) disconnect(ctx context.Context, sandbox, network, ifname string, q url.Values, out any) error {
	names := []string{sandbox, "endpoints"}
	if ifname != "" {
		names = append(names, ifname)
	}
	p, err := path("sandboxes", names...)
	if err != nil {
		return err
	}
	if network != "" {
		q.Set("network", network)
	}
	return c.do(ctx, request{method: http.MethodDelete, path: p, query: q, out: out})
}

// Publish makes ports of a sandbox reachable at ports of the host: all of them or none.
func (c *Client) Publish(ctx context.Context, sandbox string, specs []api.Publication) ([]api.Publication, error) {
	var made []api.Publication
	err := c.publish(ctx, http.MethodPost, sandbox, specs, nil, &made)
	return made, err
}

// Unpublish takes publications back.
func (c *Client) Unpublish(ctx context.Context, sandbox string, specs []api.Publication) error {
	return c.publish(ctx, http.MethodDelete, sandbox, specs, nil, nil)
}

func (c *Client) publish(ctx context.Context, method, sandbox string, specs []api.Publication, q url.Values, out any) error {
	p, err := path("sandboxes", sandbox, "publications")
	if err != nil {
		return err
	}
	return c.do(ctx, request{method: method, path: p, query: q, in: specs, out: out})
}

// Publications are those of a sandbox, or of all where it is "".
func (c *Client) Publications(ctx context.Context, sandbox string) ([]api.Publication, error) {
	q := url.Values{}
	if sandbox != "" {
		q.Set("sandbox", sandbox)
	}
	var all []api.Publication
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/publications", query: q, out: &all})
	return all, err
}

// Resolve says what a sandbox is told when it asks for a name, and by whom;
// kind "" is both kinds of addresses.
func (c *Client) Resolve(ctx context.Context, sandbox, name, kind string) (api.Resolution, error) {
	q := url.Values{"sandbox": {sandbox}, "name": {name}}
	if kind != "" {
		q.Set("type", kind)
	}
	var r api.Resolution
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/resolve", query: q, out: &r})
	return r, err
}

// Plan is the desired kernel state as text, one object a line.
func (c *Client) Plan(ctx context.Context) (string, error) {
	s, err := get[api.State](ctx, c, "state")
	return s.Text, err
}

// Diff is the ops the daemon would apply now, one a line; none when the kernel
// holds what is desired.
func (c *Client) Diff(ctx context.Context) ([]string, error) {
	p, err := get[api.Preview](ctx, c, "diff")
	return p.Ops, err
}

// Events hands events to each as they happen, those remembered since a time
// first (the zero time: none), until ctx ends, the daemon does, or each fails.
func (c *Client) Events(ctx context.Context, since time.Time, each func(api.Event) error) error {
	p, err := path("events")
	if err != nil {
		return err
	}
	if !since.IsZero() {
		p += "?" + url.Values{"since": {since.UTC().Format(time.RFC3339Nano)}}.Encode()
	}
	return c.stream(ctx, p, func(http.Header) {}, func(d *json.Decoder) error {
		var e api.Event
		if err := d.Decode(&e); err != nil {
			return c.transportError(ctx, err)
		}
		return each(e)
	})
}

// stream reads lines of JSON until next fails.
func (c *Client) stream(ctx context.Context, path string, begun func(http.Header), next func(*json.Decoder) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://towpath"+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := c.http.Do(req)
	if err != nil {
		return c.transportError(ctx, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		return problem(resp)
	}
	begun(resp.Header)
	dec := json.NewDecoder(resp.Body)
	for {
		if err := next(dec); err != nil {
			return err
		}
	}
}

// Version says what the daemon is.
func (c *Client) Version(ctx context.Context) (api.Version, error) {
	return get[api.Version](ctx, c, "version")
}

// forced is the query that every removal may carry.
func forced(force bool) url.Values {
	q := url.Values{}
	if force {
		q.Set("force", "true")
	}
	return q
}
