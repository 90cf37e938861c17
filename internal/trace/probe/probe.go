//go:build linux

// Package probe sends one packet and tells the path that it took beside the one
// that was expected.
package probe

import (
	"context"
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
	// which the sender is told.
	patience = 4500 * time.Millisecond
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
	if first.From.NS == "" {
		return api.Probe{}, api.Errorf(api.Unsupported, "probe from outside: a packet cannot be put in at the uplink here, which needs XDP live frames").
			WithFix("towpath explain %s %s tells the expected path; or probe from a sandbox or the host", q.From, q.To)
	}
	small := shot(q, first, 0).SmallestSize()
	switch {
	case q.Size != 0 && q.Size < small:
		return api.Probe{}, api.Errorf(api.Invalid, "probe %s to %s: the headers alone are %d bytes", q.From, q.To, small).WithFix("use --size %d, or leave it out", small)
	case q.Size != 0 && q.Connect:
		return api.Probe{}, api.Errorf(api.Invalid, "probe %s to %s: the first packet of a connection has the kernel's size", q.From, q.To).WithFix("leave --size or --connect out")
	case first.Flow.Proto == "sctp":
		return api.Probe{}, api.Errorf(api.Invalid, "probe %s to %s: cannot send sctp", q.From, q.To).WithFix("ask for tcp, udp or, without a port, ICMP; towpath explain knows sctp")
	case q.Connect && first.Flow.Proto != "tcp":
		return api.Probe{}, api.Errorf(api.Invalid, "probe %s to %s: only TCP makes connections", q.From, q.To).WithFix("give a port: %s:80", q.To)
	}
	r := &run{Config: c, q: q, files: map[string]*os.File{}}
	defer r.close()
	p, err := r.run(ctx, first)
	if err != nil {
		return api.Probe{}, fmt.Errorf("probe %s to %s: %w", q.From, q.To, err)
	}
	return p, nil
}

// run is one probe.
type run struct {
	Config
	q     api.ProbeQuery
	files map[string]*os.File
	level api.PathLevel // at which it is watched
}

func (r *run) close() {
	for _, f := range r.files {
		_ = f.Close()
	}
}

func (r *run) run(ctx context.Context, first api.Path) (api.Probe, error) {
	watched, err := r.open(first)
	if err != nil {
		return api.Probe{}, err
	}
	from := r.files[first.From.NS]
	mark, release, err := taps.Port(from, first.Flow.Dst.Is6())
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
		Level: r.q.Level, Proto: protoNumber(first.Flow.Proto), Mark: mark, V6: first.Flow.Dst.Is6(), Machine: &r.Machine.Host, Spaces: watched,
	})
	if err != nil {
		release()
		return api.Probe{}, err
	}
	defer s.Close() //nolint:errcheck // nothing of it is kept
	release()
	r.level = level
	w, err := r.watch(ctx, s, expected, mark)
	if err != nil {
		return api.Probe{}, err
	}
	actual := trace.Join(w)
	if actual.Verdict == api.Lost && r.Again != nil {
		if w.Risen, err = r.risen(ctx); err != nil {
			return api.Probe{}, err
		}
		actual = trace.Join(w)
	}
	settle(&actual, expected)
	r.Machine.Annotate(&actual)
	return compare(expected, actual), nil
}

// open opens the namespaces to watch: those of the expected path, the host, and
// as many others as may be.
func (r *run) open(p api.Path) ([]taps.Space, error) {
	names := []string{p.From.NS}
	for _, h := range p.Hops {
		names = append(names, h.NS)
	}
	out, err := taps.Spaces(&r.Machine.Host, names, r.Open)
	for _, s := range out {
		r.files[s.Name] = s.File
	}
	if err == nil && r.files[p.From.NS] == nil {
		err = api.Errorf(api.Unavailable, "namespace %s cannot be opened", p.From.NS)
	}
	return out, err
}

// watch sends the packet and hears of it until it has come to its end.
func (r *run) watch(ctx context.Context, s *taps.Session, expected api.Path, mark trace.Mark) (trace.Watch, error) {
	start := time.Now()
	sent, err := taps.Send(r.files[expected.From.NS], shot(r.q, expected, mark))
	if err != nil {
		return trace.Watch{}, err
	}
	defer sent.Close() //nolint:errcheck // nothing of it is kept
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var done time.Time
	fill := func(w *trace.Watch) {
		w.Machine, w.From, w.Mark, w.Start, w.Flow, w.Level = &r.Machine.Host, expected.From.NS, mark, start, expected.Flow, r.level
		if w.Got = sent.Got(); sent.Refusal != 0 {
			w.Refusal = refusal(sent.Refusal)
		}
	}
	w, err := s.Hear(within, start, func(w *trace.Watch) bool {
		fill(w)
		if done.IsZero() && ended(*w) {
			done = time.Now()
		}
		return !done.IsZero() && time.Since(done) > settling
	})
	fill(&w)
	return w, err
}

// shot is the packet that is asked for.
func shot(q api.ProbeQuery, p api.Path, mark trace.Mark) taps.Shot {
	o := taps.Shot{
		Proto: p.Flow.Proto, Dst: netip.AddrPortFrom(p.Flow.Dst, p.Flow.Dport), Mark: mark, Connect: q.Connect, Size: q.Size, TTL: q.TTL, Source: q.Source.Unmap(),
	}
	if o.Proto == "icmpv6" {
		o.Proto = "icmp"
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

func protoNumber(name string) uint8 {
	switch name {
	case "tcp":
		return unix.IPPROTO_TCP
	case "udp":
		return unix.IPPROTO_UDP
	case "icmpv6":
		return unix.IPPROTO_ICMPV6
	}
	return unix.IPPROTO_ICMP
}

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
