package dns

import (
	"net/netip"
	"os"
	"testing"

	"github.com/towpath/towpath/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// addrs reads addresses.
func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// web, db and others on the networks front (dual-stack), back and vault
// (internal).
func web() Member {
	return Member{
		Sandbox: "web", Hostname: "Shop",
		Attachments: []Attachment{
			{Network: "front", Ifname: "eth0", Addrs: addrs("172.20.0.2", "fd00:20::2"), Gateways: addrs("172.20.0.1", "fd00:20::1"), Aliases: []string{"www", "pool"}},
			{Network: "back", Ifname: "eth1", Addrs: addrs("172.21.0.2"), Gateways: addrs("172.21.0.1")},
		},
		Services: []Service{{80, "tcp"}, {443, "udp"}},
		Hosts:    []Host{{"printer.example.org", netip.MustParseAddr("192.0.2.9")}, {"printer.example.org", netip.MustParseAddr("2001:db8::9")}},
	}
}

func db() Member {
	return Member{
		Sandbox: "Db.1", Hostname: "web", // the name of another
		Attachments: []Attachment{
			{Network: "back", Ifname: "eth0", Addrs: addrs("172.21.0.3"), Gateways: addrs("172.21.0.1"), Aliases: []string{"db"}},
			{Network: "vault", Ifname: "eth1", Addrs: addrs("172.22.0.3"), Internal: true},
		},
		Services: []Service{{5432, "tcp"}},
	}
}

func api() Member {
	return Member{
		Sandbox:     "api",
		Attachments: []Attachment{{Network: "front", Ifname: "eth0", Addrs: addrs("172.20.0.4", "fd00:20::4"), Gateways: addrs("172.20.0.1"), Aliases: []string{"pool"}}},
	}
}

func safe() Member {
	return Member{
		Sandbox: "safe", Hostname: "strongbox",
		Attachments: []Attachment{{Network: "vault", Ifname: "eth0", Addrs: addrs("172.22.0.2"), Internal: true}},
	}
}

func lone() Member { return Member{Sandbox: "lone", Hostname: "hermit"} }

// world is all of them.
func world() *Names {
	n := NewNames()
	for _, m := range []Member{web(), db(), api(), safe(), lone()} {
		n.Put(m)
	}
	return n
}
