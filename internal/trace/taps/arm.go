//go:build linux

package taps

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/trace"
)

// armPriority is before everything that decides: raw tables are at -300.
const armPriority = -450

// mostTables is how many watches a namespace has at once.
const mostTables = 16

// arm adds a table that makes the packet filter tell of packets with the mark.
// It belongs to the socket, and goes with it, however that ends
// (NFT_TABLE_F_OWNER); nobody else can change it. So another watch, for which the
// name is taken (EPERM), takes the next.
// It says which it took.
func arm(ctx context.Context, c *nft.Conn, links map[int]string, proto uint8, mark trace.Mark) (name string, err error) {
	for i := range mostTables {
		name = trace.Table
		if i > 0 {
			name = fmt.Sprintf("%s_%d", trace.Table, i+1)
		}
		err = add(ctx, c, armed(name, proto, mark), ingress(name, links, proto, mark))
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			// A link has gone meanwhile, or cannot be hooked into: then the chains of
			// links are not told of.
			err = add(ctx, c, armed(name, proto, mark))
		}
		if !errors.Is(err, unix.EPERM) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("add table %s: %w", trace.Table, err)
	}
	return name, nil
}

func add(ctx context.Context, c *nft.Conn, tables ...rules.TableDef) error {
	var b nft.Batch
	for _, t := range tables {
		if len(t.Chains) > 0 {
			b.AddTableDef(t)
		}
	}
	return c.Commit(ctx, &b)
}

// armed is the table for what passes the hooks of IP.
func armed(name string, proto uint8, mark trace.Mark) rules.TableDef {
	def := rules.TableDef{Table: rules.Table{Family: rules.FamilyInet, Name: name, Flags: rules.TableOwner}}
	for _, hook := range []string{"prerouting", "output", "input", "forward", "postrouting"} {
		list := telling(rules.FamilyInet, proto, mark)
		if hook != "prerouting" && hook != "output" { // where the kernel began to tell of it
			list = tellingErrors(rules.FamilyInet, proto, mark)
		}
		if len(list) == 0 {
			continue
		}
		def.Chains = append(def.Chains, rules.ChainDef{Rules: list, Chain: rules.Chain{
			Family: rules.FamilyInet, Table: name, Name: hook, Type: "filter", Hook: hook, Priority: armPriority, Policy: "accept",
		}})
	}
	return def
}

const (
	// ingressPriority is before the chains that check who sends.
	ingressPriority = -10_000
	// mostDevices is how many links a chain has at most: the kernel refuses the one
	// that makes it NFT_NETDEVICE_MAX, 256 (nf_tables_parse_netdev_hooks).
	mostDevices = 255
)

// ingress is the table for what comes in by links, before it comes to the hooks
// of IP.
func ingress(name string, links map[int]string, proto uint8, mark trace.Mark) rules.TableDef {
	def := rules.TableDef{Table: rules.Table{Family: rules.FamilyNetdev, Name: name, Flags: rules.TableOwner}}
	for devices := range slices.Chunk(slices.Sorted(maps.Values(links)), mostDevices) {
		def.Chains = append(def.Chains, rules.ChainDef{Rules: telling(rules.FamilyNetdev, proto, mark), Chain: rules.Chain{
			Family: rules.FamilyNetdev, Table: name, Name: fmt.Sprintf("ingress_%d", len(def.Chains)+1), Type: "filter", Hook: "ingress",
			Priority: ingressPriority, Policy: "accept", Devices: devices,
		}})
	}
	return def
}

// telling are the rules of such a chain.
func telling(f rules.Family, proto uint8, mark trace.Mark) []rules.Rule {
	if mark == 0 {
		return tellBeginnings(f)
	}
	var out []rules.Rule
	for _, at := range places(proto) {
		out = append(out, tell(f, proto, at, uint16(mark)))
	}
	return append(out, tellingErrors(f, proto, mark)...)
}

// tellingErrors are rules for ICMP errors about packets with the mark. What the
// kernel tells of an error ends before what it quotes, so that it is known by the
// rule that matched: these are in the chains of all hooks, since the number that
// the messages about a packet have in common is not the same in all.
func tellingErrors(f rules.Family, proto uint8, mark trace.Mark) []rules.Rule {
	if mark == 0 {
		return nil
	}
	const header = 8 // of the error, before the IP header that it quotes
	var out []rules.Rule
	for _, at := range places(proto) {
		if proto != unix.IPPROTO_ICMPV6 {
			out = append(out, tell(f, unix.IPPROTO_ICMP, header+20+at, uint16(mark)))
		}
		if proto != unix.IPPROTO_ICMP {
			out = append(out, tell(f, unix.IPPROTO_ICMPV6, header+40+at, uint16(mark)))
		}
	}
	return out
}

// places are where in a transport header the mark stands: ports, or the
// identifier of an echo.
func places(proto uint8) []uint32 {
	if proto == unix.IPPROTO_ICMP || proto == unix.IPPROTO_ICMPV6 {
		return []uint32{4}
	}
	return []uint32{0, 2}
}

// tell is `meta l4proto P @th,AT,16 MARK meta nftrace set 1`.
func tell(f rules.Family, proto uint8, at uint32, mark uint16) rules.Rule {
	return rules.Rule{Family: f, Exprs: []rules.Expr{
		rules.Meta{DReg: 1, Key: rules.MetaL4Proto},
		rules.Cmp{SReg: 1, Op: rules.CmpEq, Data: []byte{proto}},
		rules.Payload{DReg: 1, Base: rules.BaseTransport, Offset: at, Len: 2},
		rules.Cmp{SReg: 1, Op: rules.CmpEq, Data: binary.BigEndian.AppendUint16(nil, mark)},
		rules.Immediate{DReg: 1, Data: []byte{1}},
		rules.Meta{SReg: 1, Key: rules.MetaNFTrace},
	}}
}

// perSecond is how many packets of a protocol are told of in a second, in a
// namespace: for each the kernel sends a message a rule.
const perSecond = 200

// tellBeginnings is, for packets that begin a flow or answer one,
// `limit rate 200/second meta nftrace set 1`.
func tellBeginnings(f rules.Family) []rules.Rule {
	var out []rules.Rule
	for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6} {
		r := rules.Rule{Family: f, Exprs: []rules.Expr{
			rules.Meta{DReg: 1, Key: rules.MetaL4Proto}, rules.Cmp{SReg: 1, Op: rules.CmpEq, Data: []byte{proto}},
		}}
		if proto == unix.IPPROTO_TCP { // tcp flags & (syn | rst) != 0
			r.Exprs = append(r.Exprs,
				rules.Payload{DReg: 1, Base: rules.BaseTransport, Offset: 13, Len: 1},
				rules.Bitwise{SReg: 1, DReg: 1, Len: 1, Mask: []byte{0x06}, Xor: []byte{0}},
				rules.Cmp{SReg: 1, Op: rules.CmpNeq, Data: []byte{0}})
		}
		out = append(out, rules.Rule{Family: r.Family, Exprs: append(r.Exprs,
			rules.Limit{Rate: perSecond, Unit: 1, Burst: perSecond}, rules.Immediate{DReg: 1, Data: []byte{1}}, rules.Meta{SReg: 1, Key: rules.MetaNFTrace})})
	}
	return out
}
