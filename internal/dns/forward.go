//go:build linux

package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"
)

// maxKey is the room for a key of the cache.
const maxKey = 8 + 3 + maxName

// staleWait is how long upstreams have when there is an old answer at hand (RFC
// 8767, section 5).
const staleWait = 1800 * time.Millisecond

// external answers from the cache, or passes the query on and returns nothing:
// then the packet is in other hands.
func (s *Server) external(k *sockets, m *member, p *packet, c *stream) []byte {
	now, q := time.Now(), &p.q
	sc := s.scope(m)
	p.key = appendKey(p.key[:0], sc.id, q)
	if q.plain {
		if e := s.cache.get(p.key, now); e != nil && now.Before(e.expires) {
			k.count.cached.Add(1)
			return k.told(outcome{msg: e.msg, kept: e}.write(p.out, q, now))
		}
	}
	switch {
	case len(sc.list) == 0:
		k.count.failed.Add(1)
		return refusal(p.out, q, ServerFailure, noUpstream())
	case !k.depart(now):
		k.count.refused.Add(1)
		return refusal(p.out, q, Refused, overLimit())
	}
	k.count.forwarded.Add(1)
	if c == nil && s.swift(k, sc, p) {
		return nil
	}
	ctx, wg := s.owner(k, sc)
	wg.Go(func() { k.deliver(p, c, s.obtain(ctx, wg, sc, q, p.key)) })
	return nil
}

// deliver answers a query with what came of asking, and is done with its packet.
func (k *sockets) deliver(p *packet, c *stream, out outcome) {
	k.counted(out)
	p.out = k.told(out.write(p.out, &p.q, time.Now()))
	if c != nil {
		c.write(p.out)
	} else {
		k.reply(p.out, &p.from)
	}
	k.flying.Add(-1)
	k.s.release(p)
}

// depart takes one of the places for queries that are under way upstream.
func (k *sockets) depart(now time.Time) bool {
	if !k.forward.take(now) {
		k.limited("queries that go upstream are limited to %d a second", k.forward.rate)
		return false
	}
	if k.flying.Add(1) > int32(k.s.cfg.InFlight) {
		k.flying.Add(-1)
		k.limited("upstreams are slow: %d queries wait for them, the most there may be", k.s.cfg.InFlight)
		return false
	}
	return true
}

// owner says on whose behalf upstreams are asked: what is asked from a sandbox
// ends with it, for its sockets keep the namespace; the rest is shared by all.
func (s *Server) owner(k *sockets, sc *scope) (context.Context, *sync.WaitGroup) {
	if sc.sandbox != "" {
		return k.ctx, &k.wg
	}
	return s.ctx, &s.wg
}

// outcome is what came of asking.
type outcome struct {
	msg  []byte    // an upstream's, or none
	kept *kept     // when it comes from the cache
	from *upstream // when it does not
	code RCode     // when there is none
	why  reason
	err  error
}

// obtain asks upstreams. Equal queries at one time are asked once.
func (s *Server) obtain(ctx context.Context, wg *sync.WaitGroup, sc *scope, q *query, key []byte) outcome {
	if !q.plain {
		return s.fetch(ctx, wg, sc, q, nil)
	}
	f, first := s.flights.join(key)
	if !first {
		select {
		case <-f.landed:
			return f.out
		case <-ctx.Done():
			return failure(ctx.Err())
		}
	}
	f.out = s.fetch(ctx, wg, sc, q, key)
	s.flights.land(f, key)
	return f.out
}

// failure is the outcome when nobody answered.
func failure(err error) outcome { return outcome{code: ServerFailure, why: unreachable(), err: err} }

// fetch asks upstreams. An old answer is better than none, and than a long wait.
func (s *Server) fetch(ctx context.Context, wg *sync.WaitGroup, sc *scope, q *query, key []byte) outcome {
	now := time.Now()
	var stale *kept
	if key != nil {
		if stale = s.cache.get(key, now); stale != nil && now.Before(stale.expires) {
			return outcome{msg: stale.msg, kept: stale} // it came since we looked
		}
	}
	list, along, down := sc.order(now, s.cfg.Stagger)
	r, name := s.newRace(wg, q), string(key)
	ask := func() outcome { return s.keep(name)(r.run(ctx, list, along)) }
	if stale == nil {
		return ask()
	}
	old := outcome{msg: stale.msg, kept: stale}
	if down && !sc.retry(now) {
		return old
	}
	fresh := make(chan outcome, 1)
	wg.Go(func() { fresh <- ask() })
	if down {
		return old
	}
	patience := time.NewTimer(staleWait)
	defer patience.Stop()
	select {
	case out := <-fresh:
		if out.msg != nil && codeOf(out.msg) != ServerFailure {
			return out
		}
	case <-patience.C:
	}
	return old
}

// keep gives what makes an outcome of a result, and keeps it under a key, if it
// has one.
func (s *Server) keep(key string) func(result, error) outcome {
	return func(res result, err error) outcome {
		if err != nil {
			return failure(err)
		}
		if key != "" {
			res.msg = withoutHop(res.msg)
			s.cache.put(key, res.msg, res.try.u, time.Now())
		}
		return outcome{msg: res.msg, from: res.try.u}
	}
}

func codeOf(msg []byte) RCode { return RCode(binary.BigEndian.Uint16(msg[2:]) & maskRCode) }

// write makes the answer to this very query of what is anybody's.
func (o outcome) write(dst []byte, q *query, now time.Time) []byte {
	if o.msg == nil {
		return refusal(dst, q, o.code, o.why)
	}
	if q.stream && truncated(o.msg) {
		return refusal(dst, q, ServerFailure, tooLong())
	}
	if len(o.msg) > q.limit() {
		var r reply
		r.begin(dst, q, flagTC|flagRA, codeOf(o.msg))
		return r.end(codeOf(o.msg), reason{})
	}
	dst = append(dst[:0], o.msg...)
	if o.kept != nil {
		o.kept.age(dst, now)
	}
	copy(dst, q.raw[:2])
	if len(dst) >= q.end && dst[5] == 1 {
		copy(dst[headerLen:q.end], q.raw[headerLen:q.end]) // letters in the client's case
	}
	return dst
}

// told counts an answer that is not there.
func (k *sockets) told(answer []byte) []byte {
	if codeOf(answer) == NameError {
		k.count.nxdomain.Add(1)
	}
	return answer
}

// counted counts how asking went.
func (k *sockets) counted(o outcome) {
	switch {
	case o.kept != nil && !time.Now().Before(o.kept.expires):
		k.count.stale.Add(1)
	case o.msg == nil:
		k.count.failed.Add(1)
		if errors.Is(o.err, os.ErrDeadlineExceeded) || errors.Is(o.err, context.DeadlineExceeded) {
			k.count.timedOut.Add(1)
		}
	}
}

// flights are the queries that are under way, so that the same is not asked
// twice at a time.
type flights struct {
	mu    sync.Mutex
	under map[string]*flight
}

// flight is one of them.
type flight struct {
	landed chan struct{}
	out    outcome // when landed
}

// join gives the flight of a key, and tells whether it is new, and so the
// caller's to end.
func (fs *flights) join(key []byte) (f *flight, first bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.under[string(key)]; f != nil {
		return f, false
	}
	f = &flight{landed: make(chan struct{})}
	fs.under[string(key)] = f
	return f, true
}

// land ends a flight.
func (fs *flights) land(f *flight, key []byte) {
	fs.mu.Lock()
	delete(fs.under, string(key))
	fs.mu.Unlock()
	close(f.landed)
}
