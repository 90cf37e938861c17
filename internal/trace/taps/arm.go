//go:build linux

package taps

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

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
func arm(ctx context.Context, c *nft.Conn, proto uint8, mark trace.Mark) error {
	var err error
	for i := range mostTables {
		name := trace.Table
		if i > 0 {
			name = fmt.Sprintf("%s_%d", trace.Table, i+1)
		}
		var b nft.Batch
		b.AddTableDef(armed(name, proto, mark))
		if err = c.Commit(ctx, &b); !errors.Is(err, unix.EPERM) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("add table %s: %w", trace.Table, err)
	}
	return nil
}

// armed is the table.
func armed(name string, proto uint8, mark trace.Mark) rules.TableDef {
	def := rules.TableDef{Table: rules.Table{Family: rules.FamilyInet, Name: name, Flags: rules.TableOwner}}
	for _, hook := range []string{"prerouting", "output"} {
		ch := rules.ChainDef{Chain: rules.Chain{
			Family: rules.FamilyInet, Table: name, Name: hook, Type: "filter", Hook: hook, Priority: armPriority, Policy: "accept",
		}}
		if mark == 0 {
			ch.Rules = tellBeginnings()
		} else {
			for _, at := range places(proto) {
				ch.Rules = append(ch.Rules, tell(proto, at, uint16(mark)))
			}
		}
		def.Chains = append(def.Chains, ch)
	}
	return def
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
func tell(proto uint8, at uint32, mark uint16) rules.Rule {
	return rules.Rule{Family: rules.FamilyInet, Exprs: []rules.Expr{
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
func tellBeginnings() []rules.Rule {
	var out []rules.Rule
	for _, proto := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6} {
		r := rules.Rule{Family: rules.FamilyInet, Exprs: []rules.Expr{
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
