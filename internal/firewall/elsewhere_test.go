package firewall

import (
	"net/netip"
	"testing"

	"github.com/towpath/towpath/internal/nft"
)

// TestElsewhere: a rule is left out only where no sample can match it.
func TestElsewhere(t *testing.T) {
	for _, c := range []struct {
		family nft.Family
		rule   string
		want   bool
	}{
		{nft.FamilyIP, "ip daddr 10.1.2.3 accept", true},
		{nft.FamilyIP, "ip saddr 10.0.0.0/9 tcp dport 80 drop", true},
		{nft.FamilyIP, `iifname "eth0" ip daddr 10.1.2.3 drop`, true},
		{nft.FamilyIP, "ip saddr 172.20.0.3 ip daddr 10.1.2.3 drop", true},
		{nft.FamilyIP, "ip daddr 172.20.0.2 drop", false},
		{nft.FamilyIP, "ip daddr 172.16.0.0/12 drop", false},
		{nft.FamilyIP, "ip daddr 192.168.1.2 drop", false},
		{nft.FamilyIP, "ip daddr 1.1.1.1 drop", false},
		{nft.FamilyIP, "ip daddr != 10.1.2.3 drop", false},
		{nft.FamilyIP, "meta mark 0x7 drop", false},
		{nft.FamilyIP, "meta mark set 0x7 ip daddr 10.1.2.3", false},
		{nft.FamilyIP, "log ip daddr 10.1.2.3 drop", false},
		{nft.FamilyIP, "tcp dport 80 drop", false},
		{nft.FamilyIP6, "ip6 saddr 2001:db8::1 drop", true},
		{nft.FamilyIP6, "ip6 saddr fd00::/8 drop", false},
		{nft.FamilyInet, "ip daddr 10.1.2.3 drop", false},
	} {
		r, err := nft.ParseRule(c.family, c.rule)
		if err != nil {
			t.Fatal(err)
		}
		if got := elsewhere(c.family, &r); got != c.want {
			t.Errorf("%v %s: %v", c.family, c.rule, got)
		}
	}
}

// TestRulesThatAreLeftOut: rules behind them are still told by their place.
func TestRulesThatAreLeftOut(t *testing.T) {
	table, err := nft.ParseTable("table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy accept;\n" +
		"ip daddr 10.1.2.3 drop\n jump more\n }\n chain more {\n ip saddr 10.1.2.3 accept\n ip saddr 10.1.2.4 accept\n ip daddr 172.20.0.0/16 drop\n }\n}")
	if err != nil {
		t.Fatal(err)
	}
	rs := alone(table, 0)
	p := flow{proto: nft.ProtoTCP, src: netip.MustParseAddrPort("172.20.0.2:1"), dst: netip.MustParseAddrPort("172.20.0.3:2"), in: "a", out: "b", state: nft.StateNew}.packet()
	o := rs.Hook("forward", p)
	if o.Verdict != nft.Drop || o.By.Chain != "more" || o.By.Index != 2 || len(o.Steps) != 2 {
		t.Errorf("%+v", o)
	}
}
