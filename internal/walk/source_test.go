package walk_test

import (
	"net/netip"
	"testing"

	"github.com/towpath/towpath/internal/walk"
)

// TestSource chooses the IPv6 source of several by RFC 6724.
func TestSource(t *testing.T) {
	w := newWorld(t)
	k := w.build(`netns alone:
	link eth0 type veth address 02:00:00:00:ee:01 peer eth0 netns other
	link eth1 type veth address 02:00:00:00:ee:02 peer eth1 netns other
	up eth0
	up eth1
	addr 2001:db8:1::5/64 dev eth0
	addr 2001:db8:1:0:8000::5/65 dev eth0
	addr fd00:1::5/64 dev eth0
	addr 2001:db8:2::5/64 dev eth1
	route ::/0 via 2001:db8:1::1 dev eth0
`, nil)
	for dst, want := range map[string]string{
		"2001:db8:1:0:8000::9": "2001:db8:1:0:8000::5", // the longest common prefix
		"fd00:1::9":            "fd00:1::5",            // the same label
		"2001:db8:2::9":        "2001:db8:2::5",        // the link it leaves by
		"fe80::9%eth1":         "fe80::ff:fe00:ee02",   // the scope
		"2001:db8:2::5":        "2001:db8:2::5",        // itself
		"::1":                  "::1",
	} {
		p, err := k.Walk(walk.Question{From: "alone", Dst: netip.AddrPortFrom(netip.MustParseAddr(dst), 0), Proto: "icmp"})
		if err != nil || p.Flow.Src.String() != want {
			t.Errorf("to %s: source %s, %v; want %s", dst, p.Flow.Src, err, want)
		}
	}
}
