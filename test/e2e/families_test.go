package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/testnet"
)

// TestPublishAcrossFamilies: clients of a family that the container has no
// address of are passed on by the daemon, and the server sees the gateway.
func TestPublishAcrossFamilies(t *testing.T) {
	for _, nf := range []string{"0", "1"} {
		t.Run("bridge-nf-call="+nf, func(t *testing.T) {
			w := newWorld(t)
			w.sysctl("net/bridge/bridge-nf-call-iptables", nf)
			w.sysctl("net/bridge/bridge-nf-call-ip6tables", nf)
			w.start()
			w.must("network", "create", "four")
			w.must("network", "create", "six", "--ipv6", "--ipv4=false")
			w.must("network", "create", "both", "--ipv6")
			w.must("network", "create", "inner", "--ipv6", "--internal")
			w.must("sandbox", "create", "old", "--network", "four", "-p", "8080-8082:80-82", "-p", "8080:80/udp", "-p", "[::1]:8090:80")
			w.must("sandbox", "create", "new", "--network", "six", "-p", "8180:80", "-p", "8180:80/udp", "-p", "127.0.0.1:8190:80")
			w.must("sandbox", "create", "other", "--network", "both")
			w.must("sandbox", "create", "cell", "--network", "inner")
			for _, name := range []string{"old", "new"} {
				ns, _ := w.sandbox(name)
				w.tellSource(ns, 80)
			}
			old, _ := w.sandbox("old")
			w.tellSource(old, 82)
			testFamilies(w)
			w.clean()
			w.kill()
			w.start()
			testFamilies(w)
			w.clean()
		})
	}
}

// testFamilies asks from everywhere in the family that the container has not,
// and in the one that it has.
func testFamilies(w *world) {
	w.Helper()
	other, _ := w.sandbox("other")
	cellNS, cellInfo := w.sandbox("cell")
	_, old := w.sandbox("old")
	_, six := w.sandbox("new")
	for i, tc := range []struct {
		ports   []uint16 // published at every address
		at      uint16   // at loopback
		gateway netip.Addr
		own     int // the family that the container has
	}{
		{[]uint16{8080, 8082}, 0, old.Endpoints[0].Gateways[0], 0},
		{[]uint16{8080, 8082}, 8090, old.Endpoints[0].Gateways[0], 1},
		{[]uint16{8180}, 8190, six.Endpoints[0].Gateways[0], 0},
		{[]uint16{8180}, 0, six.Endpoints[0].Gateways[0], 1},
	} {
		host, loop := []netip.Addr{host4(), host6()}[tc.own], []netip.Addr{mustAddr("127.0.0.1"), mustAddr("::1")}[tc.own]
		passed := tc.gateway.Is4() == host.Is6()
		for _, port := range tc.ports {
			for _, c := range []cell{
				{w.outside, "outside", host, tc.gateway},
				{w.host, "host, own address", host, tc.gateway},
				{w.host, "host, loopback", loop, tc.gateway},
				{other, "a container of another network", host, tc.gateway},
				{cellNS, "a container of an internal network, its gateway", cellInfo.Endpoints[0].Gateways[tc.own], tc.gateway},
			} {
				for _, proto := range []string{"tcp", "udp"} {
					if proto == "udp" && port == 8082 {
						continue
					}
					got, err := ask(w, c.from, proto, netip.AddrPortFrom(c.to, port), patience)
					if err != nil || passed && got != c.sees.String() {
						if !passed && c.what == "host, loopback" && loop.Is6() {
							continue // [::1] where bridge-nf-call-ip6tables is 1
						}
						w.Errorf("case %d, %s to %s %s port %d: the server sees %q, %v; want %s", i, c.what, proto, c.to, port, got, err, c.sees)
					}
				}
			}
		}
		if tc.at == 0 {
			continue
		}
		if got, err := ask(w, w.host, "tcp", netip.AddrPortFrom(loop, tc.at), patience); err != nil || got != tc.gateway.String() {
			w.Errorf("host to a port published at %s: %q, %v", loop, got, err)
		}
		if got, err := ask(w, w.outside, "tcp", netip.AddrPortFrom(host, tc.at), impatience); err == nil {
			w.Errorf("outside reached a port published at %s: %q", loop, got)
		}
	}
}

// TestPassedOnConnection: what the daemon passes on is passed on whole, each end
// hangs up when it likes, sources are kept to, and it ends with the publication.
func TestPassedOnConnection(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "four")
	w.must("sandbox", "create", "old", "--network", "four", "-p", "8080:80", "-p", "8081:80,from=2001:db8::1", "-p", "8082:80,from=2001:db8::/120,from=192.0.2.0/24", "-p", "8083:80,from=2001:db8:1::/48")
	old, _ := w.sandbox("old")
	w.echoWhole(old, 80)
	for port, want := range map[uint16]bool{8080: true, 8081: true, 8082: true, 8083: false} {
		said := strings.Repeat("0123456789abcdef", 1<<14)
		wait := patience
		if !want {
			wait = impatience
		}
		got, err := talk(w, w.outside, netip.AddrPortFrom(host6(), port), said, wait)
		if want && (err != nil || got != said) {
			t.Errorf("port %d: %d bytes of %d came back, %v", port, len(got), len(said), err)
		}
		if !want && err == nil {
			t.Errorf("port %d is reached from a source that may not", port)
		}
	}
	// What is read back of the machine says the same.
	for port, want := range map[string]string{"8080": "delivered", "8083": "the port is held for a publication, which is not for this packet"} {
		if r := w.towpath("explain", "outside:"+outside6().String(), "["+host6().String()+"]:"+port); !strings.Contains(r.stdout, want) {
			t.Errorf("port %s is explained as\n%s%s", port, r.stdout, r.stderr)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := w.outside.DialTCP(ctx, netip.AddrPortFrom(host6(), 8080))
	w.check(err)
	defer c.Close()
	_, err = c.Write([]byte("x"))
	w.check(err)
	if page := w.get("/metrics"); !strings.Contains(page, "towpath_passed_on_open 1") {
		t.Errorf("no connection is counted:\n%s", grep(page, "passed_on"))
	}
	w.must("unpublish", "old", "8080:80")
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("a connection outlives its publication: read %d, %v", n, err)
	}
	if _, err := talk(w, w.outside, netip.AddrPortFrom(host6(), 8080), "x", impatience); err == nil {
		t.Error("the port is still passed on")
	}
	// Nobody listens: refused there is refused here.
	w.must("publish", "old", "8084:84")
	if _, err := talk(w, w.outside, netip.AddrPortFrom(host6(), 8084), "x", patience); err == nil || isTimeout(err) {
		t.Errorf("nobody listens: %v, want refused", err)
	}
	w.clean()
}

func isTimeout(err error) bool {
	var n net.Error
	return err != nil && errors.As(err, &n) && n.Timeout()
}

// grep gives the lines of a page that have a word.
func grep(page, word string) string {
	var b bytes.Buffer
	for line := range strings.Lines(page) {
		if strings.Contains(line, word) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// echoWhole answers with all that was said, when its client has said all.
func (w *world) echoWhole(ns *testnet.NS, port uint16) {
	w.Helper()
	l := ns.ListenTCP(w, netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				all, err := io.ReadAll(c)
				if err == nil {
					_, _ = c.Write(all)
				}
			}()
		}
	}()
}

// talk says something, hangs up its side, and gives the answer.
func talk(w *world, from *testnet.NS, to netip.AddrPort, said string, wait time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(w.Context(), wait)
	defer cancel()
	c, err := from.DialTCP(ctx, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(c, said); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	all, err := io.ReadAll(c)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("hung up")
	}
	return string(all), err
}
