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

// TestBridgedFamilies: each family has its own switch of br_netfilter, for the host
// or for one bridge, and meets the chains of its own.
func TestBridgedFamilies(t *testing.T) {
	for _, c := range []struct {
		spoil                func(*Input, *machine.Link)
		family, where, chain string
	}{
		{
			func(in *Input, _ *machine.Link) { in.host().Sysctls["net/bridge/bridge-nf-call-iptables"] = "1" },
			"IPv4", "/proc/sys/net/bridge/bridge-nf-call-iptables", "ip filter FORWARD, ip nat POSTROUTING",
		},
		{
			func(in *Input, _ *machine.Link) { in.host().Sysctls["net/bridge/bridge-nf-call-ip6tables"] = "1" },
			"IPv6", "/proc/sys/net/bridge/bridge-nf-call-ip6tables", "ip6 six forward",
		},
		{
			func(_ *Input, l *machine.Link) { l.NFCall6 = true },
			"IPv6", "ip -d link show br-0123456789ab: nf_call_ip6tables", "ip6 six forward",
		},
	} {
		in := healthy(t)
		in.host().Sysctls["net/ipv6/conf/all/forwarding"] = "1"
		in.host().Addresses = append(in.host().Addresses, machine.Address{Dev: "br-" + shop[:12], Prefix: prefix("fd00::1/64")})
		in.host().Tables = append(in.host().Tables,
			table(t, "table ip6 six {\n chain forward {\n type filter hook forward priority filter; policy accept;\n }\n}"),
			table(t, "table bridge b {\n chain forward {\n type filter hook forward priority filter; policy accept;\n }\n}"))
		if d := Examine(in); len(d.Findings) > 0 {
			t.Fatalf("before: %+v", d.Findings)
		}
		c.spoil(in, in.host().Link("br-"+shop[:12]))
		found := Examine(in).Findings
		if len(found) != 1 || found[0].Summary != "frames of "+c.family+" within network shop (Docker) pass the packet filter of IP" ||
			found[0].Evidence[0].Where != c.where || found[0].Evidence[1].What != c.chain {
			t.Errorf("%s: %+v", c.where, found)
		}
	}
}

// TestWhoseForwarding: the daemon keeps the switch of the host, so that --fix mends
// it; that of an uplink is its owner's.
func TestWhoseForwarding(t *testing.T) {
	for name, want := range map[string]bool{"net/ipv4/ip_forward": true, "net/ipv4/conf/eth0/forwarding": false} {
		in := healthy(t)
		in.host().Link("br-" + shop[:12]).Alias = "towpath network/front"
		in.host().Sysctls[name] = "0"
		for _, f := range Examine(in).Findings {
			if f.Check == "ip-forward" && (f.Ours != want || !f.Settable) {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
}

// TestWhoNeedsForwarding: a switch is told of once, with every network that needs it;
// over IPv6 the daemon mends what is needed by its own networks only.
func TestWhoNeedsForwarding(t *testing.T) {
	in := healthy(t)
	in.host().Links = append(in.host().Links, machine.Link{Index: 30, Name: "tp-front", Alias: "towpath network/front", Type: "bridge", MTU: 1500, Up: true})
	in.host().Addresses = append(in.host().Addresses,
		machine.Address{Dev: "tp-front", Prefix: prefix("172.30.0.1/24")}, machine.Address{Dev: "tp-front", Prefix: prefix("fd01::1/64")},
		machine.Address{Dev: "br-" + shop[:12], Prefix: prefix("fd00::1/64")})
	in.host().Sysctls["net/ipv4/ip_forward"] = "0"
	var got []string
	for _, f := range Examine(in).Findings {
		if f.Check != "ip-forward" {
			continue
		}
		line := f.Set[0].Name
		if f.Ours {
			line += ", ours"
		}
		for _, e := range f.Evidence[1:] {
			line += ", " + e.What
		}
		got = append(got, line)
	}
	want := []string{
		"net/ipv4/ip_forward, ours, network shop (Docker), network front (Towpath)",
		"net/ipv6/conf/all/forwarding, network shop (Docker)",
		"net/ipv6/conf/all/forwarding, ours, network front (Towpath)",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestLoopbackFromOutside: a rule that drops what comes in for the loopback makes
// route_localnet of an uplink harmless, as Towpath's own do.
func TestLoopbackFromOutside(t *testing.T) {
	in := healthy(t)
	in.host().Sysctls["net/ipv4/conf/eth0/route_localnet"] = "1"
	if got := said(in, "route-localnet"); got != "risk machines on the link of eth0 reach what listens on 127.0.0.1 only" {
		t.Errorf("open: %q", got)
	}
	in.host().Tables = append(in.host().Tables, table(t, "table inet m {\n chain raw {\n type filter hook prerouting priority raw; policy accept;\n iifname != \"lo\" ip daddr 127.0.0.0/8 drop\n }\n}"))
	if got := said(in, "route-localnet"); got != "" {
		t.Errorf("dropped: %q", got)
	}
}

// TestReversePathLost: a strict filter is a fault when it has dropped something.
func TestReversePathLost(t *testing.T) {
	in := healthy(t)
	in.host().Links = append(in.host().Links, machine.Link{Index: 9, Name: "eth1", Up: true, OperState: "up", MTU: 1500})
	in.host().Sysctls["net/ipv4/conf/eth1/rp_filter"] = "1"
	in.host().Routes = append(in.host().Routes, machine.Route{Table: machine.TableMain, Type: machine.Unicast, Dst: prefix("0.0.0.0/0"), Dev: "eth1", Metric: 200})
	in.host().Counters["TcpExtIPReversePathFilter"] = 4
	in.Earlier = nil
	for _, f := range Examine(in).Findings {
		if f.Check != "rp-filter" || f.Severity != api.Fault || f.Evidence[2].What != "4" {
			t.Errorf("%+v", f)
		}
	}
	if got := said(in, "rp-filter"); got != "fault host: what comes in by eth1 is dropped, since the way back is eth0" {
		t.Error(got)
	}
}
