//go:build linux

package rt_test

import (
	"net/netip"
	"os"
	"testing"

	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// mark is a protocol number that the kernel and routing daemons do not use.
const mark = 80

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// got fails the test on an error and returns the value.
func got[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// host is a namespace with a bridge br0 that is up.
func host(t *testing.T) (*testnet.NS, *rt.Conn, rt.Link) {
	t.Helper()
	ns := testnet.New(t, "host")
	c := ns.Conn(t)
	must(t, c.AddBridge(t.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: "br0"}}))
	br := got(c.LinkByName(t.Context(), "br0"))(t)
	must(t, c.SetLink(t.Context(), br.Index, rt.LinkChange{Up: new(true), AddrGenNone: new(true)}))
	return ns, c, br
}

// port adds a veth to a bridge, its peer in a namespace of its own.
func port(t *testing.T, c *rt.Conn, br rt.Link, name string) (rt.Link, *testnet.NS) {
	t.Helper()
	box := testnet.New(t, name)
	must(t, c.AddVeth(t.Context(), rt.VethSpec{
		LinkSpec: rt.LinkSpec{Name: name, Master: br.Index},
		Peer:     rt.LinkSpec{Name: "eth0", NSFD: box.FD()},
	}))
	return got(c.LinkByName(t.Context(), name))(t), box
}
