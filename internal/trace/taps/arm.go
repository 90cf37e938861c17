//go:build linux

package taps

import (
	"context"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/trace"
)

// armPriority is before everything that decides: raw tables are at -300.
const armPriority = -450

// arm adds a table that makes the packet filter tell of packets with the mark.
// It belongs to the socket, and goes with it, however that ends
// (NFT_TABLE_F_OWNER); nobody else can change it.
func arm(ctx context.Context, c *nft.Conn, proto uint8, mark trace.Mark) error {
	def := rules.TableDef{Table: rules.Table{Family: rules.FamilyInet, Name: trace.Table, Flags: rules.TableOwner}}
	for _, hook := range []string{"prerouting", "output"} {
		ch := rules.ChainDef{Chain: rules.Chain{
			Family: rules.FamilyInet, Table: trace.Table, Name: hook, Type: "filter", Hook: hook, Priority: armPriority, Policy: "accept",
		}}
		for _, at := range places(proto) {
			ch.Rules = append(ch.Rules, tell(proto, at, uint16(mark)))
		}
		def.Chains = append(def.Chains, ch)
	}
	var b nft.Batch
	b.AddTableDef(def)
	if err := c.Commit(ctx, &b); err != nil {
		return fmt.Errorf("add table %s: %w", trace.Table, err)
	}
	return nil
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
