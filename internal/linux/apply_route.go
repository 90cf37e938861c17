//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/rt"
)

// changeRoute makes, changes or removes a route.
func changeRoute(ctx context.Context, sp *space, op kernel.Op, o kernel.Route, index int) error {
	r := rt.Route{
		Dst: o.Dst, Gateway: o.Via, OIF: index, Table: o.Table, Protocol: protocol, Metric: o.Metric,
		// IPv6 makes the connected route only when link watch has seen the
		// carrier, and until then refuses a gateway (EHOSTUNREACH) that is not
		// declared to be on the link.
		Onlink: o.Via.Is6(),
	}
	if o.Local {
		r.Type, r.Scope = unix.RTN_LOCAL, unix.RT_SCOPE_HOST
	}
	switch op.Verb {
	case kernel.Delete:
		return sp.rt.DelRoute(ctx, r)
	case kernel.Change:
		return sp.rt.ReplaceRoute(ctx, r)
	}
	add := sp.rt.AddRoute // not replace: that would take the place of a route that is not ours
	if o.Local {          // each of our bridges has one
		add = sp.rt.AppendRoute
	}
	err := add(ctx, r)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	there, lerr := sp.rt.Routes(ctx, rt.RouteFilter{Protocol: protocol, OIF: index}, sandboxRoutes)
	if lerr == nil && slices.ContainsFunc(there, func(t rt.Route) bool { return t.Dst == r.Dst && t.Gateway == r.Gateway }) {
		return nil
	}
	return fmt.Errorf("a route to %s exists that is not Towpath's: remove it: %w", o.Dst, err)
}

// rule makes or removes a rule of policy routing.
func (a *applier) rule(ctx context.Context, sp *space, verb kernel.Verb, o kernel.Rule) error {
	r := rt.Rule{Family: unix.AF_INET, Priority: o.Priority, Src: o.From, Table: o.Table, Protocol: protocol}
	if o.From.Addr().Is6() {
		r.Family = unix.AF_INET6
	}
	if verb == kernel.Create {
		err := sp.rt.AddRule(ctx, r)
		if errors.Is(err, unix.EEXIST) {
			return nil
		}
		return err
	}
	old := rt.Rule{Family: r.Family, Priority: r.Priority, Src: r.Src, Protocol: protocol}
	if err := sp.rt.DelRule(ctx, old); err != nil && !gone(err) {
		return err
	}
	if verb == kernel.Change {
		return sp.rt.AddRule(ctx, r)
	}
	return nil
}
