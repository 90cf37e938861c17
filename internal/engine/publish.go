package engine

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
)

// Publish makes ports of a sandbox reachable at ports of the host: all of them
// or, when one cannot be had, none.
func (e *Engine) Publish(ctx context.Context, sandbox string, specs []api.Publication, dry bool) ([]api.Publication, []string, error) {
	op := "publish ports of sandbox " + sandbox
	var ids []string
	decide := func(d *draft) error {
		s, err := findSandbox(d.view, sandbox)
		if err != nil {
			return err
		}
		ids, err = e.draftPublications(d, s.Name, specs)
		return err
	}
	if dry {
		view, ops, err := e.preview(ctx, decide)
		return e.publications(ctx, view, ids), ops, api.InOp(op, err)
	}
	out, err := e.create(ctx, decide, func(d *draft) error {
		for _, id := range ids {
			d.deletePublication(id)
		}
		return nil
	})
	if err != nil {
		return nil, nil, api.InOp(op, err)
	}
	for _, id := range ids {
		e.Tell(api.Event{Kind: "publication", Name: id, Action: "publish", Detail: "sandbox " + sandbox})
	}
	made := e.publications(ctx, out.view, ids)
	for i := range made {
		made[i].Warnings = append(made[i].Warnings, e.warn(ctx, out.view, nil, made[i].ID())...)
	}
	return made, nil, nil
}

// draftPublications checks and chooses, and gives the IDs.
func (e *Engine) draftPublications(d *draft, sandbox string, specs []api.Publication) ([]string, error) {
	var ids []string
	for _, p := range specs {
		p.Sandbox = sandbox
		if !p.HostIP.IsValid() {
			p.HostIP = e.PublishAt
		}
		if err := p.Validate(); err != nil {
			return nil, err
		}
		if !driver.Reachable(&p, d.view) {
			return nil, unreachable(d.view, sandbox, &p)
		}
		if p.HostPort == 0 {
			port, err := e.freePort(d, &p)
			if err != nil {
				return nil, err
			}
			p.HostPort = port
		}
		if q := d.view.Publications.Overlapping(&p); q != nil {
			return nil, api.Errorf(api.PortTaken, "%s is published already, for sandbox %s (%s)", p.ID(), q.Sandbox, q.ID()).
				WithFix("choose another host port, or none to get a free one")
		}
		d.putPublication(&p)
		ids = append(ids, p.ID())
	}
	return ids, nil
}

// unreachable says why a publication has nothing to lead to.
func unreachable(v driver.View, sandbox string, p *api.Publication) error {
	why, fix := "it is on no network", "connect it first: towpath network connect NETWORK %s"
	for _, ep := range v.EndpointsOf(sandbox) {
		if n := v.Networks[ep.Network]; n != nil && !n.Internal {
			// Only sctp: tcp and udp are passed on between families.
			why, fix = "it has none of that family, and "+p.Proto+" is not passed on from one to the other", "connect it to a network of that family: towpath network connect NETWORK %s"
			break
		}
		why, fix = "it is on internal networks only", "connect it to a network that is not internal: towpath network connect NETWORK %s"
	}
	return api.Errorf(api.Invalid, "sandbox %s has no address that %s could lead to: %s", sandbox, p.String(), why).WithFix(fix, sandbox)
}

// Ephemeral host ports are chosen from IANA's dynamic range (RFC 6335).
const (
	firstEphemeral = 49152
	lastEphemeral  = 65535
)

// freePort is the first port, or run of ports, that is neither published nor
// in use, behind the one given last.
func (e *Engine) freePort(d *draft, p *api.Publication) (uint16, error) {
	span := lastEphemeral - firstEphemeral + 1
	start := max(int(d.meta.port)+1, firstEphemeral)
	for i := range span {
		first := firstEphemeral + (start-firstEphemeral+i)%span
		if first+int(p.Count)-1 > lastEphemeral {
			continue
		}
		q := *p
		q.HostPort = uint16(first)
		if d.view.Publications.Overlapping(&q) == nil && e.PortFree(q.Proto, q.HostIP, q.HostPort, q.Count) {
			d.gavePort(uint16(first + int(p.Count) - 1))
			return q.HostPort, nil
		}
	}
	return 0, api.Errorf(api.Exhausted, "no %d free host ports between %d and %d", p.Count, firstEphemeral, lastEphemeral).
		WithFix("choose the host ports, or publish fewer")
}

// Unpublish takes publications of a sandbox back. A spec may leave out what
// does not matter: without host port, all that lead to its port.
func (e *Engine) Unpublish(ctx context.Context, sandbox string, specs []api.Publication, dry bool) ([]string, error) {
	event := &api.Event{Kind: "publication", Action: "unpublish", Detail: "sandbox " + sandbox}
	return e.remove(ctx, "unpublish ports of sandbox "+sandbox, event, dry, func(d *draft) error {
		s, err := findSandbox(d.view, sandbox)
		if err != nil {
			return err
		}
		var names []string
		for _, spec := range specs {
			found := false
			for _, p := range d.view.PublicationsOf(s.Name) {
				if matches(&spec, p) {
					found, names = true, append(names, p.ID())
					d.deletePublication(p.ID())
				}
			}
			if !found {
				return api.Errorf(api.NotFound, "sandbox %s does not publish %s", s.Name, spec.String()).WithFix("see: towpath port %s", s.Name)
			}
		}
		event.Name = strings.Join(names, ", ")
		return nil
	})
}

// matches reports whether a spec names a publication.
func matches(spec, p *api.Publication) bool {
	return spec.Proto == p.Proto && spec.Port == p.Port && spec.Count == p.Count &&
		(spec.HostPort == 0 || spec.HostPort == p.HostPort) && (!spec.HostIP.IsValid() || spec.HostIP == p.HostIP)
}

// Publications are those of a sandbox, or all, by ID.
func (e *Engine) Publications(ctx context.Context, sandbox string) ([]api.Publication, error) {
	v, _ := e.View()
	if sandbox != "" {
		s, err := findSandbox(v, sandbox)
		if err != nil {
			return nil, api.InOp("list publications of sandbox "+sandbox, err)
		}
		sandbox = s.Name
	}
	var ids []string
	for id, p := range v.Publications.All() {
		if sandbox == "" || p.Sandbox == sandbox {
			ids = append(ids, id)
		}
	}
	return e.publications(ctx, v, ids), nil
}

// hostHas tells the addresses of the host from others; they are read when
// somebody asks for the first time. What cannot be read is taken to be there.
func (e *Engine) hostHas(ctx context.Context) func(netip.Addr) bool {
	read := sync.OnceValue(func() func(netip.Addr) bool {
		if e.Locals != nil {
			if has, err := e.Locals(ctx); err == nil {
				return has
			}
		}
		return func(netip.Addr) bool { return true }
	})
	return func(a netip.Addr) bool { return read()(a) }
}

// publications fills in what is not stored.
func (e *Engine) publications(ctx context.Context, v driver.View, ids []string) []api.Publication {
	out := []api.Publication{}
	has := e.hostHas(ctx)
	for _, id := range ids {
		p := *v.Publications.Get(id)
		p.State = "ready"
		if err := e.loop.Status(driver.PublicationUnit(id)); err != nil {
			p.State, p.Message = "error", err.Error()
			if api.CodeOf(err) == api.PortTaken {
				p.State = "conflict"
			}
		} else if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() && !has(p.HostIP) {
			p.State, p.Message = "waiting", fmt.Sprintf("the host has no address %s yet; the port is held and works as soon as it has", p.HostIP)
		}
		if p.Proto == "sctp" && !e.loop.Facts().SCTP {
			p.Warnings = append(p.Warnings, fmt.Sprintf("this kernel has no SCTP sockets: host port %d is not kept from others", p.HostPort))
		}
		out = append(out, p)
	}
	return out
}
