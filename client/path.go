package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/towpath/towpath/api"
)

// Explain is the way that a packet should take, by the state of the kernel.
// Nothing is sent.
func (c *Client) Explain(ctx context.Context, q api.PathQuery) (api.Path, error) {
	var p api.Path
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/explain", query: pathValues(q), out: &p})
	return p, err
}

// Probe sends one packet, and is the way that it took beside the one it should
// have taken.
func (c *Client) Probe(ctx context.Context, q api.ProbeQuery) (api.Probe, error) {
	var p api.Probe
	err := c.do(ctx, request{method: http.MethodPost, path: "/v1/probe", in: q, out: &p})
	return p, err
}

func pathValues(q api.PathQuery) url.Values {
	v := url.Values{"from": {q.From}, "to": {q.To}}
	if q.Family != 0 {
		v.Set("family", strconv.Itoa(q.Family))
	}
	if q.Size != 0 {
		v.Set("size", strconv.Itoa(q.Size))
	}
	if q.TTL != 0 {
		v.Set("ttl", strconv.Itoa(q.TTL))
	}
	if q.Source.IsValid() {
		v.Set("source", q.Source.String())
	}
	if q.Desired {
		v.Set("desired", "true")
	}
	return v
}

// Trace calls each with the path of every flow that begins and was asked for,
// until ctx ends or each fails. begun is told, once it is watched, at what level
// and how many namespaces.
func (c *Client) Trace(ctx context.Context, q api.TraceQuery, begun func(string), each func(api.Path) error) error {
	v := url.Values{}
	for key, value := range map[string]string{"from": q.From, "to": q.To, "proto": q.Proto, "level": string(q.Level)} {
		if value != "" {
			v.Set(key, value)
		}
	}
	if q.Port != 0 {
		v.Set("port", strconv.Itoa(int(q.Port)))
	}
	if q.Drops {
		v.Set("drops", "true")
	}
	return c.stream(ctx, "/v1/trace?"+v.Encode(), func(h http.Header) { begun(h.Get(api.TraceHeader)) }, func(d *json.Decoder) error {
		var p api.Path
		if err := d.Decode(&p); err != nil {
			return c.transportError(ctx, err)
		}
		return each(p)
	})
}
