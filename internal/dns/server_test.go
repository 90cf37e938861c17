package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/net/dns/dnsmessage"
)

// local4 is a port that the kernel chooses.
var local4 = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}

// attach opens sockets for a sandbox here, at one port.
func attach(t *testing.T, s *Server, sandbox string) string {
	t.Helper()
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	at := tcp.Addr().(*net.TCPAddr)
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: at.IP, Port: at.Port})
	must(t, err)
	must(t, s.Attach(sandbox, udp, tcp))
	return tcp.Addr().String()
}

// newServer is a Server that ends with the test.
func newServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	testnet.Require(t, "netns")
	s := New(cfg)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// question is a query with EDNS if size is not 0.
func question(t testing.TB, name string, typ Type, size int) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 4711, RecursionDesired: true})
	must(t, b.StartQuestions())
	must(t, b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: dnsmessage.Type(typ), Class: dnsmessage.ClassINET}))
	if size > 0 {
		must(t, b.StartAdditionals())
		var h dnsmessage.ResourceHeader
		must(t, h.SetEDNS0(size, dnsmessage.RCodeSuccess, false))
		must(t, b.OPTResource(h, dnsmessage.OPTResource{}))
	}
	msg, err := b.Finish()
	must(t, err)
	return msg
}

// dial connects a client.
func dial(t testing.TB, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return c
}

// say sends a message, with its length before it over TCP.
func say(t testing.TB, c net.Conn, msg []byte) {
	t.Helper()
	if c.LocalAddr().Network() == "tcp" {
		msg = append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
	}
	_, err := c.Write(msg)
	must(t, err)
}

// hear receives a message.
func hear(t testing.TB, c net.Conn) []byte {
	t.Helper()
	b := make([]byte, 1<<16)
	if c.LocalAddr().Network() == "tcp" {
		_, err := io.ReadFull(c, b[:2])
		must(t, err)
		n := binary.BigEndian.Uint16(b)
		_, err = io.ReadFull(c, b[:n])
		must(t, err)
		return b[:n]
	}
	n, err := c.Read(b)
	must(t, err)
	return b[:n]
}

// exchange asks and reads the answer.
func exchange(t testing.TB, c net.Conn, msg []byte) dnsmessage.Message {
	t.Helper()
	say(t, c, msg)
	raw := hear(t, c)
	var m dnsmessage.Message
	if err := m.Unpack(raw); err != nil {
		t.Fatalf("answer %x: %v", raw, err)
	}
	if m.ID != binary.BigEndian.Uint16(msg) || !m.Response {
		t.Fatalf("answer %x to %x", raw, msg)
	}
	return m
}

// data is the answers in a line.
func data(m dnsmessage.Message) string {
	var parts []string
	for _, r := range m.Answers {
		parts = append(parts, dataText(r.Body))
	}
	return strings.Join(parts, " ")
}

// resolver is an upstream on UDP and TCP that answers as a function says; nil is
// no answer.
type resolver struct {
	addr  netip.AddrPort
	asked atomic.Int32
}

func newResolver(t *testing.T, answer func(q dnsmessage.Message, tcp bool) *dnsmessage.Message) *resolver {
	t.Helper()
	testnet.Require(t, "netns")
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	r := &resolver{addr: tcp.Addr().(*net.TCPAddr).AddrPort()}
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(r.addr))
	must(t, err)
	t.Cleanup(func() { tcp.Close(); udp.Close() })
	reply := func(b []byte, tcp bool) []byte {
		var q dnsmessage.Message
		if q.Unpack(b) != nil {
			return nil
		}
		r.asked.Add(1)
		m := answer(q, tcp)
		if m == nil {
			return nil
		}
		m.ID, m.Response, m.RecursionAvailable = q.ID, true, true
		if m.Questions == nil {
			m.Questions = q.Questions
		}
		out, err := m.Pack()
		if err != nil {
			panic(err)
		}
		return out
	}
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			if out := reply(b[:n], false); out != nil {
				_, _ = udp.WriteTo(out, from)
			}
		}
	}()
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var n [2]byte
				if _, err := io.ReadFull(c, n[:]); err != nil {
					return
				}
				b := make([]byte, binary.BigEndian.Uint16(n[:]))
				if _, err := io.ReadFull(c, b); err != nil {
					return
				}
				out := reply(b, true)
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
			}()
		}
	}()
	return r
}

// gives answers A queries with an address.
func gives(addr string, ttl uint32) func(dnsmessage.Message, bool) *dnsmessage.Message {
	return func(q dnsmessage.Message, _ bool) *dnsmessage.Message {
		return &dnsmessage.Message{Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: ttl},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()},
		}}}
	}
}

// upstreams gives always the same list.
func upstreams(list ...netip.AddrPort) func() []netip.AddrPort {
	return func() []netip.AddrPort { return list }
}

// TestServe asks over both transports, for a local name and for another.
func TestServe(t *testing.T) {
	up := newResolver(t, gives("192.0.2.80", 60))
	s := newServer(t, Config{Names: world(), Upstreams: upstreams(up.addr)})
	at := attach(t, s, "web")
	for _, network := range []string{"udp", "tcp"} {
		for _, size := range []int{0, 1232} {
			c := dial(t, network, at)
			m := exchange(t, c, question(t, "Db.1.", TypeA, size))
			if data(m) != "172.21.0.3" || !m.Authoritative || m.Answers[0].Header.TTL != 5 || m.Questions[0].Name.String() != "Db.1." || len(m.Additionals) != min(size, 1) {
				t.Errorf("%s, local: %v", network, m.GoString())
			}
			m = exchange(t, c, question(t, "ExamPle.org.", TypeA, size))
			if data(m) != "192.0.2.80" || m.Questions[0].Name.String() != "ExamPle.org." {
				t.Errorf("%s, forwarded: %v", network, m.GoString())
			}
		}
	}
	st := s.Stats()["web"]
	if st.Queries != 8 || st.Local != 4 || st.Cached != 2 || st.Forwarded != 2 || up.asked.Load() != 2 {
		t.Errorf("counted %+v, asked upstream %d times", st, up.asked.Load())
	}
}

// TestDetach: nothing of the resolver holds the sockets when it returns.
func TestDetach(t *testing.T) {
	silent := newResolver(t, func(dnsmessage.Message, bool) *dnsmessage.Message { return nil })
	s := newServer(t, Config{Names: world(), Upstreams: upstreams(silent.addr)})
	at := attach(t, s, "web")
	c, conn := dial(t, "udp", at), dial(t, "tcp", at)
	exchange(t, conn, question(t, "web.", TypeA, 0))
	say(t, c, question(t, "example.org.", TypeA, 0)) // under way
	exchange(t, c, question(t, "web.", TypeA, 0))
	must(t, s.Detach("web"))
	must(t, s.Detach("web"))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read of a detached connection: %v", err)
	}
	again, err := net.Listen("tcp4", at)
	must(t, err)
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
	must(t, err)
	must(t, s.Attach("web", udp, again))
	if m := exchange(t, dial(t, "udp", at), question(t, "web.", TypeA, 0)); data(m) == "" {
		t.Errorf("attached again: %v", m.GoString())
	}
}

func TestAttachTwice(t *testing.T) {
	s := newServer(t, Config{Names: world()})
	attach(t, s, "web")
	udp, err := net.ListenUDP("udp4", local4)
	must(t, err)
	if err := s.Attach("web", udp, nil); err == nil || err.Error() != "attach resolver to sandbox web: it has sockets already" {
		t.Errorf("attach twice: %v", err)
	}
	if err := udp.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket of a failed Attach: %v", err)
	}
}

// TestResolve says who answers.
func TestResolve(t *testing.T) {
	up := newResolver(t, gives("192.0.2.80", 60))
	s := newServer(t, Config{Names: world(), Upstreams: upstreams(up.addr)})
	for _, tt := range []struct{ sandbox, name, data, why string }{
		{"web", "db.1", "172.21.0.3", "a name on network back"},
		{"web", "example.org", "192.0.2.80", "answered by " + up.addr.String()},
		{"api", "example.org", "192.0.2.80", "kept from an answer of " + up.addr.String()},
		{"safe", "example.org", "", "internal networks have local names only, and this is none"},
		{"nobody", "example.org", "", `sandbox "nobody" is not connected to a resolver`},
	} {
		res, err := s.Resolve(context.Background(), tt.sandbox, tt.name, TypeA)
		must(t, err)
		got := ""
		for _, r := range res.Records {
			got += r.Data
		}
		if got != tt.data || res.Why != tt.why {
			t.Errorf("%s, %s: %+v", tt.sandbox, tt.name, res)
		}
	}
}
