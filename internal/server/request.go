package server

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/towpath/towpath/api"
)

// maxBody is the longest request body in bytes. A spec with thousands of
// endpoints is well below it.
const maxBody = 1 << 20

// params are the query parameters of a request.
type params struct {
	dry, force       bool
	network, sandbox string
	name, kind       string
	from, to         string
	port             uint16
	over             time.Duration
	since            time.Time
	path             api.PathQuery  // but for its ends
	trace            api.TraceQuery // but for its ends and port
}

// parseParams reads the query, refusing what is not among known.
func parseParams(query string, known []string) (params, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return params{}, api.Errorf(api.Invalid, "query %q: %w", query, err)
	}
	var p params
	for key, vs := range values {
		if !slices.Contains(known, key) {
			return params{}, unknownParam(key, known)
		}
		if len(vs) != 1 {
			return params{}, api.Errorf(api.Invalid, "parameter %q is given %d times", key, len(vs))
		}
		if err := p.set(key, vs[0]); err != nil {
			return params{}, err
		}
	}
	return p, nil
}

func unknownParam(key string, known []string) error {
	e := api.Errorf(api.Invalid, "parameter %q is not known here", key)
	if len(known) == 0 {
		return e.WithFix("this route takes none")
	}
	return e.WithFix("it takes %s", strings.Join(known, ", "))
}

func (p *params) set(key, value string) error {
	switch key {
	case "network":
		p.network = value
		return nil
	case "sandbox":
		p.sandbox = value
		return nil
	case "name":
		p.name = value
		return nil
	case "type":
		p.kind = value
		return nil
	case "from":
		p.from = value
		return nil
	case "to":
		p.to = value
		return nil
	case "port":
		n, err := strconv.ParseUint(value, 10, 16)
		if p.port = uint16(n); err != nil || n == 0 {
			return api.Errorf(api.Invalid, "parameter port=%q is not a port, 1 to 65535", value)
		}
		return nil
	case "since":
		var err error
		if p.since, err = time.Parse(time.RFC3339Nano, value); err != nil {
			return api.Errorf(api.Invalid, "since=%q is not a time", value).WithFix("write it as 2006-01-02T15:04:05Z")
		}
		return nil
	case "over":
		var err error
		p.over, err = parseOver(value)
		return err
	case "family", "size", "ttl", "source":
		return setPath(&p.path, key, value)
	case "proto", "level":
		return setTrace(&p.trace, key, value)
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		return api.Errorf(api.Invalid, "parameter %s=%q is neither true nor false", key, value)
	}
	switch key {
	case "force":
		p.force = b
	case "desired":
		p.path.Desired = b
	case "drops":
		p.trace.Drops = b
	default:
		p.dry = b
	}
	return nil
}

// decode reads the body as exactly one JSON document of type T.
func decode[T any](r *http.Request) (T, error) {
	var v T
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, bodyError(err)
	}
	_, err := d.Token()
	if err == nil {
		return v, api.Errorf(api.Invalid, "request body goes on behind the JSON document")
	}
	if !errors.Is(err, io.EOF) {
		return v, bodyError(err)
	}
	return v, nil
}

// bodyError says what is wrong with a body in the words of its writer, not of
// the decoder.
func bodyError(err error) error {
	var large *http.MaxBytesError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &large):
		return api.Errorf(api.Invalid, "request body is over %d bytes: %w", large.Limit, err).WithFix("send less")
	case errors.Is(err, io.EOF):
		return api.Errorf(api.Invalid, "request body is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return api.Errorf(api.Invalid, "request body ends in the middle of its JSON document")
	case errors.As(err, &kind) && kind.Field == "":
		return api.Errorf(api.Invalid, "request body: it cannot be of JSON type %s", kind.Value).WithFix("send an object; /openapi.json describes it")
	case errors.As(err, &kind):
		return api.Errorf(api.Invalid, "field %q cannot be of JSON type %s", kind.Field, kind.Value)
	}
	return api.Errorf(api.Invalid, "request body: %s", strings.TrimPrefix(err.Error(), "json: "))
}
