//go:build linux

package taps

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/trace"
)

// Stop keeps a flow on the machine that somebody outside seems to have begun.
type Stop struct {
	Proto uint8
	Mark  trace.Mark
	// Source is who seems to have begun it.
	Source netip.Addr
	// Exits are the links that lead out, by namespace.
	Exits map[string][]string
}

// stopChain is what the names of the chains begin with that keep packets from
// leaving.
const stopChain = "stop"

// ErrNoStop says that the kernel cannot keep packets from leaving by a link.
var ErrNoStop = errors.New("no hook of nf_tables where packets leave by a link (Linux 5.16 with CONFIG_NETFILTER_EGRESS)")

// Stop keeps packets of the flow, its answers and errors about it from leaving,
// and tells of them as of packets that leave. What is routed is stopped as the
// last thing in the packet filter, before anybody is asked for the next hop's MAC
// address; what is bridged, and questions for the MAC address of the source, at
// the link. The chains are in the tables of the session, and go with it.
func (s *Session) Stop(ctx context.Context, stop Stop) error {
	for space, exits := range stop.Exits {
		if len(exits) == 0 {
			continue
		}
		i := slices.IndexFunc(s.armed, func(a armedSpace) bool { return a.space == space })
		if i < 0 {
			return fmt.Errorf("keep packets from leaving %s: %w", space, ErrNoStop)
		}
		a := s.armed[i]
		err := add(ctx, a.conn, stop.routed(a.name, exits))
		if err == nil {
			err = add(ctx, a.conn, stop.leaving(a.name, exits))
		}
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w: %w", ErrNoStop, err)
		}
		if err != nil {
			return fmt.Errorf("keep packets from leaving %s: %w", space, err)
		}
	}
	return nil
}

// chain is a chain behind all others of a hook.
func (o Stop) chain(f rules.Family, table, hook string) rules.Chain {
	return rules.Chain{Family: f, Table: table, Name: stopChain + "_" + hook, Type: "filter", Hook: hook, Priority: math.MaxInt32, Policy: "accept"}
}

// routed is the table for what IP forwards or sends. A packet of the flow's first
// direction is stopped before its source is translated.
func (o Stop) routed(table string, exits []string) rules.TableDef {
	forth := rules.ChainDef{Chain: o.chain(rules.FamilyInet, table, "forward")}
	back := rules.ChainDef{Chain: o.chain(rules.FamilyInet, table, "postrouting")}
	for _, link := range exits {
		by := match(rules.Meta{DReg: 1, Key: rules.MetaOIfName}, binary16(link))
		for _, m := range o.forth() {
			forth.Rules = append(forth.Rules, stopping(rules.FamilyInet, by, o.family(), m))
		}
		for _, m := range o.back() {
			back.Rules = append(back.Rules, stopping(rules.FamilyInet, by, o.family(), m))
		}
	}
	return rules.TableDef{Table: rules.Table{Family: rules.FamilyInet, Name: table, Flags: rules.TableOwner}, Chains: []rules.ChainDef{forth, back}}
}

// leaving is the table for what leaves by links.
func (o Stop) leaving(table string, exits []string) rules.TableDef {
	var list []rules.Rule
	for _, m := range append(o.forth(), o.back()...) {
		list = append(list, stopping(rules.FamilyNetdev, o.protocol(), m))
	}
	list = append(list, stopping(rules.FamilyNetdev, o.whoHas()))
	def := rules.TableDef{Table: rules.Table{Family: rules.FamilyNetdev, Name: table, Flags: rules.TableOwner}}
	for devices := range slices.Chunk(exits, mostDevices) {
		c := rules.ChainDef{Chain: o.chain(rules.FamilyNetdev, table, "egress"), Rules: list}
		c.Devices = devices
		if len(def.Chains) > 0 {
			c.Name = fmt.Sprintf("%s_%d", c.Name, len(def.Chains)+1)
		}
		def.Chains = append(def.Chains, c)
	}
	return def
}

// stopping is a rule that tells of what matches, and drops it.
func stopping(f rules.Family, matches ...[]rules.Expr) rules.Rule {
	return rules.Rule{Family: f, Exprs: append(slices.Concat(matches...),
		rules.Immediate{DReg: 1, Data: []byte{1}}, rules.Meta{SReg: 1, Key: rules.MetaNFTrace}, rules.Verdict{Code: rules.Drop})}
}

// match compares what is loaded into register 1.
func match(load rules.Expr, value []byte) []rules.Expr {
	return []rules.Expr{load, rules.Cmp{SReg: 1, Op: rules.CmpEq, Data: value}}
}

func payload(base rules.PayloadBase, at uint32, value []byte) []rules.Expr {
	return match(rules.Payload{DReg: 1, Base: base, Offset: at, Len: uint32(len(value))}, value)
}

func (o Stop) v6() bool { return o.Source.Is6() }

// family is that of the flow's packets, in a table of both.
func (o Stop) family() []rules.Expr {
	n := byte(unix.NFPROTO_IPV4)
	if o.v6() {
		n = unix.NFPROTO_IPV6
	}
	return match(rules.Meta{DReg: 1, Key: rules.MetaNFProto}, []byte{n})
}

// protocol is that of the flow's frames.
func (o Stop) protocol() []rules.Expr {
	n := uint16(unix.ETH_P_IP)
	if o.v6() {
		n = unix.ETH_P_IPV6
	}
	return match(rules.Meta{DReg: 1, Key: rules.MetaProtocol}, binary.BigEndian.AppendUint16(nil, n))
}

// address is the source of a packet or, with back, its destination.
func (o Stop) address(back bool) []rules.Expr {
	at := uint32(12)
	if o.v6() {
		at = 8
	}
	if back {
		at += uint32(len(o.Source.AsSlice()))
	}
	return payload(rules.BaseNetwork, at, o.Source.AsSlice())
}

// marked is a transport header with the mark there.
func (o Stop) marked(proto uint8, at uint32) []rules.Expr {
	return append(match(rules.Meta{DReg: 1, Key: rules.MetaL4Proto}, []byte{proto}), payload(rules.BaseTransport, at, binary.BigEndian.AppendUint16(nil, uint16(o.Mark)))...)
}

// forth are the packets from the source.
func (o Stop) forth() [][]rules.Expr {
	return [][]rules.Expr{append(o.address(false), o.marked(o.Proto, places(o.Proto)[0])...)}
}

// back are those to the source: answers, and ICMP errors that quote a packet
// from there, redirects too.
func (o Stop) back() [][]rules.Expr {
	list := places(o.Proto)
	out := [][]rules.Expr{append(o.address(true), o.marked(o.Proto, list[len(list)-1])...)}
	icmp, quoted := uint8(unix.IPPROTO_ICMP), uint32(8+20)
	if o.v6() {
		icmp, quoted = unix.IPPROTO_ICMPV6, 8+40
	}
	return append(out, append(o.address(true), o.marked(icmp, quoted+list[0])...))
}

// whoHas is the question for the MAC address of the source (RFC 826; RFC 4861, 4.3).
func (o Stop) whoHas() []rules.Expr {
	if o.v6() {
		const solicitation = 135
		return slices.Concat(o.protocol(), match(rules.Meta{DReg: 1, Key: rules.MetaL4Proto}, []byte{unix.IPPROTO_ICMPV6}),
			payload(rules.BaseTransport, 0, []byte{solicitation}), payload(rules.BaseTransport, 8, o.Source.AsSlice()))
	}
	return append(match(rules.Meta{DReg: 1, Key: rules.MetaProtocol}, binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP)), payload(rules.BaseNetwork, 24, o.Source.AsSlice())...)
}

// binary16 is a name of a link as the kernel compares it.
func binary16(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// stopped notes a packet that was kept from leaving: no tap sees it, for it does
// not come so far.
func (s *Session) stopped(t tap, r trace.Ruling) {
	if r.Table != t.table || !strings.HasPrefix(r.Chain, stopChain) || r.Verdict != "drop" || r.Packet == nil || s.full() {
		return
	}
	s.seen.Sightings = append(s.seen.Sightings, trace.Sighting{At: r.At, Space: r.Space, Link: t.links[r.Out], Out: true, Stopped: true, Packet: *r.Packet})
}
