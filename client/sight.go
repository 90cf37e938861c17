package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/towpath/towpath/api"
)

// Map is the topology of the machine, from its kernel.
func (c *Client) Map(ctx context.Context) (api.Map, error) {
	return get[api.Map](ctx, c, "map")
}

// Doctor is what is wrong on the host. Counters are read again after a while;
// with 0 they are read once. fix mends, nil changes nothing.
func (c *Client) Doctor(ctx context.Context, over time.Duration, fix *api.Fix) (api.Diagnosis, error) {
	var d api.Diagnosis
	r := request{method: http.MethodGet, path: "/v1/doctor", query: url.Values{"over": {over.String()}}, out: &d}
	if fix != nil {
		r.method, r.in = http.MethodPost, fix
	}
	err := c.do(ctx, r)
	return d, err
}

// Reach is who can reach whom; "" and 0 are all.
func (c *Client) Reach(ctx context.Context, from, to string, port uint16) (api.Reach, error) {
	q := url.Values{}
	for key, value := range map[string]string{"from": from, "to": to} {
		if value != "" {
			q.Set(key, value)
		}
	}
	if port != 0 {
		q.Set("port", strconv.Itoa(int(port)))
	}
	var t api.Reach
	err := c.do(ctx, request{method: http.MethodGet, path: "/v1/reach", query: q, out: &t})
	return t, err
}
