package dns

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// Member is one sandbox as the resolver sees it. It is not changed after Put.
type Member struct {
	Sandbox         string // its name, which all on its networks can ask for
	Hostname        string
	Attachments     []Attachment
	Services        []Service
	Hosts           []Host           // known to this sandbox alone
	Upstreams       []netip.AddrPort // empty: those of the host
	FromSandbox     bool             // ask the upstreams from the sandbox's namespace
	ForwardInternal bool             // ask upstreams even if all networks are internal
}

// Attachment is a sandbox's place on a network.
type Attachment struct {
	Network  string
	Ifname   string
	Addrs    []netip.Addr
	Gateways []netip.Addr // what host.towpath.internal stands for
	Aliases  []string     // names on this network, which several may share
	Internal bool         // the network has no way out
}

// Service is a port that a sandbox publishes.
type Service struct {
	Port  uint16 // the sandbox's own
	Proto string
}

// Host is a name given by hand.
type Host struct {
	Name string
	Addr netip.Addr
}

// Domain is where every name is local: what is not known there is not asked for
// elsewhere. Each name is found there too.
const Domain = "towpath.internal"

// HostName and its equals in Docker and Podman stand for the gateways.
const HostName = "host." + Domain

// Names is what the sandboxes may see. A lookup sees a Put or Drop whole or not
// at all, and from the moment it returns. Either costs what the member has, however
// many others there are. Its methods may be called concurrently.
type Names struct {
	mu        sync.RWMutex
	sandboxes map[string]*member
	networks  map[string]*network
	known     fixed
}

// NewNames gives a Names without members.
func NewNames() *Names {
	return &Names{sandboxes: map[string]*member{}, networks: map[string]*network{}, known: newFixed()}
}

// member is a Member with its names as keys.
type member struct {
	Member
	self     []key // its names to itself, also when it has no network
	places   []*place
	hosts    []host
	external bool // asks upstreams
	scope    atomic.Pointer[scope]
}

// place is an Attachment.
type place struct {
	member     *member
	net        *network
	v4, v6     []netip.Addr
	gw4, gw6   []netip.Addr
	names      []named
	ptr        string // the name of its addresses, as it is written
	attachment *Attachment
}

// named is a name of a place and its rank: of those who claim a name, only the
// ones of the best rank are told.
type named struct {
	key  key
	rank rank
}

type rank uint8

const (
	byName     rank = iota // the name or an alias, which share
	byHostname             // chosen inside the sandbox's own settings: takes nothing from others
)

// host is the addresses of one name given by hand.
type host struct {
	name   string
	key    key
	v4, v6 []netip.Addr
}

// network is the names and addresses on one network.
type network struct {
	name   string
	key    key
	names  map[string]*entry
	addrs  map[netip.Addr][]*place
	places int
}

// entry is a name on a network: who claims it, and the addresses of those who
// are told.
type entry struct {
	best   rank
	claims []claim
	v4, v6 []netip.Addr
}

type claim struct {
	place *place
	rank  rank
}

// Put adds a member, or replaces the one of that name.
func (n *Names) Put(spec Member) {
	m := newMember(spec)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(spec.Sandbox)
	for _, p := range m.places {
		n.join(p)
	}
	n.sandboxes[spec.Sandbox] = m
}

// Drop takes a member out. One that is not there is no error.
func (n *Names) Drop(sandbox string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(sandbox)
}

func (n *Names) drop(sandbox string) {
	m := n.sandboxes[sandbox]
	if m == nil {
		return
	}
	for _, p := range m.places {
		n.leave(p)
	}
	delete(n.sandboxes, sandbox)
}

// newMember makes the keys, outside of any lock.
func newMember(spec Member) *member {
	m := &member{Member: spec, external: spec.ForwardInternal, self: keys(spec.Sandbox, spec.Hostname)}
	for i := range spec.Attachments {
		a := &spec.Attachments[i]
		p := &place{member: m, attachment: a}
		p.v4, p.v6 = families(a.Addrs)
		p.gw4, p.gw6 = families(a.Gateways)
		p.name(byName, spec.Sandbox)
		p.name(byName, a.Aliases...)
		p.name(byHostname, spec.Hostname)
		if full := spec.Sandbox + "." + a.Network; CheckName(full) == nil {
			p.ptr = string(appendName(nil, full))
		}
		m.places = append(m.places, p)
		m.external = m.external || !a.Internal
	}
	for _, h := range spec.Hosts {
		m.addHost(h)
	}
	return m
}

// name adds names that are none yet. What is no DNS name works elsewhere.
func (p *place) name(r rank, names ...string) {
	for _, k := range keys(names...) {
		if !slices.ContainsFunc(p.names, func(n named) bool { return n.key == k }) {
			p.names = append(p.names, named{k, r})
		}
	}
}

// keys gives the keys of those that are DNS names.
func keys(names ...string) []key {
	var out []key
	for _, name := range names {
		if k := keyOf(name); k != "" && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

// addHost adds an address to a name given by hand.
func (m *member) addHost(h Host) {
	k := keyOf(h.Name)
	if k == "" {
		return
	}
	at := slices.IndexFunc(m.hosts, func(have host) bool { return have.key == k })
	if at < 0 {
		at = len(m.hosts)
		m.hosts = append(m.hosts, host{name: string(appendName(nil, h.Name)), key: k})
	}
	v4, v6 := families([]netip.Addr{h.Addr})
	m.hosts[at].v4 = append(m.hosts[at].v4, v4...)
	m.hosts[at].v6 = append(m.hosts[at].v6, v6...)
}

// families sorts addresses by family, without zones, which DNS does not know.
func families(addrs []netip.Addr) (v4, v6 []netip.Addr) {
	for _, a := range addrs {
		switch a = a.Unmap().WithZone(""); {
		case a.Is4():
			v4 = append(v4, a)
		case a.Is6():
			v6 = append(v6, a)
		}
	}
	return v4, v6
}

// join puts a place on its network, which begins with its first one.
func (n *Names) join(p *place) {
	id := p.attachment.Network
	net := n.networks[id]
	if net == nil {
		net = &network{name: id, key: keyOf(id), names: map[string]*entry{}, addrs: map[netip.Addr][]*place{}}
		n.networks[id] = net
	}
	p.net = net
	net.places++
	for _, name := range p.names {
		e := net.names[name.key]
		if e == nil {
			e = &entry{best: name.rank}
			net.names[name.key] = e
		}
		e.add(claim{p, name.rank})
	}
	for _, a := range p.all() {
		net.addrs[a] = append(net.addrs[a], p)
	}
}

// leave takes a place off its network, which goes with its last one.
func (n *Names) leave(p *place) {
	net := p.net
	for _, name := range p.names {
		if e := net.names[name.key]; e.remove(p) {
			delete(net.names, name.key)
		}
	}
	for _, a := range p.all() {
		if left := without(net.addrs[a], p); len(left) > 0 {
			net.addrs[a] = left
		} else {
			delete(net.addrs, a)
		}
	}
	if net.places--; net.places == 0 {
		delete(n.networks, p.attachment.Network)
	}
}

// all is the addresses of both families.
func (p *place) all() []netip.Addr { return append(slices.Clip(p.v4), p.v6...) }

// without gives the list without the first that equals v.
func without[T comparable](list []T, v T) []T {
	if at := slices.Index(list, v); at >= 0 {
		return slices.Delete(list, at, at+1)
	}
	return list
}

// add notes a claim. One of a better rank silences those before it.
func (e *entry) add(c claim) {
	e.claims = append(e.claims, c)
	if c.rank < e.best {
		e.best, e.v4, e.v6 = c.rank, nil, nil
	}
	if c.rank == e.best {
		e.v4, e.v6 = append(e.v4, c.place.v4...), append(e.v6, c.place.v6...)
	}
}

// remove takes the claim of a place back, and tells whether it was the last.
func (e *entry) remove(p *place) (empty bool) {
	at := slices.IndexFunc(e.claims, func(c claim) bool { return c.place == p })
	gone := e.claims[at]
	e.claims = slices.Delete(e.claims, at, at+1)
	if gone.rank != e.best {
		return false
	}
	for _, a := range p.v4 {
		e.v4 = without(e.v4, a)
	}
	for _, a := range p.v6 {
		e.v6 = without(e.v6, a)
	}
	if !slices.ContainsFunc(e.claims, func(c claim) bool { return c.rank == e.best }) {
		e.next()
	}
	return len(e.claims) == 0
}

// next tells those of the best rank that is left.
func (e *entry) next() {
	left := e.claims
	e.claims, e.best, e.v4, e.v6 = nil, byHostname, nil, nil
	for _, c := range left {
		e.add(c)
	}
}
