package doctor

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// old is a table as iptables-legacy has it.
func old(t *testing.T, text string) []nft.TableDef {
	o := table(t, text)
	o.Name = nft.LegacyTable + o.Name
	return []nft.TableDef{o}
}

// TestLegacyTables: tables of iptables-legacy that do nothing are no finding, and
// rules in them are the rules of whoever made them.
func TestLegacyTables(t *testing.T) {
	in := healthy(t)
	in.host().Legacy = old(t, "table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy accept;\n }\n}")
	in.host().Legacy = append(in.host().Legacy, old(t, "table ip nat {\n chain POSTROUTING {\n type nat hook postrouting priority srcnat; policy accept;\n ip saddr 172.18.0.0/16 masquerade\n }\n chain DOCKER {\n tcp dport 8080 dnat to 172.18.0.2:80\n }\n}")...)
	in.host().Tables = nil
	for _, f := range Examine(in).Findings {
		t.Errorf("%s: %s", f.Check, f.Summary)
	}
	in.host().Legacy = append(in.host().Legacy, old(t, "table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy drop;\n }\n}")...)
	found := Examine(in).Findings
	i := slices.IndexFunc(found, func(f api.Finding) bool { return f.Check == "forward-drop" })
	if i < 0 || found[i].Summary != "what leaves network shop is dropped by the policy of chain ip legacy:filter FORWARD (user)" ||
		!strings.HasPrefix(found[i].Fix, "by hand: iptables-legacy -t filter -I FORWARD -i br-0123456789ab -j ACCEPT") ||
		found[i].Evidence[0].Where != "iptables-legacy -t filter -nvL FORWARD --line-numbers" {
		t.Errorf("of a policy: %+v", found)
	}
}

// TestBothFamilies: a port of both families behind which nothing listens is one
// finding; where one of them is heard the other is a remark.
func TestBothFamilies(t *testing.T) {
	said := func(listeners ...machine.Listener) (out []string) {
		in := healthy(t)
		in.host().Tables = append(in.host().Tables, table(t, "table ip6 nat {\n chain DOCKER {\n tcp dport 8080 dnat to [fd00::2]:80\n }\n}"))
		in.web().Addresses = append(in.web().Addresses, machine.Address{Dev: "eth0", Prefix: prefix("fd00::2/64")})
		in.web().Listeners = append(listeners, in.web().Listeners[1:]...)
		for _, f := range Examine(in).Findings {
			if f.Check == "published" {
				out = append(out, string(f.Severity)+" "+f.Summary)
			}
		}
		return out
	}
	for _, tt := range []struct {
		listeners []machine.Listener
		want      string
	}{
		{nil, "risk published port *:8080/tcp: nothing listens at 172.18.0.2:80 or [fd00::2]:80 in container web (Docker)"},
		{[]machine.Listener{{Proto: "tcp", Addr: netip.IPv4Unspecified(), Port: 80}}, "remark published port *:8080/tcp: nothing listens at [fd00::2]:80 in container web (Docker), and over the other family something does"},
		{[]machine.Listener{{Proto: "tcp", Addr: addr("::1"), Port: 80, Command: "nginx"}}, "fault published port *:8080/tcp: nginx in container web (Docker) listens on ::1 only"},
		{[]machine.Listener{{Proto: "tcp", Addr: netip.IPv6Unspecified(), Port: 80}}, ""},
	} {
		if got := strings.Join(said(tt.listeners...), "\n"); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.listeners, got, tt.want)
		}
	}
}
