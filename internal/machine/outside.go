package machine

import (
	"net/netip"
	"slices"
)

// Uplink is the link by which a namespace reaches who is outside, that of its best
// default route, and the gateway there; "", or no address: there is none.
func (s *Space) Uplink(v6 bool) (link string, gateway netip.Addr) {
	if s == nil {
		return "", netip.Addr{}
	}
	var best *Route
	for i := range s.Routes {
		r := &s.Routes[i]
		if r.Table == TableMain && r.Type == Unicast && r.Dst.Bits() == 0 && r.Dst.Addr().Is6() == v6 && r.Dev != "" &&
			(best == nil || r.Metric < best.Metric) {
			best = r
		}
	}
	if best == nil {
		return "", netip.Addr{}
	}
	return best.Dev, best.Via
}

// Stranger is an address that stands for anybody outside of a namespace: one to
// which nothing but default routes leads, for on a link there is nobody of whom
// nothing is known; or else the gateway. Not valid: there is none.
func (s *Space) Stranger(v6 bool) netip.Addr {
	// Documentation addresses (RFC 5737; RFC 3849, RFC 9637).
	list := []string{"198.51.100.1", "203.0.113.1", "192.0.2.1"}
	if v6 {
		list = []string{"2001:db8::1", "2001:db8:ffff::1", "3fff::1"}
	}
	for _, text := range list {
		a := netip.MustParseAddr(text)
		known := s != nil && slices.ContainsFunc(s.Routes, func(r Route) bool { return r.Dst.Bits() > 0 && r.Dst.Contains(a) })
		if !known {
			return a
		}
	}
	_, via := s.Uplink(v6)
	return via
}
