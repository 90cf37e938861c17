package dns

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// brief is a resolution in a line: the code if it is not NOERROR, the data, or
// "empty", or "upstream".
func brief(res Resolution, upstream bool) string {
	if upstream {
		return "upstream"
	}
	var parts []string
	if res.Code != NoError {
		parts = append(parts, res.Code.String())
	} else if len(res.Records) == 0 {
		parts = append(parts, "empty")
	}
	for _, r := range res.Records {
		parts = append(parts, r.Data)
	}
	return strings.Join(parts, " ")
}

func TestLookup(t *testing.T) {
	n := world()
	tests := []struct {
		from, name string
		typ        Type
		want       string
		why        string // part of it
	}{
		// Names, on the networks of who asks only.
		{"api", "web", TypeA, "172.20.0.2", `a name on network front`},
		{"api", "web", TypeAAAA, "fd00:20::2", ""},
		{"api", "WEB.", TypeA, "172.20.0.2", ""},
		{"api", "web", TypeANY, "172.20.0.2 fd00:20::2", ""},
		{"api", "web", TypeMX, "empty", "it has no MX record"},
		{"api", "web", TypeHTTPS, "empty", ""},
		{"api", "db.1", TypeA, "upstream", ""},
		{"web", "db.1", TypeA, "172.21.0.3", "a name on network back"},
		{"web", "db.1", TypeAAAA, "empty", "it has no AAAA record"},
		{"safe", "web", TypeA, "172.22.0.3", ""}, // the hostname of Db.1 there
		{"Db.1", "web", TypeA, "172.21.0.2", ""}, // a name goes before a hostname
		// Aliases, hostnames, oneself.
		{"api", "www", TypeA, "172.20.0.2", ""},
		{"Db.1", "www", TypeA, "upstream", ""}, // an alias is of one network
		{"api", "shop", TypeA, "172.20.0.2", ""},
		{"api", "pool", TypeA, "172.20.0.2 172.20.0.4", ""},
		{"api", "pool", TypeAAAA, "fd00:20::2 fd00:20::4", ""},
		{"web", "web", TypeA, "172.20.0.2", ""},
		{"web", "web.back", TypeA, "172.21.0.2", ""},
		{"web", "web.back", TypeAAAA, "empty", ""},
		{"web", "db.back", TypeA, "172.21.0.3", ""},
		{"web", "db.front", TypeA, "upstream", ""},
		{"web", "db.1.back", TypeA, "172.21.0.3", ""},
		{"web", "front", TypeA, "upstream", ""},
		{"lone", "hermit", TypeA, "empty", "the sandbox itself"},
		{"lone", "example.org", TypeA, "NXDOMAIN", ""},
		// The domain of one's own.
		{"api", "web.towpath.internal", TypeA, "172.20.0.2", ""},
		{"api", "web.front.towpath.internal", TypeA, "172.20.0.2", ""},
		{"api", "nobody.towpath.internal", TypeA, "NXDOMAIN", "this is none"},
		{"api", "towpath.internal", TypeA, "empty", ""},
		// The host.
		{"api", "host.towpath.internal", TypeA, "172.20.0.1", "by the gateway of network front"},
		{"api", "host.docker.internal", TypeA, "172.20.0.1", ""},
		{"web", "Host.Containers.Internal", TypeAAAA, "fd00:20::1", ""},
		{"api", "host.docker.internal", TypeAAAA, "empty", "no network of the sandbox has a gateway"},
		{"safe", "host.docker.internal", TypeA, "empty", ""},
		// By hand.
		{"web", "printer.example.org", TypeA, "192.0.2.9", "--add-host"},
		{"web", "printer.example.org", TypeAAAA, "2001:db8::9", ""},
		{"web", "printer.example.org", TypeTXT, "empty", ""},
		{"api", "printer.example.org", TypeA, "upstream", ""},
		// RFC 6761.
		{"api", "localhost", TypeA, "127.0.0.1", ""},
		{"api", "some.localhost", TypeAAAA, "::1", ""},
		// Addresses.
		{"api", "2.0.20.172.in-addr.arpa", TypePTR, "web.front.", "the address of a local name"},
		{"api", "2.0.20.172.IN-ADDR.ARPA", TypeA, "empty", ""},
		{"api", "3.0.21.172.in-addr.arpa", TypePTR, "upstream", ""},
		{"web", "3.0.21.172.in-addr.arpa", TypePTR, "Db.1.back.", ""},
		{"web", "1.0.20.172.in-addr.arpa", TypePTR, "host.towpath.internal.", ""},
		{"web", "9.2.0.192.in-addr.arpa", TypePTR, "printer.example.org.", ""},
		{"api", ReverseName(addrs("fd00:20::2")[0]), TypePTR, "web.front.", ""},
		{"api", ReverseName(addrs("fd00:20::99")[0]), TypePTR, "upstream", ""},
		{"safe", ReverseName(addrs("192.0.2.1")[0]), TypePTR, "NXDOMAIN", "internal networks"},
		{"safe", "1.0.0.127.in-addr.arpa", TypePTR, "localhost.", ""},
		{"web", "02.0.20.172.in-addr.arpa", TypePTR, "upstream", ""},
		{"web", "256.0.20.172.in-addr.arpa", TypePTR, "upstream", ""},
		{"web", "1.2.0.20.172.in-addr.arpa", TypePTR, "upstream", ""},
		// Services.
		{"api", "_80._tcp.web", TypeSRV, "0 0 80 web.", "a published port"},
		{"api", "_80._TCP.Web.front", TypeSRV, "0 0 80 Web.front.", ""},
		{"api", "_443._udp.www", TypeSRV, "0 0 443 www.", ""},
		{"api", "_80._tcp.pool", TypeSRV, "0 0 80 pool.", ""},
		{"api", "_80._tcp.web", TypeA, "empty", ""},
		{"api", "_81._tcp.web", TypeSRV, "NXDOMAIN", "publishes no such port"},
		{"api", "_080._tcp.web", TypeSRV, "upstream", ""},
		{"api", "_65616._tcp.web", TypeSRV, "upstream", ""}, // 80 and 65536
		{"api", "_80._tcp.example.org", TypeSRV, "upstream", ""},
		{"api", "_80._tcp.web.towpath.internal", TypeSRV, "0 0 80 web.towpath.internal.", ""},
		// Internal networks.
		{"safe", "db", TypeA, "NXDOMAIN", ""},
		{"safe", "Db.1", TypeA, "172.22.0.3", ""},
		{"safe", "strongbox", TypeA, "172.22.0.2", ""},
		{"safe", "example.org", TypeA, "NXDOMAIN", "internal networks have local names only"},
		{"nobody", "web", TypeA, "SERVFAIL", `sandbox "nobody" is not connected`},
	}
	for _, tt := range tests {
		res, upstream, err := n.Lookup(tt.from, tt.name, tt.typ, 5*time.Second)
		must(t, err)
		if got := brief(res, upstream); got != tt.want || !strings.Contains(res.Why, tt.why) {
			t.Errorf("%s asks for %s %s: %s (%s), want %s (%s)", tt.from, tt.name, tt.typ, got, res.Why, tt.want, tt.why)
		}
	}
}

func TestLookupRefusesWhatIsNoName(t *testing.T) {
	for name, want := range map[string]string{
		"":                               "name is empty",
		"a..b":                           `name "a..b" has an empty label`,
		strings.Repeat("a", 64):          "has 64 bytes, and DNS knows at most 63",
		strings.Repeat("a.", 127) + "a":  "name has 255 bytes, and DNS knows at most 253",
		".a":                             "empty label",
		strings.Repeat("a.", 126) + "ab": "name has 254 bytes",
	} {
		_, _, err := world().Lookup("web", name, TypeA, 0)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
	if _, _, err := world().Lookup("web", strings.Repeat("a.", 126)+"a", TypeA, 0); err != nil {
		t.Errorf("a name of 253 bytes: %v", err)
	}
}

// TestPutReplacesAndDropRemoves: after all have gone, nothing is left.
func TestPutReplacesAndDropRemoves(t *testing.T) {
	n := world()
	ask := func(from, name string, want string) {
		t.Helper()
		res, upstream, err := n.Lookup(from, name, TypeA, 0)
		must(t, err)
		if got := brief(res, upstream); got != want {
			t.Errorf("%s asks for %s: %s, want %s", from, name, got, want)
		}
	}
	moved := web()
	moved.Attachments[0].Addrs = addrs("172.20.0.77")
	moved.Attachments[0].Aliases = nil
	n.Put(moved)
	ask("api", "web", "172.20.0.77")
	ask("api", "www", "upstream")
	ask("api", "pool", "172.20.0.4")
	n.Drop("web")
	ask("api", "web", "upstream")
	ask("Db.1", "web", "172.21.0.3") // now its own hostname
	n.Put(web())
	ask("Db.1", "web", "172.21.0.2")
	for _, name := range []string{"web", "web", "Db.1", "api", "safe", "lone"} {
		n.Drop(name)
	}
	if len(n.networks)+len(n.sandboxes) != 0 {
		t.Errorf("left: %v %v", n.networks, n.sandboxes)
	}
}

// TestRotation: each of those who share an alias comes first as often.
func TestRotation(t *testing.T) {
	n := NewNames()
	for i := range 4 {
		n.Put(Member{Sandbox: fmt.Sprint("w", i), Attachments: []Attachment{{Network: "net", Addrs: addrs(fmt.Sprintf("10.0.0.%d", i)), Aliases: []string{"w"}}}})
	}
	var p packet
	size, err := p.ask("w", TypeA)
	must(t, err)
	p.q.parse(p.in[:size], false)
	seen := map[string]int{}
	for turn := range uint32(8) {
		res, _ := n.lookup("w0", &p, 0, turn)
		seen[res.Records[0].Data]++
		var all []string
		for _, r := range res.Records {
			all = append(all, r.Data)
		}
		if slices.Sort(all); strings.Join(all, " ") != "10.0.0.0 10.0.0.1 10.0.0.2 10.0.0.3" {
			t.Errorf("turn %d: %v", turn, all)
		}
	}
	for first, times := range seen {
		if times != 2 {
			t.Errorf("%s came first %d times of 8: %v", first, times, seen)
		}
	}
}
