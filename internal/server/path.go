package server

import (
	"net/http"
	"strconv"

	"github.com/towpath/towpath/api"
)

func (s *service) explain(r *http.Request, p params) (answer, error) {
	q := p.path
	if q.From, q.To = p.from, p.to; q.From == "" || q.To == "" {
		return answer{}, api.Errorf(api.Invalid, "a source and a destination must be given").WithFix("add ?from=web&to=db:5432")
	}
	path, err := s.Sight.Explain(r.Context(), q)
	return ok(path), err
}

func (s *service) probe(r *http.Request, _ params) (answer, error) {
	q, err := decode[api.ProbeQuery](r)
	if err != nil {
		return answer{}, err
	}
	switch {
	case q.From == "" || q.To == "":
		return answer{}, api.Errorf(api.Invalid, "a source and a destination must be given").WithFix(`send {"from":"web","to":"db:5432"}`)
	case q.Family != 0 && q.Family != 4 && q.Family != 6:
		return answer{}, api.Errorf(api.Invalid, "family %d is neither 4 nor 6", q.Family)
	case q.Size != 0 || q.Desired:
		return answer{}, api.Errorf(api.Unsupported, "a probe is one small packet through what is there: it has no size and no desired").
			WithFix("ask explain")
	}
	p, err := s.Sight.Probe(r.Context(), q)
	return ok(p), err
}

// largestPacket is what an IP packet can hold, RFC 791.
const largestPacket = 65535

// setPath takes one parameter of a question for a path.
func setPath(q *api.PathQuery, key, value string) error {
	n, err := strconv.Atoi(value)
	switch {
	case key == "family" && (err != nil || n != 4 && n != 6):
		return api.Errorf(api.Invalid, "parameter family=%q is neither 4 nor 6", value)
	case key == "family":
		q.Family = n
	case err != nil || n < 28 || n > largestPacket:
		return api.Errorf(api.Invalid, "parameter size=%q is no number of bytes from 28 to %d", value, largestPacket)
	default:
		q.Size = n
	}
	return nil
}
