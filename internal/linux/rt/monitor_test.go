//go:build linux

package rt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/sysctl"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

// next returns the first event that is wanted; the rest is passed over.
func next(t *testing.T, m *rt.Monitor, wanted func(rt.Event) bool) rt.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		e, err := m.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if wanted(e) {
			return e
		}
	}
}

func TestMonitorKinds(t *testing.T) {
	ns, c, br := host(t)
	m := got(rt.Listen(ns.FD(), rt.GroupLink, rt.GroupNeighbour,
		rt.GroupIPv4Address, rt.GroupIPv6Address, rt.GroupIPv4Route, rt.GroupIPv6Route,
		rt.GroupIPv4Rule, rt.GroupIPv6Rule, rt.GroupIPv4Netconf, rt.GroupIPv6Netconf))(t)
	defer m.Close()
	l, _ := port(t, c, br, "v0")
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventLink && e.Link.Name == "v0" && e.NSID == rt.NoNSID })
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventPort && e.Link.Index == l.Index && e.Link.Port != nil })
	must(t, c.SetLink(t.Context(), l.Index, rt.LinkChange{Master: new(0)}))
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventPort && e.Link.Index == l.Index && e.Deleted })

	a := rt.Address{Index: br.Index, Prefix: pfx("fd09::1/64"), NoDAD: true, Proto: mark}
	must(t, c.AddAddress(t.Context(), a))
	next(t, m, func(e rt.Event) bool {
		return e.Kind == rt.EventAddress && e.Address.Prefix == a.Prefix && e.Address.Proto == mark
	})
	r := rt.Route{Dst: pfx("10.5.0.0/16"), OIF: br.Index, Protocol: mark}
	must(t, c.AddRoute(t.Context(), r))
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventRoute && e.Route.Dst == r.Dst && !e.Deleted })
	must(t, c.DelRoute(t.Context(), r))
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventRoute && e.Route.Dst == r.Dst && e.Deleted })
	must(t, c.AddRule(t.Context(), rt.Rule{Family: unix.AF_INET6, Priority: 9, Table: 9}))
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventRule && e.Rule.Priority == 9 })
	must(t, c.AddNeighbour(t.Context(), rt.Neighbour{Index: br.Index, IP: ip("fd09::2"), MAC: rt.MAC{2}}))
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventNeighbour && e.Neighbour.IP == ip("fd09::2") })
	must(t, sysctl.Write(ns.F, "net/ipv4/conf/br0/forwarding", "1"))
	next(t, m, func(e rt.Event) bool {
		return e.Kind == rt.EventNetconf && *e.Netconf == rt.Netconf{Family: unix.AF_INET, Index: br.Index, Forward: 1, RPF: -1}
	})
	must(t, c.DelLink(t.Context(), l.Index))
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventLink && e.Link.Index == l.Index && e.Deleted })
}

func TestListenAll(t *testing.T) {
	ns, c, _ := host(t)
	box := testnet.New(t, "box")
	m := got(rt.ListenAll(ns.FD(), rt.GroupLink, rt.GroupIPv4Address, rt.GroupNamespaceIDs))(t)
	defer m.Close()
	if id := got(c.NSID(t.Context(), box.FD()))(t); id != rt.NoNSID {
		t.Errorf("id before one is set: %d", id)
	}
	must(t, c.SetNSID(t.Context(), box.FD(), 33))
	if id := got(c.NSID(t.Context(), box.FD()))(t); id != 33 {
		t.Errorf("id %d, want 33", id)
	}
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventNSID && e.NSID == 33 && !e.Deleted })
	must(t, box.Conn(t).AddAddress(t.Context(), rt.Address{Index: 1, Prefix: pfx("127.0.0.7/8"), Scope: unix.RT_SCOPE_HOST}))
	e := next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventAddress })
	if e.NSID != 33 || e.Address.Prefix != pfx("127.0.0.7/8") {
		t.Errorf("event %+v of namespace %d, want 33", e.Address, e.NSID)
	}
	other := testnet.New(t, "other")
	must(t, c.SetNSID(t.Context(), other.FD(), rt.NoNSID))
	if id := got(c.NSID(t.Context(), other.FD()))(t); id < 0 {
		t.Errorf("id of the kernel's choice: %d", id)
	}
}

func TestMonitorOverrun(t *testing.T) {
	ns, c, _ := host(t)
	m := got(rt.Listen(ns.FD(), rt.GroupLink))(t)
	defer m.Close()
	must(t, m.Shrink())
	for i := range 50 {
		must(t, c.AddVeth(t.Context(), rt.VethSpec{LinkSpec: rt.LinkSpec{Name: fmt.Sprintf("v%d", i)}}))
	}
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventOverrun })
	// It goes on after that, once what was queued is read.
	l := got(c.LinkByName(t.Context(), "v0"))(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for {
		if _, err := m.Next(ctx); err != nil {
			break
		}
	}
	// A change of a link that is down is not announced, setting it up is.
	must(t, c.SetLink(t.Context(), l.Index, rt.LinkChange{Alias: new("after"), Up: new(true)}))
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventLink && e.Link.Alias == "after" })
}

func TestMonitorEnds(t *testing.T) {
	ns := testnet.New(t, "host")
	m := got(rt.Listen(ns.FD(), rt.GroupLink))(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := m.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	// The deadline of one call is not that of the next.
	must(t, ns.Conn(t).AddVeth(t.Context(), rt.VethSpec{LinkSpec: rt.LinkSpec{Name: "v0"}}))
	next(t, m, func(e rt.Event) bool { return e.Kind == rt.EventLink })
	ended := make(chan error)
	go func() {
		for {
			if _, err := m.Next(context.Background()); err != nil {
				ended <- err
				return
			}
		}
	}()
	must(t, m.Close())
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
