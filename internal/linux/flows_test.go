//go:build linux

package linux

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/linux/ct"
)

// TestStaleFlows: which connections contradict a mapping. Our networks are
// 172.20.0.0/16, the host is 192.0.2.10.
func TestStaleFlows(t *testing.T) {
	ours := netip.MustParsePrefix("172.20.0.0/16").Contains
	local := func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.10") }
	entry := func(dst, replySrc string) ct.Entry {
		e := ct.Entry{Proto: 6}
		e.Orig.Src, e.Orig.Dst = netip.MustParseAddrPort("192.0.2.1:5000"), netip.MustParseAddrPort(dst)
		e.Reply.Src = netip.MustParseAddrPort(replySrc)
		if dst != replySrc {
			e.Status = ct.DNAT
		}
		return e
	}
	for _, tc := range []struct {
		name            string
		set, elem, to   string
		gone            bool
		dst, replySrc   string
		covered, purged bool
	}{
		{"as it should be", "publish4_any", "tcp . 80", "172.20.0.2 . 8080", false, "192.0.2.10:80", "172.20.0.2:8080", true, false},
		{"not translated", "publish4_any", "tcp . 80", "172.20.0.2 . 8080", false, "192.0.2.10:80", "192.0.2.10:80", true, true},
		{"to another container", "publish4_any", "tcp . 80", "172.20.0.2 . 8080", false, "192.0.2.10:80", "172.20.0.3:80", true, true},
		{"translated by others", "publish4_any", "tcp . 80", "172.20.0.2 . 8080", false, "192.0.2.10:80", "198.51.100.1:80", true, false},
		{"to somebody else's machine", "publish4_any", "tcp . 80", "172.20.0.2 . 8080", false, "198.51.100.1:80", "198.51.100.1:80", false, false},
		{"another port", "publish4_any", "tcp . 80", "172.20.0.2 . 8080", false, "192.0.2.10:81", "192.0.2.10:81", false, false},
		{"another protocol", "publish4_any", "udp . 80", "172.20.0.2 . 8080", false, "192.0.2.10:80", "192.0.2.10:80", false, false},
		{"another address of the host", "publish4", "127.0.0.1 . tcp . 80", "172.20.0.2 . 8080", false, "192.0.2.10:80", "192.0.2.10:80", false, false},
		{"a source that may not", "publish4_from", "198.51.100.0/24 . 0.0.0.0/0 . tcp . 80", "172.20.0.2 . 8080", false, "192.0.2.10:80", "192.0.2.10:80", false, false},
		{"a source that may", "publish4_from", "192.0.2.0/24 . 0.0.0.0/0 . tcp . 80", "172.20.0.2 . 8080", false, "192.0.2.10:80", "192.0.2.10:80", true, true},
		{"unpublished", "publish4_any", "tcp . 80", "172.20.0.2 . 8080", true, "192.0.2.10:80", "172.20.0.2:8080", true, true},
		{"unpublished, led elsewhere", "publish4_any", "tcp . 80", "172.20.0.2 . 8080", true, "192.0.2.10:80", "198.51.100.1:80", true, false},
	} {
		m, err := parseMapping(kernel.Element{Set: tc.set, Elem: tc.elem, Value: tc.to})
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		m.gone = tc.gone
		e := entry(tc.dst, tc.replySrc)
		if covered := m.covers(e, local); covered != tc.covered || covered && stale(e, m, ours) != tc.purged {
			t.Errorf("%s: covered %v, want %v and then purged %v", tc.name, covered, tc.covered, tc.purged)
		}
	}
}

// TestServicesOfMappings: what is asked of conntrack about mappings, and from how
// many connections on that is cheaper than to read them all.
func TestServicesOfMappings(t *testing.T) {
	var all []mapping
	for _, e := range []kernel.Element{
		{Set: "publish4_any", Elem: "tcp . 80", Value: "172.20.0.2 . 8080", Count: 3},
		{Set: "publish6", Elem: "2001:db8::1 . udp . 53", Value: "fd00::2 . 5353"},
	} {
		m, err := parseMapping(e)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	want := []ct.Service{{Proto: 6, Port: 80}, {Proto: 6, Port: 81}, {Proto: 6, Port: 82}, {IPv6: true, Proto: 17, Port: 53}}
	if got := services(all); !slices.Equal(got, want) {
		t.Errorf("asked for %v, want %v", got, want)
	}
	for _, tc := range []struct{ services, buckets, from int }{
		{1, 262144, 0}, {2, 262144, 2048}, {2, 1024, 8}, {10000, 262144, 20477952},
	} {
		if got := worth(tc.services, tc.buckets); got != tc.from {
			t.Errorf("%d services, %d buckets: worth it from %d connections, want %d", tc.services, tc.buckets, got, tc.from)
		}
	}
}
