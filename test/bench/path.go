package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/towpath/towpath/api"
)

// What is measured of the path of packets, a round.
const (
	pathRounds      = 15
	quickPathRounds = 5
	requestsARound  = 2000
	connsARound     = 250
	publishRounds   = 15
)

// The kinds of measurement of a line.
const (
	request    = "request"    // a byte there and one back, over one connection
	connection = "connection" // a connection opened, used, and hung up
	over       = " over IPv6" // behind either, where it is
)

// paths is what was measured of the ways that packets go.
type paths struct {
	pair, mates, free, routed, only, many *line // free: mates that are not checked
	tracked                               *line // routed, by a host that tracks connections
	tables                                *line // nil without iptables

	first, more []float64 // ms that it took to publish the first port, and one more
	commit      []float64 // ms of a commit to the disk
}

// ratio is the median over the rounds of what one line took to what another did.
func (p paths) ratio(kind string, a, b *line) float64 {
	var list []float64
	for i := range min(len(a.times[kind]), len(b.times[kind])) {
		list = append(list, a.times[kind][i]/b.times[kind][i])
	}
	return median(list)
}

// perPublication is the ratio of publishing one more to publishing the first.
func (p paths) perPublication() float64 {
	var list []float64
	for i := range p.first {
		list = append(list, p.more[i]/p.first[i])
	}
	return median(list)
}

// goals are the bounds of the data path.
func (p paths) goals() []goal {
	return []goal{
		{text: fmt.Sprintf("new connection: one of %d published ports / the only one", manyPorts+1), got: p.ratio(connection, p.many, p.only), atMost: 1.1},
		{text: "request: published port / plain routing", got: p.ratio(request, p.only, p.routed), atMost: 1.15},
		{text: "new connection: published port / plain routing", got: p.ratio(connection, p.only, p.routed), atMost: 1.25},
		{text: "request over IPv6: published port / plain routing", got: p.ratio(request+over, p.only, p.routed), atMost: 1.15},
		{text: "new connection over IPv6: published port / plain routing", got: p.ratio(connection+over, p.only, p.routed), atMost: 1.25},
		{text: "request: two containers of a network, spoof guard on / bare veth pair", got: p.ratio(request, p.mates, p.pair), atMost: 1.25},
		{text: fmt.Sprintf("publish one more with %d present / the first", manyPorts+1), got: p.perPublication(), atMost: 1.5},
	}
}

// write prints the tables.
func (p paths) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "data path, µs (medians)\trequest\tconnection\t/\trequest\tconnection\t")
	rowOver := func(l, base *line, over string) {
		if l == nil {
			return
		}
		r, c := request+over, connection+over
		fmt.Fprintf(t, "%s\t%.2f\t%.1f\t", l.name+over, median(l.times[r])/1e3, median(l.times[c])/1e3)
		if base != nil {
			fmt.Fprintf(t, "%s\t%.2f\t%.2f\t", base.name+over, p.ratio(r, l, base), p.ratio(c, l, base))
		}
		fmt.Fprintln(t)
	}
	row := func(l, base *line) { rowOver(l, base, "") }
	row(p.pair, nil)
	row(p.free, p.pair)
	row(p.mates, p.pair)
	row(p.routed, nil)
	row(p.tracked, p.routed)
	row(p.only, p.routed)
	row(p.many, p.only)
	row(p.tables, p.only)
	rowOver(p.routed, nil, over)
	rowOver(p.tracked, p.routed, over)
	rowOver(p.only, p.routed, over)
	fmt.Fprintf(t, "publish, ms: the first %.2f, one more with %d present %.2f; a commit to the disk %.2f\t\t\t\t\t\t\n",
		median(p.first), manyPorts+1, median(p.more), median(p.commit))
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write data path: %w", err)
	}
	fmt.Fprintln(w)
	return writeGoals(w, p.goals())
}

// lines are those that were set up.
func (p paths) lines() []*line {
	var out []*line
	for _, l := range []*line{p.pair, p.free, p.mates, p.routed, p.tracked, p.only, p.many, p.tables} {
		if l != nil {
			out = append(out, l)
		}
	}
	return out
}

// measurePaths sets the lines up and measures them in turns.
func (o options) measurePaths(ctx context.Context, rounds int) (p paths, err error) {
	defer func() {
		for _, l := range p.lines() {
			l.close()
		}
	}()
	if err := raise(); err != nil {
		return p, err
	}
	fmt.Fprintln(os.Stderr, "bench: setting up the ways of packets")
	if p.pair, err = newPair(ctx); err != nil {
		return p, fmt.Errorf("set up %s: %w", p.pair.name, err)
	}
	if p.routed, _, err = newRouted(ctx); err != nil {
		return p, fmt.Errorf("set up %s: %w", p.routed.name, err)
	}
	if p.tracked, err = newTracked(ctx); err != nil {
		return p, fmt.Errorf("set up %s: %w", p.tracked.name, err)
	}
	if p.tables, err = newTables(ctx); err != nil {
		return p, fmt.Errorf("set up iptables: %w", err)
	}
	var one, all *daemon
	if p.only, one, err = newPublished(ctx, o.bin, "a published port, the only one", 0); err != nil {
		return p, fmt.Errorf("publish a port: %w", err)
	}
	if p.many, all, err = newPublished(ctx, o.bin, fmt.Sprintf("one of %d", manyPorts+1), manyPorts); err != nil {
		return p, fmt.Errorf("publish %d ports: %w", manyPorts+1, err)
	}
	if p.mates, err = newMates(ctx, one, "on"); err != nil {
		return p, fmt.Errorf("set up %s: %w", p.mates.name, err)
	}
	if p.free, err = newMates(ctx, one, "off"); err != nil {
		return p, fmt.Errorf("set up %s: %w", p.free.name, err)
	}
	fmt.Fprintln(os.Stderr, "bench: measuring the ways of packets")
	for i := range rounds {
		if err := p.round(i); err != nil {
			return p, err
		}
	}
	return p, o.measurePublish(ctx, &p, one, all, rounds)
}

// round measures each line once, in an order that changes.
func (p paths) round(i int) error {
	var steps []func() error
	for _, l := range p.lines() {
		steps = append(steps, func() error { return l.measure() })
	}
	return turns(i, steps...)
}

// measure takes one round of each kind.
func (l *line) measure() error {
	for kind, n := range map[string]int{request: requestsARound, connection: connsARound} {
		if err := l.ask(kind, kind, l.to, n); err != nil {
			return err
		}
		if !l.to6.IsValid() {
			continue
		}
		if err := l.ask(kind+over, kind, l.to6, n); err != nil {
			return err
		}
	}
	return nil
}

// ask has the client measure, and notes what it says.
func (l *line) ask(kind, what string, to netip.AddrPort, n int) error {
	took, err := l.client.ask(what, to, n)
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	if l.times == nil {
		l.times = map[string][]float64{}
	}
	l.times[kind] = append(l.times[kind], float64(took))
	return nil
}

// measurePublish publishes the first port of one daemon and one more of the
// other, in turns. What was measured before goes from both, and its connections
// with it: each time the whole table of connections is looked through, which
// must not be longer on the one host than on the other.
func (o options) measurePublish(ctx context.Context, p *paths, one, all *daemon, rounds int) error {
	dir, err := os.MkdirTemp(o.state, "towpath-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	book, err := openLedger(ctx, filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer book.store.Close()
	like, err := one.clients[0].Sandbox(ctx, "web")
	if err != nil {
		return err
	}
	was := []api.Publication{{HostPort: thePort, Port: serverPort, Count: 1, Proto: "tcp"}}
	if err := errors.Join(one.clients[0].Unpublish(ctx, "web", was), all.clients[0].Unpublish(ctx, "web", was)); err != nil {
		return err
	}
	if _, err := all.clients[0].Publish(ctx, "web", was); err != nil { // so that there are as many as is said
		return err
	}
	spec := []api.Publication{{HostPort: thePort + 1, Port: serverPort, Count: 1, Proto: "tcp"}}
	for i := range rounds {
		var first, more, commit time.Duration
		err := turns(i,
			timed(&first, func() error { _, err := one.clients[0].Publish(ctx, "web", spec); return err }),
			timed(&more, func() error { _, err := all.clients[0].Publish(ctx, "web", spec); return err }),
			func() (err error) { commit, err = book.commit(ctx, like); return err },
		)
		err = errors.Join(err, one.clients[0].Unpublish(ctx, "web", spec), all.clients[0].Unpublish(ctx, "web", spec))
		if err != nil {
			return err
		}
		p.first, p.more = append(p.first, inMillis(first)), append(p.more, inMillis(more))
		p.commit = append(p.commit, inMillis(commit))
	}
	return nil
}

func inMillis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
