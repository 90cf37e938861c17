//go:build linux

package nft_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

func TestMonitorTellsWriterAndObjects(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		m, err := nft.Listen(-1)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		c := dial(t)
		load(t, c, "table inet t { set s { type ifname; elements = { \"a\", \"b\" } } chain c { counter\n accept } }")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		e, err := m.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		generation, err := c.Generation(ctx)
		if err != nil || e.Generation != generation || e.PortID != c.PortID() || e.Process == "" || e.ThreadID == 0 || e.Overrun {
			t.Errorf("event %+v, generation %d, %v, port %d", e, generation, err, c.PortID())
		}
		touch := func(kind, name string) nft.Touch {
			return nft.Touch{Family: rules.FamilyInet, Table: "t", Kind: kind, Name: name}
		}
		want := []nft.Touch{touch("table", ""), touch("set", "s"), touch("chain", "c"), touch("element", "s"), touch("rule", "c")}
		if diff := cmp.Diff(want, e.Touched); diff != "" {
			t.Errorf("touched (-want +got):\n%s", diff)
		}
		foreign := dial(t)
		var b nft.Batch
		b.DeleteTable(rules.Table{Family: rules.FamilyInet, Name: "t"})
		if err := foreign.Commit(ctx, &b); err != nil {
			t.Fatal(err)
		}
		e, err = m.Next(ctx)
		deleted := slices.Contains(e.Touched, nft.Touch{Family: rules.FamilyInet, Table: "t", Kind: "table", Delete: true})
		if err != nil || e.PortID != foreign.PortID() || !deleted {
			t.Errorf("event %+v, %v", e, err)
		}
	})
}

// TestMonitorHearsOtherNamespaces: of those with an id, each transaction with
// what it touched, however they come.
func TestMonitorHearsOtherNamespaces(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		m, err := nft.ListenAll(-1)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		routes, err := rt.Dial(-1)
		if err != nil {
			t.Fatal(err)
		}
		defer routes.Close()
		conns := map[int]*nft.Conn{nft.NoNSID: dial(t)}
		for _, id := range []int{5, 7} {
			ns := testnet.New(t, "other")
			if err := routes.SetNSID(t.Context(), ns.FD(), id); err != nil {
				t.Fatal(err)
			}
			c, err := nft.Dial(ns.FD())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			conns[id] = c
		}
		for _, id := range []int{7, nft.NoNSID, 5} {
			name := fmt.Sprintf("t%d", id+1)
			load(t, conns[id], "table inet "+name+" { }")
			e, err := m.Next(t.Context())
			want := []nft.Touch{{Family: rules.FamilyInet, Table: name, Kind: "table"}}
			if err != nil || e.NSID != id || e.PortID != conns[id].PortID() || !slices.Equal(e.Touched, want) {
				t.Errorf("of namespace %d: %+v, %v", id, e, err)
			}
		}
	})
}

func TestMonitorEndsWithItsContext(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		m, err := nft.Listen(-1)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := m.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
		// The monitor is good for another context.
		c := dial(t)
		load(t, c, "table ip t { }")
		if e, err := m.Next(t.Context()); err != nil || len(e.Touched) != 1 {
			t.Errorf("event %+v, %v", e, err)
		}
	})
}

func TestDevicesOfAChain(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		c := dial(t)
		def := load(t, c, "table netdev t { chain c { type filter hook ingress device lo priority 0; } }")
		chain := def.Chains[0].Chain
		var del nft.Batch
		del.DeleteDevices(chain, []string{"lo"})
		if err := c.Commit(t.Context(), &del); err != nil {
			t.Fatal(err)
		}
		if got := read(t, c, rules.FamilyNetdev, "t").Chains[0].Devices; len(got) != 0 {
			t.Errorf("devices %v, want none", got)
		}
		var add nft.Batch
		add.AddDevices(chain, []string{"lo"})
		if err := c.Commit(t.Context(), &add); err != nil {
			t.Fatal(err)
		}
		if got := read(t, c, rules.FamilyNetdev, "t").Chains[0].Devices; !slices.Equal(got, []string{"lo"}) {
			t.Errorf("devices %v, want lo", got)
		}
	})
}

func TestRulesCanBeDeletedOneByOne(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		c := dial(t)
		def := load(t, c, "table inet t { set s { type ifname; } chain c {\n tcp dport { 1, 2 } counter comment \"a\"\n drop\n} chain d { } }")
		chain := def.Chains[0].Chain
		list, err := c.Rules(t.Context(), rules.FamilyInet, "t", "c")
		if err != nil || len(list) != 2 || list[0].Comment != "a" {
			t.Fatalf("rules %v, %v", list, err)
		}
		var b nft.Batch
		b.DeleteRule(chain, list[0].Handle)
		b.DeleteChain(def.Chains[1].Chain)
		b.DeleteSet(def.Sets[0].Set)
		if err := c.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		got := read(t, c, rules.FamilyInet, "t")
		if len(got.Chains) != 1 || len(got.Sets) != 0 || len(got.Chains[0].Rules) != 1 || got.Chains[0].Rules[0].String() != "drop" {
			t.Errorf("left:\n%s", got)
		}
		all, err := c.ReadTables(t.Context())
		if err != nil || len(all) != 1 || all[0].String() != got.String() {
			t.Errorf("all tables: %v, %v", all, err)
		}
	})
}

func TestEncodingErrorsStopTheCommit(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		c := dial(t)
		var b nft.Batch
		b.AddSet(rules.Set{Family: rules.FamilyInet, Table: "t", Name: "s", KeyType: "nonsense"})
		b.AddChain(rules.Chain{Family: rules.FamilyInet, Table: "t", Name: "c", Type: "filter", Hook: "sideways"})
		err := c.Commit(t.Context(), &b)
		var op *nft.OpError
		if !errors.As(err, &op) || op.Index != 0 || b.Len() != 2 {
			t.Errorf("error %v, want one of operation 0", err)
		}
		if err := c.Commit(t.Context(), &nft.Batch{}); err != nil {
			t.Errorf("empty batch: %v", err)
		}
	})
}

// What other programs write must be readable, whatever it is.
func TestForeignTable(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		nftOutput(t, `table inet foreign {
			comment "theirs"
			set learned { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
			map w { typeof ip saddr . tcp dport : meta mark; elements = { 1.2.3.4 . 80 : 5 }
			}
			chain c {
				type filter hook forward priority 0; policy accept;
				add @learned { ip saddr timeout 5s }
				tcp flags syn tcp option maxseg size set rt mtu
				numgen inc mod 2 0 accept
				quota over 100 mbytes drop
				ip dscp cs1 accept
				tcp dport { 22, 80-90 } ct state new limit rate 5/minute burst 10 packets counter accept
			}
		}`, "-f", "-")
		c := dial(t)
		got := read(t, c, rules.FamilyInet, "foreign")
		var unknown []string
		for _, r := range got.Chain("c").Rules {
			for _, e := range r.Exprs {
				if u, ok := e.(rules.Unknown); ok && len(u.Raw) > 0 {
					unknown = append(unknown, u.Name)
				}
			}
		}
		if want := []string{"dynset", "rt", "exthdr", "numgen", "quota"}; !slices.Equal(unknown, want) {
			t.Errorf("unknown expressions %q, want %q", unknown, want)
		}
		list := got.Chain("c").Rules
		if got, want := list[5].String(), "tcp dport { 22, 80-90 } ct state new limit rate 5/minute burst 10 packets counter accept"; got != want {
			t.Errorf("rule %q, want %q", got, want)
		}
		if got, want := list[4].String(), "meta nfproto ipv4 @nh,8,8 & 0xfc == 0x20 accept"; got != want {
			t.Errorf("rule %q, want %q", got, want)
		}
		w := got.Set("w")
		if w.KeyType != "ipv4_addr . inet_service" || w.DataType != "mark" || rules.FormatElement(w.Set, w.Elements[0]) != "1.2.3.4 . 80 : 0x00000005" {
			t.Errorf("map %+v", w)
		}
	})
}

func TestDialByDescriptor(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		ns, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		load(t, dial(t), "table inet t { }")
		found := make(chan error, 1)
		go func() { // on a thread outside the namespace
			c, err := nft.Dial(int(ns.Fd()))
			if err != nil {
				found <- err
				return
			}
			defer c.Close()
			_, err = c.ReadTable(t.Context(), rules.FamilyInet, "t")
			found <- err
		}()
		if err := <-found; err != nil {
			t.Error(err)
		}
	})
}
