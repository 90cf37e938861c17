//go:build linux

package linux_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/internal/firewall"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

// program runs a program on the host and gives its output.
func (h *host) program(argv ...string) string {
	h.Helper()
	out, err := h.ns.Output(h.Context(), argv...)
	if err != nil {
		h.Fatal(err)
	}
	return out
}

// foreign reads the firewalls of others.
func (h *host) foreign() *kernel.Foreign {
	h.Helper()
	f, err := h.Foreign(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	return f
}

// findings are what is said of a network on the host.
func findings(f kernel.Foreign) []string {
	var out []string
	for _, f := range firewall.New(f, nil).Network(firewall.Network{Name: "front", Device: "tp-front", V4: true, V6: true, Ways: []string{"eth0"}}) {
		f.Rule.Handle = 0 // what is parsed has none
		out = append(out, f.String())
	}
	return out
}

// TestForeignRulesets: what is read of the kernel decides as the text that nft
// was given does.
func TestForeignRulesets(t *testing.T) {
	testnet.Require(t, "netns", "nft-binary")
	files, err := filepath.Glob("../firewall/testdata/*.nft")
	if err != nil || len(files) == 0 {
		t.Fatalf("rulesets: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			h := newHost(t, false)
			text, err := os.ReadFile(file)
			must(t, err)
			var parsed kernel.Foreign
			for part := range strings.SplitAfterSeq(string(text), "\n}\n") {
				if part != "" {
					def, err := rules.ParseTable(part)
					must(t, err)
					parsed.Tables = append(parsed.Tables, def)
				}
			}
			h.program("nft", "-f", file)
			want, got := findings(parsed), findings(*h.foreign())
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("as parsed, and as read (-parsed +read):\n%s", diff)
			}
		})
	}
}

// TestForeignIsReadOnce: the rules of others are read again when they changed,
// and not when ours did.
func TestForeignIsReadOnce(t *testing.T) {
	testnet.Require(t, "netns", "nft-binary")
	h := newHost(t, false)
	h.program("nft", "add table inet x; add chain inet x f { type filter hook forward priority 0; policy drop; }; add table ip y; add chain ip y c")
	unwatched := h.foreign()
	if h.foreign() == unwatched {
		t.Error("without notifications it is not read again")
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, err := h.Watch(ctx)
	must(t, err)
	go func() {
		for range events { // nobody acts on them here
		}
	}()
	defer cancel()
	first := h.foreign()
	_, want := h.small()
	h.put(nil, want)
	h.program("nft", "add rule ip y c counter") // no chain of it is asked about forwarding
	if h.foreign() != first {
		t.Error("it was read again though nothing of it changed")
	}
	for _, step := range []struct {
		change string
		tables int
	}{
		{"add rule inet x f accept", 1},
		{"add chain ip y f { type filter hook forward priority 0; }", 2},
		{"delete table inet x", 1},
		{"flush ruleset", 0},
	} {
		before := h.foreign()
		h.program("nft", step.change)
		if now := h.foreign(); now == before || len(now.Tables) != step.tables {
			t.Errorf("after %q: %d tables, want %d; read again: %v", step.change, len(now.Tables), step.tables, now != before)
		}
	}
}

// doorHost is a host with chains that are doors, which iptables made.
func doorHost(t *testing.T, cooperate bool) *host {
	t.Helper()
	testnet.Require(t, "netns", "iptables-nft-binary", "ip6tables-nft-binary")
	h := newHost(t, false)
	must(t, h.Close())
	h.ns.Do(t, func() (err error) {
		h.Kernel, err = linux.Open(linux.Config{
			RunDir: h.run, Cooperate: cooperate, Log: slog.New(slog.DiscardHandler), Pass: func(string) {},
		})
		return err
	})
	t.Cleanup(func() { h.Close() })
	return h
}

func facts(h *host) kernel.Facts {
	h.Helper()
	f, err := h.Facts(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	return f
}

func TestDoorsAreFound(t *testing.T) {
	h := doorHost(t, true)
	if f := facts(h); len(f.Doors) != 0 || !f.Cooperate {
		t.Errorf("facts of a host without others: %+v", f)
	}
	h.program("iptables-nft", "-N", "DOCKER-USER")
	h.program("ip6tables-nft", "-N", "DOCKER-USER")
	docker := kernel.DoorChains()
	want := []kernel.Door{docker[1], docker[3]}
	if got := facts(h).Doors; !slices.Equal(got, want) {
		t.Errorf("doors %v, want %v", got, want)
	}
	// ufw's comes behind the administrator's refusals, and Docker's would bypass them.
	h.program("iptables-nft", "-N", "ufw-user-forward")
	want[0] = docker[0]
	if got := facts(h).Doors; !slices.Equal(got, want) {
		t.Errorf("doors %v, want %v", got, want)
	}
}

// TestWays: what leads out is what default routes lead over, and no link that
// a container engine makes.
func TestWays(t *testing.T) {
	h := doorHost(t, false)
	other := testnet.New(t, "other")
	testnet.Link(t, h.ns, other, "veth1", "eth0", nil, nil)
	testnet.Link(t, h.ns, other, "eth0", "eth1", []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}, []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")})
	h.program("ip", "link", "add", "br-x", "type", "bridge")
	if got := facts(h).Ways; len(got) != 0 {
		t.Errorf("ways %v, want none", got)
	}
	h.program("ip", "route", "add", "default", "via", "192.0.2.1")
	if got := facts(h).Ways; !slices.Equal(got, []string{"eth0"}) {
		t.Errorf("ways %v, want eth0", got)
	}
}

// entries of a network in both families.
func entries() kernel.State {
	s := kernel.State{}
	for _, family := range []string{"ip", "ip6"} {
		e := kernel.Entry{NS: kernel.Host, Family: family, Table: "filter", Chain: "DOCKER-USER", In: "tp-front", Out: "eth0"}
		back := e
		back.In, back.Out, back.States = "", "tp-front", "related,established,dnat"
		_ = s.Add(e, back)
	}
	return s
}

// TestEntries: they come behind the administrator's rules and before the last
// return, iptables lists and restores them, and they go without a trace.
func TestEntries(t *testing.T) {
	h := doorHost(t, true)
	want := entries()
	// Without the chains there is nothing to do, and no error.
	h.put(nil, want)
	for _, tool := range []string{"iptables-nft", "ip6tables-nft"} {
		h.program(tool, "-N", "DOCKER-USER")
		h.program(tool, "-A", "FORWARD", "-j", "DOCKER-USER")
		h.program(tool, "-A", "DOCKER-USER", "-i", "eth0", "-p", "tcp", "--dport", "25", "-m", "comment", "--comment", "no mail", "-j", "DROP")
	}
	h.program("iptables-nft", "-A", "DOCKER-USER", "-j", "RETURN")
	restore := func() { h.program("sh", "-c", "iptables-nft-save | iptables-nft-restore") }
	restore() // makes the table anew, with chains that were not there
	list := func() string {
		return h.program("iptables-nft", "-S") + h.program("ip6tables-nft", "-S") + h.program("nft", "-s", "list", "ruleset")
	}
	before := list()
	h.put(nil, want)
	h.agrees(want)
	got := h.program("iptables-nft", "-S", "DOCKER-USER")
	ours := []string{
		"-A DOCKER-USER -i tp-front -o eth0 -m comment --comment towpath -j ACCEPT",
		"-A DOCKER-USER -o tp-front -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -m comment --comment towpath -j ACCEPT",
	}
	page := "-N DOCKER-USER\n-A DOCKER-USER -i eth0 -p tcp -m tcp --dport 25 -m comment --comment \"no mail\" -j DROP\n" +
		strings.Join(ours, "\n") + "\n-A DOCKER-USER -j RETURN\n"
	if diff := cmp.Diff(page, got); diff != "" {
		t.Errorf("iptables -S (-want +got):\n%s", diff)
	}
	h.put(nil, want) // once more changes nothing
	h.agrees(want)

	// Saved and restored they are ours still, though with their comment in another form.
	restore()
	h.agrees(want)
	h.put(want, nil)
	h.agrees(kernel.State{})
	if diff := cmp.Diff(before, list()); diff != "" {
		t.Errorf("not as before (-before +after):\n%s", diff)
	}
}

// TestEntryByHand: a rule that carries our mark and was changed is not the one
// that is wanted, and goes on a sweep; one without the mark is not ours.
func TestEntryByHand(t *testing.T) {
	h := doorHost(t, true)
	h.program("iptables-nft", "-N", "DOCKER-USER")
	h.program("iptables-nft", "-A", "DOCKER-USER", "-i", "tp-front", "-o", "eth1", "-m", "comment", "--comment", "towpath", "-j", "ACCEPT")
	h.program("iptables-nft", "-A", "DOCKER-USER", "-i", "tp-front", "-o", "eth0", "-j", "ACCEPT")
	seen := h.see(kernel.State{}, true)
	stray := kernel.Entry{NS: kernel.Host, Family: "ip", Table: "filter", Chain: "DOCKER-USER", In: "tp-front", Out: "eth1"}
	if want := kernel.NewState(stray); !cmp.Equal(want, seen) {
		t.Errorf("seen %v, want %v", seen, want)
	}
	h.put(seen, nil)
	want := "-N DOCKER-USER\n-A DOCKER-USER -i tp-front -o eth0 -j ACCEPT\n"
	if got := h.program("iptables-nft", "-S", "DOCKER-USER"); got != want {
		t.Errorf("left %q, want %q", got, want)
	}
}

// TestDoorIsWatched: what is done to a door asks for a look when it is over;
// what is done elsewhere does not.
func TestDoorIsWatched(t *testing.T) {
	h := doorHost(t, true)
	events, err := h.Watch(t.Context())
	must(t, err)
	h.program("iptables-nft", "-N", "OTHER")
	h.program("iptables-nft", "-N", "DOCKER-USER")
	h.program("iptables-nft", "-A", "OTHER", "-j", "DROP")
	select {
	case e := <-events:
		if !strings.Contains(e.Why, "changed a chain that lets our traffic through") || len(e.Keys) > 0 {
			t.Errorf("event %+v", e)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("no event")
	}
	c, err := nft.Dial(h.ns.FD())
	must(t, err)
	defer c.Close()
	var b nft.Batch
	b.DeleteTable(rules.Table{Family: rules.FamilyIP, Name: "filter"})
	must(t, c.Commit(t.Context(), &b))
	select {
	case <-events:
	case <-time.After(30 * time.Second):
		t.Fatal("no event when the table went")
	}
}
