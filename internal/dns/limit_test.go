package dns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bucket{rate: 10}
		taken := func() (n int) {
			for b.take(time.Now()) {
				n++
			}
			return n
		}
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{0, 10}, {0, 0}, {99 * ms, 0}, {1 * ms, 1}, {500 * ms, 5}, {time.Hour, 10}} {
			wait(step.after)
			if got := taken(); got != step.want {
				t.Errorf("after %v more: %d, want %d", step.after, got, step.want)
			}
		}
		if none := (bucket{rate: -1}); !none.take(time.Now()) {
			t.Error("no limit is one")
		}
	})
}

// TestLimits: too many queries get no answer, too many that go upstream are
// refused, and that is told, once.
func TestLimits(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		f.add(&fake{delay: 50 * ms, ttl: 60})
		s := f.server(Config{Rate: 8, ForwardRate: 4, InFlight: 2})
		defer s.Close()
		k := s.newSockets("web")
		var got []string
		for _, name := range []string{"db.1.", "a.", "b.", "c.", "d.", "e.", "web.", "web.", "web.", "web."} {
			p := s.packet()
			answer, m := s.local(k, p, copy(p.in[:], question(t, name, TypeA, 1232)), false)
			if answer == nil && m != nil {
				answer = s.external(k, m, p, &stream{conn: nowhere{}})
			}
			switch {
			case answer != nil:
				got = append(got, codeOf(answer).String())
			case m != nil:
				got = append(got, "upstream")
			default:
				got = append(got, "nothing")
			}
		}
		want := "NOERROR upstream upstream REFUSED REFUSED REFUSED NOERROR NOERROR nothing nothing"
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%s, want %s", text, want)
		}
		wait(time.Second)
		if st := k.count.read(); st.Queries != 10 || st.Dropped != 2 || st.Refused != 3 || st.Forwarded != 2 || st.Local != 3 || k.flying.Load() != 0 {
			t.Errorf("counted %+v, under way %d", st, k.flying.Load())
		}
		if len(f.told) != 1 || f.told[0].Kind != LimitReached || f.told[0].Detail != "upstreams are slow: 2 queries wait for them, the most there may be" {
			t.Errorf("told %v", f.told)
		}
	})
}

// nowhere is a connection that takes all.
type nowhere struct{ net.Conn }

func (nowhere) Write(b []byte) (int, error)      { return len(b), nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }
func (nowhere) Close() error                     { return nil }

// TestFromSandbox: upstreams are asked from where the member says, those on a
// loopback address from the host; and what one sandbox was told is not told to
// others, for whom the same address may be another server.
func TestFromSandbox(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		remote := f.add(&fake{ttl: 60, delay: ms})
		loop := netip.MustParseAddrPort("127.0.0.53:53")
		f.by[loop] = &fake{ttl: 60, delay: ms}
		s := f.server(Config{})
		defer s.Close()
		var dialled []string
		s.dial = func(ctx context.Context, sandbox, network string, addr netip.AddrPort) (net.Conn, error) {
			dialled = append(dialled, sandbox+" "+addr.String())
			return f.dial(ctx, sandbox, network, addr)
		}
		for _, name := range []string{"web", "api", "Db.1"} {
			m := map[string]Member{"web": web(), "api": api(), "Db.1": db()}[name]
			m.FromSandbox = name != "Db.1"
			m.Upstreams = []netip.AddrPort{loop, remote}
			s.cfg.Names.Put(m)
			s.open[name] = s.newSockets(name)
		}
		f.by[loop].delay = -1
		for _, name := range []string{"web", "api", "Db.1", "web"} {
			_, err := s.Resolve(t.Context(), name, "a.example", TypeA)
			must(t, err)
		}
		want := " 127.0.0.53:53, web 192.0.2.1:53, api 192.0.2.1:53,  192.0.2.1:53"
		if got := strings.Join(dialled, ", "); got != want {
			t.Errorf("dialled %q, want %q", got, want)
		}
		f.by[remote].delay = -1
		asking := make(chan Resolution)
		go func() {
			res, err := s.Resolve(t.Context(), "web", "b.example", TypeA)
			must(t, err)
			asking <- res
		}()
		synctest.Wait()
		began := time.Now()
		must(t, s.Detach("web")) // does not leave a socket behind in the sandbox
		if res := <-asking; time.Since(began) != 0 || res.Code != ServerFailure {
			t.Errorf("after %v: %+v", time.Since(began), res)
		}
		if _, err := s.Resolve(t.Context(), "web", "c.example", TypeA); !errors.Is(err, net.ErrClosed) {
			t.Errorf("from a sandbox that is gone: %v", err)
		}
	})
}

// TestStreams: a connection may ask much, one after the other or at once; one
// that sends what is no query is closed.
func TestStreams(t *testing.T) {
	slow := newResolver(t, gives("192.0.2.80", 0))
	s := newServer(t, Config{Names: world(), Upstreams: upstreams(slow.addr)})
	at := attach(t, s, "web")
	c := dial(t, "tcp", at)
	for range 3 {
		say(t, c, question(t, "example.org.", TypeA, 1232))
		say(t, c, question(t, "db.1.", TypeA, 0))
	}
	seen := map[string]int{}
	for range 6 {
		var m dnsmessage.Message
		must(t, m.Unpack(hear(t, c)))
		seen[data(m)]++
	}
	if seen["192.0.2.80"] != 3 || seen["172.21.0.3"] != 3 {
		t.Errorf("answers %v", seen)
	}
	for name, bad := range map[string][]byte{
		"an answer": {0, 12, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"too short": {0, 3, 1, 2, 3},
		"nothing":   {0, 0},
	} {
		c := dial(t, "tcp", at)
		_, err := c.Write(bad)
		must(t, err)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := dial(t, "tcp", at)
	say(t, long, make([]byte, 5000))
	var m dnsmessage.Message
	must(t, m.Unpack(hear(t, long)))
	if m.RCode != dnsmessage.RCodeFormatError {
		t.Errorf("a query of 5000 bytes: %v", m.GoString())
	}
}

// TestManyStreams: what is too much is closed, and those that are there go on.
func TestManyStreams(t *testing.T) {
	s := newServer(t, Config{Names: world()})
	at := attach(t, s, "web")
	first := dial(t, "tcp", at)
	exchange(t, first, question(t, "web.", TypeA, 0))
	var wg sync.WaitGroup
	closed := make(chan bool, 2*maxConns)
	for range 2 * maxConns {
		c := dial(t, "tcp", at)
		wg.Go(func() {
			_, err := c.Write(append([]byte{0, 33}, question(t, "web.towpath.internal.", TypeA, 0)[:33]...))
			b := make([]byte, 512)
			_, rerr := c.Read(b)
			closed <- err != nil || rerr != nil
		})
	}
	wg.Wait()
	n := 0
	for range 2 * maxConns {
		if <-closed {
			n++
		}
	}
	if n != maxConns+1 {
		t.Errorf("%d of %d were closed, want %d", n, 2*maxConns, maxConns+1)
	}
	exchange(t, first, question(t, "web.", TypeA, 0))
}

// TestStreamToUpstreamWithoutTCP: the answer that is not whole is no answer.
func TestStreamToUpstreamWithoutTCP(t *testing.T) {
	up := newResolver(t, func(_ dnsmessage.Message, tcp bool) *dnsmessage.Message {
		if tcp {
			return nil
		}
		return &dnsmessage.Message{Header: dnsmessage.Header{Truncated: true}}
	})
	s := newServer(t, Config{Names: world(), Upstreams: upstreams(up.addr)})
	at := attach(t, s, "web")
	if m := exchange(t, dial(t, "udp", at), question(t, "example.org.", TypeA, 65535)); !m.Truncated {
		t.Errorf("over UDP: %v", m.GoString())
	}
	if m := exchange(t, dial(t, "tcp", at), question(t, "example.org.", TypeA, 1232)); m.RCode != dnsmessage.RCodeServerFailure || m.Truncated {
		t.Errorf("over TCP: %v", m.GoString())
	}
}

// TestLongAnswer: what UDP is too small for comes over TCP, whole.
func TestLongAnswer(t *testing.T) {
	up := newResolver(t, func(q dnsmessage.Message, tcp bool) *dnsmessage.Message {
		if !tcp {
			return &dnsmessage.Message{Header: dnsmessage.Header{Truncated: true}}
		}
		m := gives("192.0.2.80", 60)(q, tcp)
		for range 999 {
			m.Answers = append(m.Answers, m.Answers[0])
		}
		return m
	})
	s := newServer(t, Config{Names: world(), Upstreams: upstreams(up.addr)})
	at := attach(t, s, "web")
	for range 2 { // from upstream and from the cache
		if m := exchange(t, dial(t, "udp", at), question(t, "example.org.", TypeA, 1232)); !m.Truncated || len(m.Answers) != 0 {
			t.Errorf("over UDP: truncated %t, %d answers", m.Truncated, len(m.Answers))
		}
		if m := exchange(t, dial(t, "tcp", at), question(t, "example.org.", TypeA, 0)); len(m.Answers) != 1000 {
			t.Errorf("over TCP: %d answers", len(m.Answers))
		}
	}
}
