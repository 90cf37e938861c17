package server

import (
	"net/http"
	"net/netip"
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
	case q.Size != 0 && (q.Size < smallestPacket || q.Size > largestPacket):
		return answer{}, api.Errorf(api.Invalid, "size %d is no number of bytes from %d to %d", q.Size, smallestPacket, largestPacket)
	case q.TTL < 0 || q.TTL > largestTTL:
		return answer{}, api.Errorf(api.Invalid, "ttl %d is no time to live from 1 to %d", q.TTL, largestTTL)
	case q.Desired:
		return answer{}, api.Errorf(api.Unsupported, "a probe goes through what is there: it cannot be desired").WithFix("ask explain")
	}
	p, err := s.Sight.Probe(r.Context(), q)
	return ok(p), err
}

// Limits of what a packet can be: an empty datagram of IPv4 and the longest one,
// and the longest time to live (RFC 791).
const smallestPacket, largestPacket, largestTTL = 28, 65535, 255

// setPath takes one parameter of a question for a path.
func setPath(q *api.PathQuery, key, value string) error {
	if key == "source" {
		a, err := netip.ParseAddr(value)
		if err != nil {
			return api.Errorf(api.Invalid, "parameter source=%q is no address", value)
		}
		q.Source = a
		return nil
	}
	n, err := strconv.Atoi(value)
	switch {
	case key == "family" && (err != nil || n != 4 && n != 6):
		return api.Errorf(api.Invalid, "parameter family=%q is neither 4 nor 6", value)
	case key == "family":
		q.Family = n
	case key == "ttl" && (err != nil || n < 1 || n > largestTTL):
		return api.Errorf(api.Invalid, "parameter ttl=%q is no time to live from 1 to %d", value, largestTTL)
	case key == "ttl":
		q.TTL = n
	case err != nil || n < smallestPacket || n > largestPacket:
		return api.Errorf(api.Invalid, "parameter size=%q is no number of bytes from %d to %d", value, smallestPacket, largestPacket)
	default:
		q.Size = n
	}
	return nil
}
