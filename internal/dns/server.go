//go:build linux

package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Server is made of. Only Names must be set.
type Config struct {
	Names *Names
	// Upstreams gives the host's resolvers, best first. It is called for each
	// query that needs them, and has to be quick.
	Upstreams func() []netip.AddrPort
	// Dial reaches an upstream over "udp" or "tcp" from the namespace of a sandbox.
	// Those that are asked from the host are reached from the namespace of the
	// process. It may be nil if no Member has FromSandbox.
	Dial func(ctx context.Context, sandbox, network string, addr netip.AddrPort) (net.Conn, error)

	TTL     time.Duration // of local names; default 5 s, negative: 0
	Stagger time.Duration // until the next upstream is asked as well; default 100 ms
	Timeout time.Duration // until a query has failed; default 4.5 s, less than clients wait
	Cache   int           // bytes of answers that are kept; default 4 MiB, negative: none

	Rate        int // queries a second of one sandbox; default 200 000
	ForwardRate int // of them, what may go upstream; default 20 000
	InFlight    int // of one sandbox, under way upstream at once; default 512

	Tell func(Event) // hears of what is worth an event; may be nil
	Log  *slog.Logger
}

// Event is something that a user may want to know.
type Event struct {
	Sandbox string // "" when it is about all
	Kind    EventKind
	Detail  string
}

// EventKind is a kind of Event.
type EventKind string

// The kinds of events.
const (
	UpstreamFailing EventKind = "upstreamFailing" // it did not answer
	UpstreamBack    EventKind = "upstreamBack"
	UpstreamsNew    EventKind = "upstreamsChanged" // of the host
	LimitReached    EventKind = "limitReached"     // told once a minute and sandbox
)

// defaults fills in what is not set.
func (c Config) defaults() Config {
	c.TTL = max(cmp.Or(c.TTL, 5*time.Second), 0)
	c.Stagger = cmp.Or(c.Stagger, 100*time.Millisecond)
	c.Timeout = cmp.Or(c.Timeout, 4500*time.Millisecond)
	c.Cache = max(cmp.Or(c.Cache, 4<<20), 0)
	c.Rate = cmp.Or(c.Rate, 200_000)
	c.ForwardRate = cmp.Or(c.ForwardRate, 20_000)
	c.InFlight = cmp.Or(c.InFlight, 512)
	if c.Upstreams == nil {
		c.Upstreams = func() []netip.AddrPort { return nil }
	}
	if c.Dial == nil {
		c.Dial = func(_ context.Context, sandbox, _ string, _ netip.AddrPort) (net.Conn, error) {
			return nil, fmt.Errorf("no way into sandbox %s", sandbox)
		}
	}
	if c.Tell == nil {
		c.Tell = func(Event) {}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Server answers the queries of sandboxes. Its methods may be called
// concurrently.
type Server struct {
	cfg     Config
	ttl     uint32
	ctx     context.Context // of the queries on behalf of all
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	packets sync.Pool

	// dial is Config.Dial with the host; direct tells that a socket for the host
	// may be opened without it.
	dial   func(ctx context.Context, sandbox, network string, addr netip.AddrPort) (net.Conn, error)
	direct bool

	cache   *cache
	seed    maphash.Seed
	host    atomic.Pointer[scope] // of those who ask the host's upstreams
	flights flights
	polls   []*poller // from the first Attach on

	mu        sync.Mutex
	open      map[string]*sockets
	upstreams map[Upstream]*upstream
	attached  int // so many times
	closed    bool
}

// New gives a Server without sockets.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg.defaults(), open: map[string]*sockets{}, upstreams: map[Upstream]*upstream{}, seed: maphash.MakeSeed()}
	s.cache, s.flights.under = newCache(s.cfg.Cache), map[string]*flight{}
	s.direct, s.dial = true, func(ctx context.Context, sandbox, network string, addr netip.AddrPort) (net.Conn, error) {
		if sandbox == "" {
			return DialHost(ctx, network, addr)
		}
		return s.cfg.Dial(ctx, sandbox, network, addr)
	}
	s.ttl = uint32(s.cfg.TTL / time.Second)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.packets.New = func() any { return &packet{out: make([]byte, 0, maxAnswer), key: make([]byte, 0, maxKey)} }
	return s
}

// Attach answers on sockets that were opened in a sandbox, of which either may
// be nil. They belong to the Server from now on, also when this fails.
func (s *Server) Attach(sandbox string, udp *net.UDPConn, tcp net.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.attach(sandbox, udp, tcp)
	// The Server has copies, outside of the runtime's poller.
	if err = errors.Join(err, closeBoth(udp, tcp)); err != nil {
		return fmt.Errorf("attach resolver to sandbox %s: %w", sandbox, err)
	}
	return nil
}

func (s *Server) attach(sandbox string, udp *net.UDPConn, tcp net.Listener) (err error) {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.open[sandbox] != nil:
		return errors.New("it has sockets already")
	case s.polls == nil:
		if s.polls, err = newPollers(); err != nil {
			return err
		}
	}
	k := s.newSockets(sandbox)
	k.poll = s.polls[s.attached%len(s.polls)]
	s.attached++
	if err := k.open(udp, tcp); err != nil {
		return errors.Join(err, k.close())
	}
	s.open[sandbox] = k
	return nil
}

// closeBoth closes what there is.
func closeBoth(udp *net.UDPConn, tcp net.Listener) error {
	var errs []error
	if udp != nil {
		errs = append(errs, udp.Close())
	}
	if tcp != nil {
		errs = append(errs, tcp.Close())
	}
	return errors.Join(errs...)
}

// Detach closes a sandbox's sockets. When it returns, nothing of the Server
// keeps the sandbox's namespace. One that is not attached is no error.
func (s *Server) Detach(sandbox string) error {
	s.mu.Lock()
	k := s.open[sandbox]
	delete(s.open, sandbox)
	s.mu.Unlock()
	if k == nil {
		return nil
	}
	err := k.close()
	s.forget(sandbox)
	if err != nil {
		return fmt.Errorf("detach resolver from sandbox %s: %w", sandbox, err)
	}
	return nil
}

// Attached tells whether a sandbox has sockets here.
func (s *Server) Attached(sandbox string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[sandbox] != nil
}

// Close detaches all and ends the queries that are under way.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	open := s.open
	s.open = map[string]*sockets{}
	s.mu.Unlock()
	s.cancel()
	var errs []error
	for _, k := range open {
		errs = append(errs, k.close())
	}
	s.wg.Wait()
	for _, p := range s.polls {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// packet is a query and room for its answer. Packets are in use only while
// there is a query to answer: a sandbox that is silent has none.
type packet struct {
	in   [maxQuery + 1]byte
	out  []byte
	q    query
	key  []byte // in the cache
	from peer
}

func (s *Server) packet() *packet { return s.packets.Get().(*packet) }

func (s *Server) release(p *packet) {
	if cap(p.out) > maxAnswer {
		return // one answer over TCP is no reason to keep 64 kB
	}
	s.packets.Put(p)
}

// local answers what needs no upstream: bad packets, and local names. A query
// that is left has the member that asks.
func (s *Server) local(k *sockets, p *packet, size int, stream bool) (answer []byte, m *member) {
	k.count.queries.Add(1)
	if !k.all.take(time.Now()) {
		k.count.dropped.Add(1)
		k.limited("queries are limited to %d a second", s.cfg.Rate)
		return nil, nil
	}
	q := &p.q
	if size > maxQuery {
		size = headerLen // enough to say so
	}
	v, code := q.parse(p.in[:size], stream)
	if v != accept {
		k.count.bad.Add(1)
		if v == silence {
			return nil, nil
		}
		return refusal(p.out, q, code, reason{}), nil
	}
	names := s.cfg.Names
	names.mu.RLock()
	m = names.sandboxes[k.sandbox]
	if m != nil {
		if found := names.match(m, q.key(), q.qtype); found.kind != nobody {
			answer = names.answer(p.out, q, &found, s.ttl, rand.Uint32())
		}
	}
	names.mu.RUnlock()
	switch {
	case answer != nil:
		k.count.local.Add(1)
	case m == nil:
		answer = refusal(p.out, q, ServerFailure, unknownSandbox())
	case !m.external:
		k.count.internal.Add(1)
		answer = refusal(p.out, q, NameError, onlyLocal())
	}
	return answer, m
}

// Reasons as extended errors, RFC 8914.
func unknownSandbox() reason { return reason{14 + 1, "sandbox is not connected yet"} }        // Not Ready
func onlyLocal() reason      { return reason{18 + 1, "internal networks: local names only"} } // Prohibited
func overLimit() reason      { return reason{18 + 1, "too many queries of this sandbox"} }
func unreachable() reason    { return reason{22 + 1, "no upstream resolver answers"} }                 // No Reachable Authority
func tooLong() reason        { return reason{23 + 1, "upstream has a long answer and speaks no TCP"} } // Network Error
func noUpstream() reason     { return reason{22 + 1, "no upstream resolver is known"} }
