package client

import (
	"context"
	"net/http"
	"net/url"
	"os"

	"github.com/towpath/towpath/api"
)

// DryRun asks what the writing methods of a Client would do: the request is
// validated and allocates, nothing is kept, and the ops come back, one a line.
type DryRun struct{ c *Client }

// DryRun is c's methods without their effects.
func (c *Client) DryRun() DryRun { return DryRun{c} }

// dry adds the parameter that makes a request a preview.
func dry(q url.Values) url.Values {
	q.Set("dryRun", "true")
	return q
}

// CreateNetwork is the ops of Client.CreateNetwork.
func (d DryRun) CreateNetwork(ctx context.Context, spec api.NetworkSpec) ([]string, error) {
	var p api.Preview
	err := d.c.createNetwork(ctx, spec, dry(url.Values{}), &p)
	return p.Ops, err
}

// RemoveNetwork is the ops of Client.RemoveNetwork.
func (d DryRun) RemoveNetwork(ctx context.Context, name string, force bool) ([]string, error) {
	var p api.Preview
	err := d.c.removeNetwork(ctx, name, dry(forced(force)), &p)
	return p.Ops, err
}

// CreateSandbox is the ops of Client.CreateSandbox.
func (d DryRun) CreateSandbox(ctx context.Context, spec api.SandboxSpec, netns *os.File) ([]string, error) {
	var p api.Preview
	err := d.c.createSandbox(ctx, spec, netns, dry(url.Values{}), &p)
	return p.Ops, err
}

// RemoveSandbox is the ops of Client.RemoveSandbox.
func (d DryRun) RemoveSandbox(ctx context.Context, name string, force bool) ([]string, error) {
	var p api.Preview
	err := d.c.removeSandbox(ctx, name, dry(forced(force)), &p)
	return p.Ops, err
}

// Connect is the ops of Client.Connect.
func (d DryRun) Connect(ctx context.Context, sandbox string, spec api.EndpointSpec) ([]string, error) {
	var p api.Preview
	err := d.c.connect(ctx, sandbox, spec, dry(url.Values{}), &p)
	return p.Ops, err
}

// Disconnect is the ops of Client.Disconnect.
func (d DryRun) Disconnect(ctx context.Context, sandbox, network, ifname string, force bool) ([]string, error) {
	var p api.Preview
	err := d.c.disconnect(ctx, sandbox, network, ifname, dry(forced(force)), &p)
	return p.Ops, err
}

// Publish is the ops of Client.Publish.
func (d DryRun) Publish(ctx context.Context, sandbox string, specs []api.Publication) ([]string, error) {
	var p api.Preview
	err := d.c.publish(ctx, http.MethodPost, sandbox, specs, dry(url.Values{}), &p)
	return p.Ops, err
}

// Unpublish is the ops of Client.Unpublish.
func (d DryRun) Unpublish(ctx context.Context, sandbox string, specs []api.Publication) ([]string, error) {
	var p api.Preview
	err := d.c.publish(ctx, http.MethodDelete, sandbox, specs, dry(url.Values{}), &p)
	return p.Ops, err
}
