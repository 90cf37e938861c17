//go:build linux

package testnet

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// Pinger sends echo requests until it is stopped, for tests of what must not
// lose a packet.
type Pinger struct {
	sock   *echoSocket
	stop   context.CancelFunc
	grace  chan time.Duration
	report chan Report
}

// Probe is one request.
type Probe struct {
	At  time.Time
	Err error // the kernel's refusal to send it
	Got bool
	RTT time.Duration // of one that was answered
}

// Report is what became of all requests, in the order they were sent.
type Report struct{ Probes []Probe }

// arrival is an answer.
type arrival struct {
	seq int
	at  time.Time
}

// EchoEvery sends a request each interval, from inside, until the Pinger is
// stopped or ctx ends. Stop must be called in either case.
func (n *NS) EchoEvery(ctx context.Context, dst netip.Addr, interval time.Duration) (*Pinger, error) {
	e, err := n.openEcho(dst)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &Pinger{sock: e, stop: cancel, grace: make(chan time.Duration, 1), report: make(chan Report, 1)}
	arrivals := make(chan arrival)
	ended := make(chan struct{})
	go e.listen(arrivals, ended)
	go func() {
		defer close(ended)
		probes := p.send(ctx, interval, arrivals)
		p.report <- await(probes, arrivals, <-p.grace)
	}()
	return p, nil
}

// Stop stops sending, waits up to grace for the answers that are still under
// way, and reports.
func (p *Pinger) Stop(grace time.Duration) Report {
	p.stop()
	p.grace <- grace
	r := <-p.report
	p.sock.close()
	return r
}

// listen passes answers on until the socket is closed or nobody waits any more.
func (e *echoSocket) listen(arrivals chan<- arrival, ended <-chan struct{}) {
	for {
		seq, err := e.receive()
		if err != nil {
			return
		}
		select {
		case arrivals <- arrival{seq, time.Now()}:
		case <-ended:
			return
		}
	}
}

// send sends until ctx ends, at once the first time, and notes answers.
func (p *Pinger) send(ctx context.Context, interval time.Duration, arrivals <-chan arrival) []Probe {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	probes := p.probe(nil)
	for {
		select {
		case <-ctx.Done():
			return probes
		case <-tick.C:
			probes = p.probe(probes)
		case a := <-arrivals:
			note(probes, a)
		}
	}
}

// probe sends the next request. Its number is its place in the list.
func (p *Pinger) probe(probes []Probe) []Probe {
	at := time.Now()
	return append(probes, Probe{At: at, Err: p.sock.send(len(probes))})
}

// await notes answers until all are there or the grace is over.
func await(probes []Probe, arrivals <-chan arrival, grace time.Duration) Report {
	r := Report{Probes: probes}
	over := time.NewTimer(grace)
	defer over.Stop()
	for len(r.Lost()) > 0 {
		select {
		case a := <-arrivals:
			note(probes, a)
		case <-over.C:
			return r
		}
	}
	return r
}

// note takes the first answer to a request.
func note(probes []Probe, a arrival) {
	if a.seq < 0 || a.seq >= len(probes) || probes[a.seq].Got {
		return
	}
	probes[a.seq].Got = true
	probes[a.seq].RTT = a.at.Sub(probes[a.seq].At)
}

// Lost returns the requests that had no answer.
func (r Report) Lost() []Probe {
	var out []Probe
	for _, p := range r.Probes {
		if !p.Got {
			out = append(out, p)
		}
	}
	return out
}

// String counts, and says when each lost request was sent.
func (r Report) String() string {
	lost := r.Lost()
	s := fmt.Sprintf("%d sent, %d lost", len(r.Probes), len(lost))
	for _, p := range lost {
		s += fmt.Sprintf("; at %s", p.At.Sub(r.Probes[0].At).Round(time.Millisecond))
		if p.Err != nil {
			s += " (" + p.Err.Error() + ")"
		}
	}
	return s
}
