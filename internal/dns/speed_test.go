package dns

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/net/dns/dnsmessage"
)

// thousand is a sandbox and a thousand names on its network.
func thousand() *Names {
	n := NewNames()
	for i := range 1000 {
		n.Put(Member{Sandbox: fmt.Sprint("w", i), Attachments: []Attachment{{Network: "net", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}}}})
	}
	return n
}

// hot is a server, the sockets of w0 and a way to answer a query without the
// kernel.
func hot(t testing.TB) (*Server, func(query []byte) []byte) {
	t.Helper()
	s := New(Config{Names: thousand(), Rate: -1, Upstreams: upstreams(netip.MustParseAddrPort("192.0.2.1:53"))})
	t.Cleanup(func() { s.Close() })
	k := s.newSockets("w0")
	p := s.packet()
	return s, func(query []byte) []byte {
		answer, m := s.local(k, p, copy(p.in[:], query), false)
		if answer == nil && m != nil {
			answer = s.external(k, m, p, nil)
		}
		return answer
	}
}

// keep puts an answer for a name into the cache, as if an upstream had given it.
func keep(t testing.TB, s *Server, name string) []byte {
	t.Helper()
	q := question(t, name, TypeA, 1232)
	var p packet
	p.q.parse(p.in[:copy(p.in[:], q)], false)
	m := gives("192.0.2.80", 3600)(dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}, false)
	m.Response, m.Questions = true, []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}
	msg, err := m.Pack()
	must(t, err)
	sc := s.scope(s.cfg.Names.sandboxes["w0"])
	s.cache.put(string(appendKey(nil, sc.id, &p.q)), msg, sc.list[0], time.Now())
	return q
}

// TestHotPathDoesNotAllocate: neither for a local name nor for one in the cache.
func TestHotPathDoesNotAllocate(t *testing.T) {
	s, answer := hot(t)
	queries := map[string][]byte{"local": question(t, "w500.net.", TypeA, 1232), "no such family": question(t, "w500.", TypeAAAA, 0), "kept": keep(t, s, "www.example.org.")}
	for name, q := range queries {
		if answer(q) == nil {
			t.Errorf("%s: no answer", name)
		}
		if n := testing.AllocsPerRun(1000, func() { answer(q) }); n != 0 {
			t.Errorf("%s: %v allocations a query", name, n)
		}
	}
}

func BenchmarkLocal(b *testing.B) {
	_, answer := hot(b)
	q := question(b, "w500.", TypeA, 1232)
	b.ReportAllocs()
	for b.Loop() {
		answer(q)
	}
}

func BenchmarkKept(b *testing.B) {
	s, answer := hot(b)
	q := keep(b, s, "www.example.org.")
	b.ReportAllocs()
	for b.Loop() {
		answer(q)
	}
}

// BenchmarkPut shows that a change costs the same among few and among many.
func BenchmarkPut(b *testing.B) {
	for _, population := range []int{10, 10000} {
		b.Run(fmt.Sprint(population), func(b *testing.B) {
			n := crowd(population)
			m := web()
			m.Attachments[0].Network, m.Attachments[0].Aliases = "net", []string{"all"}
			for b.Loop() {
				n.Put(m)
				n.Drop("web")
			}
		})
	}
}

// BenchmarkParse is the reading of a query by hand, beside that by a library.
func BenchmarkParse(b *testing.B) {
	msg := question(b, "w500.front.towpath.internal.", TypeA, 1232)
	b.Run("hand", func(b *testing.B) {
		var q query
		b.ReportAllocs()
		for b.Loop() {
			if v, _ := q.parse(msg, false); v != accept {
				b.Fatal("refused")
			}
		}
	})
	b.Run("dnsmessage", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var p dnsmessage.Parser
			if _, err := p.Start(msg); err != nil {
				b.Fatal(err)
			}
			if _, err := p.Question(); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkForward asks an upstream of this process for names that are not kept.
func BenchmarkForward(b *testing.B) {
	testnet.Require(b, "netns")
	udp, err := net.ListenUDP("udp4", local4)
	must(b, err)
	defer udp.Close()
	go func() {
		m := make([]byte, 1024)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(m)
			if err != nil {
				return
			}
			m[2] |= 0x80
			_, _ = udp.WriteToUDPAddrPort(m[:n], from)
		}
	}()
	s, _ := hot(b)
	s.cfg.Upstreams = upstreams(udp.LocalAddr().(*net.UDPAddr).AddrPort())
	sc := s.scope(s.cfg.Names.sandboxes["w0"])
	var p packet
	q := question(b, "a00000000.example.org.", TypeA, 0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n := copy(p.in[:], q)
		for at, v := 21, i; at > 13; at-- {
			p.in[at] = '0' + byte(v%10)
			v /= 10
		}
		p.q.parse(p.in[:n], false)
		p.key = appendKey(p.key[:0], sc.id, &p.q)
		if out := s.obtain(s.ctx, &s.wg, sc, &p.q, p.key); out.msg == nil {
			b.Fatal(out.err)
		}
	}
}
