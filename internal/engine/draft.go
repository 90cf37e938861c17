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

// draft is a change in the making: the view as it will be, the transaction
// that brings it about, and the units it touches.
type draft struct {
	view  driver.View
	meta  meta
	txn   store.Txn
	units []driver.Unit
	// touched are the units, and keys those of the transaction: there may be many.
	touched map[driver.Unit]bool
	keys    map[string]bool
	names   []string      // of sandboxes that are to be found by something else
	fresh   []driver.Unit // what is new, and is not to be found before it is in the kernel
}

// newDraft begins one. The revisions are not copied: they change only when the
// store has committed a draft, one at a time.
func newDraft(view driver.View, m meta) *draft {
	m.subnets = maps.Clone(m.subnets)
	m.leases = maps.Clone(m.leases)
	return &draft{view: view.Clone(), meta: m, touched: map[driver.Unit]bool{}, keys: map[string]bool{}}
}

func (d *draft) empty() bool { return len(d.txn.Puts) == 0 && len(d.txn.Deletes) == 0 }

func (d *draft) touch(units ...driver.Unit) {
	for _, u := range units {
		if !d.touched[u] {
			d.units, d.touched[u] = append(d.units, u), true
		}
	}
}

// put sets a key. Within one draft the last value counts, and every key is
// compared with what the decision was based on.
func (d *draft) put(key string, value any) {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("encode %s: %v", key, err)) // our own plain types
	}
	d.forget(key)
	d.txn.Puts = append(d.txn.Puts, store.Put{Key: key, Value: raw})
}

func (d *draft) del(key string) {
	d.forget(key)
	d.txn.Deletes = append(d.txn.Deletes, key)
}

func (d *draft) forget(key string) {
	if !d.keys[key] {
		d.keys[key] = true
		d.txn.Compares = append(d.txn.Compares, store.Compare{Key: key, Revision: d.meta.revisions[key]})
		return
	}
	d.txn.Puts = slices.DeleteFunc(d.txn.Puts, func(p store.Put) bool { return p.Key == key })
	d.txn.Deletes = slices.DeleteFunc(d.txn.Deletes, func(k string) bool { return k == key })
}

// done notes the revision the store gave.
func (d *draft) done(rev int64) {
	for _, p := range d.txn.Puts {
		d.meta.revisions[p.Key] = rev
	}
	for _, k := range d.txn.Deletes {
		delete(d.meta.revisions, k)
	}
}

func (d *draft) putNetwork(n *api.Network) {
	d.view.Networks[n.Name] = n
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
			delete(d.meta.leases, key)
			d.del(leaseKey + key)
		}
	}
	delete(d.view.Networks, name)
	d.del(networksKey + name)
}

func (d *draft) putSandbox(s *api.Sandbox) {
	d.view.Sandboxes[s.Name] = s
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
	delete(d.view.Sandboxes, name)
	d.del(sandboxesKey + name)
}

func (d *draft) putEndpoint(e *api.Endpoint) {
	id := driver.EndpointID{Sandbox: e.Sandbox, Ifname: e.Ifname}
	if d.view.Endpoints[id] == nil {
		d.fresh = append(d.fresh, driver.EndpointUnit(id))
	}
	d.view.Endpoints[id] = e
	d.named(e.Sandbox)
	d.touch(driver.TouchedBySandbox(d.view, e.Sandbox)...)
	d.put(endpointKey(id), e)
}

func (d *draft) deleteEndpoint(e *api.Endpoint) {
	id := driver.EndpointID{Sandbox: e.Sandbox, Ifname: e.Ifname}
	d.touch(driver.TouchedBySandbox(d.view, e.Sandbox)...)
	d.named(e.Sandbox)
	delete(d.view.Endpoints, id)
	d.del(endpointKey(id))
}

func endpointKey(id driver.EndpointID) string { return endpointsKey + id.Sandbox + "/" + id.Ifname }

func (d *draft) putPublication(p *api.Publication) {
	if d.view.Publications.Get(p.ID()) == nil {
		d.fresh = append(d.fresh, driver.PublicationUnit(p.ID()))
	}
	d.view.Publications.Put(p)
	d.named(p.Sandbox)
	d.touch(driver.PublicationUnit(p.ID()))
	d.put(publicationsKey+p.ID(), p)
}

func (d *draft) deletePublication(id string) {
	d.touch(driver.PublicationUnit(id))
	if p := d.view.Publications.Get(id); p != nil {
		d.named(p.Sandbox)
	}
	d.view.Publications.Delete(id)
	d.del(publicationsKey + id)
}

func (d *draft) gavePort(port uint16) {
	d.meta.port = port
	d.put(portKey, port)
}

func (d *draft) putSaved(name, value string) {
	d.view.Saved[name] = value
	d.put(savedKey+name, value)
}

func (d *draft) deleteSaved(name string) {
	delete(d.view.Saved, name)
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
	d.meta.subnets[f] = p
	d.put(subnetKey+f, p)
}

func (d *draft) gaveAddress(network string, subnet netip.Prefix, a netip.Addr) {
	key := leaseName(network, subnet)
	d.meta.leases[key] = a
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
	e.now.Store(&snapshot{view: view, rev: rev})
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
