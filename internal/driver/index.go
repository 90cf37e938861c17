package driver

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/tidwall/btree"

	"github.com/towpath/towpath/api"
)

// index finds endpoints by what they have and sandboxes by their name, so that
// one more costs the same however many there are. A copy of it costs nothing.
type index struct {
	// endpoints have a key for each question; see keys.
	endpoints *btree.Map[string, *api.Endpoint]
	// names of sandboxes, by their lower case.
	names *btree.Map[string, string]
	ports map[string]int // endpoints, by network
}

// keys are those of an endpoint. No name has a zero byte.
func keys(e *api.Endpoint) []string {
	list := []string{
		"of\x00" + e.Sandbox + "\x00" + e.Ifname,
		"on\x00" + e.Network + "\x00" + e.Sandbox + "\x00" + e.Ifname,
		macKey(e.Network, e.MAC) + e.Sandbox + "\x00" + e.Ifname,
		"dev\x00" + e.HostIfname,
	}
	for _, a := range e.Addresses {
		list = append(list, addrKey(e.Network, a.Addr()))
	}
	return list
}

func macKey(network, mac string) string { return "mac\x00" + network + "\x00" + mac + "\x00" }

func addrKey(network string, a netip.Addr) string { return "addr\x00" + network + "\x00" + a.String() }

// Indexed is the view with an index, which PutEndpoint and the like keep. Without
// one, what is asked for is looked for among all.
func (v View) Indexed() View {
	v.index = &index{&btree.Map[string, *api.Endpoint]{}, &btree.Map[string, string]{}, map[string]int{}}
	for _, e := range v.Endpoints {
		v.index.put(e)
	}
	for name := range v.Sandboxes {
		v.index.names.Set(strings.ToLower(name), name)
	}
	return v
}

func (x *index) clone() *index {
	if x == nil {
		return nil
	}
	return &index{x.endpoints.Copy(), x.names.Copy(), maps.Clone(x.ports)}
}

func (x *index) put(e *api.Endpoint) {
	for _, k := range keys(e) {
		x.endpoints.Set(k, e)
	}
	x.ports[e.Network]++
}

func (x *index) drop(e *api.Endpoint) {
	for _, k := range keys(e) {
		x.endpoints.Delete(k)
	}
	x.ports[e.Network]--
}

// under gives the endpoints whose key begins with prefix.
func (x *index) under(prefix string) iter.Seq[*api.Endpoint] {
	return values(under(x.endpoints, prefix))
}

// SetEndpoint makes e the endpoint of an ID; nil removes it.
func (v View) SetEndpoint(id EndpointID, e *api.Endpoint) {
	if old := v.Endpoints[id]; old != nil && v.index != nil {
		v.index.drop(old)
	}
	delete(v.Endpoints, id)
	if e == nil {
		return
	}
	v.Endpoints[id] = e
	if v.index != nil {
		v.index.put(e)
	}
}

// SetSandbox makes s the sandbox of a name; nil removes it.
func (v View) SetSandbox(name string, s *api.Sandbox) {
	if v.index != nil {
		v.index.names.Delete(strings.ToLower(name))
	}
	delete(v.Sandboxes, name)
	if s == nil {
		return
	}
	v.Sandboxes[name] = s
	if v.index != nil {
		v.index.names.Set(strings.ToLower(name), name)
	}
}

// SandboxNamed gives the sandbox of a name in whatever case, or nil.
func (v View) SandboxNamed(name string) *api.Sandbox {
	if s := v.Sandboxes[name]; s != nil {
		return s
	}
	if v.index != nil {
		known, _ := v.index.names.Get(strings.ToLower(name))
		return v.Sandboxes[known]
	}
	for known, s := range v.Sandboxes {
		if strings.EqualFold(known, name) {
			return s
		}
	}
	return nil
}

// EndpointsOf are the endpoints of a sandbox in the order of their connection.
func (v View) EndpointsOf(sandbox string) []*api.Endpoint {
	if v.index != nil {
		return inOrder(v.index.under("of\x00" + sandbox + "\x00"))
	}
	return inOrder(v.matching(func(e *api.Endpoint) bool { return e.Sandbox == sandbox }))
}

// EndpointsOn are the endpoints on a network, by sandbox and order.
func (v View) EndpointsOn(network string) []*api.Endpoint {
	if v.index != nil {
		return inOrder(v.index.under("on\x00" + network + "\x00"))
	}
	return inOrder(v.matching(func(e *api.Endpoint) bool { return e.Network == network }))
}

// CountOn is how many endpoints are on a network.
func (v View) CountOn(network string) int {
	if v.index != nil {
		return v.index.ports[network]
	}
	return len(v.EndpointsOn(network))
}

// WithAddress gives the endpoint on a network that has an address, or nil.
func (v View) WithAddress(network string, a netip.Addr) *api.Endpoint {
	if v.index != nil {
		e, _ := v.index.endpoints.Get(addrKey(network, a))
		return e
	}
	return first(v.matching(func(e *api.Endpoint) bool {
		return e.Network == network && slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
	}))
}

// WithMAC gives an endpoint on a network that has a MAC address, or nil.
func (v View) WithMAC(network, mac string) *api.Endpoint {
	if v.index != nil {
		return first(v.index.under(macKey(network, mac)))
	}
	return first(v.matching(func(e *api.Endpoint) bool { return e.Network == network && e.MAC == mac }))
}

// OverPort gives the endpoint with a port of that name on the host, or nil.
func (v View) OverPort(hostIfname string) *api.Endpoint {
	if v.index != nil {
		e, _ := v.index.endpoints.Get("dev\x00" + hostIfname)
		return e
	}
	return first(v.matching(func(e *api.Endpoint) bool { return e.HostIfname == hostIfname }))
}

func (v View) matching(match func(*api.Endpoint) bool) iter.Seq[*api.Endpoint] {
	return func(yield func(*api.Endpoint) bool) {
		for _, e := range v.Endpoints {
			if match(e) && !yield(e) {
				return
			}
		}
	}
}

func first(seq iter.Seq[*api.Endpoint]) *api.Endpoint {
	for e := range seq {
		return e
	}
	return nil
}

func inOrder(seq iter.Seq[*api.Endpoint]) []*api.Endpoint {
	return slices.SortedFunc(seq, func(a, b *api.Endpoint) int {
		return cmp.Or(strings.Compare(a.Sandbox, b.Sandbox), a.Index-b.Index, strings.Compare(a.Ifname, b.Ifname))
	})
}
