package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
)

// Of the network of bareHost. The mark is the group of its links.
const (
	bareBridge = "bare0"
	bareMark   = 0x62617265
	bareMTU    = 1500
	loopback   = 1 // LOOPBACK_IFINDEX of linux/net_namespace.h
)

func net4() netip.Prefix { return netip.MustParsePrefix("10.99.0.0/16") }
func net6() netip.Prefix { return netip.MustParsePrefix("fd00:99::/64") }

// bareHost is a host with a bridge like that of a network of Towpath, and with
// endpoints made by hand, without a store, a plan or a check.
type bareHost struct {
	ns     *os.File
	conn   *rt.Conn
	dir    string // of the namespaces
	bridge int
	given  atomic.Uint32 // addresses
}

// bareEndpoint is what has to be known to remove an endpoint.
type bareEndpoint struct {
	path string
	link int // the host's end
}

// gateway is the first address of a network.
func gateway(p netip.Prefix) netip.Addr { return p.Addr().Next() }

// newBareHost makes the host and its bridge.
func newBareHost(ctx context.Context, dir string) (*bareHost, error) {
	b := &bareHost{dir: dir}
	b.given.Store(1)
	var err error
	if b.ns, err = netns.New(); err != nil {
		return nil, err
	}
	if b.conn, err = rt.Dial(int(b.ns.Fd())); err != nil {
		return nil, errors.Join(err, b.ns.Close())
	}
	err = b.conn.AddBridge(ctx, rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: bareBridge, MTU: bareMTU, Group: bareMark}})
	if err == nil {
		var l rt.Link
		l, err = b.conn.LinkByName(ctx, bareBridge)
		b.bridge = l.Index
	}
	for _, p := range []netip.Prefix{net4(), net6()} {
		if err == nil {
			err = b.conn.AddAddress(ctx, rt.Address{Index: b.bridge, Prefix: netip.PrefixFrom(gateway(p), p.Bits()), NoDAD: true})
		}
	}
	if err == nil {
		err = setUp(ctx, b.conn, b.bridge)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// close lets go of the host.
func (b *bareHost) close() error { return errors.Join(b.conn.Close(), b.ns.Close()) }

// addresses gives the next address of each family.
func (b *bareHost) addresses() []netip.Prefix {
	n := b.given.Add(1)
	a4, a6 := net4().Addr().As4(), net6().Addr().As16()
	a4[2], a4[3] = byte(n>>8), byte(n)
	a6[14], a6[15] = byte(n>>8), byte(n)
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4(a4), net4().Bits()),
		netip.PrefixFrom(netip.AddrFrom16(a6), net6().Bits()),
	}
}

// setUp sets a link up.
func setUp(ctx context.Context, c *rt.Conn, index int) error {
	up := true
	return c.SetLink(ctx, index, rt.LinkChange{Up: &up})
}

// inside is a new namespace and what is open of it.
type inside struct {
	f    *os.File
	conn *rt.Conn
	news *rt.Monitor // of IPv6 addresses
}

// enter makes a namespace, binds it and connects to it.
func enter(path string) (*inside, error) {
	if err := netns.Create(path); err != nil {
		return nil, err
	}
	f, err := netns.Open(path)
	if err != nil {
		return nil, err
	}
	in := &inside{f: f}
	if in.conn, err = rt.Dial(int(f.Fd())); err == nil {
		in.news, err = rt.Listen(int(f.Fd()), rt.GroupIPv6Address)
	}
	if err != nil {
		return nil, errors.Join(err, in.close())
	}
	return in, nil
}

// close lets go of the namespace; open sockets would keep it alive.
func (in *inside) close() error {
	errs := []error{in.f.Close()}
	if in.conn != nil {
		errs = append(errs, in.conn.Close())
	}
	if in.news != nil {
		errs = append(errs, in.news.Close())
	}
	return errors.Join(errs...)
}

// arrivalTimeout bounds the wait for an address, as in the daemon.
const arrivalTimeout = 500 * time.Millisecond

// settled waits until an address is in use, as the daemon does: an address
// without duplicate address detection is announced from a work queue, and until
// then its neighbours get no answer. An address that is late is no error.
func (in *inside) settled(ctx context.Context, a netip.Addr) error {
	wait, cancel := context.WithTimeout(ctx, arrivalTimeout)
	defer cancel()
	for {
		e, err := in.news.Next(wait)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return ctx.Err()
		case err != nil:
			return err
		case e.Kind == rt.EventOverrun, e.Kind == rt.EventAddress && !e.Deleted && e.Address.Prefix.Addr() == a:
			return nil
		}
	}
}

// create makes an endpoint with the fewest calls, over a connection to the host.
func (b *bareHost) create(ctx context.Context, host *rt.Conn, name string) (e bareEndpoint, err error) {
	e.path = filepath.Join(b.dir, name)
	in, err := enter(e.path)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	err = host.AddVeth(ctx, rt.VethSpec{
		LinkSpec: rt.LinkSpec{Name: name, MTU: bareMTU, Master: b.bridge, Group: bareMark},
		Peer:     rt.LinkSpec{Name: "eth0", MTU: bareMTU, NSFD: int(in.f.Fd())},
	})
	if err != nil {
		return e, err
	}
	l, err := host.LinkByName(ctx, name)
	if err != nil {
		return e, err
	}
	e.link = l.Index
	return e, in.configure(ctx, host, l, l.PeerIndex, b.addresses())
}

// configure gives the sandbox's end of a pair its settings, addresses and
// routes, raises both ends, and furnishes the sandbox.
func (in *inside) configure(ctx context.Context, host *rt.Conn, l rt.Link, index int, addrs []netip.Prefix) error {
	// A new namespace has IPv6 on, as the daemon's plan has it.
	if err := sysctl.Write(in.f, "net/ipv6/conf/eth0/accept_ra", "0"); err != nil {
		return err
	}
	for _, p := range addrs {
		if err := in.conn.AddAddress(ctx, rt.Address{Index: index, Prefix: p, NoDAD: true}); err != nil {
			return err
		}
	}
	err := setUp(ctx, host, l.Index)
	for _, i := range []int{loopback, index} {
		if err == nil {
			err = setUp(ctx, in.conn, i)
		}
	}
	if err == nil {
		err = in.furnish(ctx)
	}
	for _, p := range addrs {
		if err == nil {
			all := netip.PrefixFrom(p.Addr(), 0).Masked()
			// IPv6 makes the connected route only when link watch has seen the
			// carrier, and until then refuses another gateway than one on the link.
			err = in.conn.AddRoute(ctx, rt.Route{Dst: all, Gateway: gateway(p.Masked()), OIF: index, Onlink: p.Addr().Is6()})
		}
	}
	if err != nil {
		return err
	}
	return in.settled(ctx, addrs[len(addrs)-1].Addr())
}

// naive makes the same endpoint as most scripts do: the pair on the host, with
// the default of one queue for each processor, and then one change a message.
func (b *bareHost) naive(ctx context.Context, host *rt.Conn, name string) (e bareEndpoint, err error) {
	e.path = filepath.Join(b.dir, name)
	in, err := enter(e.path)
	if err != nil {
		return e, err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	if err := host.AddLink(ctx, "veth", rt.LinkSpec{Name: name}); err != nil {
		return e, err
	}
	l, err := host.LinkByName(ctx, name)
	if err != nil {
		return e, err
	}
	e.link = l.Index
	index, err := in.move(ctx, host, l.PeerIndex)
	if err != nil {
		return e, err
	}
	mark, mtu := uint32(bareMark), bareMTU
	for _, ch := range []rt.LinkChange{{Group: &mark}, {MTU: &mtu}, {Master: &b.bridge}} {
		if err := host.SetLink(ctx, l.Index, ch); err != nil {
			return e, err
		}
	}
	return e, in.configure(ctx, host, l, index, b.addresses())
}

// move brings a link of the host inside and renames it.
func (in *inside) move(ctx context.Context, host *rt.Conn, index int) (int, error) {
	peer, err := host.LinkByIndex(ctx, index)
	if err != nil {
		return 0, err
	}
	fd := int(in.f.Fd())
	if err := host.SetLink(ctx, index, rt.LinkChange{NSFD: &fd}); err != nil {
		return 0, err
	}
	moved, err := in.conn.LinkByName(ctx, peer.Name)
	if err != nil {
		return 0, err
	}
	name, mtu := "eth0", bareMTU
	for _, ch := range []rt.LinkChange{{Name: &name}, {MTU: &mtu}} {
		if err := in.conn.SetLink(ctx, moved.Index, ch); err != nil {
			return 0, err
		}
	}
	return moved.Index, nil
}

// remove deletes an endpoint's link and lets go of its namespace.
func (b *bareHost) remove(ctx context.Context, e bareEndpoint) error {
	if err := b.conn.DelLink(ctx, e.link); err != nil {
		return err
	}
	return netns.Remove(e.path)
}

// removeSerially deletes the links one by one, each an operation of its own.
func (b *bareHost) removeSerially(ctx context.Context, list []bareEndpoint) error {
	for _, e := range list {
		if err := b.conn.DelLink(ctx, e.link); err != nil {
			return err
		}
	}
	return nil
}

// release lets go of namespaces whose links are gone.
func release(list []bareEndpoint) error {
	for _, e := range list {
		if err := netns.Remove(e.path); err != nil {
			return fmt.Errorf("release endpoints: %w", err)
		}
	}
	return nil
}

// drop removes endpoints together, as fast as it goes.
func (b *bareHost) drop(ctx context.Context, list []bareEndpoint) error {
	trash := uint32(bareMark + 1)
	for _, e := range list {
		if err := b.conn.SetLink(ctx, e.link, rt.LinkChange{Group: &trash}); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return nil
	}
	if err := b.conn.DelGroup(ctx, trash); err != nil {
		return err
	}
	return release(list)
}
