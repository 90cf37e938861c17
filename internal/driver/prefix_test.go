package driver

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/nft"
)

// TestNoPrefixAllowsMore: links and rules cannot change at once, so the daemon
// may die, or a packet pass, between any two ops. At no such moment may a
// packet pass that passes neither before nor after all of them.
func TestNoPrefixAllowsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := NewView()
		before.Host = host()
		before.Host.BridgeNF4 = rapid.Bool().Draw(t, "bridge-nf")
		before.Host.BridgeNF6 = before.Host.BridgeNF4
		before.Host.Hooks = rapid.SampledFrom([]kernel.HookSupport{kernel.NoHooks, kernel.HooksOnLinks, kernel.HooksByName}).Draw(t, "hooks")
		for range rapid.IntRange(0, 10).Draw(t, "edits before") {
			next := before.Clone()
			edit(t, before, &next)
			before = next
		}
		after := before
		for range rapid.IntRange(1, 6).Draw(t, "edits") {
			next := after.Clone()
			edit(t, after, &next)
			after = next
		}
		have, want := full(t, before), full(t, after)
		if rapid.Bool().Draw(t, "cleanup") {
			want = kernel.NewState(kernel.Sysctl{NS: kernel.Host, Name: "net/ipv4/ip_forward", Value: "0"})
		}
		allowed := permits(t, have, before.Host.BridgeNF4)
		for p := range permits(t, want, before.Host.BridgeNF4) {
			allowed[p] = true
		}
		ops := kernel.Diff(have, want)
		s := have.Clone()
		for i, op := range ops {
			if err := s.Apply(op); err != nil {
				t.Fatal(err)
			}
			if i+1 < len(ops) && op.Phase == kernel.Rules && ops[i+1].Phase == kernel.Rules {
				continue // one transaction
			}
			for p := range permits(t, s, before.Host.BridgeNF4) {
				if !allowed[p] {
					t.Fatalf("after %s (op %d of %d): %s, which neither the state before nor the one after allows\nops:\n%s", op, i+1, len(ops), p, opLines(ops))
				}
			}
		}
	})
}

func opLines(ops []kernel.Op) string {
	var b strings.Builder
	for _, op := range ops {
		b.WriteString(op.String() + "\n")
	}
	return b.String()
}

// port is an endpoint that is plugged in and up.
type port struct {
	name, bridge, dev string
	isolated, locked  bool
}

// permits lists who may open a connection to whom, as the state stands.
func permits(t *rapid.T, s kernel.State, bridgeNF bool) map[string]bool {
	out := map[string]bool{}
	forward := s[kernel.Sysctl{NS: kernel.Host, Name: "net/ipv4/ip_forward"}.Key()] == kernel.Sysctl{NS: kernel.Host, Name: "net/ipv4/ip_forward", Value: "1"}
	rs := rulesOf(t, s)
	pass := func(in, to string) bool { return rs.Hook("forward", packet(in, to)).Verdict == nft.Accept }
	ports := plugged(s)
	for _, a := range ports {
		for _, b := range ports {
			switch {
			case a.name == b.name:
			case a.bridge != b.bridge:
				out[a.name+" reaches "+b.name+" by routing"] = forward && pass(a.bridge, b.bridge)
			case !a.isolated || !b.isolated:
				out[a.name+" reaches "+b.name+" by bridging"] = !bridgeNF || pass(a.bridge, a.bridge)
			}
		}
		nat := len(rs.Hook("postrouting", packet(a.bridge, "eth0")).NAT) > 0
		out[fmt.Sprintf("%s reaches outside, translated: %v", a.name, nat)] = forward && pass(a.bridge, "eth0")
		out[a.name+" sends as somebody else"] = rs.Hook("ingress", spoofed(a.dev)).Verdict == nft.Accept
		out[a.name+" sends with any MAC address"] = !a.locked
		out["outside reaches "+a.name] = forward && pass("eth0", a.bridge)
	}
	for p, yes := range out {
		if !yes {
			delete(out, p)
		}
	}
	return out
}

// plugged are the endpoints that can send and receive.
func plugged(s kernel.State) []port {
	var ports []port
	up := func(ns, dev string) bool { _, ok := s[kernel.Up{NS: ns, Dev: dev}.Key()]; return ok }
	for _, o := range s {
		l, ok := o.(kernel.Link)
		if !ok || l.Peer == "" || l.Master == "" || !up(l.NS, l.Name) || !up(l.NS, l.Master) || !up(l.PeerNS, l.Peer) {
			continue
		}
		ports = append(ports, port{l.PeerNS + "/" + l.Peer, l.Master, l.Name, l.Isolated, l.Locked})
	}
	return ports
}

// rulesOf are the host's tables of a state; without one everything passes.
func rulesOf(t *rapid.T, s kernel.State) *nft.Ruleset {
	var defs []nft.TableDef
	for _, o := range s {
		if tab, ok := o.(kernel.Table); ok && tab.NS == kernel.Host {
			def, err := nft.ParseTable(s.TableString(tab))
			if err != nil {
				t.Fatalf("%v\n%s", err, s.TableString(tab))
			}
			defs = append(defs, def)
		}
	}
	return nft.NewRuleset(defs...)
}

// spoofed is a frame that claims to be somebody else's.
func spoofed(in string) *nft.Packet {
	ip := make([]byte, 20)
	ip[0], ip[15] = 0x45, 9
	return &nft.Packet{
		IIf: &nft.Device{Name: in, Type: 1}, Network: ip, Protocol: nft.EtherTypeIPv4,
		Link: []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0},
	}
}

// packet opens a connection through the host.
func packet(in, out string) *nft.Packet {
	ip := make([]byte, 20)
	ip[0] = 0x45
	return &nft.Packet{
		IIf: &nft.Device{Name: in}, OIf: &nft.Device{Name: out},
		Network: ip, Protocol: nft.EtherTypeIPv4, CT: &nft.Conntrack{State: nft.StateNew},
	}
}
