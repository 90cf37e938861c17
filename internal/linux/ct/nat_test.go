//go:build linux

package ct

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

// site is a client, a host that publishes ports of two servers, and the servers,
// which answer by an echo on port 53 of each of their addresses.
type site struct {
	client, host *testnet.NS
	conns        *Conn
	nft          *nft.Conn
	loaded       bool
}

// hostAddrs are the addresses the client asks, serverAddrs those of the servers
// in the order of hostAddrs.
func hostAddrs() []string { return []string{"192.0.2.1", "2001:db8::1"} }

func serverAddrs(server string) []string { return []string{"10.0.0." + server, "fd00::" + server} }

func newSite(t *testing.T) *site {
	t.Helper()
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	client, host, servers := testnet.New(t, "client"), testnet.New(t, "host"), testnet.New(t, "servers")
	testnet.Link(t, client, host, "eth0", "out0", prefixes("192.0.2.2/24", "2001:db8::2/64"), prefixes("192.0.2.1/24", "2001:db8::1/64"))
	testnet.Link(t, host, servers, "in0", "eth0", prefixes("10.0.0.1/24", "fd00::1/64"),
		prefixes("10.0.0.2/24", "10.0.0.3/24", "fd00::2/64", "fd00::3/64"))
	must(t, sysctl.Write(host.F, "net/ipv4/ip_forward", "1"))
	must(t, sysctl.Write(host.F, "net/ipv6/conf/all/forwarding", "1"))
	back := servers.Conn(t)
	eth0, err := back.LinkByName(t.Context(), "eth0")
	must(t, err)
	for dst, via := range map[string]string{"0.0.0.0/0": "10.0.0.1", "::/0": "fd00::1"} {
		must(t, back.AddRoute(t.Context(), rt.Route{
			Dst: netip.MustParsePrefix(dst), Gateway: netip.MustParseAddr(via), OIF: eth0.Index, Onlink: true,
		}))
	}
	for _, server := range []string{"2", "3"} {
		for _, a := range serverAddrs(server) {
			servers.ServeUDP(t, netip.AddrPortFrom(netip.MustParseAddr(a), 53))
			servers.ServeTCP(t, netip.AddrPortFrom(netip.MustParseAddr(a), 53))
		}
	}
	for _, a := range hostAddrs() {
		reach(t, client, a)
	}
	for _, a := range append(serverAddrs("2"), serverAddrs("3")...) {
		reach(t, host, a)
	}
	nc, err := nft.Dial(host.FD())
	must(t, err)
	t.Cleanup(func() { nc.Close() })
	return &site{client: client, host: host, conns: dial(t, host), nft: nc}
}

// reach sends until an answer comes, so that no later packet waits for a
// neighbour, and is lost when that takes long: IPv6 asks for neighbours from its
// link-local address, which is not in use for a second or two.
func reach(t *testing.T, from *testnet.NS, to string) {
	t.Helper()
	var err error
	for range 20 {
		if err = from.Echo(netip.MustParseAddr(to), time.Second); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// publish replaces the rules by those that lead "udp 9000" to server "2".
func (s *site) publish(t *testing.T, ports map[string]string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("table inet t {\nchain c {\ntype nat hook prerouting priority dstnat; policy accept;\n")
	for port, server := range ports {
		proto, number, _ := strings.Cut(port, " ")
		a := serverAddrs(server)
		fmt.Fprintf(&b, "%s dport %s dnat ip to %s:53\n%s dport %s dnat ip6 to [%s]:53\n", proto, number, a[0], proto, number, a[1])
	}
	b.WriteString("}\n}\n")
	def, err := rules.ParseTable(b.String())
	must(t, err)
	var batch nft.Batch
	if s.loaded {
		batch.DeleteTable(def.Table)
	}
	batch.AddTableDef(def)
	must(t, s.nft.Commit(t.Context(), &batch))
	s.loaded = true
}

// sockets opens UDP sockets of the client to a port of each address of the host.
func (s *site) sockets(t *testing.T, port uint16) []net.Conn {
	t.Helper()
	var out []net.Conn
	for _, a := range hostAddrs() {
		c, err := s.client.DialUDP(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(a), port))
		must(t, err)
		t.Cleanup(func() { c.Close() })
		out = append(out, c)
	}
	return out
}

// ask sends a datagram from each socket and waits for its answer, or for its
// refusal.
func ask(t *testing.T, sockets []net.Conn, refused bool) {
	t.Helper()
	for _, c := range sockets {
		must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		_, err := c.Write([]byte("hello"))
		must(t, err)
		got := make([]byte, 8)
		n, err := c.Read(got)
		if refused != errors.Is(err, unix.ECONNREFUSED) || !refused && string(got[:n]) != "hello" {
			t.Fatalf("asked %s: %q, %v; refused should be %t", c.RemoteAddr(), got[:n], err, refused)
		}
	}
}

// askTCP asks by connections that have come to their end, after which neither
// side sends another packet: one would make a new entry.
func (s *site) askTCP(t *testing.T, port uint16) {
	t.Helper()
	for _, a := range hostAddrs() {
		c, err := s.client.DialTCP(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(a), port))
		must(t, err)
		defer c.Close()
		must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = c.Write([]byte("hello"))
		must(t, err)
		must(t, c.CloseWrite())
		got, err := io.ReadAll(c)
		must(t, err)
		if string(got) != "hello" {
			t.Fatalf("asked %s: %q", c.RemoteAddr(), got)
		}
	}
}

// flows counts the entries by where they went and who answers: "tcp 9000
// 10.0.0.2:53". Those of other protocols are the kernel's own.
func (s *site) flows(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, e := range list(t, s.conns) {
		proto := map[uint8]string{tcp: "tcp", udp: "udp"}[e.Proto]
		if proto == "" {
			continue
		}
		if translated := e.Reply.Src != e.Orig.Dst; translated != (e.Status&DNAT != 0) {
			t.Errorf("status %#x of %s", e.Status, e)
		}
		if e.Status&SNAT != 0 {
			t.Errorf("%s has its source translated", e)
		}
		out[fmt.Sprintf("%s %d %s", proto, e.Orig.Dst.Port(), e.Reply.Src)]++
	}
	return out
}

// purge removes the connections to a port, of both families.
func (s *site) purge(t *testing.T, proto uint8, port uint16) {
	t.Helper()
	_, err := s.conns.PurgeServices(t.Context(), []Service{{false, proto, port}, {true, proto, port}}, func(e Entry) bool {
		return e.Proto == proto && e.Orig.Dst.Port() == port
	})
	must(t, err)
}

func (s *site) expectFlows(t *testing.T, what string, want ...string) {
	t.Helper()
	got := s.flows(t)
	for _, w := range want {
		if got[w] == 0 {
			t.Errorf("%s: %s is missing in %v", what, w, got)
		}
		delete(got, w)
	}
	if len(got) > 0 {
		t.Errorf("%s: also there: %v", what, got)
	}
}

func TestTranslatedEntries(t *testing.T) {
	s := newSite(t)
	s.publish(t, map[string]string{"udp 9000": "2", "udp 9001": "3", "tcp 9000": "2", "tcp 9001": "3"})
	ask(t, s.sockets(t, 9000), false)
	ask(t, s.sockets(t, 9001), false)
	s.askTCP(t, 9000)
	s.askTCP(t, 9001)
	s.expectFlows(t, "before",
		"udp 9000 10.0.0.2:53", "udp 9000 [fd00::2]:53", "udp 9001 10.0.0.3:53", "udp 9001 [fd00::3]:53",
		"tcp 9000 10.0.0.2:53", "tcp 9000 [fd00::2]:53", "tcp 9001 10.0.0.3:53", "tcp 9001 [fd00::3]:53")

	s.purge(t, udp, 9000)
	s.expectFlows(t, "without udp 9000", "udp 9001 10.0.0.3:53", "udp 9001 [fd00::3]:53",
		"tcp 9000 10.0.0.2:53", "tcp 9000 [fd00::2]:53", "tcp 9001 10.0.0.3:53", "tcp 9001 [fd00::3]:53")

	s.purge(t, tcp, 53) // to no first packet
	s.purge(t, tcp, 9001)
	s.expectFlows(t, "without tcp 9001", "udp 9001 10.0.0.3:53", "udp 9001 [fd00::3]:53",
		"tcp 9000 10.0.0.2:53", "tcp 9000 [fd00::2]:53")

	n, err := s.conns.Purge(t.Context(), func(e Entry) bool { return e.Status&(DNAT|Assured) == DNAT|Assured && e.Orig.Dst.Port() == 9000 })
	must(t, err)
	if n != 2 {
		t.Errorf("purged %d, want 2", n)
	}
	s.expectFlows(t, "at the end", "udp 9001 10.0.0.3:53", "udp 9001 [fd00::3]:53")
}

// TestClientFollowsPublication: one socket of a client asks before a port is
// published, after it was, and after it was moved to another server.
func TestClientFollowsPublication(t *testing.T) {
	s := newSite(t)
	const port = 9000
	sockets := s.sockets(t, port)
	s.publish(t, map[string]string{"udp 1": "2"})
	ask(t, sockets, true)

	s.publish(t, map[string]string{"udp 9000": "2"})
	ask(t, sockets, true) // the entry says: not translated
	s.purge(t, udp, port)
	ask(t, sockets, false)
	s.expectFlows(t, "published", "udp 9000 10.0.0.2:53", "udp 9000 [fd00::2]:53")

	s.publish(t, map[string]string{"udp 9000": "3"})
	ask(t, sockets, false)
	s.expectFlows(t, "moved", "udp 9000 10.0.0.2:53", "udp 9000 [fd00::2]:53")
	s.purge(t, udp, port)
	ask(t, sockets, false)
	s.expectFlows(t, "moved and deleted", "udp 9000 10.0.0.3:53", "udp 9000 [fd00::3]:53")
}
