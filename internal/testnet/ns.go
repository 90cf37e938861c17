//go:build linux

package testnet

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
)

// loopback is the index of lo, LOOPBACK_IFINDEX of linux/net_namespace.h.
const loopback = 1

// NS is a network namespace of a test. Only its descriptor keeps it alive, so
// that nothing is left when the test ends or dies.
type NS struct {
	Name string // for messages
	F    *os.File
}

// New makes a namespace with lo up. It is closed when the test ends, and goes
// when the sockets and processes in it have ended too.
func New(t testing.TB, name string) *NS {
	t.Helper()
	Require(t, "netns")
	f, err := netns.New()
	if err != nil {
		t.Fatalf("make namespace %s: %v", name, err)
	}
	t.Cleanup(func() { f.Close() })
	if err := loopbackUp(f); err != nil {
		t.Fatalf("set lo of namespace %s up: %v", name, err)
	}
	return &NS{Name: name, F: f}
}

// FD is the namespace's descriptor, for what takes one.
func (n *NS) FD() int { return int(n.F.Fd()) }

// Do runs fn inside, by the rules of netns.Do, and fails the test on its error.
func (n *NS) Do(t testing.TB, fn func() error) {
	t.Helper()
	if err := netns.Do(n.F, fn); err != nil {
		t.Fatalf("in namespace %s: %v", n.Name, err)
	}
}

// Conn connects to the namespace's rtnetlink until the test ends.
func (n *NS) Conn(t testing.TB) *rt.Conn {
	t.Helper()
	c, err := rt.Dial(n.FD())
	if err != nil {
		t.Fatalf("in namespace %s: %v", n.Name, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Start starts cmd inside. The thread that forks is inside, and the child has
// what its forking thread had.
func (n *NS) Start(cmd *exec.Cmd) error {
	return netns.Do(n.F, cmd.Start)
}

// Output runs a program inside and returns its standard output. An error has the
// program's standard error with it.
func (n *NS) Output(ctx context.Context, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := n.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		err = fmt.Errorf("run %q in namespace %s: %w: %s", argv, n.Name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), err
}

// Link joins two namespaces by a veth pair, gives its ends addresses that are
// usable at once, and sets both up. It returns when both pass packets.
func Link(t testing.TB, a, b *NS, nameA, nameB string, addrsA, addrsB []netip.Prefix) {
	t.Helper()
	ca, cb := a.Conn(t), b.Conn(t)
	err := ca.AddVeth(t.Context(), rt.VethSpec{
		LinkSpec: rt.LinkSpec{Name: nameA},
		Peer:     rt.LinkSpec{Name: nameB, NSFD: b.FD()},
	})
	if err == nil {
		err = a.configure(t.Context(), ca, nameA, addrsA)
	}
	if err == nil {
		err = b.configure(t.Context(), cb, nameB, addrsB)
	}
	if err != nil {
		t.Fatalf("link %s and %s: %v", a.Name, b.Name, err)
	}
	a.WaitUp(t, nameA)
	b.WaitUp(t, nameB)
}

// configure sets a link up and gives it addresses. IPv6 puts even an address
// without duplicate address detection to use in a work queue, later than the
// call: until then its neighbour solicitations are ignored, which costs the
// first packet a second. The notification comes after that.
func (n *NS) configure(ctx context.Context, c *rt.Conn, name string, addrs []netip.Prefix) error {
	l, err := c.LinkByName(ctx, name)
	if err != nil {
		return err
	}
	m, err := rt.Listen(n.FD(), rt.GroupIPv4Address, rt.GroupIPv6Address)
	if err != nil {
		return err
	}
	defer m.Close()
	up := true
	if err := c.SetLink(ctx, l.Index, rt.LinkChange{Up: &up}); err != nil {
		return err
	}
	for _, p := range addrs {
		if err := c.AddAddress(ctx, rt.Address{Index: l.Index, Prefix: p, NoDAD: true}); err != nil {
			return err
		}
		if err := inUse(ctx, m, p); err != nil {
			return err
		}
	}
	return nil
}

// inUse waits until the notification of an address comes.
func inUse(ctx context.Context, m *rt.Monitor, p netip.Prefix) error {
	for {
		e, err := m.Next(ctx)
		if err != nil || e.Kind == rt.EventAddress && !e.Deleted && e.Address.Prefix == p {
			return err
		}
	}
}

// WaitUp waits until a link passes packets, by its notifications: carrier alone
// is not enough, the kernel's link watch must have seen it. Both ends of a veth
// pair must be up for either to get there.
func (n *NS) WaitUp(t testing.TB, name string) rt.Link {
	t.Helper()
	m, err := rt.Listen(n.FD(), rt.GroupLink)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	l, err := n.Conn(t).LinkByName(t.Context(), name)
	for err == nil && l.OperState != rt.OperUp {
		var e rt.Event
		e, err = m.Next(t.Context())
		if e.Kind == rt.EventLink && e.Link.Name == name {
			l = *e.Link
		}
	}
	if err != nil {
		t.Fatalf("wait for link %s in namespace %s: %v", name, n.Name, err)
	}
	return l
}

// inside runs fn in the namespace and returns what it made.
func inside[T any](n *NS, fn func() (T, error)) (T, error) {
	var v T
	err := netns.Do(n.F, func() error {
		var err error
		v, err = fn()
		return err
	})
	return v, err
}
