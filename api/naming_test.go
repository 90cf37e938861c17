package api

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestParseExtraHosts(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []ExtraHost
		err  string
	}{
		{"box:192.0.2.9", []ExtraHost{{"box", "192.0.2.9"}}, ""},
		{"box=192.0.2.9", []ExtraHost{{"box", "192.0.2.9"}}, ""},
		{"box:2001:db8::9", []ExtraHost{{"box", "2001:db8::9"}}, ""},
		{"box:[2001:DB8::9]", []ExtraHost{{"box", "2001:db8::9"}}, ""},
		{"box=[::1]", []ExtraHost{{"box", "::1"}}, ""},
		{"a;b.example.org:192.0.2.9", []ExtraHost{{"a", "192.0.2.9"}, {"b.example.org", "192.0.2.9"}}, ""},
		{"box:host-gateway", []ExtraHost{{"box", HostGateway}}, ""},
		{"box", nil, `"box" is not of the form NAME:IP`},
		{"box:", nil, "is not of the form NAME:IP"},
		{":192.0.2.9", nil, "is not of the form NAME:IP"},
		{"box:192.0.2", nil, `"192.0.2" is not the address of a host`},
		{"box:0.0.0.0", nil, "is not the address of a host"},
		{"two words:192.0.2.9", nil, "is not a host name"},
		{"a;;b:192.0.2.9", nil, "it is empty"},
		{"box\n192.0.2.8 evil:192.0.2.9", nil, "is not a host name"},
	} {
		got, err := ParseExtraHosts(c.in)
		if !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: got %v, %v; want %v, %q", c.in, got, err, c.want, c.err)
		}
	}
}

func TestNamingIsChecked(t *testing.T) {
	for _, c := range []struct {
		n   Naming
		err string
	}{
		{Naming{}, ""},
		{Naming{DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("fe80::1%eth0")}, DNSSearch: []string{"example.org", "lan."}, DNSOptions: []string{"ndots:2", "rotate"}}, ""},
		{Naming{DNSSearch: []string{"."}}, ""},
		{Naming{DNSSearch: []string{".", "lan"}}, "search domain . means none"},
		{Naming{DNSSearch: []string{"a b"}}, `search domain "a b" is not valid`},
		{Naming{DNSSearch: []string{""}}, "it is empty"},
		{Naming{DNS: []netip.Addr{{}}}, "is not the address of a server"},
		{Naming{DNS: []netip.Addr{netip.MustParseAddr("127.0.0.11")}}, "which would ask itself"},
		{Naming{DNS: []netip.Addr{netip.MustParseAddr("224.0.0.251")}}, "is not the address of a server"},
		{Naming{DNSOptions: []string{"ndots 2"}}, "is not one of resolv.conf(5)"},
		{Naming{ExtraHosts: []ExtraHost{{"x", "nowhere"}}}, "is not the address of a host"},
		{Naming{DNS: slices.Repeat([]netip.Addr{netip.MustParseAddr("192.0.2.53")}, 9)}, "are too many"},
	} {
		err := c.n.validateNaming()
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: got %v, want %q", c.n, err, c.err)
		}
	}
}

func TestUnresolvable(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, want := range map[string]bool{
		"web": false, "web_1": false, "Web-1.front": false, long: false,
		long + "a": true, "": true, "a..b": true, "-a": true, "a-": true, "a b": true, "sálat": true,
		strings.Join([]string{long, long, long, long}, "."): true,
	} {
		if got := Unresolvable(name); (got != "") != want {
			t.Errorf("%q: got %q", name, got)
		}
	}
	got := NameWarnings(long+"a", Endpoint{Aliases: []string{"db", "not a label"}}, Endpoint{Aliases: []string{"not a label"}})
	if len(got) != 2 || !strings.Contains(got[0], "does not resolve: a label is over 63 bytes") || !strings.Contains(got[1], "alias not a label does not resolve") {
		t.Errorf("warnings: %q", got)
	}
}
