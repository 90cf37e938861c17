//go:build linux

package testnet

import (
	"context"
	"net"
	"net/netip"
	"testing"
)

// ListenTCP listens inside until the test ends. Port 0 takes a free one.
func (n *NS) ListenTCP(t testing.TB, addr netip.AddrPort) *net.TCPListener {
	t.Helper()
	l, err := inside(n, func() (*net.TCPListener, error) {
		return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	})
	if err != nil {
		t.Fatalf("in namespace %s: %v", n.Name, err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// ListenUDP binds a UDP socket inside until the test ends. Port 0 takes a free
// one.
func (n *NS) ListenUDP(t testing.TB, addr netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := inside(n, func() (*net.UDPConn, error) {
		return net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	})
	if err != nil {
		t.Fatalf("in namespace %s: %v", n.Name, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// DialTCP connects from inside. One literal address is dialled in the goroutine
// of the call: the socket is made on the thread that is inside.
func (n *NS) DialTCP(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	return inside(n, func() (*net.TCPConn, error) {
		var d net.Dialer
		return d.DialTCP(ctx, "tcp", netip.AddrPort{}, addr)
	})
}

// DialUDP connects a UDP socket from inside, to send by Write and to be told of
// refusals.
func (n *NS) DialUDP(ctx context.Context, addr netip.AddrPort) (*net.UDPConn, error) {
	return inside(n, func() (*net.UDPConn, error) {
		var d net.Dialer
		return d.DialUDP(ctx, "udp", netip.AddrPort{}, addr)
	})
}

// ServeTCP listens inside, and answers each connection with what it sent, until
// the test ends.
func (n *NS) ServeTCP(t testing.TB, addr netip.AddrPort) netip.AddrPort {
	t.Helper()
	l := n.ListenTCP(t, addr)
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return // closed
			}
			go echoTCP(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echoTCP sends back what arrives until the other side has no more.
func echoTCP(c *net.TCPConn) {
	defer c.Close()
	// What fails is told to the client by what does not come back.
	_, _ = c.ReadFrom(c)
}

// ServeUDP binds a socket inside, and answers each datagram with itself, until
// the test ends.
func (n *NS) ServeUDP(t testing.TB, addr netip.AddrPort) netip.AddrPort {
	t.Helper()
	c := n.ListenUDP(t, addr)
	go func() {
		b := make([]byte, 1<<16)
		for {
			size, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return // closed
			}
			// A client that is gone needs no answer.
			_, _ = c.WriteToUDPAddrPort(b[:size], from)
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}
