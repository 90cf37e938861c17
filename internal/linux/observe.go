//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
)

// Limits on what is read from one sandbox: it belongs to a tenant, who may fill
// it with anything.
const (
	sandboxRoutes   = 1024
	sandboxDump     = 1 << 20 // bytes of a list of nftables
	sandboxDeadline = 2 * time.Second
)

// Observe reads what is there of the wanted objects, with the attributes that
// we set and no others. With sweep it adds whatever else carries our mark. What
// is there but not ours is left out.
func (k *Kernel) Observe(ctx context.Context, want kernel.State, sweep bool) (kernel.State, error) {
	o := &observer{k: k, spaces: k.spaces(), want: want, in: map[string][]kernel.Object{}, sweep: sweep, seen: kernel.State{}, links: map[string]map[string]rt.Link{}}
	for key, obj := range want {
		o.in[key.NS] = append(o.in[key.NS], obj)
	}
	if err := o.namespaces(); err != nil {
		return nil, err
	}
	if err := o.namespace(ctx, kernel.Host); err != nil {
		return nil, err
	}
	o.sandboxes(ctx)
	o.peers()
	return o.seen, nil
}

// sandboxes reads what is wanted in sandboxes, as many side by side as there are
// processors: what takes the time is the kernel's work and the decoding.
func (o *observer) sandboxes(ctx context.Context) {
	names := make(chan string)
	parts := make([]*observer, min(runtime.GOMAXPROCS(0), len(o.in)))
	var wg sync.WaitGroup
	for i := range parts {
		p := &observer{k: o.k, spaces: o.k.spaces(), want: o.want, in: o.in, sweep: o.sweep, seen: kernel.State{}, links: map[string]map[string]rt.Link{}}
		parts[i] = p
		wg.Go(func() {
			for ns := range names {
				if _, err := p.spaces.at(ns); err == nil || o.bound(ns) { // else no namespace: nothing in it
					p.sandbox(ctx, ns)
				}
				p.spaces.forget(ns) // or a thousand would be open at the end
			}
		})
	}
	for ns := range o.in {
		if ns != kernel.Host {
			names <- ns
		}
	}
	close(names)
	wg.Wait()
	for _, p := range parts {
		maps.Copy(o.seen, p.seen)
		maps.Copy(o.links, p.links)
	}
}

// bound reports whether the namespace of a sandbox was seen.
func (o *observer) bound(ns string) bool {
	_, there := o.seen[kernel.Namespace{Name: ns}.Key()]
	return there
}

// observer is one reading, or the part of one that is read in some sandboxes.
type observer struct {
	k      *Kernel
	spaces *spaces
	want   kernel.State
	in     map[string][]kernel.Object // what is wanted, by namespace
	sweep  bool
	seen   kernel.State
	links  map[string]map[string]rt.Link // by namespace and name
}

func (o *observer) add(obj kernel.Object) { o.seen[obj.Key()] = obj }

// wanted gives the objects of one kind in one namespace.
func wanted[T kernel.Object](o *observer, ns string) []T {
	var out []T
	for _, obj := range o.in[ns] {
		if t, ok := obj.(T); ok {
			out = append(out, t)
		}
	}
	return out
}

// sandbox reads what we want in a namespace that is not ours alone: a failure
// there is that sandbox's, and what could not be read counts as absent.
func (o *observer) sandbox(ctx context.Context, ns string) {
	ctx, cancel := context.WithTimeout(ctx, sandboxDeadline)
	defer cancel()
	if err := o.namespace(ctx, ns); err != nil {
		o.k.Log.Warn("observe sandbox", "sandbox", ns, "err", err)
	}
}

func (o *observer) namespace(ctx context.Context, ns string) error {
	sp, err := o.spaces.at(ns)
	if err != nil {
		return fmt.Errorf("observe %s: %w", ns, err)
	}
	steps := []func(context.Context, *space, string) error{o.readLinks, o.readAddresses, o.readRoutes, o.readRules, o.readNeighbours, o.readForwarding, o.readSysctls, o.readTables, o.readEntries, o.readZones}
	for _, step := range steps {
		if err := step(ctx, sp, ns); err != nil {
			return fmt.Errorf("observe %s: %w", ns, err)
		}
	}
	o.readSockets(ns)
	for _, f := range wanted[kernel.Flows](o, ns) {
		o.add(f) // there may be none, which is as good
	}
	if o.sweep && ns == kernel.Host {
		return o.readFlows(ctx)
	}
	return nil
}

// ours reports whether a link carries our mark.
func ours(l rt.Link) bool {
	return l.Group == linkGroup || l.Group == trashGroup || strings.HasPrefix(l.Alias, AliasPrefix)
}

func (o *observer) readLinks(ctx context.Context, sp *space, ns string) error {
	links, err := o.findLinks(ctx, sp, ns)
	if err != nil {
		return err
	}
	byIndex := map[int]string{}
	for _, l := range links {
		byIndex[l.Index] = l.Name
	}
	if ns != kernel.Host {
		o.k.hear(ctx, ns, sp, links...)
	}
	o.links[ns] = map[string]rt.Link{}
	all := o.sweep && ns == kernel.Host
	for _, l := range links {
		o.links[ns][l.Name] = l
		if ns == kernel.Host && !ours(l) {
			continue
		}
		w, asked := o.want[kernel.Link{NS: ns, Name: l.Name}.Key()].(kernel.Link)
		if up := (kernel.Up{NS: ns, Dev: l.Name}); l.Up && (all || o.wants(up)) {
			o.add(up)
		}
		if all || asked {
			o.add(project(l, w, asked, ns, masterName(ctx, sp, byIndex, l.Master)))
		}
	}
	return nil
}

// masterName is the name of the bridge of a port, "" without one.
func masterName(ctx context.Context, sp *space, byIndex map[int]string, index int) string {
	if name, known := byIndex[index]; known || index == 0 {
		return name
	}
	m, err := sp.rt.LinkByIndex(ctx, index)
	if err != nil {
		return "" // gone this moment
	}
	byIndex[index] = m.Name
	return m.Name
}

func (o *observer) wants(obj kernel.Object) bool {
	_, ok := o.want[obj.Key()]
	return ok
}

// findLinks reads all links of the host on a sweep, else those asked for.
func (o *observer) findLinks(ctx context.Context, sp *space, ns string) ([]rt.Link, error) {
	if o.sweep && ns == kernel.Host {
		return sp.rt.Links(ctx, rt.LinkFilter{})
	}
	names := map[string]bool{}
	for _, l := range wanted[kernel.Link](o, ns) {
		names[l.Name] = true
	}
	for _, u := range wanted[kernel.Up](o, ns) {
		names[u.Dev] = true
	}
	for _, a := range wanted[kernel.Address](o, ns) {
		names[a.Dev] = true
	}
	var out []rt.Link
	for name := range names {
		l, err := sp.rt.LinkByName(ctx, name)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// project keeps of a link what we set. The other end of a pair is filled in by peers.
func project(l rt.Link, w kernel.Link, asked bool, ns, master string) kernel.Link {
	out := kernel.Link{NS: ns, Name: l.Name, Type: l.Kind, MTU: l.MTU, Mark: l.Alias, Master: master}
	if !asked || w.MAC != "" {
		out.MAC = l.MAC.String()
	}
	if l.Port != nil {
		out.Hairpin, out.Isolated, out.Locked = l.Port.Hairpin, l.Port.Isolated, l.Port.Locked && !l.Port.Learning
	}
	if ns != kernel.Host { // the inside is the tenant's, but for what we gave it
		out.Mark, out.Master = "", ""
	}
	return out
}

// peers joins the ends of pairs: an end in a sandbox is the wanted one only if
// the kernel says that it is the other end of the host's.
func (o *observer) peers() {
	for key, obj := range o.want {
		w, ok := obj.(kernel.Link)
		if !ok || w.Peer == "" {
			continue
		}
		h, there := o.seen[key].(kernel.Link)
		if !there {
			continue
		}
		inner, found := o.links[w.PeerNS][w.Peer]
		outer := o.links[w.NS][w.Name]
		if found && outer.PeerIndex == inner.Index && inner.PeerIndex == outer.Index && inner.Kind == "veth" {
			h.Peer, h.PeerNS = w.Peer, w.PeerNS
			o.add(h)
			if in, ok := o.seen[kernel.Link{NS: w.PeerNS, Name: w.Peer}.Key()].(kernel.Link); ok {
				in.PeerOf = w.Name
				o.add(in)
			}
		}
	}
}

// linkAt gives the link of an index among those read so far.
func (o *observer) linkAt(ns string, index int) (rt.Link, bool) {
	for _, l := range o.links[ns] {
		if l.Index == index {
			return l, true
		}
	}
	return rt.Link{}, false
}

// device gives the name for an index of the links read so far.
func (o *observer) device(ns string, index int) string {
	l, _ := o.linkAt(ns, index)
	return l.Name
}

func (o *observer) readAddresses(ctx context.Context, sp *space, ns string) error {
	devs := map[string]bool{}
	for _, a := range wanted[kernel.Address](o, ns) {
		devs[a.Dev] = true
	}
	if o.sweep && ns == kernel.Host {
		for name, l := range o.links[ns] {
			devs[name] = devs[name] || ours(l)
		}
	}
	for dev, look := range devs {
		l, there := o.links[ns][dev]
		if !there || !look {
			continue
		}
		addrs, err := sp.rt.Addresses(ctx, l.Index)
		if errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return err
		}
		for _, a := range addrs {
			obj := kernel.Address{NS: ns, Dev: dev, Prefix: a.Prefix}
			if o.wants(obj) || (o.sweep && a.Proto == protocol) {
				o.add(obj)
			}
		}
	}
	return nil
}

func (o *observer) readRoutes(ctx context.Context, sp *space, ns string) error {
	if len(wanted[kernel.Route](o, ns)) == 0 && (!o.sweep || ns != kernel.Host) {
		return nil
	}
	routes, err := sp.rt.Routes(ctx, rt.RouteFilter{Protocol: protocol}, sandboxRoutes)
	if err != nil {
		return err
	}
	for _, r := range routes {
		obj := kernel.Route{NS: ns, Dev: o.device(ns, r.OIF), Dst: r.Dst, Via: r.Gateway, Table: r.Table, Metric: r.Metric, Local: r.Type == unix.RTN_LOCAL}
		if r.Table == unix.RT_TABLE_MAIN {
			obj.Table = 0
		}
		// What we leave at 0 the kernel makes 1024 (IP6_RT_PRIO_USER).
		if r.Dst.Addr().Is6() && r.Metric == 1024 {
			obj.Metric = 0
		}
		if obj.Dev != "" {
			o.add(obj)
		}
	}
	return nil
}

func (o *observer) readRules(ctx context.Context, sp *space, ns string) error {
	if len(wanted[kernel.Rule](o, ns)) == 0 && !o.sweep {
		return nil
	}
	rules, err := sp.rt.Rules(ctx, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.Protocol == protocol && r.Src.IsValid() {
			o.add(kernel.Rule{NS: ns, From: r.Src, Table: r.Table, Priority: r.Priority})
		}
	}
	return nil
}

func (o *observer) readSysctls(_ context.Context, sp *space, ns string) error {
	for _, w := range wanted[kernel.Sysctl](o, ns) {
		if value, known := parameter(w, o.links[ns][w.Dev].IPv6); known {
			w.Value = value
			o.add(w)
			continue
		}
		value, err := sysctl.Read(sp.file, w.Name)
		var missing *sysctl.UnsupportedError
		if errors.As(err, &missing) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		w.Value = strings.Join(strings.Fields(value), " ")
		o.add(w)
	}
	return nil
}
