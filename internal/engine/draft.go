package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/store"
)

// Keys in the store.
const (
	networksKey     = "networks/"
	sandboxesKey    = "sandboxes/"
	endpointsKey    = "endpoints/"
	publicationsKey = "publications/"
	savedKey        = "saved/"  // sysctls as they were before us
	subnetKey       = "subnet/" // the last subnet given, a family
	leaseKey        = "lease/"  // the last address given, a network and subnet
	portKey         = "port"    // the last ephemeral port given
	ulaKey          = "ula"
	bootKey         = "boot"
)

// draft is a change in the making: the view as it will be, the values that
// bring it about, and the units it touches. Several requests may add to one
// draft; what one of them did can be taken back.
type draft struct {
	view    driver.View
	meta    meta
	changes map[string][]byte // new values by key; nil deletes
	undo    []func()
	part    // of the request that is adding
}

// part is what one request touches.
type part struct {
	units   []driver.Unit
	touched map[driver.Unit]bool // the units: there may be many
	names   []string             // of sandboxes that are to be found by something else
	fresh   []driver.Unit        // what is new, and is not to be found before it is in the kernel
}

// newDraft begins with a copy. The revisions are shared: a commit changes them.
func newDraft(view driver.View, m meta) *draft {
	m.subnets = maps.Clone(m.subnets)
	m.leases = maps.Clone(m.leases)
	return &draft{view: view.Clone(), meta: m, changes: map[string][]byte{}, part: part{touched: map[driver.Unit]bool{}}}
}

// mark is a state to come back to. With it the next request begins to add.
type mark struct {
	steps int
	meta  meta
}

func (d *draft) mark() mark {
	d.part = part{touched: map[driver.Unit]bool{}}
	return mark{steps: len(d.undo), meta: d.meta}
}

func (d *draft) unchanged(since mark) bool { return len(d.undo) == since.steps }

// back takes back what was done since.
func (d *draft) back(to mark) {
	for _, undo := range slices.Backward(d.undo[to.steps:]) {
		undo()
	}
	d.undo, d.part = d.undo[:to.steps], part{touched: map[driver.Unit]bool{}}
	d.meta = to.meta // its maps have been put right by undo
}

// set and drop change a map of the draft so that it can be taken back.
func set[K comparable, V any](d *draft, m map[K]V, key K, value V) {
	old, had := m[key]
	m[key] = value
	d.undo = append(d.undo, func() { restore(m, key, old, had) })
}

func drop[K comparable, V any](d *draft, m map[K]V, key K) {
	old, had := m[key]
	delete(m, key)
	d.undo = append(d.undo, func() { restore(m, key, old, had) })
}

func restore[K comparable, V any](m map[K]V, key K, value V, had bool) {
	if had {
		m[key] = value
	} else {
		delete(m, key)
	}
}

// sandbox, endpoint and publication set an object, or drop it when it is nil, so
// that it can be taken back.
func (d *draft) sandbox(name string, s *api.Sandbox) {
	old := d.view.Sandboxes[name]
	d.view.SetSandbox(name, s)
	d.undo = append(d.undo, func() { d.view.SetSandbox(name, old) })
}

func (d *draft) endpoint(id driver.EndpointID, e *api.Endpoint) {
	old := d.view.Endpoints[id]
	d.view.SetEndpoint(id, e)
	d.undo = append(d.undo, func() { d.view.SetEndpoint(id, old) })
}

func (d *draft) publication(id string, p *api.Publication) {
	now := func(p *api.Publication) {
		d.view.Publications.Delete(id)
		if p != nil {
			d.view.Publications.Put(p)
		}
	}
	old := d.view.Publications.Get(id)
	now(p)
	d.undo = append(d.undo, func() { now(old) })
}

func (d *draft) touch(units ...driver.Unit) {
	for _, u := range units {
		if !d.touched[u] {
			d.units, d.touched[u] = append(d.units, u), true
		}
	}
}

// put sets a key. The last value counts.
func (d *draft) put(key string, value any) {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("encode %s: %v", key, err)) // our own plain types
	}
	set(d, d.changes, key, raw)
}

func (d *draft) del(key string) { set(d, d.changes, key, nil) }

// txn is what brings the change about. Every key is compared with what the
// decision was based on.
func (d *draft) txn() store.Txn {
	var t store.Txn
	for _, key := range slices.Sorted(maps.Keys(d.changes)) {
		t.Compares = append(t.Compares, store.Compare{Key: key, Revision: d.meta.revisions[key]})
		if value := d.changes[key]; value == nil {
			t.Deletes = append(t.Deletes, key)
		} else {
			t.Puts = append(t.Puts, store.Put{Key: key, Value: value})
		}
	}
	return t
}

func (d *draft) putNetwork(n *api.Network) {
	set(d, d.view.Networks, n.Name, n)
	d.touch(driver.TouchedByNetwork(d.view, n.Name)...)
	for _, e := range d.view.EndpointsOn(n.Name) {
		d.named(e.Sandbox)
	}
	d.put(networksKey+n.Name, n)
}

func (d *draft) deleteNetwork(name string) {
	d.touch(driver.TouchedByNetwork(d.view, name)...)
	for _, s := range d.view.Networks[name].Subnets {
		if key := leaseName(name, s.Subnet); d.meta.leases[key].IsValid() {
			drop(d, d.meta.leases, key)
			d.del(leaseKey + key)
		}
	}
	drop(d, d.view.Networks, name)
	d.del(networksKey + name)
}

func (d *draft) putSandbox(s *api.Sandbox) {
	d.sandbox(s.Name, s)
	d.touch(driver.SandboxUnit(s.Name))
	d.named(s.Name)
	d.put(sandboxesKey+s.Name, s)
}

func (d *draft) deleteSandbox(name string) {
	for _, p := range d.view.PublicationsOf(name) {
		d.deletePublication(p.ID())
	}
	for _, e := range d.view.EndpointsOf(name) {
		d.deleteEndpoint(e)
	}
	d.touch(driver.SandboxUnit(name))
	d.named(name)
	d.sandbox(name, nil)
	d.del(sandboxesKey + name)
}

func (d *draft) putEndpoint(e *api.Endpoint) {
	id := driver.EndpointID{Sandbox: e.Sandbox, Ifname: e.Ifname}
	if d.view.Endpoints[id] == nil {
		d.fresh = append(d.fresh, driver.EndpointUnit(id))
	}
	d.endpoint(id, e)
	d.named(e.Sandbox)
	d.touch(driver.TouchedBySandbox(d.view, e.Sandbox)...)
	d.put(endpointKey(id), e)
}

func (d *draft) deleteEndpoint(e *api.Endpoint) {
	id := driver.EndpointID{Sandbox: e.Sandbox, Ifname: e.Ifname}
	d.touch(driver.TouchedBySandbox(d.view, e.Sandbox)...)
	d.named(e.Sandbox)
	d.endpoint(id, nil)
	d.del(endpointKey(id))
}

func endpointKey(id driver.EndpointID) string { return endpointsKey + id.Sandbox + "/" + id.Ifname }

func (d *draft) putPublication(p *api.Publication) {
	if d.view.Publications.Get(p.ID()) == nil {
		d.fresh = append(d.fresh, driver.PublicationUnit(p.ID()))
	}
	d.publication(p.ID(), p)
	d.named(p.Sandbox)
	d.touch(driver.PublicationUnit(p.ID()))
	d.put(publicationsKey+p.ID(), p)
}

func (d *draft) deletePublication(id string) {
	d.touch(driver.PublicationUnit(id))
	if p := d.view.Publications.Get(id); p != nil {
		d.named(p.Sandbox)
	}
	d.publication(id, nil)
	d.del(publicationsKey + id)
}

func (d *draft) gavePort(port uint16) {
	d.meta.port = port
	d.put(portKey, port)
}

func (d *draft) putSaved(name, value string) {
	set(d, d.view.Saved, name, value)
	d.put(savedKey+name, value)
}

func (d *draft) deleteSaved(name string) {
	drop(d, d.view.Saved, name)
	d.del(savedKey + name)
}

func (d *draft) setBoot(id string) {
	d.meta.boot = id
	d.put(bootKey, id)
}

func (d *draft) setULA(p netip.Prefix) {
	d.meta.ula = p
	d.put(ulaKey, p)
}

func (d *draft) gaveSubnet(p netip.Prefix) {
	f := family(p.Addr())
	set(d, d.meta.subnets, f, p)
	d.put(subnetKey+f, p)
}

func (d *draft) gaveAddress(network string, subnet netip.Prefix, a netip.Addr) {
	key := leaseName(network, subnet)
	set(d, d.meta.leases, key, a)
	d.put(leaseKey+key, a)
}

func leaseName(network string, subnet netip.Prefix) string { return network + "/" + subnet.String() }

func family(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// load reads everything from the store.
func (e *Engine) load(ctx context.Context) error {
	entries, rev, err := e.Store.List(ctx, "")
	if err != nil {
		return err
	}
	view := driver.NewView()
	m := meta{revisions: map[string]int64{}, subnets: map[string]netip.Prefix{}, leases: map[string]netip.Addr{}}
	for _, entry := range entries {
		m.revisions[entry.Key] = entry.Revision
		if err := read(entry, view, &m); err != nil {
			return fmt.Errorf("read %s: %w", entry.Key, err)
		}
	}
	e.meta = m
	e.now.Store(&snapshot{view: view.Indexed(), rev: rev})
	return nil
}

// reload reads what another writer has changed.
func (e *Engine) reload(ctx context.Context) error {
	before, _ := e.View()
	if err := e.load(ctx); err != nil {
		return err
	}
	after, _ := e.View()
	e.name(slices.Collect(maps.Keys(before.Sandboxes))...)
	e.name(slices.Collect(maps.Keys(after.Sandboxes))...)
	return nil
}

// read puts one entry where it belongs.
func read(entry store.Entry, view driver.View, m *meta) error {
	prefix, name, _ := strings.Cut(entry.Key, "/")
	switch prefix + "/" {
	case networksKey:
		return into(entry, func(n *api.Network) { view.Networks[name] = n })
	case sandboxesKey:
		return into(entry, func(s *api.Sandbox) { view.Sandboxes[name] = s })
	case endpointsKey:
		return into(entry, func(e *api.Endpoint) {
			view.Endpoints[driver.EndpointID{Sandbox: e.Sandbox, Ifname: e.Ifname}] = e
		})
	case publicationsKey:
		return into(entry, func(p *api.Publication) { view.Publications.Put(p) })
	case portKey + "/":
		return json.Unmarshal(entry.Value, &m.port)
	case savedKey:
		return into(entry, func(v *string) { view.Saved[name] = *v })
	case subnetKey:
		return into(entry, func(p *netip.Prefix) { m.subnets[name] = *p })
	case leaseKey:
		return into(entry, func(a *netip.Addr) { m.leases[name] = *a })
	case ulaKey + "/":
		return json.Unmarshal(entry.Value, &m.ula)
	case bootKey + "/":
		return json.Unmarshal(entry.Value, &m.boot)
	}
	return nil // of a newer version: kept, not understood
}

func into[T any](entry store.Entry, keep func(*T)) error {
	v := new(T)
	if err := json.Unmarshal(entry.Value, v); err != nil {
		return err
	}
	keep(v)
	return nil
}
