//go:build linux

package look

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/ct"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/machine"
	rules "github.com/towpath/towpath/internal/nft"
)

// objectSize is how many bytes one rule or a small set of elements takes at most,
// as a rule.
const objectSize = 1024

// tables reads the packet filter. A table that cannot be read whole is replaced
// by one that decides nothing, so that nobody takes a part for all of it.
func (r *reading) tables(ctx context.Context, limit int) error {
	names, err := r.withFilter(ctx, limit, nil)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return nil // the kernel has no nf_tables
	}
	if err != nil {
		for _, f := range []rules.Family{rules.FamilyInet, rules.FamilyBridge, rules.FamilyNetdev} {
			r.space.Tables = append(r.space.Tables, r.opaque(rules.Table{Family: f, Name: "?"}, err))
		}
		return err
	}
	var errs []error
	for len(names) > 0 {
		left, err := r.withFilter(ctx, limit, names)
		if err != nil && len(left) > 0 { // the first of those left
			r.space.Tables = append(r.space.Tables, r.opaque(left[0], err))
			errs, left = append(errs, err), left[1:]
		}
		names = left
	}
	return errors.Join(errs...)
}

// withFilter reads, over a connection of its own, the tables named, and gives
// those it did not come to; with none named, it gives the names of all.
func (r *reading) withFilter(ctx context.Context, limit int, names []rules.Table) ([]rules.Table, error) {
	c, err := nft.Dial(int(r.file.Fd()))
	if err != nil {
		return names, err
	}
	defer c.Close() //nolint:errcheck // nothing was written
	c.LimitDumps(limit * objectSize)
	if names == nil {
		return c.Tables(ctx, 0)
	}
	for i, t := range names {
		def, err := c.ReadTable(ctx, t.Family, t.Name)
		if errors.Is(err, unix.ENOENT) {
			continue // removed since it was listed
		}
		if err != nil {
			return names[i:], err
		}
		r.space.Tables = append(r.space.Tables, def)
	}
	return nil, nil
}

// opaque stands for a table that could not be read: whatever meets it is not
// decided.
func (r *reading) opaque(t rules.Table, cause error) rules.TableDef {
	def := rules.TableDef{Table: t}
	hooks := []string{"prerouting", "input", "forward", "output", "postrouting"}
	var devices []string
	switch t.Family {
	case rules.FamilyNetdev:
		hooks = []string{"ingress", "egress"}
		for _, l := range r.links {
			devices = append(devices, l.Name)
		}
	case rules.FamilyARP:
		return def
	}
	unread := rules.Rule{Family: t.Family, Exprs: []rules.Expr{rules.Unknown{Name: fmt.Sprintf("not read (%v)", cause)}}}
	for _, h := range hooks {
		def.Chains = append(def.Chains, rules.ChainDef{
			Chain: rules.Chain{Family: t.Family, Table: t.Name, Name: machine.UnreadChain, Type: "filter", Hook: h, Policy: "accept", Devices: devices},
			Rules: []rules.Rule{unread},
		})
	}
	return def
}

// connections reads what is tracked. A kernel without connection tracking has none.
func (r *reading) connections(ctx context.Context, limit int) error {
	if limit == 0 || r.space.Sysctls["net/netfilter/nf_conntrack_count"] == "0" {
		return nil // reading a large empty table takes milliseconds all the same
	}
	c, err := ct.Dial(int(r.file.Fd()))
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // nothing was written
	list, err := c.Entries(ctx, limit)
	for _, e := range list {
		r.space.Connections = append(r.space.Connections, machine.Connection{
			Proto: protoName(e.Proto), Original: rules.Tuple(e.Orig), Answer: rules.Tuple(e.Reply),
			Status: uint32(e.Status), Mark: e.Mark, Zone: e.Zone,
		})
	}
	return err
}

// protoName is the name of a protocol, or its number.
func protoName(n uint8) string {
	switch n {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_SCTP:
		return "sctp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	}
	return fmt.Sprint(n)
}
