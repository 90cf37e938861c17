//go:build linux

package ports

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/netns"
)

// Waiting for what should come, and for what should not.
const (
	patience   = 5 * time.Second
	impatience = 200 * time.Millisecond
)

// newSplicing is a host whose Holder opens connections in its namespace, with a
// server of each protocol that sends back what it is sent.
func newSplicing(t *testing.T, server netip.AddrPort) host {
	t.Helper()
	n := newHost(t)
	n.h.inside = func(f func() error) error { return netns.Do(n.F, f) }
	n.ServeTCP(t, server)
	n.ServeUDP(t, server)
	return n
}

// dial opens a socket to a port, or to where there is no answer.
func (n host) dial(t *testing.T, proto string, to netip.AddrPort, wait time.Duration) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if proto == "udp" {
		return n.DialUDP(ctx, to)
	}
	return n.DialTCP(ctx, to)
}

// echo says something and waits for it to come back.
func echo(c net.Conn, wait time.Duration) error {
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(c, buf); err != nil {
		return err
	}
	if string(buf) != "hello" {
		return errors.New("got " + string(buf))
	}
	return nil
}

// TestPassOn: of the two families, the one that the server has not is passed on,
// to the clients that may; the socket is silent for all others, and after.
func TestPassOn(t *testing.T) {
	for name, tc := range map[string]struct {
		held, server, from string
		passed, silent     []string
	}{
		"both families, to IPv4":  {"[::]:80", "127.0.0.1:8080", "", []string{"[::1]:80"}, []string{"127.0.0.1:80"}},
		"both families, to IPv6":  {"[::]:80", "[::1]:8080", "", []string{"127.0.0.1:80", "127.0.0.9:80"}, []string{"[::1]:80"}},
		"IPv6 alone":              {"[::]:80 6", "127.0.0.1:8080", "", []string{"[::1]:80"}, nil},
		"IPv4 alone":              {"0.0.0.0:80", "[::1]:8080", "", []string{"127.0.0.1:80"}, nil},
		"one address":             {"127.0.0.1:80", "[::1]:8080", "", []string{"127.0.0.1:80"}, nil},
		"a source that may":       {"[::]:80", "127.0.0.1:8080", "192.0.2.0/24,::1/128", []string{"[::1]:80"}, []string{"127.0.0.1:80"}},
		"a source that may not":   {"[::]:80", "127.0.0.1:8080", "2001:db8::/32", nil, []string{"[::1]:80", "127.0.0.1:80"}},
		"an IPv4 source that may": {"[::]:80", "[::1]:8080", "127.0.0.0/8", []string{"127.0.0.1:80"}, []string{"[::1]:80"}},
	} {
		for _, proto := range []string{"tcp", "udp"} {
			t.Run(proto+" "+name, func(t *testing.T) {
				n := newSplicing(t, at(tc.server))
				addr, six := strings.CutSuffix(tc.held, " 6")
				p := Port{Proto: proto, Addr: at(addr), To: at(tc.server), From: tc.from}
				if six {
					p.Proto += "6"
				}
				must(t, n.hold(t, p))
				if got, held := n.h.Find(p.bare()); !held || got != p {
					t.Errorf("find: %+v, %v", got, held)
				}
				for _, to := range tc.passed {
					c, err := n.dial(t, proto, at(to), patience)
					must(t, err)
					defer c.Close()
					if err := echo(c, patience); err != nil {
						t.Errorf("by %s: %v", to, err)
					}
				}
				for _, to := range tc.silent {
					n.silent(t, proto, at(to))
				}
				must(t, n.hold(t, p.bare()))
				for _, to := range tc.passed {
					n.silent(t, proto, at(to))
				}
				if got := n.h.Traffic(); got.Total != len(tc.passed) || got.Refused != 0 {
					t.Errorf("traffic %+v, want %d in all", got, len(tc.passed))
				}
			})
		}
	}
}

// silent checks that a port does not even refuse.
func (n host) silent(t *testing.T, proto string, to netip.AddrPort) {
	t.Helper()
	c, err := n.dial(t, proto, to, impatience)
	if err == nil {
		defer c.Close()
		err = echo(c, impatience)
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("by %s: %v, want silence", to, err)
	}
}

// TestPassOnLimit: there is room for so many, the next is turned away, and who
// leaves makes room.
func TestPassOnLimit(t *testing.T) {
	for _, proto := range []string{"tcp", "udp"} {
		t.Run(proto, func(t *testing.T) {
			n := newSplicing(t, at("127.0.0.1:8080"))
			p := Port{Proto: proto, Addr: at("[::]:80"), To: at("127.0.0.1:8080")}
			must(t, n.hold(t, p))
			for range maxEach {
				c, err := n.dial(t, proto, at("[::1]:80"), patience)
				must(t, err)
				defer c.Close()
				must(t, echo(c, patience))
			}
			c, err := n.dial(t, proto, at("[::1]:80"), patience)
			if err == nil {
				defer c.Close()
				err = echo(c, impatience)
			}
			if proto == "tcp" && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) || err == nil {
				t.Errorf("one too many: %v", err)
			}
			if got := n.h.Traffic(); got != (Traffic{Open: maxEach, Total: maxEach, Refused: 1}) {
				t.Errorf("traffic %+v", got)
			}
			must(t, n.h.Release(p))
			for deadline := time.Now().Add(patience); n.h.Traffic().Open > 0 && time.Now().Before(deadline); {
				// Connections count until both directions have ended: look again when others have run.
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				<-ctx.Done()
				cancel()
			}
			if got := n.h.Traffic().Open; got != 0 {
				t.Errorf("%d are open after the release", got)
			}
		})
	}
}

// TestPassOnRefused: what cannot be passed on is not held either.
func TestPassOnRefused(t *testing.T) {
	n := newHost(t)
	err := n.hold(t, Port{Proto: "tcp", Addr: at("[::]:80"), To: at("127.0.0.1:8080"), From: "nowhere"})
	if err == nil || !strings.Contains(err.Error(), "pass tcp [::]:80 on to 127.0.0.1:8080: sources: ") {
		t.Errorf("sources that are none: %v", err)
	}
	if held := n.h.Held(); len(held) != 0 {
		t.Errorf("held %v", held)
	}
	if s, err := newSplice(Port{Proto: "sctp", Addr: at("[::]:80"), To: at("127.0.0.1:8080")}); !errors.Is(err, errTo) {
		t.Errorf("sctp: %v, %v", s, err)
	}
}
