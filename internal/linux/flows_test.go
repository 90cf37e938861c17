//go:build linux

package linux

import (
	"net/netip"
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
