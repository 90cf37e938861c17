package e2e

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/towpath/towpath/internal/testnet"
)

// nameServer is a DNS server that knows example.org, and big.example.org, which
// does not fit into a datagram.
type nameServer struct {
	asked atomic.Int64
}

// serveNames runs one on port 53 of an address, until the test ends.
func serveNames(w *world, ns *testnet.NS, addr netip.Addr) *nameServer {
	w.Helper()
	s := &nameServer{}
	at := netip.AddrPortFrom(addr, 53)
	udp, tcp := ns.ListenUDP(w, at), ns.ListenTCP(w, at)
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		b := make([]byte, 4096)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if out := s.answer(b[:n], false); out != nil {
				_, _ = udp.WriteToUDPAddrPort(out, from)
			}
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			s.stream(c)
		}
	}()
	w.Cleanup(func() {
		udp.Close()
		tcp.Close()
		<-done
		<-done
	})
	return s
}

// stream answers one query over TCP.
func (s *nameServer) stream(c net.Conn) {
	defer c.Close()
	b := make([]byte, 4096)
	n := 0
	for n < 2 || n < 2+int(b[0])<<8+int(b[1]) {
		m, err := c.Read(b[n:])
		if err != nil {
			return
		}
		n += m
	}
	if out := s.answer(b[2:n], true); out != nil {
		_, _ = c.Write(append([]byte{byte(len(out) >> 8), byte(len(out))}, out...))
	}
}

func (s *nameServer) answer(query []byte, stream bool) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	s.asked.Add(1)
	name := strings.ToLower(q.Name.String())
	out := dnsmessage.Header{ID: h.ID, Response: true, RecursionDesired: h.RecursionDesired, RecursionAvailable: true}
	big := name == "big.example.org."
	if name != "example.org." && !big {
		out.RCode = dnsmessage.RCodeNameError
	}
	out.Truncated = big && !stream
	b := dnsmessage.NewBuilder(nil, out)
	_ = b.StartQuestions()
	_ = b.Question(q)
	_ = b.StartAnswers()
	rr := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}
	switch {
	case out.RCode != dnsmessage.RCodeSuccess || out.Truncated:
	case big && q.Type == dnsmessage.TypeTXT:
		for range 20 {
			_ = b.TXTResource(rr, dnsmessage.TXTResource{TXT: []string{strings.Repeat("x", 200)}})
		}
	case q.Type == dnsmessage.TypeA:
		_ = b.AResource(rr, dnsmessage.AResource{A: [4]byte{198, 51, 100, 7}})
	case q.Type == dnsmessage.TypeAAAA:
		_ = b.AAAAResource(rr, dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::7").As16()})
	}
	msg, err := b.Finish()
	if err != nil {
		return nil
	}
	return msg
}

// asks sends one query from a namespace to a server over UDP, and gives the
// addresses of its answer, and its code. Without an answer the error is of ctx.
func asks(ctx context.Context, ns *testnet.NS, server netip.AddrPort, name string, t dnsmessage.Type) ([]netip.Addr, dnsmessage.RCode, error) {
	c, err := ns.DialUDP(ctx, server)
	if err != nil {
		return nil, 0, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, RecursionDesired: true})
	_ = b.StartQuestions()
	_ = b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name + "."), Type: t, Class: dnsmessage.ClassINET})
	msg, err := b.Finish()
	if err != nil {
		return nil, 0, err
	}
	if _, err := c.Write(msg); err != nil {
		return nil, 0, err
	}
	in := make([]byte, 4096)
	n, err := c.Read(in)
	if err != nil {
		return nil, 0, err
	}
	return parseAnswer(in[:n])
}

func parseAnswer(msg []byte) ([]netip.Addr, dnsmessage.RCode, error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil {
		return nil, 0, err
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, h.RCode, err
	}
	all, err := p.AllAnswers()
	var out []netip.Addr
	for _, r := range all {
		switch d := r.Body.(type) {
		case *dnsmessage.AResource:
			out = append(out, netip.AddrFrom4(d.A))
		case *dnsmessage.AAAAResource:
			out = append(out, netip.AddrFrom16(d.AAAA))
		}
	}
	return out, h.RCode, err
}
