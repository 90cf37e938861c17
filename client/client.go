// Package client speaks to a Towpath daemon over its Unix socket: one method a
// route, plain values in and out, the daemon's own errors back as *api.Error.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/towpath/towpath/api"
)

// DefaultSocket is where a daemon started without flags answers.
const DefaultSocket = "/run/towpath/towpath.sock"

// maxProblem bounds what is read of an answer that is not a success, in bytes.
const maxProblem = 1 << 20

// Client talks to one daemon. It may be used from several goroutines.
type Client struct {
	socket string
	http   *http.Client
}

// New makes a client of the daemon at socket. Nothing is sent yet.
func New(socket string) *Client {
	connect := func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, socket) }
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: connect}}}
}

// Close gives back the idle connections. The client can still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request is one call of a route.
type request struct {
	method, path string
	query        url.Values
	// in is sent as JSON, unless nil; the answer is read into out, unless nil.
	in, out any
	// pass goes beside the request's first bytes, unless nil.
	pass *os.File
}

// path joins the escaped names to a path. Names that a server would read as
// parts of the path itself are refused here.
func path(noun string, names ...string) (string, error) {
	var b strings.Builder
	b.WriteString("/v1/" + noun)
	for _, name := range names {
		if name == "" || name == "." || name == ".." {
			return "", api.Errorf(api.Invalid, "name %q is not valid", name)
		}
		b.WriteString("/" + url.PathEscape(name))
	}
	return b.String(), nil
}

// do carries out a request.
func (c *Client) do(ctx context.Context, r request) error {
	var body io.Reader
	if r.in != nil {
		data, err := json.Marshal(r.in)
		if err != nil {
			return fmt.Errorf("marshal request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	// The host is not used; HTTP wants one.
	req, err := http.NewRequestWithContext(ctx, r.method, "http://towpath"+r.path+encode(r.query), body)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if r.in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.send(req, r.pass)
	if err != nil {
		return c.transportError(ctx, err)
	}
	return errors.Join(read(resp, r.out), resp.Body.Close())
}

func encode(query url.Values) string {
	if len(query) == 0 {
		return ""
	}
	return "?" + query.Encode()
}

// send uses a connection of its own where a descriptor goes along.
func (c *Client) send(req *http.Request, pass *os.File) (*http.Response, error) {
	if pass == nil {
		return c.http.Do(req)
	}
	once := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialPassing(ctx, c.socket, pass)
		},
	}
	return (&http.Client{Transport: once}).Do(req)
}

// transportError tells a daemon that is not there from one that went away.
func (c *Client) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ask towpathd: %w", ctx.Err())
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &NoDaemon{Socket: c.socket, Err: op.Err}
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return api.Errorf(api.Unavailable, "towpathd went away before it answered: %w", err).
		WithFix("its log says why; see what holds now before you try again")
}

// read takes the answer: out on success, an error otherwise.
func read(resp *http.Response, out any) error {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return problem(resp)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// problem reads a problem document. What is none is told as it came.
func problem(resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	var p api.Problem
	if err := json.Unmarshal(data, &p); err != nil || p.Code == "" {
		return api.Errorf(api.Failed, "the daemon answered %s: %s", resp.Status, bytes.TrimSpace(data))
	}
	return p.Err()
}
