package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// namedHolders is how many owners an error names before it counts.
const namedHolders = 5

// NextSubnet returns the first slice behind after, the one given last, that
// overlaps nothing of taken. Behind the last slice of the last pool it goes on
// with the first; after itself is tried last. Where after lies in no pool, or
// is the zero Prefix, the search starts with the first pool.
//
// Ranges of length 0 in taken, default routes, are passed over. The cost
// depends on how much is taken, not on the size of the pools. The error is a
// *SubnetsExhaustedError, or says what is wrong with a pool.
func NextSubnet(pools []Pool, taken []Taken, after netip.Prefix) (netip.Prefix, error) {
	if err := ValidPools(pools); err != nil {
		return netip.Prefix{}, fmt.Errorf("allocate subnet: %w", err)
	}
	free := make([][]netipx.IPRange, len(pools))
	for i, p := range pools {
		var err error
		if free[i], err = freeIn(p, taken); err != nil {
			return netip.Prefix{}, fmt.Errorf("allocate subnet: %w", err)
		}
	}
	first, start := whereAfter(pools, after)
	for n := range len(pools) + 1 { // the first pool again, for what lies before start
		i := (first + n) % len(pools)
		from := pools[i].Base.Masked().Addr()
		if n == 0 && start.IsValid() {
			from = start
		}
		if p, ok := firstSlice(free[i], from, pools[i].Size); ok {
			return p, nil
		}
	}
	return netip.Prefix{}, exhausted(pools, taken)
}

// ValidPools checks that there is a pool, that each can be cut, and that no two
// overlap: a slice of both would come again too soon.
func ValidPools(pools []Pool) error {
	if len(pools) == 0 {
		return errors.New("no pool is configured")
	}
	for i, p := range pools {
		if err := p.validate(); err != nil {
			return err
		}
		for _, q := range pools[:i] {
			if p.Base.Overlaps(q.Base) {
				return fmt.Errorf("pools %s and %s overlap", q, p)
			}
		}
	}
	return nil
}

func (p Pool) validate() error {
	most := 126
	if p.Base.Addr().Is4() {
		most = 30
	}
	if !p.Base.IsValid() || p.Base.Addr().Is4In6() || p.Size < p.Base.Bits() || p.Size > most {
		return fmt.Errorf("pool %s cannot be cut into subnets of that size", p)
	}
	return nil
}

// whereAfter finds the pool to start with, and the address: that behind after,
// or none for the start of the pool.
func whereAfter(pools []Pool, after netip.Prefix) (int, netip.Addr) {
	i := slices.IndexFunc(pools, func(p Pool) bool { return p.Base.Contains(after.Addr()) })
	if i < 0 || !after.IsValid() {
		return 0, netip.Addr{}
	}
	next := netipx.PrefixLastIP(after).Next()
	if !pools[i].Base.Contains(next) {
		return (i + 1) % len(pools), netip.Addr{}
	}
	return i, next
}

// freeIn returns what is free in a pool, as ranges that do not touch, sorted.
func freeIn(p Pool, taken []Taken) ([]netipx.IPRange, error) {
	var b netipx.IPSetBuilder
	b.AddPrefix(p.Base.Masked())
	for _, t := range taken {
		if counts(t) {
			b.RemovePrefix(t.Prefix.Masked())
		}
	}
	set, err := b.IPSet()
	if err != nil {
		return nil, err
	}
	return set.Ranges(), nil
}

// firstSlice finds the first whole slice in ranges that starts at from or later.
func firstSlice(ranges []netipx.IPRange, from netip.Addr, size int) (netip.Prefix, bool) {
	for _, r := range ranges {
		start := r.From()
		if start.Less(from) {
			start = from
		}
		slice := netip.PrefixFrom(start, size).Masked()
		if slice.Addr() != start { // the next boundary; none at the end of all addresses
			slice = netip.PrefixFrom(netipx.PrefixLastIP(slice).Next(), size)
		}
		if slice.IsValid() && !r.To().Less(netipx.PrefixLastIP(slice)) {
			return slice, true
		}
	}
	return netip.Prefix{}, false
}

// counts tells ranges from default routes, which take nothing.
func counts(t Taken) bool { return t.Prefix.IsValid() && t.Prefix.Bits() > 0 }

// Overlaps returns the first of taken that has an address in common with p.
// Ranges of length 0 in taken, default routes, are passed over.
func Overlaps(p netip.Prefix, taken []Taken) (Taken, bool) {
	i := slices.IndexFunc(taken, func(t Taken) bool { return counts(t) && t.Prefix.Overlaps(p) })
	if i < 0 {
		return Taken{}, false
	}
	return taken[i], true
}

func exhausted(pools []Pool, taken []Taken) error {
	e := &SubnetsExhaustedError{Pools: slices.Clone(pools)}
	for _, p := range pools {
		e.Slices = addUpTo64(e.Slices, p.Size-p.Base.Bits())
	}
	owners := holders(pools, taken)
	named := min(len(owners), namedHolders)
	e.Holders, e.More = owners[:named], len(owners)-named
	return e
}

// addUpTo64 adds 2^bits, and stays at the largest number where that is too much.
func addUpTo64(n uint64, bits int) uint64 {
	if bits >= 64 || n > math.MaxUint64-1<<bits {
		return math.MaxUint64
	}
	return n + 1<<bits
}

// holders returns the owners of what is taken in pools, each once, those of
// large ranges first.
func holders(pools []Pool, taken []Taken) []string {
	var within []Taken
	for _, t := range taken {
		if slices.ContainsFunc(pools, func(p Pool) bool { return counts(t) && t.Prefix.Overlaps(p.Base) }) {
			within = append(within, t)
		}
	}
	slices.SortStableFunc(within, func(a, b Taken) int {
		return cmp.Or(cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), a.Prefix.Addr().Compare(b.Prefix.Addr()))
	})
	var owners []string
	seen := map[string]bool{}
	for _, t := range within {
		name := cmp.Or(t.Owner, t.Prefix.String())
		if !seen[name] {
			seen[name] = true
			owners = append(owners, name)
		}
	}
	return owners
}
