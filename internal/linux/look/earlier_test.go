//go:build linux

package look_test

import (
	"os"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/look"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/testnet"
)

// TestEarlier reads only what is new since a look, and what that leads to.
func TestEarlier(t *testing.T) {
	testnet.Require(t, "netns")
	host := testnet.New(t, "host")
	c := look.Config{Self: host.F, Named: map[string]*os.File{}, Limits: look.DefaultLimits()}
	spaces := map[string]*testnet.NS{}
	for _, name := range []string{"still", "young", "linked", "unlinked"} {
		spaces[name] = testnet.New(t, name)
		c.Named[name] = spaces[name].F
		testnet.Link(t, host, spaces[name], "v-"+name, "eth0", nil, prefixes("172.20.0.2/24"))
	}
	testnet.Link(t, spaces["still"], spaces["unlinked"], "side", "side", nil, nil)
	testnet.Link(t, spaces["linked"], spaces["young"], "lost", "lost", nil, nil)
	before, err := look.Machine(t.Context(), c)
	must(t, err)
	before.Rename(map[string]string{"still": "docker:still"})

	// Each gets an address, which shows whether it was read again.
	for name, ns := range spaces {
		conn := ns.Conn(t)
		eth0, err := conn.LinkByName(t.Context(), "eth0")
		must(t, err)
		must(t, conn.AddAddress(t.Context(), rt.Address{Index: eth0.Index, Prefix: prefixes("10.9.9.9/32")[0]}))
		if name == "linked" {
			lost, err := conn.LinkByName(t.Context(), "lost")
			must(t, err)
			must(t, conn.DelLink(t.Context(), lost.Index))
		}
	}
	late := testnet.New(t, "late")
	c.Named["late"] = late.F
	testnet.Link(t, host, late, "v-late", "eth0", nil, prefixes("172.20.0.3/24"))
	testnet.Link(t, late, spaces["unlinked"], "new", "new", nil, nil)
	c.Earlier = &look.Earlier{Host: &before, Again: []uint64{before.Space("young").Inode}}
	now, err := look.Machine(t.Context(), c)
	must(t, err)

	for name, read := range map[string]bool{"still": false, "young": true, "linked": true, "unlinked": true} {
		got := slices.ContainsFunc(now.Space(name).Addresses, func(a machine.Address) bool { return a.Prefix == prefixes("10.9.9.9/32")[0] })
		if got != read {
			t.Errorf("%s was read again: %v, want %v", name, got, read)
		}
	}
	for _, end := range [][4]string{
		{"host", "v-late", "late", "eth0"},
		{"late", "eth0", "host", "v-late"},
		{"late", "new", "unlinked", "new"},
		{"unlinked", "new", "late", "new"},
		{"host", "v-still", "still", "eth0"},
		{"still", "eth0", "host", "v-still"},
		{"still", "side", "unlinked", "side"},
		{"unlinked", "side", "still", "side"},
	} {
		if l := now.Space(end[0]).Link(end[1]); l == nil || l.PeerNS != end[2] || l.Peer != end[3] || l.Elsewhere {
			t.Errorf("link %s of %s is %+v", end[1], end[0], l)
		}
	}
	if now.Space("linked").Link("lost") != nil {
		t.Error("a link that is gone is there")
	}
	if l := before.Space("unlinked").Link("side"); l.PeerNS != "docker:still" || before.Space("late") != nil {
		t.Errorf("the earlier look was changed: %+v", l)
	}
}

// TestEarlierGone: what links of one that was taken over lead to is not there when
// it is gone.
func TestEarlierGone(t *testing.T) {
	testnet.Require(t, "netns")
	host, web, far := testnet.New(t, "host"), testnet.New(t, "web"), testnet.New(t, "far")
	testnet.Link(t, host, web, "v-web", "eth0", nil, nil)
	testnet.Link(t, web, far, "side", "side", nil, nil)
	c := look.Config{Self: host.F, Named: map[string]*os.File{"web": web.F, "far": far.F}, Limits: look.DefaultLimits()}
	before, err := look.Machine(t.Context(), c)
	must(t, err)
	delete(c.Named, "far")
	c.Earlier = &look.Earlier{Host: &before}
	now, err := look.Machine(t.Context(), c)
	must(t, err)
	if side := now.Space("web").Link("side"); now.Space("far") != nil || side.PeerNS != "" || !side.Elsewhere {
		t.Errorf("link %+v", side)
	}
}

// TestList lists what a look would find, also what comes later.
func TestList(t *testing.T) {
	testnet.Require(t, "netns")
	host, dir := testnet.New(t, "host"), t.TempDir()
	l := look.List(look.Config{Self: host.F, RunDir: dir})
	t.Cleanup(func() { l.Close() })
	has := func(ns *testnet.NS) bool {
		t.Helper()
		list, err := l.Inodes()
		must(t, err)
		var st unix.Stat_t
		must(t, unix.Fstat(ns.FD(), &st))
		return slices.Contains(list, st.Ino)
	}
	web, app := testnet.New(t, "web"), testnet.New(t, "app")
	if !has(host) || has(web) || has(app) {
		t.Error("the host alone can be found")
	}
	bind(t, dir, "web", web)
	if !has(web) {
		t.Error("one that was bound is not found")
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "600")
	must(t, app.Start(cmd))
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if !has(app) {
		t.Error("that of a process is not found")
	}
	must(t, netns.Remove(dir+"/netns/web"))
	if has(web) {
		t.Error("one that is bound no more is found")
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	if has(app) {
		t.Error("that of a process which is gone is found")
	}
}
