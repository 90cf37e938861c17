package firewall

import (
	"fmt"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/nft"
)

// BenchmarkPublication asks a chain of many rules of which none is meant.
func BenchmarkPublication(b *testing.B) {
	var s strings.Builder
	s.WriteString("table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy accept;\n")
	for i := range 5000 {
		fmt.Fprintf(&s, "ip daddr 10.%d.%d.1 meta l4proto tcp tcp dport %d accept\n", i/256, i%256, 1000+i)
	}
	s.WriteString(" }\n}\n")
	t, err := nft.ParseTable(s.String())
	if err != nil {
		b.Fatal(err)
	}
	c := New(kernel.Foreign{Tables: []nft.TableDef{t}}, nil)
	p := Publication{Name: "80/tcp", Proto: nft.ProtoTCP, HostPort: 80, Port: 80, Network: Network{Name: "n", Device: "tp-n", V4: true, Ways: []string{"eth0"}}, V4: true}
	for b.Loop() {
		if found := c.Publication(p); len(found) > 0 {
			b.Fatal(found)
		}
	}
}
