//go:build linux

package linux

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
)

// leave takes out of a namespace that its owner keeps what does not go with our
// links: the table and the routing rules, which carry our mark. The loopback
// stays up. What cannot be removed is not worth keeping the namespace for.
func (a *applier) leave(ctx context.Context, ns string) {
	ctx, cancel := context.WithTimeout(ctx, sandboxDeadline)
	defer cancel()
	sp, err := a.spaces.at(ns)
	if err != nil {
		return // it is gone, or never was bound
	}
	if err := errors.Join(leaveTables(ctx, sp), leaveRules(ctx, sp)); err != nil {
		a.k.Log.Warn("leave namespace", "sandbox", ns, "err", err)
	}
}

// leaveTables removes our tables, in each family that a sandbox may have one.
func leaveTables(ctx context.Context, sp *space) error {
	c, err := sp.rules()
	if err != nil {
		return err
	}
	for _, f := range ownFamilies("") {
		var b nft.Batch
		b.DeleteTable(rules.Table{Family: f, Name: tableName})
		if err := c.Commit(ctx, &b); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

func leaveRules(ctx context.Context, sp *space) error {
	all, err := sp.rt.Rules(ctx, unix.AF_UNSPEC)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Protocol != protocol {
			continue
		}
		if err := sp.rt.DelRule(ctx, r); err != nil && !gone(err) {
			return err
		}
	}
	return nil
}
