package ipam

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func pool(base string, size int) Pool { return Pool{Base: netip.MustParsePrefix(base), Size: size} }

func takenBy(pairs ...string) []Taken {
	var taken []Taken
	for i := 0; i < len(pairs); i += 2 {
		taken = append(taken, Taken{Prefix: netip.MustParsePrefix(pairs[i]), Owner: pairs[i+1]})
	}
	return taken
}

func prefix(s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(s)
}

func TestNextSubnet(t *testing.T) {
	two := []Pool{pool("172.20.0.0/22", 24), pool("10.64.0.0/23", 24)}
	tests := map[string]struct {
		pools []Pool
		taken []Taken
		after string
		want  string
	}{
		"first":                     {two, nil, "", "172.20.0.0/24"},
		"behind the last":           {two, nil, "172.20.1.0/24", "172.20.2.0/24"},
		"over to the next pool":     {two, nil, "172.20.3.0/24", "10.64.0.0/24"},
		"around to the first pool":  {two, nil, "10.64.1.0/24", "172.20.0.0/24"},
		"after is of no pool":       {two, nil, "192.168.7.0/24", "172.20.0.0/24"},
		"after is larger":           {two, nil, "172.20.0.0/23", "172.20.2.0/24"},
		"after is smaller":          {two, nil, "172.20.1.64/26", "172.20.2.0/24"},
		"default routes":            {two, takenBy("0.0.0.0/0", "route", "::/0", "route"), "", "172.20.0.0/24"},
		"a route that covers all":   {two, takenBy("172.16.0.0/12", "vpn"), "", "10.64.0.0/24"},
		"a host route":              {two, takenBy("172.20.0.9/32", "vpn"), "", "172.20.1.0/24"},
		"not masked":                {two, takenBy("172.20.0.9/23", "vpn"), "", "172.20.2.0/24"},
		"half a slice free":         {two, takenBy("172.20.0.0/25", "a", "172.20.1.128/25", "b"), "", "172.20.2.0/24"},
		"the last one, at last":     {two[1:], takenBy("10.64.0.0/24", "a"), "10.64.1.0/24", "10.64.1.0/24"},
		"other family":              {two, takenBy("fd00::/8", "a"), "", "172.20.0.0/24"},
		"IPv6":                      {[]Pool{pool("fd12:3456:789a::/48", 64)}, takenBy("fd12:3456:789a::/64", "a"), "", "fd12:3456:789a:1::/64"},
		"IPv6, large and full":      {[]Pool{pool("fd00::/8", 64)}, takenBy("fd00::/9", "a"), "", "fd80::/64"},
		"up to the last of all":     {[]Pool{pool("255.255.254.0/23", 24)}, takenBy("255.255.254.0/24", "a"), "", "255.255.255.0/24"},
		"behind the last of all":    {[]Pool{pool("255.255.254.0/23", 24)}, nil, "255.255.255.0/24", "255.255.254.0/24"},
		"a pool that is not masked": {[]Pool{pool("10.1.2.3/16", 24)}, nil, "", "10.1.0.0/24"},
	}
	for name, tt := range tests {
		got, err := NextSubnet(tt.pools, tt.taken, prefix(tt.after))
		if err != nil || got != prefix(tt.want) {
			t.Errorf("%s: %v, %v; want %s", name, got, err, tt.want)
		}
	}
}

func TestSubnetsExhausted(t *testing.T) {
	taken := takenBy("10.0.0.0/24", "network a", "10.0.1.0/26", "network b", "10.0.1.64/26", "network b",
		"192.168.0.0/16", "elsewhere", "10.0.2.0/23", "route via eth0")
	_, err := NextSubnet([]Pool{pool("10.0.0.0/22", 24)}, taken, netip.Prefix{})
	want := "allocate subnet: none of 4 is free in 10.0.0.0/22,size=24; taken by route via eth0, network a, network b"
	if err == nil || err.Error() != want || !errors.Is(err, ErrExhausted) {
		t.Errorf("%v, want ErrExhausted: %s", err, want)
	}

	taken = nil
	for i := range 8 {
		taken = append(taken, Taken{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i)}), 24), fmt.Sprintf("network %d", i)})
	}
	pools := []Pool{pool("10.0.0.0/22", 24), pool("10.0.4.0/22", 24)}
	_, err = NextSubnet(pools, taken, netip.Prefix{})
	var e *SubnetsExhaustedError
	if !errors.As(err, &e) {
		t.Fatalf("%v, want a *SubnetsExhaustedError", err)
	}
	if diff := cmp.Diff([]any{uint64(8), 5, 3}, []any{e.Slices, len(e.Holders), e.More}); diff != "" {
		t.Errorf("slices, holders, more (- wanted, + found):\n%s", diff)
	}
	if !strings.HasSuffix(err.Error(), "network 3, network 4 and 3 more") {
		t.Errorf("message does not count the rest: %v", err)
	}

	_, err = NextSubnet([]Pool{pool("::/16", 126)}, takenBy("::/8", ""), netip.Prefix{})
	if !errors.As(err, &e) || e.Slices != math.MaxUint64 || !slices.Equal(e.Holders, []string{"::/8"}) {
		t.Errorf("%v, want more slices than can be counted, taken by ::/8", err)
	}
}

func TestPoolsThatAreNotValid(t *testing.T) {
	for _, pools := range [][]Pool{
		nil,
		{{}},
		{pool("10.0.0.0/24", 16)},
		{pool("10.0.0.0/24", 31)},
		{pool("fd00::/64", 127)},
		{pool("::ffff:10.0.0.0/104", 120)},
		{pool("10.0.0.0/16", 24), pool("10.1.0.0/24", -1)},
		{pool("10.0.0.0/16", 24), pool("10.0.4.0/24", 26)},
	} {
		if got, err := NextSubnet(pools, nil, netip.Prefix{}); err == nil || errors.Is(err, ErrExhausted) {
			t.Errorf("NextSubnet(%v) = %v, %v; want an error of its own", pools, got, err)
		}
	}
}

func TestOverlaps(t *testing.T) {
	taken := takenBy("0.0.0.0/0", "default", "10.0.0.0/8", "vpn", "10.1.0.0/16", "network a")
	if got, ok := Overlaps(prefix("10.1.2.0/24"), taken); !ok || got.Owner != "vpn" {
		t.Errorf("overlaps %v, %v; want the vpn", got, ok)
	}
	if got, ok := Overlaps(prefix("172.20.0.0/24"), taken); ok {
		t.Errorf("overlaps %v, want nothing", got)
	}
}

func TestDefaultPools(t *testing.T) {
	ula := NewULA([5]byte{0x12, 0x34, 0x56, 0x78, 0x9a})
	if want := prefix("fd12:3456:789a::/48"); ula != want {
		t.Errorf("NewULA: %s, want %s", ula, want)
	}
	all := append(DefaultPools4(), DefaultPools6(ula)...)
	if err := ValidPools(all); err != nil {
		t.Error(err)
	}
	for _, p := range all {
		if !p.Base.Addr().IsPrivate() {
			t.Errorf("pool %s is not private", p)
		}
	}
	for _, foreign := range []string{"172.17.0.0/16", "172.31.0.0/16", "10.88.0.0/16", "10.96.0.0/12", "10.128.0.0/9"} {
		if i := slices.IndexFunc(all, func(p Pool) bool { return p.Base.Overlaps(prefix(foreign)) }); i >= 0 {
			t.Errorf("pool %s overlaps %s, a default of others", all[i], foreign)
		}
	}
}

// drawPools makes small pools, so that they fill up, in any order.
func drawPools(t *rapid.T) []Pool {
	all := []Pool{
		pool("10.0.0.0/22", 24), pool("10.0.4.0/24", 26), pool("255.255.255.0/24", 27),
		pool("fd00::/62", 64), pool("ffff:ffff:ffff:fff0::/60", 63),
	}
	n := rapid.IntRange(1, 3).Draw(t, "pools")
	return rapid.Permutation(all).Draw(t, "order")[:n]
}

// slicesOf lists all slices in the order of the pools.
func slicesOf(pools []Pool) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range pools {
		addr := p.Base.Addr()
		for p.Base.Contains(addr) {
			slice := netip.PrefixFrom(addr, p.Size)
			all = append(all, slice)
			for addr = slice.Addr(); addr.IsValid() && slice.Contains(addr); addr = jump(addr, p.Size) {
			}
		}
	}
	return all
}

// jump adds one at the last bit of the prefix, byte by byte.
func jump(addr netip.Addr, size int) netip.Addr {
	b := addr.AsSlice()
	add := 1 << (7 - (size-1)%8)
	for i := (size - 1) / 8; i >= 0; i-- {
		sum := int(b[i]) + add
		b[i], add = byte(sum), sum>>8
	}
	if add > 0 {
		return netip.Addr{}
	}
	next, _ := netip.AddrFromSlice(b)
	return next
}

func TestSubnetsAreFreeUntilNoneIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pools := drawPools(t)
		all := slicesOf(pools)
		var taken []Taken
		var after netip.Prefix
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(taken) > 0 && rapid.IntRange(0, 3).Draw(t, "free one") == 0 {
				i := rapid.IntRange(0, len(taken)-1).Draw(t, "which")
				taken = slices.Delete(taken, i, i+1)
			}
			free := slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { _, held := Overlaps(p, taken); return held })
			got, err := NextSubnet(pools, taken, after)
			if len(free) == 0 {
				if !errors.Is(err, ErrExhausted) {
					t.Fatalf("nothing is free: %v, %v", got, err)
				}
				continue
			}
			if err != nil || !slices.Contains(free, got) {
				t.Fatalf("after %s: %v, %v; want one of %v", after, got, err, free)
			}
			others := slices.ContainsFunc(free, func(p netip.Prefix) bool { return !p.Overlaps(after) })
			if after.IsValid() && got == after && others {
				t.Fatalf("%s was given twice in a row, while one of %v was free", got, free)
			}
			taken, after = append(taken, Taken{Prefix: got}), got
		}
	})
}

// TestSubnetsGoRound frees each subnet at once: every slice is given once
// before any comes again.
func TestSubnetsGoRound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pools := rapid.SampledFrom([][]Pool{
			{pool("10.0.0.0/22", 24), pool("10.0.4.0/24", 26)}, {pool("fd00::/60", 64)}, {pool("255.255.255.0/24", 28)},
		}).Draw(t, "pools")
		all := slicesOf(pools)
		after := rapid.SampledFrom(all).Draw(t, "after")
		at := slices.Index(all, after)
		for n := range 2 * len(all) {
			got, err := NextSubnet(pools, nil, after)
			if want := all[(at+1+n)%len(all)]; err != nil || got != want {
				t.Fatalf("after %s: %v, %v; want %s", after, got, err, want)
			}
			after = got
		}
	})
}
