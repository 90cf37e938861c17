package scripts

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

// lab is `lab BRIDGE PREFIX NAME...`: a network that is not Towpath's, made by
// hand as the tutorials do: a bridge with the first address of the prefix,
// and namespaces at /run/netns with those behind it and a default route.
func lab(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts, neg, args, 3)
	c, err := rt.Dial(w.host.FD())
	ts.Check(err)
	defer c.Close()
	p, err := netip.ParsePrefix(args[1])
	ts.Check(err)
	gateway := p.Masked().Addr().Next()
	ts.Check(c.AddBridge(w.Context(), rt.BridgeSpec{LinkSpec: rt.LinkSpec{Name: args[0]}}))
	ts.Check(addressed(w.Context(), c, args[0], netip.PrefixFrom(gateway, p.Bits())))
	bridge, err := c.LinkByName(w.Context(), args[0])
	ts.Check(err)
	addr := gateway
	for _, name := range args[2:] {
		path := filepath.Join("/run/netns", name)
		ts.Check(netns.Create(path))
		ts.Defer(func() { ts.Check(netns.Remove(path)) })
		ns, err := netns.Open(path)
		ts.Check(err)
		defer ns.Close()
		addr = addr.Next()
		ts.Check(c.AddVeth(w.Context(), rt.VethSpec{
			LinkSpec: rt.LinkSpec{Name: "to-" + name, Master: bridge.Index},
			Peer:     rt.LinkSpec{Name: "eth0", NSFD: int(ns.Fd())},
		}))
		ts.Check(raise(w.Context(), c, "to-"+name))
		in, err := rt.Dial(int(ns.Fd()))
		ts.Check(err)
		defer in.Close()
		ts.Check(raise(w.Context(), in, "lo"))
		ts.Check(addressed(w.Context(), in, "eth0", netip.PrefixFrom(addr, p.Bits())))
		ts.Check(route(w.Context(), in, "default", gateway.String(), true))
	}
}

// raise sets a link up.
func raise(ctx context.Context, c *rt.Conn, name string) error {
	l, err := c.LinkByName(ctx, name)
	if err != nil {
		return err
	}
	up := true
	return c.SetLink(ctx, l.Index, rt.LinkChange{Up: &up})
}

// addressed sets a link up and gives it an address.
func addressed(ctx context.Context, c *rt.Conn, name string, p netip.Prefix) error {
	if err := raise(ctx, c, name); err != nil {
		return err
	}
	l, err := c.LinkByName(ctx, name)
	if err != nil {
		return err
	}
	return c.AddAddress(ctx, rt.Address{Index: l.Index, Prefix: p, NoDAD: true})
}

// route adds or deletes a route by eth0 or a gateway.
func route(ctx context.Context, c *rt.Conn, dst, via string, add bool) error {
	r := rt.Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	var err error
	if dst != "default" {
		if r.Dst, err = netip.ParsePrefix(dst); err != nil {
			return err
		}
	}
	if via == "eth0" {
		l, err := c.LinkByName(ctx, via)
		if err != nil {
			return err
		}
		r.OIF = l.Index
	} else if r.Gateway, err = netip.ParseAddr(via); err != nil {
		return err
	}
	if add {
		return c.AddRoute(ctx, r)
	}
	return c.DelRoute(ctx, r)
}

// labPlace opens a namespace of a lab, the host or a sandbox.
func labPlace(ts *testscript.TestScript, w *world, name string) *rt.Conn {
	var ns *testnet.NS
	if f, err := netns.Open(filepath.Join("/run/netns", name)); err == nil {
		ns = &testnet.NS{Name: name, F: f}
		w.Cleanup(func() { f.Close() })
	} else {
		var err error
		ns, _, err = w.place(name)
		ts.Check(err)
	}
	c, err := rt.Dial(ns.FD())
	ts.Check(err)
	w.Cleanup(func() { c.Close() })
	return c
}

// at is `at PLACE DO ARG...`, as root would with ip: up DEV, down DEV, mtu DEV N,
// mac DEV MAC, addr add|del DEV PREFIX, route add|del DST VIA.
func at(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts, neg, args, 3)
	c, ctx := labPlace(ts, w, args[0]), w.Context()
	switch args[1] {
	case "route":
		ts.Check(route(ctx, c, args[3], args[4], args[2] == "add"))
		return
	case "addr":
		l, err := c.LinkByName(ctx, args[3])
		ts.Check(err)
		p, err := netip.ParsePrefix(args[4])
		ts.Check(err)
		a := rt.Address{Index: l.Index, Prefix: p, NoDAD: true}
		if args[2] == "add" {
			ts.Check(c.AddAddress(ctx, a))
		} else {
			ts.Check(c.DelAddress(ctx, a))
		}
		return
	}
	l, err := c.LinkByName(ctx, args[2])
	ts.Check(err)
	ch, err := change(args[1:])
	ts.Check(err)
	ts.Check(c.SetLink(ctx, l.Index, ch))
}

// change reads up DEV, down DEV, mtu DEV N or mac DEV MAC.
func change(args []string) (rt.LinkChange, error) {
	up, down := true, false
	switch args[0] {
	case "up":
		return rt.LinkChange{Up: &up}, nil
	case "down":
		return rt.LinkChange{Up: &down}, nil
	case "mtu":
		n, err := strconv.Atoi(args[2])
		return rt.LinkChange{MTU: &n}, err
	case "mac":
		mac, err := rt.ParseMAC(args[2])
		return rt.LinkChange{MAC: &mac}, err
	}
	return rt.LinkChange{}, fmt.Errorf("no way to do %q", args[0])
}

// ruleset is `ruleset add|del FILE`: somebody else's tables on the host.
func ruleset(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts, neg, args, 2)
	tables, err := rules.ParseTables(ts.ReadFile(args[1]))
	ts.Check(err)
	c, err := nft.Dial(w.host.FD())
	ts.Check(err)
	defer c.Close()
	var b nft.Batch
	for _, t := range tables {
		if args[0] == "del" {
			b.DeleteTable(t.Table)
			continue
		}
		b.AddTable(t.Table)
		for _, ch := range t.Chains {
			b.AddChain(ch.Chain)
		}
		for _, ch := range t.Chains {
			for _, r := range ch.Rules {
				b.AddRule(ch.Chain, r)
			}
		}
	}
	ts.Check(c.Commit(w.Context(), &b))
}

// orphan is `orphan BRIDGE NAME`: a port whose other end is in a namespace that
// only an open descriptor holds.
func orphan(ts *testscript.TestScript, neg bool, args []string) {
	w := of(ts, neg, args, 2)
	ts.Check(w.orphan(args[0], args[1]))
}

func (w *world) orphan(bridge, name string) error {
	ns := testnet.New(w, "nobody's")
	c := w.host.Conn(w)
	l, err := c.LinkByName(w.Context(), bridge)
	if err != nil {
		return err
	}
	return c.AddVeth(w.Context(), rt.VethSpec{
		LinkSpec: rt.LinkSpec{Name: name, Master: l.Index}, Peer: rt.LinkSpec{Name: "eth0", NSFD: ns.FD()},
	})
}
