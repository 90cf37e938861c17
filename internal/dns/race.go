//go:build linux

package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// DialHost reaches an upstream from the namespace of the calling thread. Each
// query has a socket of its own, so that its port is one that chance chose, and
// the kernel gives it only what comes from the upstream's address.
func DialHost(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	if network == "udp" {
		return net.DialUDP(network, nil, net.UDPAddrFromAddrPort(addr))
	}
	var d net.Dialer
	return d.DialContext(ctx, network, addr.String())
}

// race asks one question of several upstreams. It outlives the packet of the
// query, and so has all it needs of it.
type race struct {
	s       *Server
	wg      *sync.WaitGroup // of whom its goroutines belong to
	ctx     context.Context
	asked   []byte
	end     int // of the question
	size    int // of the longest answer by UDP
	results chan result
	pending int
	trying  []*try
}

// result is how a try ended.
type result struct {
	try  *try
	msg  []byte
	took time.Duration
	err  error
}

// good tells whether it is an answer that no other upstream is asked after.
func (r result) good() bool {
	if r.err != nil {
		return false
	}
	code := RCode(binary.BigEndian.Uint16(r.msg[2:]) & maskRCode)
	return code == NoError || code == NameError
}

// newRace takes what it needs of a query. All of it is passed on but the size of
// the answer, if the client takes more than there is room for here.
func (s *Server) newRace(wg *sync.WaitGroup, q *query) *race {
	r := &race{s: s, wg: wg, asked: slices.Clone(q.raw), end: q.end, size: min(q.size, maxAnswer)}
	if q.size > maxAnswer {
		binary.BigEndian.PutUint16(r.asked[q.sizeAt:], maxAnswer)
	}
	return r
}

// run asks the upstreams, the first alone for a stagger, and then one more each
// stagger, or as soon as one has failed. The first good answer wins. Of the
// others the first one is taken when nobody has a better one.
func (r *race) run(ctx context.Context, list []*upstream, along *upstream) (result, error) {
	defer r.begin(ctx, len(list)+1)()
	if along != nil {
		r.start(along)
	}
	t := r.open(list[0])
	return r.goOn(ctx, t.first(), list[1:])
}

// begin makes room for results. The race is over with the function it returns.
func (r *race) begin(ctx context.Context, tries int) (end func()) {
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithTimeout(ctx, r.s.cfg.Timeout)
	r.results = make(chan result, tries)
	return func() {
		r.settle()
		cancel()
	}
}

// start asks one more upstream in the background.
func (r *race) start(u *upstream) {
	t := r.open(u)
	r.wg.Go(func() { r.results <- t.whole() })
	r.pending++
}

// goOn goes on after the first try's stagger.
func (r *race) goOn(ctx context.Context, first result, list []*upstream) (result, error) {
	var poor result
	switch {
	case errors.Is(first.err, os.ErrDeadlineExceeded) && r.ctx.Err() == nil:
		r.wg.Go(func() { r.results <- first.try.rest() })
		r.pending++
	case r.seen(first):
		return first, nil
	default:
		poor = first
	}
	next := time.NewTimer(0)
	defer next.Stop()
	for r.pending > 0 || len(list) > 0 {
		select {
		case <-next.C:
			if len(list) > 0 {
				r.start(list[0])
				list = list[1:]
				next.Reset(r.s.cfg.Stagger)
			}
		case res := <-r.results:
			r.pending--
			if r.seen(res) {
				return res, nil
			}
			if poor.msg == nil {
				poor = res
			}
			next.Reset(0)
		}
	}
	if poor.msg == nil && ctx.Err() != nil {
		return poor, ctx.Err() // nobody waits for it any more
	}
	return poor, poor.err
}

// seen learns from a result, and tells whether it ends the race.
func (r *race) seen(res result) bool {
	t := res.try
	t.over = true
	switch {
	case res.err == nil:
		if t.u.answered(res.took) {
			r.s.cfg.Tell(Event{Sandbox: t.u.sandbox, Kind: UpstreamBack, Detail: "resolver " + t.u.String() + " answers again"})
		}
		return res.good()
	case errors.Is(r.ctx.Err(), context.Canceled):
		// Nobody waits for it any more.
	case errors.Is(res.err, os.ErrDeadlineExceeded) && res.took < fairTrial:
		t.u.outrun(res.took)
	case t.u.failed():
		r.s.cfg.Tell(Event{Sandbox: t.u.sandbox, Kind: UpstreamFailing, Detail: fmt.Sprintf("resolver %s: %v", t.u, res.err)})
	}
	return false
}

// fairTrial is how long one must have been asked to be called failing.
const fairTrial = time.Second

// settle learns from those that have answered too, and from those that are still
// being asked.
func (r *race) settle() {
	if r.ctx.Err() != nil {
		return
	}
	for len(r.results) > 0 {
		r.seen(<-r.results)
	}
	for _, t := range r.trying {
		if !t.over {
			t.u.outrun(time.Since(t.began))
		}
	}
}

// try is one upstream that is being asked.
type try struct {
	race  *race
	u     *upstream
	began time.Time
	asked []byte // the query, with an ID of its own
	conn  net.Conn
	stop  func() bool
	buf   []byte
	err   error
	over  bool // its result was seen
}

// open begins a try: it has its socket and its ID. An error is told later.
func (r *race) open(u *upstream) *try {
	t := r.newTry(u)
	t.err = t.dial("udp")
	return t
}

func (r *race) newTry(u *upstream) *try {
	t := &try{race: r, u: u, began: time.Now(), asked: slices.Clone(r.asked)}
	binary.BigEndian.PutUint16(t.asked, uint16(rand.Uint32()))
	u.begin(t.began)
	r.trying = append(r.trying, t)
	return t
}

// dial opens a socket that the end of the race wakes.
func (t *try) dial(network string) error {
	conn, err := t.race.s.dial(t.race.ctx, t.u.sandbox, network, t.u.addr)
	if err == nil {
		t.use(conn)
	}
	return err
}

func (t *try) use(conn net.Conn) {
	t.conn = conn
	t.stop = context.AfterFunc(t.race.ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
}

// hangUp closes the socket.
func (t *try) hangUp() {
	if t.conn != nil {
		t.stop()
		t.conn.Close()
		t.conn = nil
	}
}

// end makes a result. What a datagram is too small for is fetched over TCP.
func (t *try) end(msg []byte, err error) result {
	if msg != nil && truncated(msg) {
		if full, ferr := t.byStream(); ferr == nil {
			msg = full
		}
	}
	t.hangUp()
	return result{try: t, msg: msg, err: err, took: time.Since(t.began)}
}

func truncated(msg []byte) bool { return binary.BigEndian.Uint16(msg[2:])&flagTC != 0 }

// whole asks until there is an answer or the race is over.
func (t *try) whole() result {
	if t.err == nil {
		t.err = t.send()
	}
	return t.rest()
}

// first asks for a stagger. A time-out leaves the socket open, for rest.
func (t *try) first() result {
	if t.err == nil {
		t.err = t.send()
	}
	if t.err != nil {
		return t.end(nil, t.err)
	}
	msg, err := t.wait(t.began.Add(t.race.s.cfg.Stagger))
	if errors.Is(err, os.ErrDeadlineExceeded) && t.race.ctx.Err() == nil {
		return result{try: t, err: err}
	}
	return t.end(msg, err)
}

// rest waits on, and sends again: a datagram may be lost.
func (t *try) rest() result {
	for _, after := range [...]time.Duration{time.Second, 2500 * time.Millisecond} {
		if t.err != nil {
			return t.end(nil, t.err)
		}
		msg, err := t.wait(t.began.Add(after))
		if !errors.Is(err, os.ErrDeadlineExceeded) || t.race.ctx.Err() != nil {
			return t.end(msg, err)
		}
		t.err = t.send()
	}
	return t.end(t.wait(t.began.Add(t.race.s.cfg.Timeout)))
}

func (t *try) send() error {
	_, err := t.conn.Write(t.asked)
	return err
}

// wait reads until the answer comes. What does not match the question is
// somebody else's.
func (t *try) wait(until time.Time) ([]byte, error) {
	if err := t.conn.SetReadDeadline(until); err != nil {
		return nil, err
	}
	if t.race.ctx.Err() != nil {
		return nil, os.ErrDeadlineExceeded // it came before the deadline was set
	}
	if t.buf == nil {
		t.buf = make([]byte, max(t.race.size, maxQuery)) // some send more than they may
	}
	for {
		n, err := t.conn.Read(t.buf)
		if err != nil {
			return nil, err
		}
		if matches(t.buf[:n], t.asked, t.race.end) {
			return slices.Clone(t.buf[:n]), nil
		}
	}
}

// byStream asks over TCP, where a message has its length before it.
func (t *try) byStream() ([]byte, error) {
	t.hangUp()
	if err := t.dial("tcp"); err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(len(t.asked)))
	if _, err := t.conn.Write(append(b, t.asked...)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(t.conn, b[:2]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(b))
	if _, err := io.ReadFull(t.conn, msg); err != nil {
		return nil, err
	}
	if !matches(msg, t.asked, t.race.end) {
		return nil, errors.New("the answer is to another question")
	}
	return msg, nil
}
