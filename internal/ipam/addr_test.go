package ipam

import (
	"errors"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func in(subnet, part string) Range { return Range{Subnet: prefix(subnet), IPRange: prefix(part)} }

func addr(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

// set is what is taken, for the tests.
type set map[netip.Addr]bool

func (s set) has(a netip.Addr) bool { return s[a] }

func setOf(addrs ...string) set {
	s := set{}
	for _, a := range addrs {
		s[addr(a)] = true
	}
	return s
}

func TestNextAddr(t *testing.T) {
	tests := map[string]struct {
		r     Range
		taken set
		after string
		want  string
	}{
		"first":                   {in("172.20.0.0/24", ""), nil, "", "172.20.0.1"},
		"not the gateway":         {in("172.20.0.0/24", ""), setOf("172.20.0.1"), "", "172.20.0.2"},
		"behind the last":         {in("172.20.0.0/24", ""), nil, "172.20.0.9", "172.20.0.10"},
		"not the broadcast":       {in("172.20.0.0/24", ""), nil, "172.20.0.254", "172.20.0.1"},
		"after is elsewhere":      {in("172.20.0.0/24", ""), nil, "10.0.0.1", "172.20.0.1"},
		"after is the network":    {in("172.20.0.0/24", ""), nil, "172.20.0.0", "172.20.0.1"},
		"the last one, at last":   {in("172.20.0.0/30", ""), setOf("172.20.0.1"), "172.20.0.2", "172.20.0.2"},
		"a part":                  {in("172.20.0.0/24", "172.20.0.64/26"), nil, "", "172.20.0.64"},
		"a part, around":          {in("172.20.0.0/24", "172.20.0.64/26"), nil, "172.20.0.127", "172.20.0.64"},
		"the first part":          {in("172.20.0.0/24", "172.20.0.0/26"), nil, "172.20.0.63", "172.20.0.1"},
		"the last part":           {in("172.20.0.0/24", "172.20.0.192/26"), nil, "172.20.0.254", "172.20.0.192"},
		"two hosts, first":        {in("10.0.0.4/31", ""), nil, "", "10.0.0.4"},
		"two hosts, second":       {in("10.0.0.4/31", ""), nil, "10.0.0.4", "10.0.0.5"},
		"IPv6":                    {in("fd00:1::/64", ""), setOf("fd00:1::1"), "", "fd00:1::2"},
		"IPv6, around":            {in("fd00:1::/64", ""), nil, "fd00:1::ffff:ffff:ffff:ffff", "fd00:1::1"},
		"IPv6, the first part":    {in("fd00:1::/64", "fd00:1::/96"), nil, "fd00:1::ffff:ffff", "fd00:1::1"},
		"IPv6, the smallest":      {in("fd00:1::/127", ""), nil, "fd00:1::1", "fd00:1::1"},
		"up to the last of all":   {in("255.255.255.0/24", "255.255.255.254/31"), nil, "", "255.255.255.254"},
		"a subnet not masked":     {in("172.20.0.77/24", ""), nil, "", "172.20.0.1"},
		"a part of one, reserved": {in("172.20.0.0/24", "172.20.0.9/32"), nil, "172.20.0.9", "172.20.0.9"},
	}
	for name, tt := range tests {
		got, err := NextAddr(tt.r, tt.taken.has, addr(tt.after))
		if err != nil || got != addr(tt.want) {
			t.Errorf("%s: %v, %v; want %s", name, got, err, tt.want)
		}
	}
}

func TestAddrsExhausted(t *testing.T) {
	tests := []struct {
		r      Range
		usable uint64
		text   string
	}{
		{in("10.0.0.0/24", ""), 254, "allocate address: none of 254 is free in 10.0.0.0/24"},
		{in("10.0.0.0/24", "10.0.0.128/25"), 127, "allocate address: none of 127 is free in 10.0.0.128/25 of 10.0.0.0/24"},
		{in("10.0.0.0/24", "10.0.0.0/32"), 0, "allocate address: none of 0 is free in 10.0.0.0/32 of 10.0.0.0/24"},
		{in("10.0.0.0/31", ""), 2, "allocate address: none of 2 is free in 10.0.0.0/31"},
		{in("10.0.0.0/32", ""), 0, "allocate address: none of 0 is free in 10.0.0.0/32"},
		{in("fd00::/128", "fd00::/128"), 0, "allocate address: none of 0 is free in fd00::/128 of fd00::/128"},
		{in("fd00::/120", ""), 255, "allocate address: none of 255 is free in fd00::/120"},
	}
	for _, tt := range tests {
		_, err := NextAddr(tt.r, func(netip.Addr) bool { return true }, netip.Addr{})
		var e *AddrsExhaustedError
		if !errors.As(err, &e) || !errors.Is(err, ErrExhausted) || e.Usable != tt.usable || err.Error() != tt.text {
			t.Errorf("%v, want %s", err, tt.text)
		}
	}
}

func TestRangeOutsideOfSubnet(t *testing.T) {
	for _, part := range []string{"10.0.1.0/25", "10.0.0.0/16", "fd00::/64"} {
		got, err := NextAddr(in("10.0.0.0/24", part), setOf().has, netip.Addr{})
		if err == nil || errors.Is(err, ErrExhausted) {
			t.Errorf("range %s of 10.0.0.0/24: %v, %v; want an error of its own", part, got, err)
		}
	}
}

func TestLargeSubnetIsNotScanned(t *testing.T) {
	taken := setOf("fd00::1", "fd00::8000:0:0:1", "fd00::8000:0:0:2")
	asked := 0
	ask := func(a netip.Addr) bool { asked++; return taken[a] }
	got, err := NextAddr(in("fd00::/64", ""), ask, addr("fd00::8000:0:0:0"))
	if err != nil || got != addr("fd00::8000:0:0:3") || asked != 3 {
		t.Errorf("%v, %v, asked %d times; want fd00::8000:0:0:3, asked 3 times", got, err, asked)
	}
}

func TestMAC(t *testing.T) {
	if got := MAC([5]byte{0xff, 1, 2, 3, 0xfe}).String(); got != "02:ff:01:02:03:fe" {
		t.Errorf("MAC is %s", got)
	}
}

func drawRange(t *rapid.T) Range {
	subnet := rapid.SampledFrom([]string{
		"10.0.0.0/28", "10.0.0.0/29", "10.0.0.248/30", "255.255.255.240/28", "10.0.0.2/31", "fd00::/124", "fd00::10/125", "ffff::/127",
	}).Draw(t, "subnet")
	r := in(subnet, "")
	if rapid.Bool().Draw(t, "has part") {
		all := addrsOf(r.Subnet)
		start := rapid.SampledFrom(all).Draw(t, "part")
		bits := rapid.IntRange(r.Subnet.Bits(), start.BitLen()).Draw(t, "bits")
		r.IPRange = netip.PrefixFrom(start, bits).Masked()
	}
	return r
}

func addrsOf(p netip.Prefix) []netip.Addr {
	var all []netip.Addr
	for a := p.Masked().Addr(); a.IsValid() && p.Contains(a); a = a.Next() {
		all = append(all, a)
	}
	return all
}

// mayHave is the rule of usable addresses, said anew: not the first, and for
// IPv4 not the last, unless there are but two.
func mayHave(r Range, a netip.Addr) bool {
	if r.IPRange.IsValid() && !r.IPRange.Contains(a) {
		return false
	}
	if a.Is4() && r.Subnet.Bits() == 31 {
		return true
	}
	isLast := !a.Next().IsValid() || !r.Subnet.Contains(a.Next())
	return a != r.Subnet.Addr() && (a.Is6() || !isLast)
}

func TestAddrsAreFreeUntilNoneIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRange(t)
		taken := set{}
		var after netip.Addr
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "free one") == 0 {
				delete(taken, rapid.SampledFrom(addrsOf(r.Subnet)).Draw(t, "which"))
			}
			free := set{}
			for _, a := range addrsOf(r.Subnet) {
				if mayHave(r, a) && !taken[a] {
					free[a] = true
				}
			}
			got, err := NextAddr(r, taken.has, after)
			if len(free) == 0 {
				if !errors.Is(err, ErrExhausted) {
					t.Fatalf("nothing is free in %s: %v, %v", r, got, err)
				}
				continue
			}
			if err != nil || !free[got] {
				t.Fatalf("in %s after %v: %v, %v; want one of %v", r, after, got, err, free)
			}
			if got == after && len(free) > 1 {
				t.Fatalf("in %s: %v was given twice in a row, while %v were free", r, got, free)
			}
			taken[got], after = true, got
		}
	})
}

// TestAddrsGoRound frees each address at once: every one is given once before
// any comes again.
func TestAddrsGoRound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRange(t)
		seen := map[netip.Addr]int{}
		var after netip.Addr
		usable := 0
		for _, a := range addrsOf(r.Subnet) {
			if mayHave(r, a) {
				usable++
			}
		}
		for n := range 2 * usable {
			got, err := NextAddr(r, set{}.has, after)
			if err != nil || seen[got] != n/usable {
				t.Fatalf("in %s after %v: %v, %v, given %d times before; want %d", r, after, got, err, seen[got], n/usable)
			}
			seen[got]++
			after = got
		}
	})
}
