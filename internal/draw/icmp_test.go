package draw_test

import (
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/draw"
)

// TestMessagesOfICMP are called by their names: of a trace of drops, most are no
// echo requests.
func TestMessagesOfICMP(t *testing.T) {
	for _, c := range []struct {
		proto string
		typ   uint8
		want  string
	}{
		{"icmp", 8, "icmp echo request"},
		{"icmp", 0, "icmp echo reply"},
		{"icmp", 3, "icmp destination unreachable"},
		{"icmp", 42, "icmp type 42"},
		{"icmpv6", 128, "icmpv6 echo request"},
		{"icmpv6", 129, "icmpv6 echo reply"},
		{"icmpv6", 3, "icmpv6 time exceeded"},
		{"icmpv6", 134, "icmpv6 router advertisement"},
		{"icmpv6", 135, "icmpv6 neighbour solicitation"},
		{"icmpv6", 200, "icmpv6 type 200"},
	} {
		var b strings.Builder
		if err := draw.PathText(&b, api.Path{Flow: api.Flow{Proto: c.proto, ICMPType: c.typ}}); err != nil {
			t.Fatal(err)
		}
		if head, _, _ := strings.Cut(b.String(), "\n"); !strings.Contains(head, c.want) {
			t.Errorf("%s type %d: %q, want %s", c.proto, c.typ, head, c.want)
		}
	}
}
