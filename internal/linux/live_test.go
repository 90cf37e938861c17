//go:build linux

package linux_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

// has checks that one line has all the words.
func has(t *testing.T, lines []string, words ...string) {
	t.Helper()
	if !slices.ContainsFunc(lines, func(line string) bool {
		return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
	}) {
		t.Errorf("no line has all of %q:\n%s", words, strings.Join(lines, "\n"))
	}
}

func TestLive(t *testing.T) {
	h := newHost(t, false)
	_, want := h.small()
	h.put(nil, want)
	testnet.Link(t, h.ns, testnet.New(t, "outside"), "eth0", "eth0", []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}, nil)
	out := h.ns.Conn(t)
	must(t, out.AddRoute(t.Context(), rt.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.1"), OIF: link(t, out, "eth0").Index}))
	web, gateway := h.sandbox("web"), netip.MustParseAddr("172.20.0.1")
	must(t, web.Echo(gateway, 5*time.Second))
	l, err := h.Live(t.Context(), "web", []string{"v-web-eth0", "v-gone-eth0"})
	must(t, err)
	has(t, l.Links, "web: ", ": eth0 veth ", "state UP", "mtu 1500")
	has(t, l.Links, "web: ", ": lo loopback ")
	has(t, l.Links, "host: ", ": v-web-eth0 veth ")
	has(t, l.Addresses, "web: 172.20.0.2/24 dev eth0")
	has(t, l.Addresses, "web: fd00::2/64 dev eth0")
	has(t, l.Routes, "web: default via 172.20.0.1 dev eth0")
	has(t, l.Routes, "web: 172.20.0.0/24 dev eth0")
	has(t, l.Neighbours, "web: 172.20.0.1 lladdr 02:00:00:00:00:00 dev eth0")
	has(t, l.Links, "host: ", ": tp-front bridge ")
	has(t, l.Addresses, "host: 172.20.0.1/24 dev tp-front")
	has(t, l.Routes, "host: 172.20.0.0/24 dev tp-front")
	has(t, l.Routes, "host: default via 192.0.2.1 dev eth0")
	has(t, l.Routes, "web: rule 8001 from 172.20.1.2/32 lookup 8001")
	has(t, l.Routes, "web: default via 172.20.1.1 dev eth1 table 8001")
	has(t, l.Neighbours, "host: 172.20.0.2 lladdr 02:00:00:00:00:02 dev tp-front")
	has(t, l.Chains, "towpath forward handle ", "counter packets 0 bytes 0 drop", `comment "isolation"`)
	if slices.ContainsFunc(l.Links, func(s string) bool { return strings.Contains(s, "v-gone") }) {
		t.Error("a link that does not exist is shown")
	}
	if _, err := h.Live(t.Context(), "nobody", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("live state of no sandbox: %v, want %v", err, fs.ErrNotExist)
	}
}

// TestLiveOfMany: what a tenant fills the sandbox with is shown in part.
func TestLiveOfMany(t *testing.T) {
	h := newHost(t, false)
	_, want := h.small()
	h.put(nil, want)
	c := h.sandbox("web").Conn(t)
	eth0 := link(t, c, "eth0").Index
	for i := range 2000 {
		dst := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)}), 32)
		must(t, c.AddRoute(t.Context(), rt.Route{Dst: dst, OIF: eth0}))
		must(t, c.AddNeighbour(t.Context(), rt.Neighbour{Index: eth0, IP: dst.Addr(), MAC: rt.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}))
	}
	l, err := h.Live(t.Context(), "web", nil)
	must(t, err)
	if len(l.Routes) == 0 || len(l.Routes) > 300 || len(l.Neighbours) == 0 || len(l.Neighbours) > 300 {
		t.Errorf("%d routes and %d neighbours are shown, want some", len(l.Routes), len(l.Neighbours))
	}
	has(t, l.Addresses, "web: 172.20.0.2/24 dev eth0")
	h.agrees(want) // ours among theirs
}

// TestSocketTaken: an address that the workload uses is refused with the
// kernel's word.
func TestSocketTaken(t *testing.T) {
	h := newHost(t, false)
	v := h.view()
	addSandbox(v, "web", 2)
	h.put(nil, plan(t, v))
	must(t, h.resolver.Detach("web"))
	h.sandbox("web").ListenTCP(t, netip.MustParseAddrPort("0.0.0.0:40053"))
	op := kernel.Op{Verb: kernel.Create, Object: kernel.Socket{NS: "web", Proto: "udp,tcp", Addr: netip.MustParseAddrPort("127.0.0.11:40053")}}
	fs := h.Apply(t.Context(), []kernel.Op{op})
	if len(fs) != 1 || !strings.Contains(fs[0].Err.Error(), "address already in use") {
		t.Errorf("failures %v, want that the address is in use", fs)
	}
	if seen := h.see(plan(t, v), false); seen[op.Object.Key()] != nil {
		t.Error("it is said to be held")
	}
}

// TestFacts: what is not ours decides, what is ours does not.
func TestFacts(t *testing.T) {
	h := newHost(t, false)
	c := h.ns.Conn(t)
	must(t, c.AddVeth(t.Context(), rt.VethSpec{LinkSpec: rt.LinkSpec{Name: "up0", MTU: 1400}, Peer: rt.LinkSpec{Name: "up1"}}))
	for _, name := range []string{"up0", "up1"} {
		must(t, c.SetLink(t.Context(), link(t, c, name).Index, rt.LinkChange{Up: new(true)}))
	}
	up0 := link(t, c, "up0").Index
	must(t, c.AddAddress(t.Context(), rt.Address{Index: up0, Prefix: netip.MustParsePrefix("192.0.2.10/24")}))
	must(t, c.AddRoute(t.Context(), rt.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.0.2.1"), OIF: up0}))
	before := h.view().Host
	if before.UplinkMTU != 1400 || !before.Has("up0") || !before.Has("up1") || before.Has("lo") {
		t.Errorf("facts %+v, want the uplink with its MTU of 1400", before)
	}
	_, want := h.small()
	h.put(nil, want)
	if after := h.view().Host; !after.Equal(before) {
		t.Errorf("our own links change the facts: %+v, before %+v", after, before)
	}
	prefixes, err := h.Prefixes(t.Context())
	if err != nil || len(prefixes) != 1 || fmt.Sprint(prefixes[0]) != "{192.0.2.0/24 up0}" {
		t.Errorf("routes of the host %v, %v; want 192.0.2.0/24 over up0 alone", prefixes, err)
	}
	h.agrees(want)
}

// TestExited: a process is told from a later one with its number, and its end is noticed.
func TestExited(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=TestBlock$")
	cmd.Env = append(os.Environ(), "TOWPATH_TEST_BLOCK=1")
	stdin, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	pid := cmd.Process.Pid
	start, err := linux.StartTime(pid)
	must(t, err)
	gone := linux.Exited(t.Context(), pid, start)
	select {
	case <-linux.Exited(t.Context(), pid, start+1):
	case <-time.After(10 * time.Second):
		t.Error("a process that started at another time counts as alive")
	}
	select {
	case <-gone:
		t.Error("gone while it is running")
	default:
	}
	stdin.Close()
	must(t, cmd.Wait())
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("its end is not noticed")
	}
	if _, err := linux.StartTime(pid); err == nil {
		t.Error("start time of a process that is gone: no error")
	}
}

// TestBlock is the child of TestExited: it runs until its standard input ends.
func TestBlock(*testing.T) {
	if os.Getenv("TOWPATH_TEST_BLOCK") != "" {
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
}
