package api

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResolvLines(t *testing.T) {
	type Resolv struct{ Search, Options []string }
	host := Resolv{Search: []string{"lan", "example.org"}, Options: []string{"edns0", "trust-ad"}}
	for _, c := range []struct {
		name string
		n    Naming
		host Resolv
		want []string
	}{
		{"nothing anywhere", Naming{}, Resolv{}, []string{"options ndots:0"}},
		{"the host's", Naming{}, host, []string{"search lan example.org", "options edns0 trust-ad ndots:0"}},
		{"its own", Naming{DNSSearch: []string{"a", "b"}, DNSOptions: []string{"rotate"}}, host, []string{"search a b", "options rotate ndots:0"}},
		{"ndots", Naming{DNSOptions: []string{"ndots:3"}}, host, []string{"search lan example.org", "options ndots:3"}},
		{"no search", Naming{DNSSearch: []string{"."}}, host, []string{"options edns0 trust-ad ndots:0"}},
		{"servers are asked by the resolver", Naming{DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}, Resolv{}, []string{"options ndots:0"}},
	} {
		want := append([]string{"nameserver 127.0.0.11"}, c.want...)
		if diff := cmp.Diff(want, c.n.ResolvLines(c.host.Search, c.host.Options)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	if len(host.Options) != 2 || len(host.Search) != 2 {
		t.Errorf("the host's own were changed: %+v", host)
	}
}

func TestHostsLines(t *testing.T) {
	s := Sandbox{Name: "web", Hostname: "web.example.org", Naming: Naming{ExtraHosts: []ExtraHost{
		{Name: "box", Address: "192.0.2.9"}, {Name: "up", Address: HostGateway},
	}}}
	s.Endpoints = []Endpoint{
		{Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")}}, // isolated: no gateway
		{
			Addresses: []netip.Prefix{netip.MustParsePrefix("172.20.0.2/24"), netip.MustParsePrefix("fd00::2/64")},
			Gateways:  []netip.Addr{netip.MustParseAddr("172.20.0.1"), netip.MustParseAddr("fd00::1")},
		},
	}
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n192.0.2.9\tbox\n172.20.0.1\tup\nfd00::1\tup\n" +
		"10.9.0.2\tweb.example.org web\n172.20.0.2\tweb.example.org web\nfd00::2\tweb.example.org web"
	if diff := cmp.Diff(want, strings.Join(s.HostsLines(), "\n")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if w := s.NameWarnings(); len(w) != 0 {
		t.Errorf("warned: %q", w)
	}
	s.Endpoints = nil
	if w := s.NameWarnings(); len(w) != 1 || !strings.Contains(w[0], "extra host up has no address") {
		t.Errorf("without a gateway: %q", w)
	}
}
