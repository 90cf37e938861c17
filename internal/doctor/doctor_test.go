package doctor

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

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func table(t *testing.T, text string) nft.TableDef {
	t.Helper()
	def, err := nft.ParseTable(text)
	if err != nil {
		t.Fatal(err)
	}
	return def
}

// shop is the id of a network of Docker.
const shop = "0123456789abcdef"

// healthy is a host with a network of Docker with two containers on it, of
// which one has a published port, and nothing wrong.
func healthy(t *testing.T) *Input {
	host := machine.Space{
		Name: "host", Inode: 1,
		Links: []machine.Link{
			{Index: 1, Name: "lo", Type: "loopback", Up: true},
			{Index: 2, Name: "eth0", MTU: 1500, Up: true, OperState: "up"},
			{Index: 3, Name: "br-" + shop[:12], Type: "bridge", MTU: 1500, Up: true, OperState: "up"},
		},
		Addresses: []machine.Address{
			{Dev: "lo", Prefix: prefix("127.0.0.1/8")}, {Dev: "eth0", Prefix: prefix("192.0.2.10/24")}, {Dev: "br-" + shop[:12], Prefix: prefix("172.18.0.1/16")},
		},
		Routes: []machine.Route{
			{Table: machine.TableMain, Type: machine.Unicast, Dst: prefix("0.0.0.0/0"), Via: addr("192.0.2.1"), Dev: "eth0"},
			{Table: machine.TableMain, Type: machine.Unicast, Dst: prefix("192.0.2.0/24"), Dev: "eth0"},
			{Table: machine.TableMain, Type: machine.Unicast, Dst: prefix("172.18.0.0/16"), Dev: "br-" + shop[:12]},
		},
		Neighbours: []machine.Neighbour{{Dev: "eth0", IP: addr("192.0.2.1"), MAC: "02:00:00:00:00:99", State: machine.NeighbourReachable}},
		Sysctls: map[string]string{
			"net/ipv4/ip_forward": "1", "net/ipv4/conf/eth0/forwarding": "1", "net/ipv6/conf/all/forwarding": "0",
			"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/eth0/rp_filter": "1", "net/ipv4/ip_local_port_range": "32768\t60999",
			"net/netfilter/nf_conntrack_count": "10", "net/netfilter/nf_conntrack_max": "1000", "net/bridge/bridge-nf-call-iptables": "0",
			"net/ipv4/conf/br-" + shop[:12] + "/route_localnet": "0",
			"net/ipv4/neigh/default/gc_thresh3":                 "10",
		},
		Counters:  map[string]uint64{},
		Listeners: []machine.Listener{{Proto: "tcp", Addr: netip.IPv4Unspecified(), Port: 8080, Command: "docker-proxy"}},
	}
	host.Tables = []nft.TableDef{table(t, `table ip filter {
		chain DOCKER-USER {
		}
		chain FORWARD {
			type filter hook forward priority filter; policy accept;
			jump DOCKER-USER
		}
	}`), table(t, `table ip nat {
		chain DOCKER {
			tcp dport 8080 dnat to 172.18.0.2:80
		}
		chain POSTROUTING {
			type nat hook postrouting priority srcnat; policy accept;
			ip saddr 172.18.0.0/16 masquerade
		}
	}`)}
	in := &Input{Internal: map[string]bool{}, Resolvers: map[string]Resolver{}}
	in.Machine.Spaces = []machine.Space{host}
	facts := owner.Facts{RunDir: "/run/towpath"}
	for i, name := range []string{"web", "db"} {
		path := "/run/docker/netns/" + name
		in.Machine.Spaces[0].Links = append(in.Machine.Spaces[0].Links, machine.Link{
			Index: 10 + i, Name: "veth" + name, Type: "veth", MTU: 1500, Up: true, OperState: "up", Master: "br-" + shop[:12], PeerNS: name, Peer: "eth0",
		})
		in.Machine.Spaces = append(in.Machine.Spaces, machine.Space{
			Name: name, Inode: uint64(2 + i), Holders: []machine.Holder{{Path: path}},
			Links: []machine.Link{
				{Index: 1, Name: "lo", Type: "loopback", Up: true},
				{Index: 2, Name: "eth0", Type: "veth", MTU: 1500, Up: true, OperState: "up", MAC: fmt.Sprintf("02:42:ac:12:00:%02x", 2+i), PeerNS: "host", Peer: "veth" + name},
			},
			Addresses: []machine.Address{{Dev: "lo", Prefix: prefix("127.0.0.1/8")}, {Dev: "eth0", Prefix: prefix(fmt.Sprintf("172.18.0.%d/16", 2+i))}},
			Routes: []machine.Route{
				{Table: machine.TableMain, Type: machine.Unicast, Dst: prefix("0.0.0.0/0"), Via: addr("172.18.0.1"), Dev: "eth0"},
				{Table: machine.TableMain, Type: machine.Unicast, Dst: prefix("172.18.0.0/16"), Dev: "eth0"},
			},
			Sysctls: map[string]string{}, Counters: map[string]uint64{},
			Listeners: []machine.Listener{{Proto: "tcp", Addr: netip.IPv4Unspecified(), Port: 80, Command: "nginx"}, {Proto: "udp", Addr: addr("127.0.0.11"), Port: 41000}},
		})
		in.Resolvers[name] = Resolver{Path: "/proc/9/root/etc/resolv.conf", Servers: []netip.Addr{addr("127.0.0.11")}}
		facts.Records = append(facts.Records, owner.Record{Engine: owner.Docker, ID: name, Name: name, Netns: path, Networks: []owner.Network{{Engine: owner.Docker, Name: "shop", ID: shop}}})
	}
	in.Names = owner.New(facts)
	in.Earlier = &machine.Host{Spaces: []machine.Space{{Name: "host", Inode: 1, Counters: map[string]uint64{}, Links: slices.Clone(in.Machine.Spaces[0].Links)}}}
	return in
}

func (in *Input) host() *machine.Space { return &in.Machine.Spaces[0] }

func (in *Input) web() *machine.Space { return &in.Machine.Spaces[1] }

func TestHealthy(t *testing.T) {
	d := Examine(healthy(t))
	for _, f := range d.Findings {
		t.Errorf("%s: %s: %s", f.Check, f.Severity, f.Summary)
	}
	for _, c := range d.Checks {
		if c.Unsure != "" {
			t.Errorf("%s is unsure: %s", c.Name, c.Unsure)
		}
	}
	if d.Found() || d.Unsure() || len(d.Checks) != len(Checks()) {
		t.Errorf("found %v, unsure %v, %d checks", d.Found(), d.Unsure(), len(d.Checks))
	}
}

// forwardDrop is a table of a user that drops what is forwarded.
const forwardDrop = `table inet mine {
	chain fwd {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
	}
}`

// sick is one thing that is wrong with a host that is else healthy: what a
// check must say, with what fix.
type sick struct {
	check string
	spoil func(t *testing.T, in *Input)
	says  string
	fix   string
}

func cases() []sick {
	bridge := "br-" + shop[:12]
	return []sick{
		{"drift", func(_ *testing.T, in *Input) { in.Drift = []string{"- link a", "- link b"} }, "2 changes to make", "towpath doctor --fix"},
		{"rules-gone", func(_ *testing.T, in *Input) { in.host().Tables = nil }, "the rules of Docker are gone", "systemctl restart docker"},
		{"ip-forward", func(_ *testing.T, in *Input) { in.host().Sysctls["net/ipv4/ip_forward"] = "0" }, "IPv4 of network shop (Docker) is not forwarded: nothing", "sysctl -w net.ipv4.ip_forward=1"},
		{"ip-forward", func(_ *testing.T, in *Input) { in.host().Sysctls["net/ipv4/conf/eth0/forwarding"] = "0" }, "what comes in by eth0 is not forwarded", "sysctl -w net.ipv4.conf.eth0.forwarding=1"},
		{"ip-forward", func(_ *testing.T, in *Input) {
			in.host().Addresses = append(in.host().Addresses, machine.Address{Dev: bridge, Prefix: prefix("fd00::1/64")})
		}, "IPv6 of network shop (Docker) is not forwarded", "sysctl -w net.ipv6.conf.all.forwarding=1"},
		{"forward-drop", func(t *testing.T, in *Input) { in.host().Tables = append(in.host().Tables, table(t, forwardDrop)) }, "what leaves network shop is dropped by the policy of chain inet mine fwd (user)", "nft insert rule inet mine fwd"},
		{"masquerade", func(_ *testing.T, in *Input) { in.host().Tables[1].Chains[1].Rules = nil }, "keeps its private address", "masquerade"},
		{"rp-filter", func(_ *testing.T, in *Input) {
			in.host().Links = append(in.host().Links, machine.Link{Index: 9, Name: "eth1", Up: true, OperState: "up", MTU: 1500})
			in.host().Sysctls["net/ipv4/conf/eth1/rp_filter"] = "1"
			in.host().Routes = append(in.host().Routes, machine.Route{Table: machine.TableMain, Type: machine.Unicast, Dst: prefix("0.0.0.0/0"), Dev: "eth1", Metric: 200})
		}, "what comes in by eth1 is dropped, since the way back is eth0", "sysctl -w net.ipv4.conf.eth1.rp_filter=2"},
		{"mtu", func(_ *testing.T, in *Input) { in.host().Link("eth0").MTU = 1400 }, "sends up to 1500 bytes, and the way out by eth0 takes 1400", "mtu 1400"},
		{"mtu", func(_ *testing.T, in *Input) { in.web().Link("eth0").MTU = 9000 }, "the two ends of vethweb differ", "mtu 1500"},
		{"mtu", func(_ *testing.T, in *Input) { in.host().Link(bridge).MTU = 1300 }, "takes 1500 bytes, its bridge br-0123456789ab only 1300", "mtu 1500"},
		{"mtu", func(_ *testing.T, in *Input) {
			in.host().Links = append(in.host().Links, machine.Link{Index: 9, Name: "vx", Type: "vxlan", MTU: 1500, VXLAN: &machine.VXLAN{VNI: 1}, Parent: "eth0"})
		}, "vxlan vx takes 1500 bytes, and with its headers eth0 has room for 1450", "ip link set vx mtu 1450"},
		{"pmtu", func(t *testing.T, in *Input) {
			in.host().Tables = append(in.host().Tables, table(t, "table ip mine {\n chain f {\n type filter hook forward priority filter; policy accept;\n icmp type destination-unreachable drop\n }\n}"))
		}, "packets that are too big do not reach network shop", "ct state related accept"},
		{"pmtu", func(_ *testing.T, in *Input) { in.host().Sysctls["net/ipv4/ip_no_pmtu_disc"] = "1" }, "does not look for the MTU", "net.ipv4.ip_no_pmtu_disc=0"},
		{"conntrack", func(_ *testing.T, in *Input) { in.host().Sysctls["net/netfilter/nf_conntrack_count"] = "990" }, "of host is full: 990 of 1000", "nf_conntrack_max=2000"},
		{"conntrack", func(_ *testing.T, in *Input) { in.host().Sysctls["net/netfilter/nf_conntrack_count"] = "810" }, "of host is nearly full: 810 of 1000", "nf_conntrack_max=2000"},
		{"conntrack", func(_ *testing.T, in *Input) { in.host().Counters["ConntrackDrop"] = 3 }, "of host turns connections away now, 3 of them while it was looked at: 10 of 1000", "nf_conntrack_max=2000"},
		{"conntrack", func(_ *testing.T, in *Input) {
			in.host().Counters["ConntrackDrop"], in.host().Counters["ConntrackInsertFailed"] = 2, 2
		}, "2 connections could not be tracked in host while it was looked at", "single-request-reopen"},
		{"pmtu", func(t *testing.T, in *Input) {
			in.host().Tables = append(in.host().Tables, table(t, "table ip6 mine {\n chain fwd {\n type filter hook forward priority filter; policy accept;\n icmpv6 type packet-too-big drop\n }\n}"))
			in.host().Sysctls["net/ipv6/conf/all/forwarding"] = "1"
			in.host().Addresses = append(in.host().Addresses, machine.Address{Dev: bridge, Prefix: prefix("fd00::1/64")})
			for i := range in.Machine.Spaces[1:] {
				s := &in.Machine.Spaces[1+i]
				s.Addresses = append(s.Addresses, machine.Address{Dev: "eth0", Prefix: prefix(fmt.Sprintf("fd00::%d/64", 2+i))})
				s.Routes = append(s.Routes, machine.Route{Table: machine.TableMain, Type: machine.Unicast, Dst: prefix("::/0"), Via: addr("fd00::1"), Dev: "eth0"})
			}
		}, "ICMPv6 errors about packets that are too big do not reach network shop (Docker)", "nft insert rule ip6 mine fwd ct state related accept"},
		{"subnets", func(_ *testing.T, in *Input) {
			in.host().Routes = append(in.host().Routes, machine.Route{Table: machine.TableMain, Type: machine.Unicast, Dst: prefix("172.16.0.0/12"), Dev: "tun0"})
		}, "network shop (Docker) and the host's route over tun0 have the same addresses", "docker network create"},
		{"subnets", func(_ *testing.T, in *Input) {
			in.host().Links = append(in.host().Links, machine.Link{Index: 9, Name: "virbr0", Type: "bridge", Up: true})
			in.host().Addresses = append(in.host().Addresses, machine.Address{Dev: "virbr0", Prefix: prefix("172.18.5.1/24")})
		}, "and network virbr0 (libvirt) have the same addresses", "docker network create"},
		{"neighbours", func(_ *testing.T, in *Input) {
			for i := range 9 {
				in.web().Neighbours = append(in.web().Neighbours, machine.Neighbour{Dev: "eth0", IP: netip.AddrFrom4([4]byte{172, 18, 1, byte(i)}), State: machine.NeighbourStale})
			}
		}, "the neighbour table of IPv4 is full: 10 of 10", "gc_thresh3=40"},
		{"gateway", func(_ *testing.T, in *Input) { in.host().Neighbours[0].State = machine.NeighbourFailed }, "the router 192.0.2.1 of host does not answer on eth0", "ip route replace default via ROUTER dev eth0"},
		{"iptables-mixed", func(t *testing.T, in *Input) {
			in.host().Legacy = old(t, "table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy accept;\n ip saddr 203.0.113.7 drop\n }\n}")
		}, "host has tables of iptables-legacy and of nftables", "iptables-legacy-save"},
		{"published", func(_ *testing.T, in *Input) { in.web().Listeners = in.web().Listeners[1:] }, "published port *:8080/tcp: nothing listens at 172.18.0.2:80 in container web (Docker)", "docker"},
		{"published", func(_ *testing.T, in *Input) { in.web().Listeners[0].Addr = addr("127.0.0.1") }, "nginx in container web (Docker) listens on 127.0.0.1 only", "0.0.0.0:80"},
		{"published", func(_ *testing.T, in *Input) { in.web().Addresses[1].Prefix = prefix("172.18.0.77/16") }, "leads to 172.18.0.2, which nobody has", "docker"},
		{"hairpin", func(_ *testing.T, in *Input) {
			in.host().Sysctls["net/bridge/bridge-nf-call-iptables"] = "1"
			in.host().Listeners = nil
		}, "does not reach itself by its published port", "hairpin on"},
		{"route-localnet", func(t *testing.T, in *Input) {
			in.host().Listeners = nil
			in.host().Tables = append(in.host().Tables, table(t, "table ip n {\n chain DOCKER {\n ip daddr 127.0.0.1 tcp dport 81 dnat to 172.18.0.2:80\n }\n}"))
		}, "published port 127.0.0.1:81/tcp is not reached", "route_localnet=1"},
		{"route-localnet", func(_ *testing.T, in *Input) { in.host().Sysctls["net/ipv4/conf/all/route_localnet"] = "1" }, "machines on the link of eth0 reach what listens on 127.0.0.1", "net.ipv4.conf.all.route_localnet=0"},
		{"ephemeral-ports", func(_ *testing.T, in *Input) {
			in.host().Sysctls["net/ipv4/ip_local_port_range"], in.host().Listeners = "8000 9000", nil
		}, "*:8080/tcp is one that the kernel gives to outgoing connections", "ip_local_reserved_ports=8080"},
		{"accept-ra", func(_ *testing.T, in *Input) {
			in.host().Sysctls["net/ipv6/conf/eth0/forwarding"], in.host().Sysctls["net/ipv6/conf/eth0/accept_ra"] = "1", "1"
			in.host().Routes = append(in.host().Routes, machine.Route{Table: machine.TableMain, Type: machine.Unicast, Dst: prefix("::/0"), Via: addr("fe80::1"), Dev: "eth0", Protocol: 9})
		}, "eth0 forwards IPv6 and has routes by router advertisements", "net.ipv6.conf.eth0.accept_ra=2"},
		{"links", func(_ *testing.T, in *Input) { in.web().Link("eth0").Up = false }, "eth0 of container web (Docker) is down", "ip link set eth0 up"},
		{"links", func(_ *testing.T, in *Input) { in.host().Link(bridge).Up = false }, "br-0123456789ab of network shop (Docker) is down", "up"},
		{"links", func(_ *testing.T, in *Input) { in.host().Link("vethdb").Up = false }, "vethdb of container db (Docker) is down", "ip link set vethdb up"},
		{"stale", func(_ *testing.T, in *Input) {
			in.host().Links = append(in.host().Links, machine.Link{Index: 9, Name: "vethold", Type: "veth", Master: bridge, Elsewhere: true, Up: true})
		}, "vethold on bridge br-0123456789ab leads into a namespace that no process and no file holds", "ip link delete vethold"},
		{"stale", func(_ *testing.T, in *Input) {
			in.Machine.Spaces = append(in.Machine.Spaces, machine.Space{Name: "old", Holders: []machine.Holder{{Path: "/run/docker/netns/old"}}, Links: []machine.Link{{Name: "lo", Type: "loopback"}}})
		}, "the namespace of container old (Docker) is empty", "umount /run/docker/netns/old"},
		{"resolv-conf", func(_ *testing.T, in *Input) {
			in.Resolvers["web"] = Resolver{Path: "/x", Servers: []netip.Addr{addr("127.0.0.53")}}
		}, "the name server 127.0.0.53 of container web (Docker) cannot answer: nothing listens there", "/x"},
		{"resolv-conf", func(_ *testing.T, in *Input) { in.Resolvers["web"] = Resolver{Path: "/x", Missing: true} }, "/x of container web (Docker) names no server", "nameserver"},
		{"resolv-conf", func(_ *testing.T, in *Input) {
			in.Resolvers["web"] = Resolver{Path: "/x", Servers: []netip.Addr{addr("fd00::53")}}
		}, "no route leads to it", "/x"},
		{"addresses", func(_ *testing.T, in *Input) { in.web().Addresses[1].Prefix = prefix("172.18.0.3/16") }, "172.18.0.3 is there 2 times on network shop (Docker)", "nsenter --net=/run/docker/netns/db ip address delete 172.18.0.3/16 dev eth0"},
		{"addresses", func(_ *testing.T, in *Input) {
			in.web().Addresses = append(in.web().Addresses, machine.Address{Dev: "eth0", Prefix: prefix("fd00::2/64"), DADFailed: true})
		}, "fd00::2 of container web (Docker) is somebody else's", "ip address delete fd00::2/64"},
		{"macs", func(_ *testing.T, in *Input) { in.web().Link("eth0").MAC = "02:42:ac:12:00:03" }, "02:42:ac:12:00:03 is the MAC address of container web (Docker) eth0 and of container db (Docker) eth0", "nsenter --net=/run/docker/netns/db ip link set eth0 address NEW"},
		{"default-route", func(_ *testing.T, in *Input) { in.web().Routes = in.web().Routes[1:] }, "container web (Docker) has no default route for IPv4", "nsenter --net=/run/docker/netns/web ip route add default via 172.18.0.1"},
		{"drops", func(_ *testing.T, in *Input) { in.host().Counters["IpOutNoRoutes"] = 5 }, "host loses packets now: no route: 5 packets", "ip route"},
		{"drops", func(_ *testing.T, in *Input) { in.host().Link("vethweb").Stats.TxDropped = 2 }, "interface vethweb dropped 2 packets to be sent", "ip -s -s link show vethweb"},
		{"drops", func(t *testing.T, in *Input) {
			now := table(t, "table ip mine {\n chain in {\n counter drop\n }\n}")
			now.Chains[0].Rules[0].Handle = 7
			before := table(t, "table ip mine {\n chain in {\n counter drop\n }\n}")
			before.Chains[0].Rules[0].Handle = 7
			now.Chains[0].Rules[0].Exprs[0] = nft.Counter{Packets: 9}
			in.host().Tables, in.Earlier.Spaces[0].Tables = append(in.host().Tables, now), []nft.TableDef{before}
		}, `rule "counter drop" of user dropped 9 packets`, "nft -a list chain ip mine in"},
	}
}

func TestSick(t *testing.T) {
	for _, c := range cases() {
		in := healthy(t)
		c.spoil(t, in)
		d := Examine(in)
		i := slices.IndexFunc(d.Findings, func(f api.Finding) bool { return f.Check == c.check && strings.Contains(f.Summary, c.says) })
		if i < 0 {
			t.Errorf("%s: nothing says %q, but %+v", c.check, c.says, d.Findings)
			continue
		}
		f := d.Findings[i]
		if !strings.Contains(f.Fix, c.fix) || f.Consequence == "" || len(f.Evidence) == 0 || f.Severity == api.Remark {
			t.Errorf("%s: %+v, want fix %q", c.check, f, c.fix)
		}
		for _, ev := range f.Evidence {
			if ev.Where == "" || ev.What == "" {
				t.Errorf("%s: evidence %+v", c.check, ev)
			}
		}
		for _, other := range d.Findings { // one illness is not told as another
			if other.Check != c.check && !expected(c.check, other.Check) {
				t.Errorf("%s: also %s: %s", c.check, other.Check, other.Summary)
			}
		}
		if !d.Found() {
			t.Errorf("%s: nothing counts as found", c.check)
		}
	}
}

// expected are checks that rightly see the same thing.
func expected(of, by string) bool {
	return map[string]string{
		"rules-gone": "masquerade", "published": "addresses", "addresses": "published", "hairpin": "bridge-netfilter", "stale": "links",
	}[of] == by
}

// TestEveryCheckHasACase keeps the table of cases complete.
func TestEveryCheckHasACase(t *testing.T) {
	for _, c := range Checks() {
		has := slices.ContainsFunc(cases(), func(s sick) bool { return s.check == c.Name })
		if !has && c.Name != "reading" && c.Name != "bridge-netfilter" {
			t.Errorf("check %s has no case", c.Name)
		}
		if c.Looks == "" || c.Means == "" || c.run == nil {
			t.Errorf("check %s is not described", c.Name)
		}
	}
}

// TestBridgeThatNobodyIsOn: the kernel's own announcements on it are lost, which
// is no fault; what is lost on the way to somebody is.
func TestBridgeThatNobodyIsOn(t *testing.T) {
	for alone, want := range map[bool]int{true: 0, false: 1} {
		in := healthy(t)
		l := in.host().Link("br-" + shop[:12])
		l.NoCarrier, l.Stats.TxDropped = alone, 1
		d := Examine(in)
		found := slices.DeleteFunc(d.Findings, func(f api.Finding) bool { return f.Check != "drops" })
		if len(found) != want {
			t.Errorf("nobody on it: %v: %+v", alone, found)
		}
	}
}

func TestRemarkAndUnsure(t *testing.T) {
	in := healthy(t)
	in.host().Sysctls["net/bridge/bridge-nf-call-iptables"] = "1"
	d := Examine(in)
	if len(d.Findings) != 1 || d.Findings[0].Check != "bridge-netfilter" || d.Findings[0].Severity != api.Remark || d.Found() {
		t.Errorf("%+v", d.Findings)
	}
	in.Machine.Unread = []machine.Unread{{Inode: 9, Holders: []machine.Holder{{PID: 3, Command: "cron"}}, Cause: "permission denied"}}
	in.web().Partial, in.Unread = []string{"routes: too many"}, []string{"x: gone"}
	d = Examine(in)
	if !d.Unsure() || d.Checks[0].Unsure != "process cron [3]: permission denied; container web (Docker): routes: too many; x: gone" {
		t.Errorf("%+v", d.Checks[0])
	}
}

// TestOurs: what is wrong with Towpath's own is marked for --fix.
func TestOurs(t *testing.T) {
	in := healthy(t)
	for i := range in.host().Links {
		if in.host().Links[i].Type == "bridge" {
			in.host().Links[i].Alias = "towpath network/front"
		}
	}
	in.host().Sysctls["net/ipv4/ip_forward"] = "0"
	d := Examine(in)
	var names []string
	for _, f := range d.Findings {
		if f.Ours {
			names = append(names, f.Check)
		}
	}
	if !slices.Equal(names, []string{"rules-gone", "ip-forward"}) {
		t.Errorf("ours: %q of %+v", names, d.Findings)
	}
	in.host().Sysctls["net/ipv4/ip_forward"], in.host().Sysctls["net/ipv4/conf/eth0/forwarding"] = "1", "0"
	for _, f := range Examine(in).Findings {
		if f.Check == "ip-forward" && f.Ours {
			t.Errorf("the switch of a foreign interface is ours: %+v", f)
		}
	}
	in.Internal["front"] = true
	for _, f := range Examine(in).Findings {
		if f.Check == "ip-forward" {
			t.Errorf("an internal network is not forwarded: %+v", f)
		}
	}
}

func TestReservedHas(t *testing.T) {
	for list, want := range map[string]bool{"": false, "8080": true, "1,8000-9000": true, "80": false, "9000-9001": false, "x": false} {
		if got := reservedHas(list, 8080); got != want {
			t.Errorf("%q: %v", list, got)
		}
	}
}

func TestDotted(t *testing.T) {
	if got := dotted("net/ipv4/conf/eth0.10/forwarding"); got != "net.ipv4.conf.eth0/10.forwarding" {
		t.Error(got)
	}
}
