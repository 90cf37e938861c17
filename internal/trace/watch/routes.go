//go:build linux

package watch

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/trace"
)

const (
	// askedEach is how many questions a second are asked at most, and answerWithin how
	// long all answers to those of one path are waited for.
	askedEach    = 500
	answerWithin = 200 * time.Millisecond
)

// Routes asks the kernel how it routes packets, in the namespaces of a machine. It
// is for one goroutine.
type Routes struct {
	machine *machine.Host
	open    func(*machine.Space) (*os.File, error)
	buffers rt.Buffers
	conns   map[string]*rt.Conn // nil: it cannot be asked
	asked   int
	since   time.Time
}

// NewRoutes asks in namespaces of the machine, each of which open opens.
func NewRoutes(m *machine.Host, open func(*machine.Space) (*os.File, error)) *Routes {
	return &Routes{machine: m, open: open, conns: map[string]*rt.Conn{}}
}

// Close ends it.
func (r *Routes) Close() error {
	var errs []error
	for _, c := range r.conns {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	r.conns = nil
	return errors.Join(errs...)
}

// Ask gives the answers that it gets: a namespace may be gone, and too many
// questions are not asked.
func (r *Routes) Ask(ctx context.Context, list []trace.Question) []trace.Routed {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var out []trace.Routed
	for _, q := range list {
		if time.Since(r.since) > time.Second {
			r.since, r.asked = time.Now(), 0
		}
		if r.asked++; r.asked > askedEach {
			return out
		}
		if a, ok := r.ask(ctx, q); ok {
			out = append(out, a)
		}
	}
	return out
}

func (r *Routes) ask(ctx context.Context, q trace.Question) (trace.Routed, bool) {
	sp := r.machine.Space(q.Space)
	if sp == nil {
		return trace.Routed{}, false
	}
	l := rt.Lookup{Dst: q.Flow.Dst, Src: q.Flow.Src, Proto: Protocol(q.Flow.Proto), Sport: q.Flow.Sport, Dport: q.Flow.Dport}
	if q.In != "" {
		in := sp.Link(q.In)
		if in == nil {
			return trace.Routed{}, false
		}
		l.IIF = in.Index
	}
	c := r.conn(sp)
	if c == nil {
		return trace.Routed{}, false
	}
	answer, err := c.Route(ctx, l)
	out := trace.Routed{Question: q, Route: machine.Route{Via: answer.Gateway, Table: answer.Table}}
	if err != nil {
		out.Refusal = unix.ErrnoName(rt.Refusal(err))
		return out, out.Refusal != ""
	}
	i := slices.IndexFunc(sp.Links, func(l machine.Link) bool { return l.Index == answer.OIF })
	if i < 0 {
		return out, false
	}
	out.Dev = sp.Links[i].Name
	return out, true
}

// conn is the connection to a namespace; nil: there is none.
func (r *Routes) conn(sp *machine.Space) *rt.Conn {
	if c, known := r.conns[sp.Name]; known {
		return c
	}
	r.conns[sp.Name] = nil
	f, err := r.open(sp)
	if err != nil {
		return nil
	}
	defer f.Close()
	if c, err := rt.DialWith(int(f.Fd()), &r.buffers); err == nil {
		r.conns[sp.Name] = c
	}
	return r.conns[sp.Name]
}

// Protocol is the number of a protocol of packets that are watched for; 0: of none.
func Protocol(name string) uint8 {
	switch name {
	case "tcp":
		return unix.IPPROTO_TCP
	case "udp":
		return unix.IPPROTO_UDP
	case "icmp":
		return unix.IPPROTO_ICMP
	case "icmpv6":
		return unix.IPPROTO_ICMPV6
	}
	return 0
}
