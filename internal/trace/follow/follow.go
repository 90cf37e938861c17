//go:build linux

// Package follow watches the flows that begin on the machine, and tells the path
// of each.
package follow

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/explain"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/trace"
	"github.com/towpath/towpath/internal/trace/taps"
	"github.com/towpath/towpath/internal/trace/watch"
)

// Watcher watches until it is closed.
type Watcher struct {
	opened
	open   func(*machine.Space) (*os.File, error)
	query  api.TraceQuery
	from   end
	to     end
	seen   trace.Live
	routes *watch.Routes
	news   news
	gate   trace.Gate
}

// opened is a session, and the machine as it was read for it.
type opened struct {
	machine *explain.Machine
	session *taps.Session
	level   api.PathLevel
	names   []string
}

// end is who a flow is to be from, or to: a namespace or an address.
type end struct {
	any, outside bool
	space        string
	addr         netip.Addr
}

// Open begins to watch.
func Open(ctx context.Context, m *explain.Machine, open func(*machine.Space) (*os.File, error), q api.TraceQuery) (*Watcher, error) {
	w := &Watcher{opened: opened{machine: m}, open: open, query: q}
	if err := watch.Check(q.Level); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	var err error
	if w.from, err = w.end(q.From); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	if w.to, err = w.end(q.To); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	o, err := w.begin(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	w.opened = *o
	w.seen = trace.Live{Machine: &m.Host, Start: w.session.Start(), Level: w.level, EachDrop: q.Drops}
	w.seen.Ask = func(list []trace.Question) []trace.Routed { return w.routes.Ask(context.WithoutCancel(ctx), list) }
	w.routes = watch.NewRoutes(&m.Host, open)
	return w, nil
}

// begin opens a session that watches a machine.
func (w *Watcher) begin(ctx context.Context, m *explain.Machine) (*opened, error) {
	first := slices.DeleteFunc([]string{w.from.space, w.to.space}, func(s string) bool { return s == "" })
	spaces, err := taps.Spaces(&m.Host, first, w.open)
	defer func() {
		for _, s := range spaces {
			_ = s.File.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	o := &opened{machine: m}
	o.session, o.level, err = watch.Open(ctx, watch.Want{Level: w.query.Level, Drops: w.query.Drops, Machine: &m.Host, Spaces: spaces})
	if err != nil {
		return nil, err
	}
	for _, s := range spaces {
		o.names = append(o.names, s.Name)
	}
	return o, nil
}

// end finds who is meant; "" is anybody.
func (w *Watcher) end(name string) (end, error) {
	if name == "" {
		return end{any: true}, nil
	}
	if a, err := netip.ParseAddr(name); err == nil {
		return end{addr: a.Unmap()}, nil
	}
	space, addr, err := w.machine.End(name)
	return end{outside: space == "", space: space, addr: addr}, err
}

// Watched are the namespaces that are watched.
func (w *Watcher) Watched() []string { return w.names }

// Level is by what means it is watched.
func (w *Watcher) Level() api.PathLevel { return w.level }

// Close ends it; nothing stays behind.
func (w *Watcher) Close() error {
	if err := errors.Join(w.news.end(), w.session.Close(), w.routes.Close()); err != nil {
		return fmt.Errorf("end trace: %w", err)
	}
	return nil
}

// Next waits for paths that were asked for. With ctx it ends.
func (w *Watcher) Next(ctx context.Context) ([]api.Path, error) {
	for {
		out, err := w.hear(ctx)
		if err == nil {
			err = w.catchUp(ctx)
		}
		if err == nil && len(out) == 0 {
			err = ctx.Err()
		}
		switch {
		case err != nil && !errors.Is(err, ctx.Err()):
			return out, fmt.Errorf("trace: %w", err)
		case err != nil || len(out) > 0:
			return out, err
		}
	}
}

// hear waits for paths, or until it is time to look for other namespaces.
func (w *Watcher) hear(ctx context.Context) ([]api.Path, error) {
	var out []api.Path
	_, err := w.session.Hear(ctx, w.seen.Start, func(seen *trace.Watch) bool {
		w.seen.Add(*seen, w.session.Heard())
		*seen = trace.Watch{}
		for _, p := range w.seen.Ready(w.session.Heard()) {
			w.machine.Annotate(&p)
			if w.wanted(p) && (!w.query.Drops || w.gate.Add(p, w.session.Heard())) {
				out = append(out, p)
			}
		}
		out = append(out, w.gate.Due(w.session.Heard())...)
		return len(out) > 0 || w.news.due()
	})
	return out, err
}

// wanted reports whether a path is one that was asked for.
func (w *Watcher) wanted(p api.Path) bool {
	q := w.query
	switch {
	case q.Drops && !died(p):
		return false
	case q.Proto != "" && q.Proto != p.Flow.Proto && (q.Proto != "icmp" || p.Flow.Proto != "icmpv6"):
		return false
	case q.Port != 0 && !slices.ContainsFunc(flows(p), func(f api.Flow) bool { return f.Dport == q.Port }):
		return false
	}
	return w.from.is(p.From, p, func(f api.Flow) netip.Addr { return f.Src }) && w.to.is(p.To, p, func(f api.Flow) netip.Addr { return f.Dst })
}

// died reports whether a packet came to an end that was not meant. One that is
// refused outside did not end here.
func died(p api.Path) bool {
	return p.Verdict == api.Dropped || p.Verdict == api.Rejected || p.Verdict == api.Lost || p.Verdict == api.Refused && p.To.NS != ""
}

// is reports whether an end of a path is the one.
func (e end) is(p api.Party, path api.Path, addr func(api.Flow) netip.Addr) bool {
	switch {
	case e.any, e.space != "" && p.NS == e.space:
		return true
	case e.addr.IsValid():
		return slices.ContainsFunc(flows(path), func(f api.Flow) bool { return addr(f) == e.addr })
	}
	return e.outside && p.NS == ""
}

// flows are all that the request was on its way.
func flows(p api.Path) []api.Flow {
	out := []api.Flow{p.Flow}
	for _, h := range p.Hops {
		for _, f := range []*api.Flow{h.Before, h.After} {
			if f != nil && h.Direction == api.Request {
				out = append(out, *f)
			}
		}
	}
	return out
}
