//go:build linux

package linux_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

// resolverTable rewrites ports on the loopback of a sandbox: what asks
// 127.0.0.11 on port 53 is taken to a socket on another port, and the answer
// looks as if it came from 53.
const resolverTable = `
	table netdev towpath {
		chain resolver {
			type filter hook ingress device "lo" priority filter; policy accept;
			ip daddr 127.0.0.11 udp dport 53 udp dport set 40053
			ip daddr 127.0.0.11 tcp dport 53 tcp dport set 40053
			ip saddr 127.0.0.11 udp sport 40053 udp sport set 53
			ip saddr 127.0.0.11 tcp sport 40053 tcp sport set 53
		}
	}
`

// resolver is a sandbox with that table.
func resolver(t testing.TB) kernel.State {
	t.Helper()
	s, err := kernel.Parse("netns host:\n\tnetns web\nnetns web:\n\tup lo\n" + resolverTable)
	must(t, err)
	return s
}

// TestTableInSandbox: a table in a sandbox comes and is found, works, comes back
// when its tenant takes it away, and goes.
func TestTableInSandbox(t *testing.T) {
	h := newHost(t, true)
	want := resolver(t)
	h.put(nil, want)
	h.agrees(want)
	asks(t, h)

	inside := dialIn(t, h, "web")
	own := rules.Table{Family: rules.FamilyNetdev, Name: "towpath"}
	for name, harm := range map[string]func(b *nft.Batch){
		"table deleted": func(b *nft.Batch) { b.DeleteTable(own) },
		"chain emptied": func(b *nft.Batch) {
			b.FlushChain(rules.Chain{Family: own.Family, Table: own.Name, Name: "resolver"})
		},
		"hook taken off": func(b *nft.Batch) {
			b.DeleteDevices(rules.Chain{Family: own.Family, Table: own.Name, Name: "resolver"}, []string{"lo"})
		},
		"hook of another policy": func(b *nft.Batch) {
			b.AddChain(rules.Chain{Family: own.Family, Table: own.Name, Name: "resolver", Type: "filter", Hook: "ingress", Policy: "drop", Devices: []string{"lo"}})
		},
	} {
		var b nft.Batch
		harm(&b)
		must(t, inside.Commit(t.Context(), &b))
		seen := h.see(want, false)
		if len(kernel.Diff(seen, want)) == 0 {
			t.Errorf("%s: nobody saw it", name)
		}
		h.put(seen, want)
		h.agrees(want)
	}
	asks(t, h)

	less, err := kernel.Parse("netns host:\n\tnetns web\nnetns web:\n\tup lo\n")
	must(t, err)
	h.put(want, less)
	h.agrees(less)
	h.put(less, want)
	h.put(want, nil)
	h.agrees(nil)
}

// asks checks that questions to 127.0.0.11:53 in the sandbox are answered.
func asks(t testing.TB, h *host) {
	t.Helper()
	web := h.sandbox("web")
	high, low := netip.MustParseAddrPort("127.0.0.11:40053"), netip.MustParseAddrPort("127.0.0.11:53")
	udp := web.ListenUDP(t, high)
	defer udp.Close()
	tcp := web.ListenTCP(t, high)
	defer tcp.Close()
	go func() {
		b := make([]byte, 16)
		for {
			n, from, err := udp.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	go func() {
		if c, err := tcp.Accept(); err == nil {
			_, _ = c.Write([]byte("answer"))
			_ = c.Close()
		}
	}()
	c, err := web.DialUDP(t.Context(), low)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	_, err = c.Write([]byte("answer"))
	must(t, err)
	b := make([]byte, 16)
	n, err := c.Read(b) // connected: only from port 53
	must(t, err)
	s, err := web.DialTCP(t.Context(), low)
	must(t, err)
	defer s.Close()
	must(t, s.SetDeadline(time.Now().Add(5*time.Second)))
	m := make([]byte, 16)
	k, err := s.Read(m)
	must(t, err)
	if string(b[:n]) != "answer" || string(m[:k]) != "answer" {
		t.Errorf("answers %q and %q", b[:n], m[:k])
	}
}

// dialIn connects to the nftables of a sandbox as its tenant.
func dialIn(t testing.TB, h *host, sandbox string) *nft.Conn {
	t.Helper()
	c, err := nft.Dial(h.sandbox(sandbox).FD())
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// TestCrowdedTable: a tenant who fills our table has no part in how long it
// takes: it counts as absent, and is exchanged whole.
func TestCrowdedTable(t *testing.T) {
	h := newHost(t, false)
	want := resolver(t)
	h.put(nil, want)
	c := dialIn(t, h, "web")
	set := rules.Set{Family: rules.FamilyNetdev, Table: "towpath", Name: "full", KeyType: "ipv4_addr"}
	for _, n := range []int{1000, 100000} {
		var b nft.Batch
		b.AddSet(set)
		list := make([]rules.Element, n)
		for i := range list {
			list[i].Key = []byte{10, byte(i >> 16), byte(i >> 8), byte(i)}
		}
		b.AddElements(set, list)
		must(t, c.Commit(t.Context(), &b))
		seen := h.see(want, true)
		ops := kernel.Diff(seen, want)
		if len(ops) == 0 || ops[0].String() != "+ web: table netdev towpath" {
			t.Fatalf("with %d elements of the tenant's there is to do: %v", n, ops)
		}
		h.put(seen, want)
		h.agrees(want)
	}
	asks(t, h)
}

// TestHostileOwner: a tenant who owns the table keeps us out of it, and out of
// nothing else.
func TestHostileOwner(t *testing.T) {
	h := newHost(t, true)
	if h.view().Host.TableFlags == "" {
		t.Skip("skip: needs table flags owner and persist: this kernel has none")
	}
	want := resolver(t)
	bare, err := kernel.Parse("netns host:\n\tnetns web\nnetns web:\n\tup lo\n")
	must(t, err)
	h.put(nil, bare)
	c := dialIn(t, h, "web")
	var b nft.Batch
	b.AddTable(rules.Table{Family: rules.FamilyNetdev, Name: "towpath", Flags: rules.TableOwner})
	must(t, c.Commit(t.Context(), &b))
	for op, err := range h.refused(h.see(want, true), want) {
		if !strings.Contains(op, "web: ") || err == nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	must(t, c.Close())
	h.put(h.see(want, true), want)
	h.agrees(want)
}

// TestHooks: links are hooked to a chain of the host's and taken off, also when
// the kernel has forgotten the link meanwhile, and their hooks outlive what the
// kernel does to them when they are exchanged.
func TestHooks(t *testing.T) {
	testnet.Require(t, "netns")
	h := newHost(t, false)
	support := h.view().Host.Hooks
	if support == kernel.NoHooks {
		t.Skip("skip: needs Linux 6.4 with CONFIG_NETFILTER_INGRESS and CONFIG_NF_TABLES_NETDEV")
	}
	for _, byName := range []bool{true, false} {
		if byName && support != kernel.HooksByName {
			continue
		}
		guarded := func(links ...string) kernel.State {
			page := "netns host:\n\tnetns web\n\tnetns db\n"
			for _, l := range links {
				page += "\tlink v-" + l + " type veth mtu 1500 peer eth0 netns " + l + " alias \"towpath endpoint/" + l + "/eth0\"\n\tup v-" + l + "\n"
			}
			page += "\ttable netdev towpath {\n\t\tchain guard {\n\t\t\ttype filter hook ingress priority -500; policy accept;\n\t\t\tcounter drop\n\t\t}\n\t}\n"
			s, err := kernel.Parse(page)
			must(t, err)
			for _, l := range links {
				must(t, s.Add(
					kernel.Hook{NS: kernel.Host, Family: "netdev", Table: "towpath", Chain: "guard", Dev: "v-" + l, ByName: byName},
					kernel.Link{NS: l, Name: "eth0", Type: "veth", MTU: 1500, PeerOf: "v-" + l}))
			}
			return s
		}
		none, one, two := guarded(), guarded("web"), guarded("web", "db")
		have := kernel.State(nil)
		for _, want := range []kernel.State{none, one, two, none, two, one, none} {
			h.put(have, want)
			h.agrees(want)
			have = want
		}
		// A link that somebody deletes is made anew, and is hooked again.
		h.put(have, two)
		c := h.ns.Conn(t)
		must(t, c.DelLink(t.Context(), link(t, c, "v-web").Index))
		seen := h.see(two, true)
		h.put(seen, two)
		h.agrees(two)
		// A hook that is gone already is no hindrance to the rest.
		h.commit(func(b *nft.Batch) {
			b.DeleteDevices(rules.Chain{Family: rules.FamilyNetdev, Table: "towpath", Name: "guard"}, []string{"v-db"})
		})
		h.put(two, none)
		h.put(none, nil)
		h.agrees(nil)
	}
}
