package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/owner"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func pair(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// world is a host with a sandbox of Towpath, a container of Docker, one that is
// routed, a macvlan, and a process in a namespace of its own.
func world() *machine.Host {
	veth := func(index int, name, master, ns, peer string) machine.Link {
		return machine.Link{Index: index, Name: name, Type: "veth", Up: true, OperState: "up", Master: master, PeerNS: ns, Peer: peer}
	}
	host := machine.Space{
		Name: "host", Inode: 1,
		Links: []machine.Link{
			{Index: 1, Name: "lo", Type: "loopback", Up: true},
			{Index: 2, Name: "eth0", Up: true, OperState: "up", MTU: 1500},
			{Index: 3, Name: "tp-front", Type: "bridge", Alias: "towpath network/front", Up: true, OperState: "up"},
			veth(4, "v-web-eth0", "tp-front", "web", "eth0"),
			{Index: 5, Name: "docker0", Type: "bridge", Up: true, OperState: "down"},
			veth(6, "veth77", "docker0", "2cf0", "eth0"),
			veth(7, "cali1", "", "cni-1", "eth0"),
			{Index: 8, Name: "vx42", Type: "vxlan", Master: "tp-front", Up: true, OperState: "unknown", VXLAN: &machine.VXLAN{VNI: 42, Port: 4789, Remote: netip.MustParseAddr("192.0.2.2")}},
		},
		Addresses: []machine.Address{
			{Dev: "lo", Prefix: prefix("127.0.0.1/8")},
			{Dev: "eth0", Prefix: prefix("192.0.2.10/24")},
			{Dev: "tp-front", Prefix: prefix("172.20.0.1/24")},
			{Dev: "docker0", Prefix: prefix("172.17.0.1/16")},
		},
		Routes: []machine.Route{{Table: machine.TableMain, Type: machine.Unicast, Dst: prefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"}},
		Connections: []machine.Connection{
			{Proto: "tcp", Original: nft.Tuple{Src: pair("172.20.0.2:1000"), Dst: pair("198.51.100.7:443")}, Answer: nft.Tuple{Src: pair("198.51.100.7:443"), Dst: pair("192.0.2.10:1000")}},
			{Proto: "tcp", Original: nft.Tuple{Src: pair("192.0.2.99:4000"), Dst: pair("192.0.2.10:8080")}, Answer: nft.Tuple{Src: pair("172.20.0.2:80"), Dst: pair("192.0.2.99:4000")}, Packets: 5},
			{Proto: "tcp", Original: nft.Tuple{Src: pair("192.0.2.98:4000"), Dst: pair("192.0.2.10:8080")}, Answer: nft.Tuple{Src: pair("172.20.0.2:80"), Dst: pair("192.0.2.98:4000")}, Packets: 6},
			{Proto: "icmp", Original: nft.Tuple{Src: pair("172.17.0.2:7"), Dst: pair("172.20.0.2:7")}, Answer: nft.Tuple{Src: pair("172.20.0.2:7"), Dst: pair("172.17.0.2:7")}},
			{Proto: "tcp", Original: nft.Tuple{Src: pair("127.0.0.1:5"), Dst: pair("127.0.0.1:6")}, Answer: nft.Tuple{Src: pair("127.0.0.1:6"), Dst: pair("127.0.0.1:5")}},
		},
	}
	inside := func(name, addr string, holder machine.Holder) machine.Space {
		l := veth(2, "eth0", "", "host", "")
		for _, h := range host.Links {
			if h.PeerNS == name {
				l.Peer = h.Name
			}
		}
		return machine.Space{
			Name: name, Holders: []machine.Holder{holder}, Links: []machine.Link{{Index: 1, Name: "lo", Type: "loopback", Up: true}, l},
			Addresses: []machine.Address{{Dev: "eth0", Prefix: prefix(addr)}}, Listeners: []machine.Listener{},
		}
	}
	web := inside("web", "172.20.0.2/24", machine.Holder{Path: "/run/towpath/netns/web"})
	web.Listeners = []machine.Listener{{Proto: "tcp", Addr: netip.IPv6Unspecified(), Port: 80}}
	web.Links = append(web.Links, machine.Link{Index: 3, Name: "eth1", Type: "macvlan", Mode: "bridge", Up: true, OperState: "up", ParentNS: "host", Parent: "eth0"})
	web.Addresses = append(web.Addresses, machine.Address{Dev: "eth1", Prefix: prefix("192.0.2.60/24")})
	web.Connections = host.Connections[:1]
	db := inside("2cf0", "172.17.0.2/16", machine.Holder{Path: "/run/docker/netns/2cf0"})
	db.Links[1].Up = false
	pod := inside("cni-1", "10.1.0.5/32", machine.Holder{Path: "/run/netns/cni-1"})
	return &machine.Host{
		Spaces: []machine.Space{host, web, db, pod, {Name: "net:[9]", Holders: []machine.Holder{{PID: 4711, Command: "nginx"}}, Partial: []string{"too many routes"}}},
		Unread: []machine.Unread{{Inode: 10, Holders: []machine.Holder{{PID: 12, Command: "cron"}}, Cause: "permission denied"}},
	}
}

func names() *owner.Names {
	return owner.New(owner.Facts{RunDir: "/run/towpath", Records: []owner.Record{
		{Engine: owner.Docker, ID: "abc", Name: "db", Netns: "/var/run/docker/netns/2cf0"},
		{Engine: owner.CNI, ID: "def", Pod: "default/x", Netns: "/run/netns/cni-1"},
	}})
}

func TestMap(t *testing.T) {
	m := Map(world(), names())
	var got []string
	for _, n := range m.Namespaces {
		line := n.ID + ": " + n.Owner
		for _, d := range n.Devices {
			line += fmt.Sprintf("; %s %s %s", d.Name, d.Role, d.State)
		}
		got = append(got, line)
	}
	for _, n := range m.Networks {
		line := fmt.Sprintf("network %s/%s on %s, %s %v:", n.Engine, n.Name, n.Device, n.Kind, n.Subnets)
		for _, e := range n.Members {
			line += fmt.Sprintf(" [%s %s %s %s %v]", e.Port, e.Namespace, e.State, e.Detail, e.Addresses)
		}
		got = append(got, line)
	}
	for _, w := range m.Wires {
		got = append(got, fmt.Sprintf("%s %s/%s %s/%s", w.Kind, w.From.Namespace, w.From.Device, w.To.Namespace, w.To.Device))
	}
	for _, k := range m.Talks {
		got = append(got, fmt.Sprintf("%s -> %s %s %s/%d via %s: %d, %d packets", k.From, k.To, k.Addr, k.Proto, k.Port, k.Via, k.Connections, k.Packets))
	}
	got = append(got, m.Notes...)
	want := []string{
		"host: host; eth0 uplink up; tp-front network up; v-web-eth0 port up; docker0 network no carrier; veth77 port up; cali1 other up; vx42 port up",
		"web: sandbox web (Towpath); eth0 endpoint up; eth1 endpoint up",
		"db: container db (Docker); eth0 endpoint down",
		"default/x: pod default/x (CNI); eth0 endpoint up",
		"nginx[4711]: process nginx [4711]",
		"network /eth0 on eth0, macvlan [192.0.2.0/24]: [ web up  [192.0.2.60/24]]",
		"network Towpath/front on tp-front, bridge [172.20.0.0/24]: [v-web-eth0 web up  [172.20.0.2/24]] [vx42  up vxlan vni 42 to 192.0.2.2 []]",
		"network Docker/bridge on docker0, bridge [172.17.0.0/16]: [veth77 db down  [172.17.0.2/16]]",
		"network /links that are routed one by one on , veth []: [cali1 default/x up  [10.1.0.5/32]]",
		"veth host/v-web-eth0 web/eth0",
		"port host/v-web-eth0 host/tp-front",
		"veth host/veth77 db/eth0",
		"port host/veth77 host/docker0",
		"veth host/cali1 default/x/eth0",
		"port host/vx42 host/tp-front",
		"above web/eth1 host/eth0",
		"db -> web 172.20.0.2 icmp/0 via invalid AddrPort: 1, 0 packets",
		"outside -> web 172.20.0.2 tcp/80 via 192.0.2.10:8080: 2, 11 packets",
		"web -> outside 198.51.100.7 tcp/443 via invalid AddrPort: 1, 0 packets",
		"process cron [12]: permission denied",
		"process nginx [4711]: too many routes",
	}
	for i := range max(len(got), len(want)) {
		g, w := "", ""
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("line %d:\n got %s\nwant %s", i, g, w)
		}
	}
}

// TestMapOfTwins: namespaces whose owners have one name are told apart.
func TestMapOfTwins(t *testing.T) {
	h := &machine.Host{Spaces: []machine.Space{
		{Name: "host"},
		{Name: "a", Holders: []machine.Holder{{Path: "/run/towpath/netns/web"}}},
		{Name: "2cf0", Holders: []machine.Holder{{Path: "/run/docker/netns/2cf0"}}},
	}}
	n := owner.New(owner.Facts{RunDir: "/run/towpath", Records: []owner.Record{{Engine: owner.Docker, Name: "web", Netns: "/run/docker/netns/2cf0"}}})
	m := Map(h, n)
	if m.Namespaces[1].ID != "web" || m.Namespaces[2].ID != "docker:web" || m.Namespaces[1].Name != "web" {
		t.Errorf("%+v", m.Namespaces)
	}
}

// xtDNAT are rules as iptables-nft stores them, with the target of iptables.
func xtDNAT(rev uint32, info []byte) nft.Rule {
	return nft.Rule{Family: nft.FamilyIP, Handle: 9, Exprs: []nft.Expr{
		nft.XT{Name: "tcp", Info: []byte{0, 0, 0xff, 0xff, 0x90, 0x1f, 0x90, 0x1f, 0, 0, 0, 0}}.Expr(), // 8080, as this machine writes it
		nft.XT{Target: true, Name: "DNAT", Rev: rev, Info: info}.Expr(),
	}}
}

func TestPublished(t *testing.T) {
	rev0 := []byte{1, 0, 0, 0, 3, 0, 0, 0, 172, 17, 0, 2, 172, 17, 0, 2, 0, 80, 0, 80}
	rev2 := make([]byte, 40)
	copy(rev2[4:], []byte{172, 17, 0, 3})
	copy(rev2[36:], []byte{0, 81, 0, 81})
	tables := map[string][]string{
		`table ip nat {
			chain DOCKER {
				iifname != "docker0" meta l4proto tcp tcp dport 8080 dnat to 172.17.0.2:80
				ip daddr 192.0.2.10 udp dport 5353 dnat to 172.17.0.3:53
				tcp dport { 90, 91 } dnat to 172.17.0.4
				tcp dport 7000-7010 dnat to 172.17.0.5
				ip daddr 192.0.2.11 dnat to 172.17.0.6
				tcp dport 9 masquerade
				tcp dport != 10 dnat to 172.17.0.7
			}
		}`: {
			"any 192.0.2.11 0-0 -> 172.17.0.6:0 docker", "tcp any 0-0 -> 172.17.0.7:0 docker",
			"tcp any 90-90 -> 172.17.0.4:0 docker", "tcp any 91-91 -> 172.17.0.4:0 docker",
			"udp 192.0.2.10 5353-5353 -> 172.17.0.3:53 docker", "tcp any 7000-7010 -> 172.17.0.5:0 docker",
			"tcp any 8080-8080 -> 172.17.0.2:80 docker",
		},
		`table inet towpath {
			map publish4_any {
				type inet_proto . inet_service : ipv4_addr . inet_service
				elements = { tcp . 8080 : 172.20.0.2 . 80, udp . 53 : 172.20.0.2 . 53 }
			}
			map publish6 {
				type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
				elements = { ::1 . tcp . 81 : fd00::2 . 80 }
			}
			map publish6_from {
				type ipv6_addr . ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
				flags interval
				elements = { 2001:db8::/64 . ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff . tcp . 82 : fd00::3 . 80 }
			}
			chain publish {
				dnat ip to meta l4proto . th dport map @publish4_any
				dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish6
				meta l4proto { tcp, udp, sctp } dnat ip6 to ip6 saddr . ip6 daddr . meta l4proto . th dport map @publish6_from
			}
		}`: {
			"udp any 53-53 -> 172.20.0.2:53 towpath", "tcp ::1 81-81 -> [fd00::2]:80 towpath",
			"tcp any 82-82 -> [fd00::3]:80 towpath", "tcp any 8080-8080 -> 172.20.0.2:80 towpath",
		},
	}
	check := func(text string, table nft.TableDef, want []string) {
		t.Helper()
		var got []string
		for _, p := range PublishedIn(&machine.Space{Tables: []nft.TableDef{table}}) {
			addr := "any"
			if p.Addr.IsValid() {
				addr = p.Addr.String()
			}
			if p.Proto == "" {
				p.Proto = "any"
			}
			got = append(got, fmt.Sprintf("%s %s %d-%d -> %s %s", p.Proto, addr, p.First, p.Last, p.To, p.Author))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s\ngot\n%s\nwant\n%s", text, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	for text, want := range tables {
		table, err := nft.ParseTable(text)
		if err != nil {
			t.Fatal(err)
		}
		check(text, table, want)
	}
	xt := nft.TableDef{Table: nft.Table{Family: nft.FamilyIP, Name: "nat"}, Chains: []nft.ChainDef{{Chain: nft.Chain{Name: "DOCKER"}, Rules: []nft.Rule{xtDNAT(0, rev0), xtDNAT(2, rev2), xtDNAT(2, nil)}}}}
	check("iptables", xt, []string{"tcp any 8080-8080 -> 172.17.0.2:80 docker", "tcp any 8080-8080 -> 172.17.0.3:81 docker"})
}

func TestPublicationsOfMap(t *testing.T) {
	h := world()
	table, err := nft.ParseTable("table ip nat {\n chain DOCKER {\n tcp dport 8080 dnat to 172.20.0.2:80\n udp dport 9 dnat to 172.20.0.2:9\n tcp dport 10 dnat to 172.99.0.1\n }\n}")
	if err != nil {
		t.Fatal(err)
	}
	h.Spaces[0].Tables = []nft.TableDef{table}
	old, err := nft.ParseTable("table ip nat {\n chain DOCKER {\n ip daddr 192.0.2.10 iifname \"eth0\" tcp dport 11 dnat to 172.20.0.2:80\n }\n}")
	if err != nil {
		t.Fatal(err)
	}
	old.Name = nft.LegacyTable + "nat"
	h.Spaces[0].Legacy = []nft.TableDef{old}
	m := Map(h, names())
	var got []string
	for _, p := range m.Publications {
		listens := "unknown"
		if p.Listening != nil {
			listens = fmt.Sprint(*p.Listening)
		}
		got = append(got, fmt.Sprintf("%s/%s %s %q %s", p.HostPort, p.Proto, p.To, p.Namespace, listens))
	}
	want := []string{`9/udp 172.20.0.2:9 "web" false`, `10/tcp 172.99.0.1:0 "" unknown`, `11/tcp 172.20.0.2:80 "web" true`, `8080/tcp 172.20.0.2:80 "web" true`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if i := slices.IndexFunc(m.Publications, func(p api.MapPublication) bool { return p.HostPort == "11" }); i < 0 || m.Publications[i].HostIP != netip.MustParseAddr("192.0.2.10") || m.Publications[i].Author != "docker" {
		t.Errorf("of iptables-legacy: %+v", m.Publications)
	}
}

func TestListens(t *testing.T) {
	s := &machine.Space{Listeners: []machine.Listener{
		{Proto: "tcp", Addr: netip.MustParseAddr("127.0.0.1"), Port: 1},
		{Proto: "tcp", Addr: netip.IPv4Unspecified(), Port: 2},
		{Proto: "udp", Addr: netip.IPv6Unspecified(), Port: 3},
		{Proto: "tcp", Addr: netip.IPv6Unspecified(), V6Only: true, Port: 4},
	}}
	for _, tt := range []struct {
		proto, at string
		want      bool
	}{
		{"tcp", "172.20.0.2:1", false},
		{"tcp", "127.0.0.1:1", true},
		{"tcp", "172.20.0.2:2", true},
		{"udp", "172.20.0.2:2", false},
		{"", "172.20.0.2:3", true},
		{"tcp", "172.20.0.2:4", false},
		{"tcp", "[fd00::2]:4", true},
		{"tcp", "[fd00::2]:2", false},
	} {
		if got := Listens(s, tt.proto, pair(tt.at)); got != tt.want {
			t.Errorf("%s %s: %v", tt.proto, tt.at, got)
		}
	}
}

// TestMapOfNothing: the lists of a map are there when they are empty, for JSON.
func TestMapOfNothing(t *testing.T) {
	m := Map(&machine.Host{}, owner.New(owner.Facts{}))
	if m.Namespaces == nil || m.Networks == nil || m.Wires == nil || m.Publications == nil || m.Talks == nil || m.Notes == nil || m.Schema != api.MapSchema {
		t.Errorf("%+v", m)
	}
}
