package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// fakes are upstreams in a test with a clock of its own: no packet is sent.
type fakes struct {
	t  *testing.T
	mu sync.Mutex
	wg sync.WaitGroup
	by map[netip.AddrPort]*fake

	asked []netip.AddrPort // in this order
	told  []Event
}

// fake is an upstream that takes its time. It answers A queries with its own
// address.
type fake struct {
	delay  time.Duration // below 0: never
	ttl    uint32
	err    error // of dialling
	skip   int   // queries that get lost
	change func(m *dnsmessage.Message, network string) (again bool)
}

func newFakes(t *testing.T) *fakes { return &fakes{t: t, by: map[netip.AddrPort]*fake{}} }

// add gives an upstream the next address.
func (f *fakes) add(up *fake) netip.AddrPort {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(len(f.by) + 1)}), Port)
	f.by[addr] = up
	return addr
}

// server is a Server that asks them, in their order.
func (f *fakes) server(cfg Config) *Server {
	var list []netip.AddrPort
	for addr := range f.by {
		list = append(list, addr)
	}
	slices.SortFunc(list, netip.AddrPort.Compare)
	cfg.Names, cfg.Upstreams = world(), upstreams(list...)
	cfg.Tell = func(e Event) { f.mu.Lock(); f.told = append(f.told, e); f.mu.Unlock() }
	s := New(cfg)
	s.dial, s.direct = f.dial, false
	return s
}

func (f *fakes) dial(_ context.Context, _, network string, addr netip.AddrPort) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	up := f.by[addr]
	if network == "udp" {
		f.asked = append(f.asked, addr)
	}
	if up.err != nil {
		return nil, up.err
	}
	near, far := net.Pipe()
	f.wg.Go(func() { f.serve(up, addr, network, far) })
	return near, nil
}

// serve answers until the other end is closed.
func (f *fakes) serve(up *fake, addr netip.AddrPort, network string, c net.Conn) {
	defer c.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(b[map[string]int{"udp": 0, "tcp": 2}[network]:n]); err != nil {
			f.t.Errorf("query %x: %v", b[:n], err)
			return
		}
		m.Response, m.Additionals = true, nil
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: up.ttl},
			Body:   &dnsmessage.AResource{A: addr.Addr().As4()},
		}}
		f.mu.Lock()
		lost := up.delay < 0 || up.skip > 0
		up.skip--
		delay := up.delay
		f.mu.Unlock()
		if lost {
			continue
		}
		wait(delay)
		if !up.reply(c, m, network) {
			return
		}
	}
}

// wait lets a time of the test's clock pass.
func wait(d time.Duration) { <-time.After(d) }

// reply sends an answer, and more while change says so.
func (up *fake) reply(c net.Conn, m dnsmessage.Message, network string) bool {
	for {
		again := up.change != nil && up.change(&m, network)
		out, err := m.Pack()
		if err != nil {
			panic(err)
		}
		if network == "tcp" {
			out = append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)
		}
		if _, err := c.Write(out); err != nil {
			return !errors.Is(err, io.ErrClosedPipe)
		}
		if !again {
			return true
		}
	}
}

// ask resolves a name and says how long it took, on the test's clock.
func (f *fakes) ask(s *Server, name string) (Resolution, time.Duration) {
	f.t.Helper()
	f.mu.Lock()
	f.asked = nil
	f.mu.Unlock()
	began := time.Now()
	res, err := s.Resolve(context.Background(), "web", name, TypeA)
	must(f.t, err)
	took := time.Since(began)
	synctest.Wait()
	return res, took
}

// order is whom the last query was sent to, by the last number of the address.
func (f *fakes) order() string {
	var out []byte
	for _, a := range f.asked {
		out = append(out, '0'+a.Addr().As4()[3])
	}
	return string(out)
}

// bubble runs a test with a clock of its own.
func bubble(t *testing.T, test func(t *testing.T, f *fakes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFakes(t)
		test(t, f)
		f.wg.Wait()
	})
}

const ms = time.Millisecond

// TestDeadSlowRight: one upstream is dead, one is slow, one is right.
func TestDeadSlowRight(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		f.add(&fake{delay: -1})
		f.add(&fake{delay: 3 * time.Second})
		f.add(&fake{delay: 10 * ms, ttl: 60})
		s := f.server(Config{})
		defer s.Close()
		res, took := f.ask(s, "one.example")
		if want := 2*s.cfg.Stagger + 10*ms; took > want || res.Records[0].Data != "192.0.2.3" {
			t.Errorf("the first took %v, want %v: %+v", took, want, res)
		}
		for _, name := range []string{"two.example", "three.example"} {
			if res, took = f.ask(s, name); took != 10*ms || f.order() != "3" {
				t.Errorf("%s: took %v, asked %s: %+v", name, took, f.order(), res)
			}
		}
		wait(time.Minute) // then those that were not good are looked at again, along
		for _, want := range []string{"23", "13", "3"} {
			if _, took = f.ask(s, "later"+want+".example"); took != 10*ms || f.order() != want {
				t.Errorf("later: took %v, asked %s, want %s", took, f.order(), want)
			}
		}
	})
}

// TestRecovers: who is good again is asked first again.
func TestRecovers(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		first := &fake{err: syscall.ECONNREFUSED, delay: ms}
		f.add(first)
		f.add(&fake{delay: 20 * ms})
		s := f.server(Config{})
		defer s.Close()
		if res, took := f.ask(s, "a.example"); took != 20*ms || res.Upstream != "192.0.2.2:53" || f.order() != "12" {
			t.Errorf("took %v, asked %s: %+v", took, f.order(), res)
		}
		if _, took := f.ask(s, "b.example"); took != 20*ms || f.order() != "2" {
			t.Errorf("took %v, asked %s", took, f.order())
		}
		first.err = nil
		wait(time.Minute)
		f.ask(s, "c.example")
		if _, took := f.ask(s, "d.example"); took != ms || f.order() != "1" {
			t.Errorf("took %v, asked %s", took, f.order())
		}
		want := "[{ upstreamFailing resolver 192.0.2.1:53: connection refused} { upstreamBack resolver 192.0.2.1:53 answers again}]"
		if got := fmt.Sprint(f.told); got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	})
}

// TestAnswersThatAreNone: a server that cannot answer is no reason to wait, and
// what it said is passed on when nobody has better.
func TestAnswersThatAreNone(t *testing.T) {
	code := func(c dnsmessage.RCode) func(*dnsmessage.Message, string) bool {
		return func(m *dnsmessage.Message, _ string) bool { m.RCode, m.Answers = c, nil; return false }
	}
	bubble(t, func(t *testing.T, f *fakes) {
		f.add(&fake{delay: 5 * ms, change: code(dnsmessage.RCodeRefused)})
		f.add(&fake{delay: 5 * ms, change: code(dnsmessage.RCodeServerFailure)})
		third := &fake{delay: 5 * ms}
		f.add(third)
		s := f.server(Config{})
		defer s.Close()
		if res, took := f.ask(s, "a.example"); took != 15*ms || len(res.Records) != 1 || f.order() != "123" {
			t.Errorf("took %v, asked %s: %+v", took, f.order(), res)
		}
		third.change = code(dnsmessage.RCodeNotImplemented)
		for at, st := range s.Upstreams() {
			if st.Asked != 1 || st.Answered != 1 || st.Failed != 0 || st.Failing || st.RTT != 5*ms {
				t.Errorf("%v: %+v", at, st)
			}
		}
		if res, took := f.ask(s, "b.example"); took != 15*ms || res.Code != Refused || res.Upstream != "192.0.2.1:53" {
			t.Errorf("took %v: %+v", took, res)
		}
	})
}

// TestForgeries: an answer with another ID or question is not taken.
func TestForgeries(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		var sent int
		f.add(&fake{delay: ms, change: func(m *dnsmessage.Message, _ string) bool {
			switch sent++; sent {
			case 1:
				m.ID ^= 1
			case 2:
				m.ID ^= 1
				m.Questions[0].Name = dnsmessage.MustNewName("b.example.")
			case 3:
				m.Questions[0].Type = dnsmessage.TypeTXT
			case 4:
				m.Questions = nil
			case 5:
				m.Response = false
			default:
				m.Response = true
				m.Questions = []dnsmessage.Question{{Name: dnsmessage.MustNewName("A.Example."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
				m.Answers[0].Body = &dnsmessage.AResource{A: [4]byte{192, 0, 2, 99}}
				return false
			}
			return true
		}})
		s := f.server(Config{})
		defer s.Close()
		res, _ := f.ask(s, "a.example")
		if sent != 6 || len(res.Records) != 1 || res.Records[0].Data != "192.0.2.99" {
			t.Errorf("%d sent: %+v", sent, res)
		}
	})
}

// TestLostDatagram: it is sent again.
func TestLostDatagram(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		f.add(&fake{delay: 5 * ms, skip: 1})
		s := f.server(Config{})
		defer s.Close()
		if res, took := f.ask(s, "a.example"); took != time.Second+5*ms || len(res.Records) != 1 {
			t.Errorf("took %v: %+v", took, res)
		}
	})
}

// TestTruncated: the whole answer is fetched over TCP, and kept.
func TestTruncated(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		f.add(&fake{delay: 5 * ms, ttl: 60, change: func(m *dnsmessage.Message, network string) bool {
			if m.Truncated = network == "udp"; m.Truncated {
				m.Answers = nil
			}
			return false
		}})
		s := f.server(Config{})
		defer s.Close()
		if res, took := f.ask(s, "a.example"); took != 10*ms || len(res.Records) != 1 {
			t.Errorf("took %v: %+v", took, res)
		}
		if res, took := f.ask(s, "a.example"); took != 0 || res.Source != FromCache {
			t.Errorf("took %v: %+v", took, res)
		}
	})
}

// TestNobodyAnswers: the client hears of it before it gives up by itself.
func TestNobodyAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		f.add(&fake{delay: -1})
		f.add(&fake{delay: -1})
		s := f.server(Config{})
		defer s.Close()
		res, took := f.ask(s, "a.example")
		if took != s.cfg.Timeout || res.Code != ServerFailure || res.Source != FromNobody {
			t.Errorf("took %v: %+v", took, res)
		}
		if st := s.Upstreams()[Upstream{Addr: netip.MustParseAddrPort("192.0.2.1:53")}]; st.Asked != 1 || st.Failed != 1 || !st.Failing {
			t.Errorf("counted %+v", st)
		}
		if len(f.told) != 2 || f.told[0].Kind != UpstreamFailing {
			t.Errorf("told %v", f.told)
		}
	})
}

// TestSingleFlight: what is asked by many at once is asked upstream once.
func TestSingleFlight(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		f.add(&fake{delay: 50 * ms})
		s := f.server(Config{})
		defer s.Close()
		var wg sync.WaitGroup
		for _, name := range []string{"a.example", "A.example", "a.EXAMPLE", "a.example"} {
			wg.Go(func() {
				res, err := s.Resolve(t.Context(), "web", name, TypeA)
				must(t, err)
				if len(res.Records) != 1 || res.Records[0].Name != name {
					t.Errorf("%+v", res)
				}
			})
		}
		wg.Wait()
		if f.order() != "1" {
			t.Errorf("asked %s", f.order())
		}
	})
}

// TestCloseWhileAsking: Close does not wait for upstreams.
func TestCloseWhileAsking(t *testing.T) {
	bubble(t, func(t *testing.T, f *fakes) {
		f.add(&fake{delay: -1})
		s := f.server(Config{})
		done := make(chan Resolution)
		go func() {
			res, err := s.Resolve(t.Context(), "web", "a.example", TypeA)
			must(t, err)
			done <- res
		}()
		synctest.Wait()
		began := time.Now()
		must(t, s.Close())
		res := <-done
		if took := time.Since(began); took != 0 || res.Why != "the resolver is being closed" {
			t.Errorf("took %v: %+v", took, res)
		}
	})
}
