package reach

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"github.com/towpath/towpath/internal/nft"
)

// TestPorts: what rules compare with a destination port makes classes, what they
// compare with other things of two bytes does not.
func TestPorts(t *testing.T) {
	tests := []struct {
		rule string
		want []uint16
	}{
		{"tcp dport 80 accept", []uint16{80}},
		{"tcp dport != 80 accept", []uint16{80}},
		{"udp dport 1000-2000 drop", []uint16{1000, 2000}},
		{"tcp dport { 22, 443 } accept", []uint16{22, 443}},
		{"tcp sport 5 accept", nil},
		{"ether type 0x0806 accept", nil},
		{"ip id 7 accept", nil},
		{"meta mark 7 tcp dport 81 accept", []uint16{81}},
		{"ct original proto-dst 8080 accept", []uint16{8080}},
	}
	for _, tt := range tests {
		table, err := nft.ParseTable("table inet mine {\n chain c {\n " + tt.rule + "\n }\n}")
		if err != nil {
			t.Errorf("%s: %v", tt.rule, err)
			continue
		}
		if got := named1(table); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.rule, got, tt.want)
		}
	}
	info := make([]byte, 16) // struct xt_tcp: source ports 1 and 2, destination ports 3 and 4
	for i := range 4 {
		binary.NativeEndian.PutUint16(info[2*i:], uint16(i+1))
	}
	match := nft.Rule{Exprs: []nft.Expr{nft.XT{Name: "tcp", Info: info}.Expr()}}
	table := nft.TableDef{Chains: []nft.ChainDef{{Rules: []nft.Rule{match}}}}
	if got := named1(table); !slices.Equal(got, []uint16{3, 4}) {
		t.Errorf("of iptables: %v", got)
	}
}

func named1(table nft.TableDef) []uint16 {
	into := map[uint16]bool{}
	ports(&table, into)
	return slices.Sorted(maps.Keys(into))
}
