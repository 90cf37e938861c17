//go:build linux

package ct

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestForget deletes one of many, of the default zone.
func TestForget(t *testing.T) {
	for _, proto := range []uint8{udp, tcp, sctp} {
		for src, dst := range map[string]string{"192.0.2.2:4000": "192.0.2.1:9000", "[2001:db8::2]:4000": "[2001:db8::1]:9000"} {
			t.Run(fmt.Sprintf("%s of protocol %d", src, proto), func(t *testing.T) {
				orig := Tuple{netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)}
				deletesExactly(t, func(c *Conn) error { return c.Forget(t.Context(), proto, orig) },
					func(e Entry) bool { return e.Proto == proto && e.Orig == orig && e.Zone == 0 })
			})
		}
	}
}
