//go:build linux

package nft_test

import (
	"testing"
	"fmt"

	"github.com/towpath/towpath/internal/linux/nft"
	rules "github.com/towpath/towpath/internal/nft"
)
const firstRuleset = `
	table inet towpath {
		set bridges { type ifname; elements = { "tp-a", "tp-b" } }
	set nat_out { type ifname }
		map same { type ifname . ifname : verdict
		elements = { "tp-a" . "tp-a" : accept, "tp-b" . "tp-b" comment "no" : jump icc_off } }
		map leave { type ifname : verdict }
		chain icc_off { counter drop comment "icc off" }
		chain forward { type filter hook forward priority filter; policy accept;
			iifname != @bridges oifname != @bridges accept
			ct state vmap { invalid : drop, established : accept, related : accept }
			iifname . oifname vmap @same
			iifname @bridges oifname @bridges counter drop comment "isolation"
			iifname vmap @leave
			oifname @bridges counter drop comment "direct access from outside" }
		chain postrouting { type nat hook postrouting priority srcnat; policy accept;
			iifname @nat_out oifname != @bridges counter masquerade comment "out" } }
`
func TestFirst(t *testing.T) {
	inNamespace(t, func(t *testing.T) {
		want, err := rules.ParseTable(firstRuleset)
		if err != nil { t.Error(err); return }
		c := dial(t)
		var b nft.Batch
		b.AddTableDef(want)
		if err := c.Commit(t.Context(), &b); err != nil { t.Error(err); return }
		got, err := c.ReadTable(t.Context(), rules.FamilyInet, "towpath")
		if err != nil { t.Error(err); return }
		fmt.Println(got)
		fmt.Println(nftOutput(t, "", "-s", "list", "table", "inet", "towpath"))
		fmt.Println(got.String()==nftOutput(t, "", "-s", "list", "table", "inet", "towpath"))
	})
}
