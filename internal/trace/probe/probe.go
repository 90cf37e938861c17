//go:build linux

// Package probe sends one packet and tells the path that it took beside the one
// that was expected.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/explain"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/trace"
	"github.com/towpath/towpath/internal/trace/taps"
	"github.com/towpath/towpath/internal/trace/watch"
)

const (
	// patience is how long an answer is waited for: neighbours are given up after
	// three seconds (net.ipv4.neigh.default.mcast_solicit), on a busy machine later,
	// which the sender is told. What no link has seen waits for such a neighbour at
	// its sender, and gets till late.
	patience, late = 4500 * time.Millisecond, 8 * time.Second
	// settling is how long it is listened on after a packet has come to its end,
	// for what is told late.
	settling = 60 * time.Millisecond
)

// Config is what a probe needs.
type Config struct {
	// Machine as it is now, Again as it is after the probe, for counters.
	Machine *explain.Machine
	Again   func(context.Context) (machine.Host, error)
	// Open opens a namespace of the machine; os.ErrNotExist: it is gone.
	Open func(*machine.Space) (*os.File, error)
}

// Run sends the packet and watches it.
func Run(ctx context.Context, c Config, q api.ProbeQuery) (api.Probe, error) {
	if err := watch.Check(q.Level); err != nil {
		return api.Probe{}, fmt.Errorf("probe %s to %s: %w", q.From, q.To, err)
	}
	first, err := c.Machine.Explain(q.PathQuery)
	if err != nil {
		return api.Probe{}, err
	}
	if err := check(q, first); err != nil {
		return api.Probe{}, fmt.Errorf("probe %s to %s: %w", q.From, q.To, err)
	}
	r := &run{Config: c, q: q, space: first.From.NS, files: map[string]*os.File{}}
	defer r.close()
	p, err := r.run(ctx, first)
	if err != nil {
		return api.Probe{}, fmt.Errorf("probe %s to %s: %w", q.From, q.To, err)
	}
	return p, nil
}

// check refuses what makes no packet.
func check(q api.ProbeQuery, first api.Path) error {
	small := shot(q, first, 0).SmallestSize()
	switch {
	case q.Size != 0 && q.Size < small:
		return api.Errorf(api.Invalid, "the headers alone are %d bytes", small).WithFix("use --size %d, or leave it out", small)
	case q.Size != 0 && q.Connect:
		return api.Errorf(api.Invalid, "the first packet of a connection has the kernel's size").WithFix("leave --size or --connect out")
	case first.Flow.Proto == "sctp":
		return api.Errorf(api.Invalid, "cannot send sctp").WithFix("ask for tcp, udp or, without a port, ICMP; towpath explain knows sctp")
	case q.Connect && first.From.NS == "":
		return api.Errorf(api.Invalid, "from outside one packet is put in at the uplink, and nobody is there to go on with a connection").WithFix("leave --connect out")
	case q.Connect && first.Flow.Proto != "tcp" && first.Flow.Dport != 0:
		return api.Errorf(api.Invalid, "only TCP makes connections").WithFix("leave --connect or /%s out", first.Flow.Proto)
	case q.Connect && first.Flow.Proto != "tcp":
		return api.Errorf(api.Invalid, "only TCP makes connections").WithFix("give a port: %s:80", q.To)
	}
	return nil
}

// run is one probe.
type run struct {
	Config
	q     api.ProbeQuery
	space string // that sends, or where the packet comes in
	files map[string]*os.File
	level api.PathLevel // at which it is watched
	// arrival is how the packet comes in from outside; nil: the space sends it.
	arrival *arrival
}

func (r *run) close() {
	if r.arrival != nil {
		_ = r.arrival.xdp.Close()
	}
	for _, f := range r.files {
		_ = f.Close()
	}
}

func (r *run) run(ctx context.Context, first api.Path) (api.Probe, error) {
	if r.space == "" {
		r.space = machine.HostName
		if err := r.comeIn(first); err != nil {
			return api.Probe{}, err
		}
	}
	watched, err := r.open(first)
	if err != nil {
		return api.Probe{}, err
	}
	mark, release, err := r.port(first)
	if err != nil {
		return api.Probe{}, err
	}
	c := *r.Machine
	c.Port = uint16(mark)
	expected, err := c.Explain(r.q.PathQuery)
	if err != nil {
		release()
		return api.Probe{}, err
	}
	s, level, err := watch.Open(ctx, watch.Want{
		Level: r.q.Level, Proto: watch.Protocol(first.Flow.Proto), Mark: mark, V6: first.Flow.Dst.Is6(), Machine: &r.Machine.Host, Spaces: watched,
	})
	if err != nil {
		release()
		return api.Probe{}, err
	}
	defer s.Close() //nolint:errcheck // nothing of it is kept
	release()
	r.level = level
	if r.arrival != nil {
		if err := r.stop(ctx, s, shot(r.q, expected, mark), watched); err != nil {
			return api.Probe{}, err
		}
	}
	w, err := r.watch(ctx, s, expected, mark)
	if err != nil {
		return api.Probe{}, err
	}
	routes := watch.NewRoutes(&r.Machine.Host, r.Open)
	defer routes.Close() //nolint:errcheck // it was only asked
	w.Routes = routes.Ask(ctx, trace.Questions(w))
	actual := trace.Join(w)
	if actual.Verdict == api.Lost && r.Again != nil {
		if w.Risen, err = r.risen(ctx, expected.Flow.Dst.Is6()); err != nil {
			return api.Probe{}, err
		}
		actual = trace.Join(w)
	}
	settle(&actual, expected)
	if actual.To.Name == "" { // it did not arrive: who was meant
		actual.To = expected.To
	}
	r.Machine.Annotate(&actual)
	return compare(expected, actual), nil
}

// open opens the namespaces to watch: those of the expected path, the host, and
// as many others as may be.
func (r *run) open(p api.Path) ([]taps.Space, error) {
	names := []string{r.space}
	for _, h := range p.Hops {
		names = append(names, h.NS)
	}
	out, err := taps.Spaces(&r.Machine.Host, names, r.Open)
	for _, s := range out {
		r.files[s.Name] = s.File
	}
	if err == nil && r.files[r.space] == nil {
		err = api.Errorf(api.Unavailable, "namespace %s cannot be opened", r.space)
	}
	return out, err
}

// port takes a port to send from, until it is released, other than those that the
// packet is sent to on its way: which way a packet goes is known by the port.
func (r *run) port(first api.Path) (trace.Mark, func(), error) {
	to := []uint16{first.Flow.Dport}
	for _, h := range first.Hops {
		if h.After != nil && h.Direction == api.Request {
			to = append(to, h.After.Dport)
		}
	}
	for {
		mark, release, err := taps.Port(r.files[r.space], first.Flow.Dst.Is6())
		if err != nil || !slices.Contains(to, uint16(mark)) {
			return mark, release, err
		}
		defer release() // when another is found, so that it is another
	}
}

// watch sends the packet and hears of it until it has come to its end.
func (r *run) watch(ctx context.Context, s *taps.Session, expected api.Path, mark trace.Mark) (trace.Watch, error) {
	start := time.Now()
	sent, err := r.send(shot(r.q, expected, mark))
	if err != nil {
		return trace.Watch{}, err
	}
	defer sent.Close() //nolint:errcheck // nothing of it is kept
	within, cancel := context.WithTimeout(ctx, late)
	defer cancel()
	var done time.Time
	fill := func(w *trace.Watch) {
		w.Machine, w.From, w.Mark, w.Start, w.Flow, w.Level = &r.Machine.Host, r.space, mark, start, expected.Flow, r.level
		if r.arrival != nil {
			w.Entry = r.entry()
		}
		if w.Got = sent.Got(); sent.Refusal != 0 {
			w.Refusal = refusal(sent.Refusal)
		}
	}
	w, err := s.Hear(within, start, func(w *trace.Watch) bool {
		fill(w)
		if done.IsZero() && ended(*w) {
			done = time.Now()
		}
		if done.IsZero() {
			return len(w.Sightings) > 0 && time.Since(start) > patience
		}
		return time.Since(done) > settling
	})
	fill(&w)
	if r.arrival != nil {
		err = errors.Join(err, r.cleanUp(context.WithoutCancel(ctx), w))
	}
	return w, err
}

// send sends the packet, or puts it in.
func (r *run) send(o taps.Shot) (*taps.Sent, error) {
	if r.arrival != nil {
		return r.put(o)
	}
	return taps.Send(r.files[r.space], o)
}

// shot is the packet that is asked for.
func shot(q api.ProbeQuery, p api.Path, mark trace.Mark) taps.Shot {
	o := taps.Shot{
		Proto: p.Flow.Proto, Dst: netip.AddrPortFrom(p.Flow.Dst, p.Flow.Dport), Mark: mark, Connect: q.Connect, Size: q.Size, TTL: q.TTL, Source: q.Source.Unmap(),
	}
	if o.Proto == "icmpv6" {
		o.Proto = "icmp"
	}
	if p.From.NS == "" {
		o.Source = p.Flow.Src
	}
	return o
}

// ended reports whether it is known what became of the packet.
func ended(w trace.Watch) bool {
	if w.Refusal != "" {
		return true
	}
	w.Sightings, w.Rulings = slices.Clone(w.Sightings), slices.Clone(w.Rulings)
	w.Crossings, w.Drops = slices.Clone(w.Crossings), slices.Clone(w.Drops)
	return trace.Join(w).Verdict != api.Lost
}

// refusal is an errno with its name.
func refusal(e unix.Errno) string { return fmt.Sprintf("%s (%s)", unix.ErrnoName(e), e.Error()) }

// settle makes a datagram that arrived where somebody listens delivered: whether
// it is answered is up to who listens.
func settle(actual *api.Path, expected api.Path) {
	if actual.Verdict == api.Lost && expected.Verdict == api.Delivered && actual.Flow.Proto == "udp" && actual.To.NS != "" && actual.To.NS == expected.To.NS {
		actual.Verdict, actual.Reason = api.Delivered, ""
	}
}

// compare puts the two beside each other.
func compare(expected, actual api.Path) api.Probe {
	p := api.Probe{Verdict: actual.Verdict, Expected: expected, Actual: actual, FirstDifference: trace.Difference(expected, actual)}
	switch actual.Verdict {
	case api.Answered, api.Refused, api.Rejected:
		p.Answered = actual.Verdict == api.Answered
		if n := len(actual.Hops); n > 0 {
			p.RTTMicros = actual.Hops[n-1].AtMicros - actual.Hops[0].AtMicros
		}
	}
	if actual.Verdict != api.Answered && actual.Verdict != api.Delivered {
		// The walk knows reasons that cannot be seen; its advice is good where
		// both come to one end.
		if p.Fix = actual.Fix; trace.Agree(expected, actual) {
			p.Fix = expected.Fix
		}
	}
	return p
}
