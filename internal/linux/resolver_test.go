//go:build linux

package linux_test

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

// answers is a Resolver that sends back what it gets.
type answers struct {
	mu   sync.Mutex
	open map[string][]io.Closer
	wg   sync.WaitGroup
}

// Attach serves on the sockets of a sandbox.
func (r *answers) Attach(sandbox string, udp *net.UDPConn, tcp net.Listener) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[sandbox] = []io.Closer{udp, tcp}
	r.wg.Go(func() {
		b := make([]byte, 2048)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteToUDPAddrPort(b[:n], from)
		}
	})
	r.wg.Go(func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}
	})
	return nil
}

// Detach closes them.
func (r *answers) Detach(sandbox string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.open[sandbox] {
		s.Close()
	}
	delete(r.open, sandbox)
	return nil
}

// Attached reports whether there are some.
func (r *answers) Attached(sandbox string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open[sandbox]) > 0
}

func (r *answers) close() {
	for sandbox := range r.open {
		_ = r.Detach(sandbox)
	}
	r.wg.Wait()
}

// port53 is where a sandbox asks for names.
func port53() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.11:53") }

// echoes sends something over both protocols and wants it back, from whom it was
// sent to.
func echoes(t *testing.T, ns *testnet.NS, to netip.AddrPort, size int) {
	t.Helper()
	sent := slices.Repeat([]byte("0123456789"), size/10)
	tcp, err := ns.DialTCP(t.Context(), to)
	if err != nil {
		t.Errorf("%s over TCP: %v", to, err)
		return
	}
	defer tcp.Close()
	udp := ns.ListenUDP(t, netip.MustParseAddrPort("0.0.0.0:0")) // unconnected: it takes an answer from anywhere
	defer udp.Close()
	deadline := time.Now().Add(5 * time.Second)
	_ = tcp.SetDeadline(deadline)
	_ = udp.SetDeadline(deadline)
	got := make([]byte, len(sent))
	if _, err := tcp.Write(sent); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(tcp, got); err != nil || !slices.Equal(got, sent) {
		t.Errorf("%s over TCP: not what was sent came back: %v", to, err)
	}
	sent = sent[:min(len(sent), 1400)]
	if _, err := udp.WriteToUDPAddrPort(sent, to); err != nil {
		t.Error(err)
	}
	n, from, err := udp.ReadFromUDPAddrPort(got)
	if err != nil || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != to || !slices.Equal(got[:n], sent) {
		t.Errorf("%s over UDP: %d bytes came back from %s: %v", to, n, from, err)
	}
}

// TestResolverIsReached at port 53 of its address, while the workload has that
// port of all addresses, and without a connection in conntrack.
func TestResolverIsReached(t *testing.T) {
	h := newHost(t, false)
	v := h.view()
	if v.Host.Hooks == kernel.NoHooks {
		t.Skip("skip: needs chains of family netdev: this kernel has none")
	}
	addNetwork(v, "front", 0, true)
	addSandbox(v, "web", 2, "front")
	addSandbox(v, "db", 3, "front")
	want := plan(t, v)
	h.put(nil, want)
	h.agrees(want)
	web, db := h.sandbox("web"), h.sandbox("db")
	own := web.ServeTCP(t, netip.MustParseAddrPort("[::]:53"))
	web.ServeUDP(t, own)
	echoes(t, web, port53(), 2_000)
	echoes(t, web, port53(), 5_000_000) // segments of the largest size (GSO)
	echoes(t, db, netip.MustParseAddrPort("172.20.0.2:53"), 2_000)

	// Somebody in it takes the table away; what was is put back.
	c, err := nft.Dial(web.FD())
	must(t, err)
	defer c.Close()
	tables, err := c.ReadTables(t.Context())
	must(t, err)
	if len(tables) != 1 {
		t.Fatalf("%d tables in the sandbox, want one", len(tables))
	}
	var b nft.Batch
	b.DeleteTable(tables[0].Table)
	must(t, c.Commit(t.Context(), &b))
	seen := h.see(want, false)
	h.put(seen, want)
	h.agrees(want)
	echoes(t, web, port53(), 2_000)

	// Its sockets do not keep the namespace.
	must(t, c.Close())
	h.put(want, nil)
	if h.resolver.Attached("web") {
		t.Error("the sockets are still there")
	}
}

// TestAdoptedIsLeftClean: when a namespace goes back to its owner, there is
// nothing of ours in it, also when the daemon had died meanwhile and knows of
// the sandbox no more.
func TestAdoptedIsLeftClean(t *testing.T) {
	for _, forgot := range []bool{false, true} {
		h := newHost(t, false)
		v := h.view()
		addNetwork(v, "front", 0, true)
		addNetwork(v, "back", 1, true)
		theirs := testnet.New(t, "theirs")
		before := contents(t, theirs)
		s := addSandbox(v, "web", 2, "front", "back")
		cookie, err := h.Adopt(theirs.F)
		must(t, err)
		s.Origin, s.Cookie = "adopted", cookie
		want := plan(t, v)
		h.put(nil, want)
		h.agrees(want)
		echoes(t, theirs, port53(), 100)
		have := want
		if forgot {
			must(t, h.resolver.Detach("web"))
			have = h.see(nil, true)
		}
		h.put(have, nil)
		if after := contents(t, theirs); !slices.Equal(before, after) {
			t.Errorf("forgot=%t: left behind: %q, before there was %q", forgot, after, before)
		}
	}
}

// contents is what could be left in a namespace: tables, links, and routing rules.
func contents(t *testing.T, ns *testnet.NS) []string {
	t.Helper()
	var out []string
	c, err := nft.Dial(ns.FD())
	must(t, err)
	defer c.Close()
	tables, err := c.ReadTables(t.Context())
	must(t, err)
	for _, table := range tables {
		out = append(out, table.String())
	}
	conn := ns.Conn(t)
	links, err := conn.Links(t.Context(), rt.LinkFilter{})
	must(t, err)
	for _, l := range links {
		out = append(out, l.Name)
	}
	policy, err := conn.Rules(t.Context(), unix.AF_UNSPEC)
	must(t, err)
	for _, r := range policy {
		out = append(out, r.Src.String())
	}
	return out
}
