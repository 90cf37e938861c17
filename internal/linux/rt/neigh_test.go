//go:build linux

package rt_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
	"golang.org/x/sys/unix"
)

func TestNeighbours(t *testing.T) {
	_, c, br := host(t)
	want := []rt.Neighbour{
		{Family: unix.AF_INET, Index: br.Index, IP: ip("10.9.0.2"), MAC: rt.MAC{2, 0, 0, 0, 0, 2}, State: unix.NUD_PERMANENT, Protocol: mark},
		{Family: unix.AF_INET6, Index: br.Index, IP: ip("fd09::2"), MAC: rt.MAC{2, 0, 0, 0, 0, 3}, State: unix.NUD_NOARP, Protocol: mark},
	}
	for _, n := range want {
		must(t, c.AddNeighbour(t.Context(), n))
	}
	read := func() []rt.Neighbour {
		all := got(c.Neighbours(t.Context(), rt.NeighbourFilter{Index: br.Index}, 0))(t)
		ours := slices.DeleteFunc(all, func(n rt.Neighbour) bool { return n.Protocol != mark })
		slices.SortFunc(ours, func(a, b rt.Neighbour) int { return int(a.Family) - int(b.Family) })
		return ours
	}
	if diff := cmp.Diff(want, read(), plain...); diff != "" {
		t.Errorf("neighbours (-want +got):\n%s", diff)
	}
	if err := c.AddNeighbour(t.Context(), want[0]); !errors.Is(err, unix.EEXIST) {
		t.Errorf("second time: %v", err)
	}
	want[0].MAC = rt.MAC{2, 0, 0, 0, 0, 9}
	must(t, c.ReplaceNeighbour(t.Context(), want[0]))
	if have := read(); have[0].MAC != want[0].MAC {
		t.Errorf("after replacing: %+v", have[0])
	}
	if _, err := c.Neighbours(t.Context(), rt.NeighbourFilter{}, 1); !errors.Is(err, rt.ErrTooMany) {
		t.Errorf("limit 1: %v", err)
	}
	for _, n := range want {
		must(t, c.DelNeighbour(t.Context(), n))
	}
	if err := c.DelNeighbour(t.Context(), rt.Neighbour{Index: br.Index, IP: ip("10.9.0.77")}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("deletion of nothing: %v", err)
	}
	if have := read(); len(have) != 0 {
		t.Errorf("left over: %+v", have)
	}
}

func TestStaticFDB(t *testing.T) {
	_, c, br := host(t)
	l, _ := port(t, c, br, "v0")
	port(t, c, br, "v1")
	mac := rt.MAC{2, 0, 0, 0, 0, 5}
	entry := rt.Neighbour{Family: unix.AF_BRIDGE, Index: l.Index, MAC: mac, State: unix.NUD_NOARP, Flags: unix.NTF_MASTER}
	must(t, c.AddNeighbour(t.Context(), entry))
	for _, f := range []rt.NeighbourFilter{
		{Family: unix.AF_BRIDGE, Index: l.Index},
		{Family: unix.AF_BRIDGE, Master: br.Index},
	} {
		all := got(c.Neighbours(t.Context(), f, 0))(t)
		i := slices.IndexFunc(all, func(n rt.Neighbour) bool { return n.MAC == mac })
		if i < 0 {
			t.Fatalf("%+v gives %+v, without the entry", f, all)
		}
		if e := all[i]; e.State != unix.NUD_NOARP || e.Master != br.Index || e.Index != l.Index {
			t.Errorf("entry is %+v", e)
		}
		if f.Index != 0 && slices.ContainsFunc(all, func(n rt.Neighbour) bool { return n.Index != l.Index }) {
			t.Errorf("%+v gives other ports: %+v", f, all)
		}
	}
	must(t, c.DelNeighbour(t.Context(), entry))
	if err := c.DelNeighbour(t.Context(), entry); !errors.Is(err, unix.ENOENT) {
		t.Errorf("second deletion: %v", err)
	}
}

func TestVXLANFarEnds(t *testing.T) {
	testnet.Require(t, "kind:vxlan")
	_, c, _ := host(t)
	must(t, c.AddVXLAN(t.Context(), rt.VXLANSpec{LinkSpec: rt.LinkSpec{Name: "vx"}, VNI: 7, Local: ip("10.0.0.1"), Port: 4789}))
	vx := got(c.LinkByName(t.Context(), "vx"))(t)
	flood := rt.Neighbour{Family: unix.AF_BRIDGE, Index: vx.Index, IP: ip("10.0.0.2"), State: unix.NUD_NOARP | unix.NUD_PERMANENT, Flags: unix.NTF_SELF}
	must(t, c.AppendNeighbour(t.Context(), flood))
	flood.IP = ip("10.0.0.3")
	must(t, c.AppendNeighbour(t.Context(), flood))
	one := flood
	one.MAC, one.VNI, one.Port = rt.MAC{2, 0, 0, 0, 0, 1}, 8, 4790
	must(t, c.ReplaceNeighbour(t.Context(), one))
	all := got(c.Neighbours(t.Context(), rt.NeighbourFilter{Family: unix.AF_BRIDGE, Index: vx.Index}, 0))(t)
	count := func(n rt.Neighbour) int {
		found := 0
		for _, have := range all {
			if have.MAC == n.MAC && have.IP == n.IP && have.VNI == n.VNI && have.Port == n.Port {
				found++
			}
		}
		return found
	}
	first := flood
	first.IP = ip("10.0.0.2")
	if count(first) != 1 || count(flood) != 1 || count(one) != 1 {
		t.Errorf("database is %+v", all)
	}
	must(t, c.DelNeighbour(t.Context(), flood))
	all = got(c.Neighbours(t.Context(), rt.NeighbourFilter{Family: unix.AF_BRIDGE, Index: vx.Index}, 0))(t)
	if count(first) != 1 || count(flood) != 0 {
		t.Errorf("after deleting one far end: %+v", all)
	}
}
