package e2e

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/ct"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
)

// translate makes a table of somebody else's that leads a port of the host
// elsewhere, before ours does, and takes it away again.
func (w *world) translate(rule string) (undo func()) {
	w.Helper()
	return w.table("table inet other { chain pre { type nat hook prerouting priority -110; policy accept; " + rule + " } }")
}

// table makes a table on the host, and takes it away again.
func (w *world) table(text string) (undo func()) {
	w.Helper()
	c, err := nft.Dial(int(w.host.F.Fd()))
	w.check(err)
	def, err := rules.ParseTable(text)
	w.check(err)
	commit := func(fill func(*nft.Batch)) {
		w.Helper()
		var b nft.Batch
		fill(&b)
		w.check(c.Commit(w.Context(), &b))
	}
	commit(func(b *nft.Batch) { b.AddTableDef(def) })
	return func() {
		w.Helper()
		commit(func(b *nft.Batch) { b.DeleteTable(def.Table) })
		w.check(c.Close())
	}
}

// connections to a port of the host.
func (w *world) connections(port uint16) []string {
	w.Helper()
	c, err := ct.Dial(int(w.host.F.Fd()))
	w.check(err)
	defer c.Close()
	all, err := c.Entries(w.Context(), 0)
	w.check(err)
	var out []string
	for _, e := range all {
		if e.Proto == unix.IPPROTO_UDP && e.Orig.Dst.Port() == port {
			out = append(out, e.Orig.Dst.String()+" to "+e.Reply.Src.String())
		}
	}
	slices.Sort(out)
	return out
}

// TestStaleConnectionsAtStart: what went stale while the daemon was away is
// removed when it starts, so that a UDP client which never paused reaches the
// container that is published now. What others translated to addresses that are
// not ours stays.
func TestStaleConnectionsAtStart(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "front", "--ipv6")
	for _, name := range []string{"one", "two"} {
		w.must("sandbox", "create", name, "--network", "front")
		ns, _ := w.sandbox(name)
		w.sayName(ns, 5300)
	}
	_, two := w.sandbox("two")
	two4, two6 := addresses(two)
	w.sayName(w.outside, 5400)
	w.must("publish", "one", "53:5300/udp")
	w.kill()

	undo := w.translate(`udp dport 53 dnat ip to ` + two4.String() + `:5300
		udp dport 53 dnat ip6 to [` + two6.String() + `]:5300
		udp dport 54 dnat ip to ` + two4.String() + `:5300
		udp dport 5400 dnat ip to ` + outside4().String() + `:5400`)
	clients := map[netip.Addr]net.Conn{}
	for _, host := range []netip.Addr{host4(), host6()} {
		c, err := w.outside.DialUDP(t.Context(), netip.AddrPortFrom(host, 53))
		w.check(err)
		defer c.Close()
		if got := knock(c, patience); got != "two" {
			t.Fatalf("%s is translated by somebody else: %q answers, want two", host, got)
		}
		clients[host] = c
	}
	for port, want := range map[uint16]string{54: "two", 5400: ""} {
		c, err := w.outside.DialUDP(t.Context(), netip.AddrPortFrom(host4(), port))
		w.check(err)
		defer c.Close()
		if got := knock(c, impatience); got != want {
			t.Errorf("port %d: %q answers, want %q", port, got, want)
		}
		if len(w.connections(port)) == 0 {
			t.Errorf("no connection to port %d to begin with", port)
		}
	}
	undo()
	others := w.connections(5400)

	w.start()
	for host, c := range clients {
		if got := knock(c, patience); got != "one" {
			t.Errorf("%s after the start: %q answers, want one", host, got)
		}
	}
	if left := w.connections(54); len(left) != 0 {
		t.Errorf("connections that no publication makes are left: %q", left)
	}
	if got := w.connections(5400); !slices.Equal(got, others) {
		t.Errorf("connections of others were %q, are %q", others, got)
	}
	w.clean()

	// While it runs it finds them when it looks at everything.
	undo = w.translate("udp dport 53 dnat ip to " + two4.String() + ":5300")
	c, err := w.outside.DialUDP(t.Context(), netip.AddrPortFrom(host4(), 53))
	w.check(err)
	defer c.Close()
	if got := knock(c, patience); got != "two" {
		t.Fatalf("translated by somebody else: %q answers, want two", got)
	}
	undo()
	if r := w.towpath("diff"); !strings.Contains(r.stdout, "- host: flows udp 192.0.2.10:53 to "+two4.String()+":5300") {
		t.Errorf("diff does not tell of the stale connection: %s%s", r.stdout, r.stderr)
	}
}
