package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// drawMember makes a member out of few names and addresses, so that they meet.
func drawMember(t *rapid.T) Member {
	name := rapid.SampledFrom([]string{"a", "B", "c.d", "a.net0", "bad..name"})
	m := Member{Sandbox: name.Draw(t, "sandbox"), Hostname: name.Draw(t, "hostname")}
	for range rapid.IntRange(0, 3).Draw(t, "attachments") {
		a := Attachment{Network: fmt.Sprint("net", rapid.IntRange(0, 1).Draw(t, "network"))}
		a.Aliases = rapid.SliceOfN(name, 0, 2).Draw(t, "aliases")
		for range rapid.IntRange(0, 2).Draw(t, "addresses") {
			a.Addrs = append(a.Addrs, netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(1, 4).Draw(t, "address"))}))
		}
		m.Attachments = append(m.Attachments, a)
	}
	if rapid.Bool().Draw(t, "serves") {
		m.Services = []Service{{80, "tcp"}}
	}
	return m
}

// all asks for everything that could be there, as each member.
func all(t *rapid.T, n *Names, members map[string]Member) string {
	var b strings.Builder
	for sandbox := range members {
		for _, name := range []string{"a", "b", "c.d", "a.net0", "a.net1", "a.net0.net0", "c.d.net1", "_80._tcp.a", "_80._tcp.c.d"} {
			for _, typ := range []Type{TypeA, TypeSRV} {
				fmt.Fprintln(&b, sandbox, name, typ, answerOf(t, n, sandbox, name, typ))
			}
		}
		for i := range 4 {
			name := ReverseName(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}))
			fmt.Fprintln(&b, sandbox, name, answerOf(t, n, sandbox, name, TypePTR) != "upstream") // of several owners, any
		}
	}
	lines := strings.Split(b.String(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func answerOf(t *rapid.T, n *Names, sandbox, name string, typ Type) string {
	res, upstream, err := n.Lookup(sandbox, name, typ, 0)
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(brief(res, upstream))
	slices.Sort(fields)
	return strings.Join(fields, " ")
}

// TestNamesAreWhatTheMembersSay: after any edits the answers are those of a new
// index of the same members.
func TestNamesAreWhatTheMembersSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, members := NewNames(), map[string]Member{}
		for range rapid.IntRange(1, 12).Draw(t, "edits") {
			m := drawMember(t)
			if rapid.IntRange(0, 3).Draw(t, "drop") == 0 {
				n.Drop(m.Sandbox)
				delete(members, m.Sandbox)
				continue
			}
			n.Put(m)
			members[m.Sandbox] = m
		}
		fresh := NewNames()
		for _, m := range members {
			fresh.Put(m)
		}
		if got, want := all(t, n, members), all(t, fresh, members); got != want {
			t.Fatalf("after edits:\n%s\nof a new index:\n%s", got, want)
		}
		for name := range members {
			n.Drop(name)
		}
		if len(n.networks)+len(n.sandboxes) != 0 {
			t.Fatalf("left: %v %v", n.networks, n.sandboxes)
		}
	})
}

// TestLookupSeesWholeChanges: while a member is replaced, others see it before
// or after, and never without an address.
func TestLookupSeesWholeChanges(t *testing.T) {
	n := world()
	old, moved := web(), web()
	moved.Attachments[0].Addrs = addrs("172.20.0.77")
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 2000 {
			n.Put([]Member{moved, old}[i%2])
		}
	})
	for range 2 {
		wg.Go(func() {
			for range 2000 {
				res, _, err := n.Lookup("api", "web", TypeA, 0)
				if got := brief(res, false); err != nil || got != "172.20.0.2" && got != "172.20.0.77" {
					t.Errorf("%s, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
