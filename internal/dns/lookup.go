package dns

import (
	"bytes"
	"net/netip"
	"strconv"
)

// fixed is the names that mean the same everywhere.
type fixed struct {
	domain, localhost, arpa4, arpa6 key
	hosts                           map[string]bool
	hostName                        string
	loop4, loop6                    []netip.Addr
}

func newFixed() fixed {
	f := fixed{
		domain: keyOf(Domain), localhost: keyOf("localhost"), arpa4: keyOf("in-addr.arpa"), arpa6: keyOf("ip6.arpa"),
		hosts: map[string]bool{}, hostName: keyOf(HostName),
		loop4: []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, loop6: []netip.Addr{netip.IPv6Loopback()},
	}
	for _, name := range []string{HostName, "host.docker.internal", "host.containers.internal"} {
		f.hosts[keyOf(name)] = true
	}
	return f
}

// match is what the index says about a name. It is valid under its lock.
type match struct {
	kind    kind
	code    RCode
	network string
	v4, v6  []netip.Addr // of the families that are asked for
	target  string       // of PTR
	port    uint16       // of SRV
	srv     int          // where in the question its target begins
}

// kind is who answers.
type kind uint8

const (
	nobody kind = iota // the index does not know: ask upstreams
	known              // a name on a network
	itself             // the sandbox's own
	byHand             // a name given by hand
	gateway
	loopback
	reverse
	service
	outside // unknown in a domain that is all ours
)

// match finds a name. The order is: what was given by hand, what has a fixed
// meaning, the networks in the order of the attachments.
func (n *Names) match(m *member, name []byte, t Type) match {
	if addr, ok := n.known.address(name); ok {
		if addr.IsLoopback() {
			return pointed(match{kind: loopback, target: n.known.localhost}, t)
		}
		return m.reverse(&n.known, addr, t)
	}
	if found := m.given(name, t); found.kind != nobody {
		return found
	}
	if found := n.special(m, name, t); found.kind != nobody {
		return found
	}
	inDomain := false
	if rest, cut := bytes.CutSuffix(name, []byte(n.known.domain)); cut {
		name, inDomain = rest, true
	}
	found := m.find(name, t)
	if found.kind == nobody {
		found = m.service(name, t)
	}
	if found.kind == nobody && inDomain {
		found.kind = outside
		if len(name) > 0 {
			found.code = NameError
		}
	}
	return found
}

// given looks a name up that only this sandbox knows.
func (m *member) given(name []byte, t Type) match {
	for i := range m.hosts {
		if h := &m.hosts[i]; h.key == string(name) {
			return only(match{kind: byHand, v4: h.v4, v6: h.v6}, t)
		}
	}
	return match{}
}

// special looks a name up that has a fixed meaning.
func (n *Names) special(m *member, name []byte, t Type) match {
	f := &n.known
	if f.hosts[string(name)] {
		found := match{kind: gateway}
		for _, p := range m.places {
			next := only(match{kind: gateway, network: p.net.name, v4: p.gw4, v6: p.gw6}, t)
			if len(next.v4)+len(next.v6) > 0 {
				return next
			}
		}
		return found
	}
	if bytes.HasSuffix(name, []byte(f.localhost)) {
		// RFC 6761, section 6.3: the name and all below it.
		return only(match{kind: loopback, v4: f.loop4, v6: f.loop6}, t)
	}
	return match{}
}

// find looks a name up on the networks, alone or with that of the network
// behind it. The first network that has an address of the family answers.
func (m *member) find(name []byte, t Type) match {
	var found match
	for _, p := range m.places {
		e := p.net.named(name)
		if e == nil {
			continue
		}
		next := only(match{kind: known, network: p.net.name, v4: e.v4, v6: e.v6}, t)
		if len(next.v4)+len(next.v6) > 0 {
			return next
		}
		if found.kind == nobody {
			found = next
		}
	}
	if found.kind == nobody {
		for _, k := range m.self {
			if k == string(name) {
				found.kind = itself
			}
		}
	}
	return found
}

// named gives the entry of a name.
func (net *network) named(name []byte) *entry {
	if e := net.names[string(name)]; e != nil {
		return e
	}
	if n := len(name) - len(net.key); n > 0 && net.key != "" && string(name[n:]) == net.key {
		return net.names[string(name[:n])]
	}
	return nil
}

// only leaves what is asked for.
func only(m match, t Type) match {
	if t != TypeA && t != TypeANY {
		m.v4 = nil
	}
	if t != TypeAAAA && t != TypeANY {
		m.v6 = nil
	}
	return m
}

// service looks a name of the form _PORT._PROTO.NAME up. There is such a name
// only where a sandbox of that name publishes the port.
func (m *member) service(name []byte, t Type) match {
	port, proto, rest, ok := splitService(name)
	if !ok {
		return match{}
	}
	found := match{code: NameError}
	for _, p := range m.places {
		e := p.net.named(rest)
		if e == nil {
			continue
		}
		found.kind, found.network = service, p.net.name
		if !e.serves(port, proto) {
			continue
		}
		found.code, found.srv = NoError, headerLen+len(name)-len(rest)
		if t == TypeSRV || t == TypeANY {
			found.port, found.v4, found.v6 = port, e.v4, e.v6
		}
		return found
	}
	return found
}

// splitService takes the two labels off a name.
func splitService(name []byte) (port uint16, proto, rest []byte, ok bool) {
	var labels [2][]byte
	rest = name
	for i := range labels {
		if len(rest) < 3 || rest[1] != '_' {
			return 0, nil, nil, false
		}
		n := int(rest[0])
		labels[i], rest = rest[2:n+1], rest[n+1:]
	}
	if len(rest) == 0 || len(labels[0]) > 5 {
		return 0, nil, nil, false
	}
	number := 0
	for _, c := range labels[0] {
		if c < '0' || c > '9' {
			return 0, nil, nil, false
		}
		number = 10*number + int(c-'0')
	}
	return uint16(number), labels[1], rest, 0 < number && number <= 0xffff && labels[0][0] != '0'
}

// serves tells whether one of those who are told by a name has the service.
func (e *entry) serves(port uint16, proto []byte) bool {
	for _, c := range e.claims {
		if c.rank != e.best {
			continue
		}
		for _, s := range c.place.member.Services {
			if s.Port == port && s.Proto == string(proto) {
				return true
			}
		}
	}
	return false
}

// reverse looks an address up. One that no network here has is asked upstreams.
func (m *member) reverse(f *fixed, addr netip.Addr, t Type) match {
	found := match{kind: reverse}
	for _, p := range m.places {
		for _, owner := range p.net.addrs[addr] {
			if found.network = p.net.name; owner.ptr != "" {
				found.target = owner.ptr
			}
		}
		for _, gw := range [...][]netip.Addr{p.gw4, p.gw6} {
			for _, a := range gw {
				if a == addr && found.network == "" {
					found.network, found.target = p.net.name, f.hostName
				}
			}
		}
		if found.network != "" {
			break
		}
	}
	for i := range m.hosts {
		h := &m.hosts[i]
		for _, list := range [...][]netip.Addr{h.v4, h.v6} {
			for _, a := range list {
				if a == addr && found.target == "" {
					found.target = h.name
				}
			}
		}
	}
	if found.network == "" && found.target == "" {
		return match{}
	}
	return pointed(found, t)
}

// pointed leaves the target if it is asked for.
func pointed(m match, t Type) match {
	if t != TypePTR && t != TypeANY {
		m.target = ""
	}
	return m
}

// address reads the name of an address.
func (f *fixed) address(name []byte) (netip.Addr, bool) {
	if rest, cut := bytes.CutSuffix(name, []byte(f.arpa4)); cut {
		return address4(rest)
	}
	if rest, cut := bytes.CutSuffix(name, []byte(f.arpa6)); cut {
		return address6(rest)
	}
	return netip.Addr{}, false
}

// address4 reads four labels, each a byte in decimal, the last one first.
func address4(name []byte) (netip.Addr, bool) {
	var a [4]byte
	for i := 3; i >= 0; i-- {
		if len(name) < 2 || int(name[0]) >= len(name) || name[0] > 3 {
			return netip.Addr{}, false
		}
		label := name[1 : name[0]+1]
		v, err := strconv.ParseUint(string(label), 10, 8)
		if err != nil || len(label) > 1 && label[0] == '0' {
			return netip.Addr{}, false
		}
		a[i] = byte(v)
		name = name[1+len(label):]
	}
	return netip.AddrFrom4(a), len(name) == 0
}

// address6 reads 32 labels, each a digit in hexadecimal, the last one first.
func address6(name []byte) (netip.Addr, bool) {
	var a [16]byte
	if len(name) != 64 {
		return netip.Addr{}, false
	}
	for i := range 32 {
		c := name[2*i+1]
		switch {
		case name[2*i] != 1:
			return netip.Addr{}, false
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return netip.Addr{}, false
		}
		at := 31 - i
		a[at/2] |= c << (4 * (1 - at%2))
	}
	return netip.AddrFrom16(a), true
}

// answer writes what the index says.
func (n *Names) answer(dst []byte, q *query, found *match, ttl, turn uint32) []byte {
	var r reply
	r.begin(dst, q, flagAA|flagRA, found.code)
	if found.target != "" {
		r.named(TypePTR, ttl, nil, []byte(found.target))
	}
	if found.port == 0 {
		r.an += r.addresses(headerLen, found.v4, ttl, turn)
		r.an += r.addresses(headerLen, found.v6, ttl, turn)
		return r.end(found.code, reason{})
	}
	data := [...]byte{0, 0, 0, 0, byte(found.port >> 8), byte(found.port)}
	r.named(TypeSRV, ttl, data[:], q.raw[found.srv:q.end-5])
	if r.an > 0 {
		r.extra(found, ttl, turn)
	}
	return r.end(found.code, reason{})
}

// extra writes the addresses of SRV's target, as far as they fit: no client
// waits for them.
func (r *reply) extra(found *match, ttl, turn uint32) {
	flags := r.flags
	r.ar += r.addresses(found.srv, found.v4, ttl, turn)
	r.ar += r.addresses(found.srv, found.v6, ttl, turn)
	r.flags = flags
}
