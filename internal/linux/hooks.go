//go:build linux

package linux

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
)

// probeHooks asks the kernel in a table of its own how it hooks links to chains
// of family netdev.
func (k *Kernel) probeHooks() (kernel.HookSupport, error) {
	t := rules.Table{Family: rules.FamilyNetdev, Name: tableName + "_probe"}
	c := rules.Chain{Family: t.Family, Table: t.Name, Name: "probe", Type: "filter", Hook: "ingress", Policy: "accept"}
	try := func(devices ...string) error {
		var b nft.Batch
		b.AddTable(t)
		b.AddChain(c)
		if len(devices) > 0 {
			b.AddDevices(c, devices)
		}
		b.DeleteTable(t)
		return k.nft.Commit(context.Background(), &b)
	}
	err := try("tp-no-such-link")
	if err == nil {
		return kernel.HooksByName, nil
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		if err = try(); err == nil {
			return kernel.HooksOnLinks, nil
		}
	}
	// A kernel without the family, or one before 6.4, where a chain has the
	// devices it was made with.
	for _, e := range []error{unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EINVAL, unix.ENOENT} {
		if errors.Is(err, e) {
			return kernel.NoHooks, nil
		}
	}
	return kernel.NoHooks, fmt.Errorf("probe nftables: %w", err)
}

// withoutLostHooks leaves out the removal of hooks that are not there: up to
// Linux 6.15 a link that goes takes them along.
func withoutLostHooks(ctx context.Context, c *nft.Conn, ops []kernel.Op) ([]kernel.Op, error) {
	var rest []kernel.Op
	chains := map[tableID][]rules.Chain{}
	for _, op := range ops {
		h, isHook := op.Object.(kernel.Hook)
		if !isHook || op.Verb != kernel.Delete {
			rest = append(rest, op)
			continue
		}
		id := tableOf(h)
		if _, read := chains[id]; !read {
			f, err := rules.ParseFamily(id.family)
			if err != nil {
				return nil, err
			}
			if chains[id], err = c.Chains(ctx, f, id.name); err != nil {
				return nil, err
			}
		}
		if slices.ContainsFunc(chains[id], func(ch rules.Chain) bool { return ch.Name == h.Chain && slices.Contains(ch.Devices, h.Dev) }) {
			rest = append(rest, op)
		}
	}
	return rest, nil
}

// devices are those that a chain gets or loses.
func (b *transaction) devices(c kernel.Chain, verb kernel.Verb) []string {
	var out []string
	for _, op := range b.ops {
		h, ok := op.Object.(kernel.Hook)
		if ok && (op.Verb == kernel.Delete) == (verb == kernel.Delete) && h.Parents()[0] == c.Key() {
			out = append(out, h.Dev)
		}
	}
	return out
}

// hookChunk is how many devices go into one message: the kernel refuses the one
// that makes it NFT_NETDEVICE_MAX, 256 (nf_tables_parse_netdev_hooks). A chain may
// have more, by more messages.
const hookChunk = 255

// hooked adds a chain with its devices: up to Linux 6.3 one of family netdev has
// them from the start.
func (b *transaction) hooked(chain rules.Chain, devices []string) {
	first := min(hookChunk, len(devices))
	chain.Devices = devices[:first]
	b.AddChain(chain)
	for more := range slices.Chunk(devices[first:], hookChunk) {
		b.AddDevices(chain, more)
	}
}

// hooks adds the ops on hooks of chains that are there already.
func (b *transaction) hooks(verb kernel.Verb) error {
	var done []kernel.Key
	for _, op := range b.ops {
		h, ok := op.Object.(kernel.Hook)
		if !ok || (op.Verb == kernel.Delete) != (verb == kernel.Delete) || slices.Contains(done, h.Parents()[0]) || b.makes(h.Parents()[0]) {
			continue
		}
		done = append(done, h.Parents()[0])
		family, err := rules.ParseFamily(h.Family)
		if err != nil {
			return err
		}
		chain := rules.Chain{Family: family, Table: h.Table, Name: h.Chain}
		all := b.devices(kernel.Chain{NS: h.NS, Family: h.Family, Table: h.Table, Name: h.Chain}, verb)
		for devices := range slices.Chunk(all, hookChunk) {
			if verb == kernel.Delete {
				b.DeleteDevices(chain, devices)
			} else {
				b.AddDevices(chain, devices)
			}
		}
	}
	return nil
}

// makes reports whether the chain is made here, with its devices.
func (b *transaction) makes(chain kernel.Key) bool {
	return slices.ContainsFunc(b.ops, func(op kernel.Op) bool { return op.Verb == kernel.Create && op.Object.Key() == chain })
}
