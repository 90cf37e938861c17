//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
)

// Watch tells of changes that others made, until ctx ends, when the channel is
// closed. Notifications of the kernel do not say who made a change, except for
// nftables; so of links, addresses and routes only what takes something away is
// passed on, and the reader compares with what it wants.
func (k *Kernel) Watch(ctx context.Context) (<-chan kernel.Event, error) {
	var open []io.Closer
	fail := func(err error) (<-chan kernel.Event, error) {
		for _, c := range open {
			err = errors.Join(err, c.Close())
		}
		return nil, err
	}
	host := int(k.self.Fd())
	// For each notification of any namespace the kernel looks through the ids of
	// all namespaces (peernet_has_id), so that what is only asked of the host has a
	// socket that hears no other.
	links, err := rt.ListenAll(host, rt.GroupLink, rt.GroupIPv4Address, rt.GroupIPv6Address, rt.GroupIPv4Route, rt.GroupIPv6Route)
	if err != nil {
		return fail(err)
	}
	open = append(open, links)
	switches, err := rt.Listen(host, rt.GroupIPv4Netconf, rt.GroupIPv6Netconf)
	if err != nil {
		return fail(err)
	}
	open = append(open, switches)
	rules, err := nft.ListenAll(host)
	if err != nil {
		return fail(err)
	}
	open = append(open, rules)
	w := &watcher{k: k, out: make(chan kernel.Event, 64), touches: make(chan touch)}
	if err := w.prime(ctx); err != nil {
		return fail(err)
	}
	if err := k.watchForeign(ctx); err != nil {
		return fail(err)
	}
	var running sync.WaitGroup
	running.Go(func() { w.links(ctx, links); _ = links.Close() })
	running.Go(func() { w.links(ctx, switches); _ = switches.Close() })
	running.Go(func() { w.rules(ctx, rules); _ = rules.Close() })
	running.Go(func() { w.zones(ctx) })
	running.Go(func() { w.doors(ctx) })
	go func() {
		running.Wait()
		close(w.out)
	}()
	return w.out, nil
}

// netconfAll is NETCONFA_IFINDEX_ALL of linux/netconf.h: the value for all
// links, which ip_forward is for IPv4.
const netconfAll = -1

// linkID is a link in a namespace, as notifications name it.
type linkID struct{ nsid, index int }

// seenLink is what the last notification said of a link.
type seenLink struct {
	name string
	up   bool
	ours bool
	mtu  int

	master int
}

// watcher turns notifications into events.
type watcher struct {
	k   *Kernel
	out chan kernel.Event
	// touches are of tables that have doors.
	touches chan touch
}

func seen(l rt.Link) seenLink { return seenLink{l.Name, l.Up, ours(l), l.MTU, l.Master} }

// hear notes the id under which notifications from a sandbox arrive (the kernel
// gives it with the first veth pair between the two namespaces), and links in it
// as they were read, unless something was heard of them already.
func (k *Kernel) hear(ctx context.Context, sandbox string, sp *space, links ...rt.Link) {
	id, err := k.rt.NSID(ctx, int(sp.file.Fd()))
	if err != nil || id == rt.NoNSID {
		return // not connected
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nsids[id] = sandbox
	for _, l := range links {
		if _, heard := k.known[linkID{id, l.Index}]; !heard {
			k.known[linkID{id, l.Index}] = seen(l)
		}
	}
}

// unhear forgets a sandbox: the kernel gives its id to another namespace.
func (k *Kernel) unhear(sandbox string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.known, func(l linkID, _ seenLink) bool { return l.nsid != rt.NoNSID && k.nsids[l.nsid] == sandbox })
	maps.DeleteFunc(k.nsids, func(_ int, name string) bool { return name == sandbox })
	delete(k.wrote, sandbox)
}

// device is the name of a link as it was last heard of.
func (k *Kernel) device(nsid, index int) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known[linkID{nsid, index}].name
}

// prime learns the links of the host that are there already.
func (w *watcher) prime(ctx context.Context) error {
	links, err := w.k.rt.Links(ctx, rt.LinkFilter{})
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	w.k.mu.Lock()
	defer w.k.mu.Unlock()
	for _, l := range links {
		w.k.known[linkID{rt.NoNSID, l.Index}] = seen(l)
	}
	return nil
}

func (w *watcher) send(ctx context.Context, e kernel.Event) {
	select {
	case w.out <- e:
	case <-ctx.Done():
	}
}

func (w *watcher) links(ctx context.Context, m *rt.Monitor) {
	for ctx.Err() == nil {
		e, err := m.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				w.k.Log.Error("watch links", "err", err)
			}
			return
		}
		w.link(ctx, e)
	}
}

// link handles one notification of rtnetlink.
func (w *watcher) link(ctx context.Context, e rt.Event) {
	if e.Kind == rt.EventOverrun {
		w.send(ctx, kernel.Event{Why: "the kernel dropped notifications of links"})
		return
	}
	ns := kernel.Host
	if e.NSID != rt.NoNSID {
		w.k.mu.Lock()
		ns = w.k.nsids[e.NSID]
		w.k.mu.Unlock()
		if ns == "" {
			return // not one of our sandboxes
		}
	}
	switch {
	case e.Kind == rt.EventLink:
		w.linkChanged(ctx, ns, e)
	case e.Kind == rt.EventPort && e.Deleted && ns == kernel.Host:
		w.tell(ctx, ns, kernel.Key{NS: ns, Kind: kernel.KindLink, Name: e.Link.Name}, "left its bridge")
	case e.Kind == rt.EventAddress && e.Deleted:
		dev := w.k.device(e.NSID, e.Address.Index)
		w.tell(ctx, ns, kernel.Address{NS: ns, Dev: dev, Prefix: e.Address.Prefix}.Key(), "was deleted")
	case e.Kind == rt.EventRoute && e.Deleted && e.Route.Protocol == protocol:
		dev := w.k.device(e.NSID, e.Route.OIF)
		w.tell(ctx, ns, kernel.Route{NS: ns, Dev: dev, Dst: e.Route.Dst}.Key(), "was deleted")
	case e.Kind == rt.EventRoute && ns == kernel.Host && e.Route.Dst.Bits() == 0:
		w.send(ctx, kernel.Event{Host: true, Why: "the default route of the host changed"})
	case e.Kind == rt.EventNetconf && ns == kernel.Host && e.Netconf.Index == netconfAll && e.Netconf.Forward == 0:
		w.send(ctx, kernel.Event{Host: true, Why: "forwarding was turned off"})
	}
}

// tell sends what happened to an object; in a sandbox all of it is looked at.
func (w *watcher) tell(ctx context.Context, ns string, key kernel.Key, what string) {
	w.because(ctx, ns, key, key.String()+" "+what)
}

// because is tell in other words than those of the key.
func (w *watcher) because(ctx context.Context, ns string, key kernel.Key, why string) {
	e := kernel.Event{Keys: []kernel.Key{key}, Why: why}
	if ns != kernel.Host {
		e = kernel.Event{NS: ns, Why: e.Why}
	}
	w.send(ctx, e)
}

// linkChanged compares a link with what was last heard of it.
func (w *watcher) linkChanged(ctx context.Context, ns string, e rt.Event) {
	id := linkID{e.NSID, e.Link.Index}
	now := seen(*e.Link)
	w.k.mu.Lock()
	was, heard := w.k.known[id]
	w.k.known[id] = now
	if e.Deleted {
		delete(w.k.known, id)
	}
	w.k.mu.Unlock()
	if ns == kernel.Host && !now.ours && !was.ours {
		if e.Deleted || !heard || was != now {
			w.send(ctx, kernel.Event{Host: true, Why: "link " + now.name + " of the host changed"})
		}
		return
	}
	link := kernel.Key{NS: ns, Kind: kernel.KindLink, Name: now.name}
	switch {
	case e.Deleted:
		w.tell(ctx, ns, link, "was deleted")
	case !heard:
	case was.name != now.name && ns == kernel.Host: // nobody wants it by the new one
		w.send(ctx, kernel.Event{Why: "link " + was.name + " was renamed to " + now.name})
	case was.name != now.name:
		link.Name = was.name
		w.tell(ctx, ns, link, "was renamed to "+now.name)
	case was.up && !now.up:
		w.because(ctx, ns, kernel.Up{NS: ns, Dev: now.name}.Key(), link.String()+" was set down")
	case was.mtu != now.mtu:
		w.tell(ctx, ns, link, "has another MTU")
	}
}

// rules passes on what others did to our table.
func (w *watcher) rules(ctx context.Context, m *nft.Monitor) {
	for ctx.Err() == nil {
		e, err := m.Next(ctx)
		if err == nil && !e.Overrun && e.NSID == nft.NoNSID {
			w.k.rules.told(e)
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return
		case err != nil:
			w.k.Log.Error("watch rules", "err", err)
			return
		case e.Overrun:
			w.k.lost(ctx)
			w.send(ctx, kernel.Event{Why: "the kernel dropped notifications of rules"})
		case e.NSID != nft.NoNSID:
			w.rulesInside(ctx, e)
		case e.PortID != w.k.nft.PortID() && touches(e):
			w.send(ctx, kernel.Event{Why: fmt.Sprintf("%s changed table %s", e.Process, tableName)})
		case e.NSID == nft.NoNSID && e.PortID != w.k.nft.PortID():
			w.touched(ctx, e)
		}
	}
}

// touches reports whether a transaction changed a table of ours.
func touches(e nft.Event) bool {
	return slices.ContainsFunc(e.Touched, func(t nft.Touch) bool { return t.Table == tableName })
}

// rulesInside passes on what somebody did to our table in a sandbox. Our own
// transactions come over sockets of one call.
func (w *watcher) rulesInside(ctx context.Context, e nft.Event) {
	if !touches(e) {
		return
	}
	w.k.mu.Lock()
	ns := w.k.nsids[e.NSID]
	own := w.k.wrote[ns] == e.PortID
	w.k.mu.Unlock()
	if ns != "" && !own {
		w.send(ctx, kernel.Event{NS: ns, Why: fmt.Sprintf("%s: %s changed table %s", ns, e.Process, tableName)})
	}
}
