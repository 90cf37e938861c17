package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/trace"
	"github.com/towpath/towpath/internal/trace/bpf"
)

const (
	traceRounds      = 25
	quickTraceRounds = 5
	// nobody is a port that no packet of the measurement has.
	nobody = 1
)

// watching is one way to watch packets, while others are measured.
type watching struct {
	name  string
	open  func(spaces []bpf.Space) (io.Closer, error) // nil: nothing is attached
	times map[string][]float64
	began []float64 // ms that it took to load and attach it
}

// traces is what was measured of watching.
type traces struct {
	missing error // nil: it could be measured
	ways    []*watching
	hits    []hit
}

// ways are those that take turns: the first is without.
func ways() []*watching {
	open := func(c bpf.Config) func([]bpf.Space) (io.Closer, error) {
		return func(spaces []bpf.Space) (io.Closer, error) {
			c.Spaces, c.V4, c.V6 = spaces, true, c.Mark == 0
			return bpf.Open(c)
		}
	}
	return []*watching{
		{name: "nothing attached"},
		{name: "empty programs at all places", open: func(spaces []bpf.Space) (io.Closer, error) { return openEmpty(spaces) }},
		{name: "tracepoints, for other packets", open: open(bpf.Config{Mark: nobody, Proto: 6})},
		{name: "full, for other packets", open: open(bpf.Config{Mark: nobody, Proto: 6, Hooks: true})},
		{name: "full, for all that begins", open: open(bpf.Config{Hooks: true})},
	}
}

// measureTraces sends packets over a host that routes, while programs watch for
// others and while none does, in turns; and asks the kernel what a run of each
// program takes.
func measureTraces(ctx context.Context, rounds int) (t traces, err error) {
	l, _, err := newRouted(ctx)
	defer l.close()
	if err != nil {
		return t, fmt.Errorf("set up %s: %w", l.name, err)
	}
	var spaces []bpf.Space
	for i, s := range l.made {
		var st unix.Stat_t
		if err := unix.Fstat(int(s.f.Fd()), &st); err != nil {
			return t, fmt.Errorf("look at namespace of %s: %w", l.name, os.NewSyscallError("fstat", err))
		}
		spaces = append(spaces, bpf.Space{Name: fmt.Sprint(i), Inode: st.Ino, File: s.f})
	}
	s, err := bpf.Open(bpf.Config{Mark: nobody, V4: true, Hooks: true, Spaces: spaces})
	if errors.Is(err, errors.ErrUnsupported) {
		return traces{missing: err}, nil
	}
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		return t, err
	}
	t.ways = ways()
	fmt.Fprintln(os.Stderr, "bench: measuring what watching costs")
	for i := range rounds {
		var steps []func() error
		for _, w := range t.ways {
			steps = append(steps, func() error { return w.measure(l, spaces) })
		}
		if err := turns(i, steps...); err != nil {
			return t, err
		}
	}
	for range rounds {
		if err := t.count(l, spaces); err != nil {
			return t, err
		}
	}
	return t, nil
}

// measure takes one round while it is watched.
func (w *watching) measure(l *line, spaces []bpf.Space) error {
	if w.open != nil {
		now := time.Now()
		s, err := w.open(spaces)
		if err != nil {
			return fmt.Errorf("watch (%s): %w", w.name, err)
		}
		w.began = append(w.began, float64(time.Since(now).Microseconds())/1e3)
		defer s.Close() //nolint:errcheck // nothing of it is kept
		if s, ok := s.(*bpf.Session); ok {
			defer reading(s)()
		}
	}
	if w.times == nil {
		w.times = map[string][]float64{}
	}
	for kind, n := range map[string]int{request: requestsARound, connection: connsARound} {
		took, err := l.client.ask(kind, l.to, n)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		w.times[kind] = append(w.times[kind], float64(took))
	}
	return nil
}

// reading reads what is told, as who watches does, until stop is called.
func reading(s *bpf.Session) (stop func()) {
	var ended atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		fds := []unix.PollFd{{Fd: int32(s.FD()), Events: unix.POLLIN}}
		for !ended.Load() {
			_, _ = unix.Poll(fds, 10) // a signal does no harm
			if err := s.Read(time.Time{}, &trace.Watch{}, math.MaxInt); err != nil {
				return
			}
		}
	}()
	return func() { ended.Store(true); <-done }
}

// write prints the tables.
func (t traces) write(out io.Writer) error {
	if t.missing != nil {
		_, err := fmt.Fprintf(out, "watching packets: not measured, for %v\n", t.missing)
		return err
	}
	tab := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "watching packets, µs (medians)\trequest\tconnection\t/\trequest\tconnection\tms to begin\t")
	base := t.ways[0]
	for _, w := range t.ways {
		fmt.Fprintf(tab, "%s\t%.2f\t%.1f\t", w.name, median(w.times[request])/1e3, median(w.times[connection])/1e3)
		if w != base {
			fmt.Fprintf(tab, "%s\t%.2f\t%.2f\t%.0f\t", base.name, paired(w.times[request], base.times[request]), paired(w.times[connection], base.times[connection]), median(w.began))
		}
		fmt.Fprintln(tab)
	}
	fmt.Fprintln(tab)
	fmt.Fprintln(tab, "a run for another packet, ns (medians)\truns\tthe program\tan empty one\tmore\t")
	for _, h := range t.hits {
		fmt.Fprintf(tab, "%s\t%d\t%.0f\t%.0f\t%.0f\t\n", h.name, h.runs, median(h.took), median(h.empty), h.more())
	}
	if err := tab.Flush(); err != nil {
		return fmt.Errorf("write what watching costs: %w", err)
	}
	return nil
}

// paired is the median over the rounds of what one took to what the other did.
func paired(a, b []float64) float64 {
	var list []float64
	for i := range min(len(a), len(b)) {
		list = append(list, a[i]/b[i])
	}
	return median(list)
}
