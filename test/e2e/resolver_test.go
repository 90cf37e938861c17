package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

// port53 is where a sandbox asks.
func port53() netip.AddrPort { return netip.MustParseAddrPort("127.0.0.11:53") }

// answered asks for the IPv4 address of a name, once, and fails the test without an
// answer.
func (w *world) answered(ns *testnet.NS, name string) (netip.Addr, dnsmessage.RCode) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	addrs, code, err := asks(ctx, ns, port53(), name, dnsmessage.TypeA)
	if err != nil {
		w.Fatalf("%s asks for %s: %v\nlog:\n%s", ns.Name, name, err, w.log)
	}
	if len(addrs) == 0 {
		return netip.Addr{}, code
	}
	return addrs[0], code
}

// TestConnectedIsFound before the verb that connects returns, and not any more
// when the one that disconnects does, each time.
func TestConnectedIsFound(t *testing.T) {
	w, _ := namesWorld(t)
	w.must("network", "create", "front", "--subnet", "172.30.0.0/24")
	w.must("sandbox", "create", "web", "--network", "front")
	w.must("sandbox", "create", "db", "--network", "none")
	web, _ := w.sandbox("web")
	for i := range 10 {
		want := netip.AddrFrom4([4]byte{172, 30, 0, byte(10 + i)})
		w.must("network", "connect", "--ip", want.String(), "--alias", "sql", "front", "db")
		for _, name := range []string{"db", "sql.front"} {
			if got, _ := w.answered(web, name); got != want {
				t.Errorf("connected, %s is told as %s, want %s", name, got, want)
			}
		}
		w.must("network", "disconnect", "front", "db")
		if got, code := w.answered(web, "db"); code != dnsmessage.RCodeNameError {
			t.Errorf("disconnected, it is told as %s, %v", got, code)
		}
	}
	w.clean()
}

// TestWorkloadServesPort53: a DNS server in a sandbox has port 53 of all
// addresses, over UDP and TCP, is reached from others, and the resolver works on.
func TestWorkloadServesPort53(t *testing.T) {
	w, _ := namesWorld(t)
	w.must("network", "create", "front", "--subnet", "172.30.0.0/24")
	w.must("sandbox", "create", "ns", "--network", "front,ip=172.30.0.53")
	w.must("sandbox", "create", "web", "--network", "front,ip=172.30.0.2", "--dns", "172.30.0.53")
	ns, _ := w.sandbox("ns")
	web, _ := w.sandbox("web")
	theirs := serveNames(w, ns, netip.IPv4Unspecified())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, from := range []*testnet.NS{web, ns} {
		addrs, _, err := asks(ctx, from, netip.MustParseAddrPort("172.30.0.53:53"), "example.org", dnsmessage.TypeA)
		if err != nil || len(addrs) != 1 {
			t.Errorf("%s asks the server in the sandbox: %v %v", from.Name, addrs, err)
		}
		if got, _ := w.answered(from, "web"); got != netip.MustParseAddr("172.30.0.2") {
			t.Errorf("%s is told %s for web", from.Name, got)
		}
	}
	reaches53(w, web, "172.30.0.53:53")
	// The host reaches it, and so the resolver asks it for web.
	before := theirs.asked.Load()
	if got, _ := w.answered(web, "example.org"); got != netip.MustParseAddr("198.51.100.7") || theirs.asked.Load() == before {
		t.Errorf("with --dns web is told %s, and the server was asked %d times", got, theirs.asked.Load()-before)
	}
}

// reaches53 opens a TCP connection.
func reaches53(w *world, from *testnet.NS, to string) {
	w.Helper()
	c, err := from.DialTCP(w.Context(), netip.MustParseAddrPort(to))
	if err != nil {
		w.Errorf("TCP to %s: %v", to, err)
		return
	}
	c.Close()
}

// TestAsksFromTheSandbox: where the network says so, servers are asked over the
// sandbox's own routes, and see the host's address only as any other traffic does.
func TestAsksFromTheSandbox(t *testing.T) {
	w, _ := namesWorld(t)
	w.must("network", "create", "front", "--subnet", "172.30.0.0/24", "-o", "dns_from=sandbox")
	w.must("network", "create", "back", "--subnet", "172.31.0.0/24")
	w.must("sandbox", "create", "ns", "--network", "front,ip=172.30.0.53")
	w.must("sandbox", "create", "web", "--network", "front,ip=172.30.0.2", "--dns", "172.30.0.53")
	ns, _ := w.sandbox("ns")
	web, _ := w.sandbox("web")
	server := ns.ListenUDP(t, netip.MustParseAddrPort("172.30.0.53:53"))
	defer server.Close()
	from := make(chan netip.Addr, 1)
	go func() {
		b := make([]byte, 4096)
		n, addr, err := server.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		from <- addr.Addr().Unmap()
		if out := (&nameServer{}).answer(b[:n], false); out != nil {
			_, _ = server.WriteToUDPAddrPort(out, addr)
		}
	}()
	if got, _ := w.answered(web, "example.org"); got != netip.MustParseAddr("198.51.100.7") {
		t.Errorf("web is told %s", got)
	}
	if got := <-from; got != netip.MustParseAddr("172.30.0.2") {
		t.Errorf("the server was asked from %s, want the sandbox's address", got)
	}
	// What it asked keeps nothing.
	w.must("sandbox", "rm", "web", "ns")
	w.clean()
}

// TestTableTakenAway: root of a sandbox flushes its rules, and takes its loopback
// down; both are put back, and names work again.
func TestTableTakenAway(t *testing.T) {
	w, _ := namesWorld(t)
	w.must("sandbox", "create", "web")
	web, info := w.sandbox("web")
	v4, _ := addresses(info)
	own := rules.Table{Family: rules.FamilyNetdev, Name: "towpath"}
	c, err := nft.Dial(web.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn := web.Conn(t)
	lo, err := conn.LinkByName(t.Context(), "lo")
	if err != nil {
		t.Fatal(err)
	}
	for name, harm := range map[string]func() error{
		"table deleted": func() error {
			var b nft.Batch
			b.DeleteTable(own)
			return c.Commit(t.Context(), &b)
		},
		"rules flushed": func() error {
			var b nft.Batch
			b.FlushChain(rules.Chain{Family: own.Family, Table: own.Name, Name: "resolver"})
			return c.Commit(t.Context(), &b)
		},
		"loopback down": func() error { return conn.SetLink(t.Context(), lo.Index, rt.LinkChange{Up: new(false)}) },
	} {
		if got, _ := w.answered(web, "web"); got != v4 {
			t.Errorf("before %s: told %s, want %s", name, got, v4)
		}
		if err := harm(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		w.heals(patience)
	}
	if got, _ := w.answered(web, "web"); got != v4 {
		t.Errorf("at last: told %s, want %s", got, v4)
	}
	if events := w.must("events", "--since", "1h", "--until", "0s"); !strings.Contains(events, "sandbox heal web") {
		t.Errorf("events do not tell of it:\n%s", events)
	}
}

// TestFlood: while one sandbox asks as fast as it can, another is answered each
// time.
func TestFlood(t *testing.T) {
	w, _ := namesWorld(t)
	w.must("sandbox", "create", "evil")
	w.must("sandbox", "create", "good")
	evil, _ := w.sandbox("evil")
	good, _ := w.sandbox("good")
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 4 {
		c, err := evil.DialUDP(ctx, port53())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			// Half of it names that nobody has, to fill what goes upstream too.
			msg := []byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04evil\x00\x00\x01\x00\x01")
			if i%2 == 1 {
				copy(msg[13:], "none")
			}
			for ctx.Err() == nil {
				_, _ = c.Write(msg)
			}
		})
	}
	var longest time.Duration
	for range 300 {
		start := time.Now()
		if got, _ := w.answered(good, "evil"); !got.IsValid() {
			t.Error("good is told nothing")
		}
		longest = max(longest, time.Since(start))
	}
	stop()
	wg.Wait()
	t.Logf("300 answers meanwhile, the longest wait %s", longest)
	metrics := w.get("/metrics")
	if !strings.Contains(metrics, `towpath_dns_queries_total{result="local",sandbox="good"} 300`) {
		t.Errorf("metrics do not tell of the queries:\n%s", metrics)
	}
}

// TestResolverAfterRestart: who asks while the daemon is away is not answered;
// once it says that it is ready, everybody is, also where the table was taken
// away meanwhile, as by a daemon of before there were names.
func TestResolverAfterRestart(t *testing.T) {
	w, _ := namesWorld(t)
	w.must("network", "create", "front", "--subnet", "172.30.0.0/24")
	for i := range 5 {
		w.must("sandbox", "create", fmt.Sprintf("s%d", i), "--network", fmt.Sprintf("front,ip=172.30.0.%d", 10+i))
	}
	var all []*testnet.NS
	for i := range 5 {
		ns, _ := w.sandbox(fmt.Sprintf("s%d", i))
		all = append(all, ns)
	}
	w.kill()
	ctx, cancel := context.WithTimeout(t.Context(), impatience)
	defer cancel()
	if _, _, err := asks(ctx, all[0], port53(), "s1", dnsmessage.TypeA); err == nil {
		t.Error("answered without a daemon")
	}
	c, err := nft.Dial(all[3].FD())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b nft.Batch
	b.DeleteTable(rules.Table{Family: rules.FamilyNetdev, Name: "towpath"})
	if err := c.Commit(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	w.start()
	for i, ns := range all {
		want := netip.AddrFrom4([4]byte{172, 30, 0, byte(10 + (i+1)%5)})
		if got, _ := w.answered(ns, fmt.Sprintf("s%d", (i+1)%5)); got != want {
			t.Errorf("%s is told %s, want %s", ns.Name, got, want)
		}
	}
	w.clean()
}

// TestResolverOfAdopted: an adopted namespace gets a resolver, its loopback if
// that was down, and keeps nothing of it but that.
func TestResolverOfAdopted(t *testing.T) {
	w, _ := namesWorld(t)
	theirs := testnet.New(t, "theirs")
	w.must("network", "create", "front", "--subnet", "172.30.0.0/24")
	w.must("sandbox", "create", "web", "--network", "front,ip=172.30.0.2")
	w.must("sandbox", "create", "theirs", "--netns", fmt.Sprintf("/proc/%d/fd/%d", unix.Getpid(), theirs.FD()), "--network", "front,ip=172.30.0.3")
	web, _ := w.sandbox("web")
	for _, c := range []struct {
		ns   *testnet.NS
		name string
		want string
	}{{theirs, "web", "172.30.0.2"}, {web, "theirs", "172.30.0.3"}} {
		if got, _ := w.answered(c.ns, c.name); got != netip.MustParseAddr(c.want) {
			t.Errorf("%s is told %s for %s", c.ns.Name, got, c.name)
		}
	}
	// Port 40053 taken first: the error says what it is for.
	other := testnet.New(t, "other")
	lo, err := other.Conn(t).LinkByName(t.Context(), "lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Conn(t).SetLink(t.Context(), lo.Index, rt.LinkChange{Up: new(true)}); err != nil {
		t.Fatal(err)
	}
	defer other.ListenUDP(t, netip.MustParseAddrPort("0.0.0.0:40053")).Close()
	r := w.towpath("sandbox", "create", "other", "--netns", fmt.Sprintf("/proc/%d/fd/%d", unix.Getpid(), other.FD()))
	if r.code != 1 || !strings.Contains(r.stderr, "address already in use") || !strings.Contains(r.stderr, "which Towpath's resolver needs") {
		t.Errorf("port 40053 is taken: exit %d: %s", r.code, r.stderr)
	}
	w.must("sandbox", "rm", "theirs")
	for _, ns := range []*testnet.NS{theirs, other} {
		c, err := nft.Dial(ns.FD())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if tables, err := c.ReadTables(t.Context()); err != nil || len(tables) > 0 {
			t.Errorf("left in %s: %v %v", ns.Name, tables, err)
		}
	}
	w.clean()
}
