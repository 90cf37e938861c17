package explain

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/draw"
	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	rules "github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// patience is how long a packet gets that is to arrive, grace how long one that
// is not.
const patience, grace = 10 * time.Second, 300 * time.Millisecond

// scenario is a packet, what was done to the networks before, and what the
// explanation must say.
type scenario struct {
	name     string
	from, to string
	size     int
	change   func(*world)
	verdict  api.Verdict
	// where is "NS LAYER" of the hop that ends the packet or, if it arrives, of
	// one it must pass; reason, rule and fix are parts of what must be said.
	where, reason, rule, fix string
	// nat is the translation of the request: "dnat A -> B".
	nat string
	// unsent: the kernel is not asked, for the packet cannot be sent from here.
	unsent bool
}

func scenarios() []scenario {
	return slices.Concat(arriving(), isolated(), filtered(), unrouted(), broken())
}

// arriving are packets that must get there.
func arriving() []scenario {
	return []scenario{
		{name: "masquerade", from: "web", to: "192.0.2.1:80", verdict: api.Delivered, where: "host postrouting", rule: `"out"`, nat: "masquerade 172.20.0.2:49152 -> 192.0.2.10:49152"},
		{name: "masquerade v6", from: "web", to: "[2001:db8::1]:80", verdict: api.Delivered, where: "host postrouting", nat: "masquerade [fd00::2]:49152 -> [2001:db8::10]:49152"},
		{name: "echo", from: "web", to: "outside", verdict: api.Delivered, where: "host postrouting", nat: "masquerade 172.20.0.2 -> 192.0.2.10"},
		{name: "published, from outside", from: "outside", to: "host:8080", verdict: api.Delivered, where: "host prerouting", nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80", unsent: true},
		{name: "published, from the machine outside", from: "192.0.2.1", to: "192.0.2.10:8080", verdict: api.Delivered, nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80"},
		{name: "published, v6", from: "2001:db8::1", to: "[2001:db8::10]:8080", verdict: api.Delivered, nat: "dnat [2001:db8::10]:8080 -> [fd00::2]:80"},
		{name: "published, from the host", from: "host", to: "192.0.2.10:8080", verdict: api.Delivered, where: "host output", nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80"},
		{name: "published, from the host's loopback", from: "host", to: "127.0.0.1:8080", verdict: api.Delivered, nat: "dnat 127.0.0.1:8080 -> 172.20.0.2:80"},
		{name: "published, from the host's loopback v6", from: "host", to: "[::1]:8080", verdict: api.Delivered, nat: "dnat [::1]:8080 -> [fd00::2]:80"},
		{name: "hairpin", from: "web", to: "192.0.2.10:8080", verdict: api.Delivered, rule: `"hairpin"`, nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80"},
		{name: "published, from another network", from: "db", to: "192.0.2.10:8080", verdict: api.Delivered, rule: `"published"`, nat: "dnat 192.0.2.10:8080 -> 172.20.0.2:80"},
		{name: "same bridge", from: "web", to: "app:80", verdict: api.Delivered, where: "host bridge"},
		{name: "same bridge v6", from: "web", to: "[fd00::3]:80", verdict: api.Delivered, where: "host bridge"},
		{name: "to oneself", from: "web", to: "web:80", verdict: api.Delivered, where: "web socket"},
		{name: "to the host", from: "web", to: "host:80", verdict: api.Delivered, where: "host socket"},
	}
}

// isolated are packets that Towpath itself stops.
func isolated() []scenario {
	return []scenario{
		{name: "isolated networks", from: "web", to: "db:80", verdict: api.Dropped, where: "host forward", rule: `"isolation"`, fix: "towpath network connect back web"},
		{name: "isolated networks v6", from: "web", to: "[fd00:0:0:1::2]:80", verdict: api.Dropped, where: "host forward", rule: `"isolation"`, fix: "towpath network connect back web"},
		{name: "internal network", from: "cage", to: "192.0.2.1:80", verdict: api.Dropped, where: "cage route", reason: "ENETUNREACH", fix: "towpath network connect back cage"},
		{name: "no ICC", from: "one", to: "two:80", verdict: api.Dropped, where: "host ", fix: "towpath publish two 80"},
		{name: "no ICC v6", from: "one", to: "[fd00:0:0:3::3]:80", verdict: api.Dropped, where: "host neighbour", fix: "towpath publish two 80"},
		{name: "direct access", from: "192.0.2.1", to: "172.20.0.2:80", verdict: api.Dropped, where: "host forward", rule: `"direct access from outside"`, fix: "towpath publish web 80"},
	}
}

// filtered are packets that others' rules stop.
func filtered() []scenario {
	return []scenario{
		{name: "foreign drop", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.table("host", `table ip f { chain c { type filter hook forward priority 10; policy accept; ip saddr 172.20.0.2 drop comment "no web" } }`)
		}, verdict: api.Dropped, where: "host forward", rule: `"no web"`, fix: "nft delete rule ip f c handle"},
		{name: "foreign drop v6", from: "web", to: "[2001:db8::1]:80", change: func(w *world) {
			w.table("host", `table inet f { chain c { type filter hook forward priority 10; policy accept; ip6 saddr fd00::2 drop comment "no web" } }`)
		}, verdict: api.Dropped, where: "host forward", rule: `"no web"`, fix: "nft delete rule inet f c handle"},
		{name: "foreign policy", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.table("host", `table ip f { chain c { type filter hook forward priority 10; policy drop; } }`)
		}, verdict: api.Dropped, where: "host forward", reason: "the policy of chain ip f c", fix: "nft add rule ip f c"},
		{name: "foreign reject", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.table("host", `table inet f { chain c { type filter hook forward priority 10; policy accept; tcp dport 80 reject with icmpx admin-prohibited comment "no http" } }`)
		}, verdict: api.Rejected, where: "host forward", rule: `"no http"`},
		{name: "drop in the container", from: "host", to: "web:80", change: func(w *world) {
			w.table("web", `table inet f { chain c { type filter hook input priority 0; policy accept; tcp dport 80 drop comment "inside" } }`)
		}, verdict: api.Dropped, where: "web input", rule: `"inside"`, fix: "towpath exec web -- nft delete rule inet f c handle"},
		{name: "iptables-nft drop", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.iptables("iptables-nft", "-A", "FORWARD", "-p", "tcp", "-m", "multiport", "--dports", "79,80", "-m", "conntrack", "--ctstate", "NEW", "-m", "comment", "--comment", "no web", "-j", "DROP")
		}, verdict: api.Dropped, where: "host forward", rule: `"no web"`, reason: "ip filter FORWARD"},
		{name: "iptables-nft reject", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.iptables("iptables-nft", "-A", "FORWARD", "-p", "tcp", "--dport", "80", "-j", "REJECT", "--reject-with", "tcp-reset")
		}, verdict: api.Rejected, where: "host forward", reason: "ip filter FORWARD"},
		{name: "iptables-nft translation", from: "web", to: "192.0.2.77:80", change: func(w *world) {
			w.iptables("iptables-nft", "-t", "nat", "-A", "PREROUTING", "-d", "192.0.2.77", "-j", "DNAT", "--to-destination", "192.0.2.1")
		}, verdict: api.Delivered, nat: "dnat 192.0.2.77:80 -> 192.0.2.1:80"},
		{name: "iptables that cannot be evaluated", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.iptables("iptables-nft", "-A", "FORWARD", "-m", "string", "--algo", "bm", "--string", "GET", "-j", "DROP")
		}, verdict: api.Undecided, where: "host forward", reason: "string", fix: "towpath probe web 192.0.2.1:80", unsent: true},
		{name: "neighbour discovery dropped", from: "web", to: "[2001:db8::1]:80", change: func(w *world) {
			w.table("host", `table ip6 f { chain c { type filter hook output priority 0; policy accept; meta l4proto ipv6-icmp drop } }`)
		}, verdict: api.Dropped, where: "host neighbour", reason: "neighbour discovery"},
	}
}

// unrouted are packets for which there is no way.
func unrouted() []scenario {
	route := func(typ uint8, dst string) func(*world) {
		return func(w *world) { w.route("host", rt.Route{Dst: netip.MustParsePrefix(dst), Type: typ}) }
	}
	return []scenario{
		{name: "no route on the host", from: "web", to: "198.51.100.7:80", change: func(w *world) { w.noDefault("host", "0.0.0.0/0") }, verdict: api.Rejected, where: "host route", reason: "host has no route to 198.51.100.7", fix: "ip route add 198.51.100.7 via"},
		{name: "no route on the host v6", from: "web", to: "[2001:db8:5::7]:80", change: func(w *world) { w.noDefault("host", "::/0") }, verdict: api.Rejected, where: "host route", reason: "host has no route to 2001:db8:5::7"},
		{name: "no route in the container", from: "web", to: "192.0.2.1:80", change: func(w *world) { w.noDefault("web", "0.0.0.0/0") }, verdict: api.Dropped, where: "web route", reason: "ENETUNREACH", fix: "towpath network connect"},
		{name: "blackhole", from: "web", to: "198.51.100.7:80", change: route(unix.RTN_BLACKHOLE, "198.51.100.0/24"), verdict: api.Dropped, where: "host route", reason: "blackhole", fix: "ip route del blackhole 198.51.100.0/24"},
		{name: "unreachable", from: "web", to: "198.51.100.7:80", change: route(unix.RTN_UNREACHABLE, "198.51.100.0/24"), verdict: api.Rejected, where: "host route", reason: "unreachable", fix: "ip route del unreachable"},
		{name: "prohibit v6", from: "web", to: "[2001:db8:5::7]:80", change: route(unix.RTN_PROHIBIT, "2001:db8:5::/48"), verdict: api.Rejected, where: "host route", reason: "prohibits", fix: "ip route del prohibit 2001:db8:5::/48"},
		{name: "rule of routing", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.must(w.spaces["host"].Conn(w).AddRule(w.Context(), rt.Rule{Family: unix.AF_INET, Priority: 100, IIF: "tp-front", IPProto: unix.IPPROTO_TCP, DstPorts: [2]uint16{80, 90}, Action: unix.FR_ACT_PROHIBIT}))
		}, verdict: api.Rejected, where: "host route", reason: "prohibits", fix: "ip rule show"},
		{name: "another rule of routing", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.must(w.spaces["host"].Conn(w).AddRule(w.Context(), rt.Rule{Family: unix.AF_INET, Priority: 100, IPProto: unix.IPPROTO_UDP, Action: unix.FR_ACT_PROHIBIT}))
		}, verdict: api.Delivered},
		{name: "forwarding off", from: "web", to: "192.0.2.1:80", change: func(w *world) { w.sysctl("host", "net/ipv4/ip_forward", "0") }, verdict: api.Dropped, where: "host route", reason: "does not forward IPv4", fix: "sysctl -w net.ipv4.ip_forward=1"},
		{name: "rp_filter", from: "web", to: "192.0.2.1:80", change: func(w *world) {
			w.route("host", rt.Route{Dst: netip.MustParsePrefix("172.20.0.2/32"), OIF: w.index("host", "eth0")})
			w.sysctl("host", "net/ipv4/conf/tp-front/rp_filter", "1")
		}, verdict: api.Dropped, where: "web neighbour", reason: "host has it, but rp_filter", fix: "sysctl -w net.ipv4.conf.tp-front.rp_filter=2"},
		{name: "neighbour failed", from: "web", to: "172.20.0.99:80", verdict: api.Dropped, where: "web neighbour", reason: "EHOSTUNREACH", fix: "ip neigh show dev eth0"},
		{name: "neighbour failed beyond the host", from: "web", to: "192.0.2.99:80", verdict: api.Rejected, where: "host neighbour", reason: "nobody on eth0 answers for 192.0.2.99"},
		{name: "neighbour failed v6", from: "web", to: "[fd00::99]:80", verdict: api.Dropped, where: "web neighbour", reason: "EHOSTUNREACH"},
		{name: "time to live", from: "web", to: "192.0.2.1:80", change: func(w *world) { w.sysctl("web", "net/ipv4/ip_default_ttl", "1") }, verdict: api.Rejected, where: "host route", reason: "time to live"},
		{name: "MTU of the host's link", from: "web", to: "192.0.2.1:80", size: 1500, change: func(w *world) { w.mtu("host", "eth0", 1400) }, verdict: api.Rejected, where: "host route", reason: "1500 bytes do not fit the MTU of eth0, 1400", unsent: true},
		{name: "MTU of one's own link", from: "web", to: "[2001:db8::1]:80", size: 1501, verdict: api.Dropped, where: "web route", reason: "EMSGSIZE", unsent: true},
	}
}

// broken are packets to where nobody takes them, and over links that are down.
func broken() []scenario {
	return []scenario{
		{name: "closed port", from: "web", to: "app:81", verdict: api.Refused, where: "app socket", reason: "nothing in app listens on tcp port 81", fix: "towpath exec app -- ss"},
		{name: "closed port v6", from: "web", to: "[fd00::3]:81", verdict: api.Refused, where: "app socket"},
		{name: "closed udp port", from: "web", to: "app:81/udp", verdict: api.Refused, where: "app socket", unsent: true},
		{name: "loopback only", from: "web", to: "app:82", change: func(w *world) {
			w.spaces["app"].ServeTCP(w, netip.MustParseAddrPort("127.0.0.1:82"))
		}, verdict: api.Refused, where: "app socket", fix: "listens on 127.0.0.1:82 only"},
		{name: "not published", from: "192.0.2.1", to: "host:81", change: func(w *world) {
			w.spaces["db"].ServeTCP(w, netip.AddrPortFrom(netip.IPv6Unspecified(), 81))
		}, verdict: api.Refused, where: "host socket", fix: "towpath publish db 81:81"},
		{name: "port of the bridge down", from: "web", to: "192.0.2.1:80", change: func(w *world) { w.down("host", "v-web") }, verdict: api.Dropped, where: "web link", reason: "v-web in host is down", fix: "ip link set v-web up"},
		{name: "link of the container down", from: "host", to: "172.20.0.2:80", change: func(w *world) { w.down("web", "eth0") }, verdict: api.Dropped, where: "host neighbour", reason: "nobody on tp-front answers"},
		{name: "locked port", from: "web", to: "app:80", change: func(w *world) {
			c := w.spaces["host"].Conn(w)
			w.must(c.SetLink(w.Context(), w.index("host", "v-web"), rt.LinkChange{Port: &rt.PortChange{Locked: new(true), Learning: new(false)}}))
			for _, n := range w.entries("v-web") {
				w.must(c.DelNeighbour(w.Context(), n))
			}
		}, verdict: api.Dropped, where: "host neighbour", reason: "locked", fix: "bridge fdb replace"},
	}
}

// TestScenarios explains each, and has the kernel try it.
func TestScenarios(t *testing.T) {
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if s.change != nil {
				s.change(w)
			}
			p, err := w.machine().Explain(api.PathQuery{From: s.from, To: s.to, Size: s.size})
			if err != nil {
				t.Fatal(err)
			}
			s.check(w, p)
			if !s.unsent {
				// A reset in the way of a connection is told as a refusal.
				want, got := expected(p), w.try(s.from, p)
				if got != want && (want != "error" || got != "refused") {
					t.Errorf("the explanation means %s, and the kernel says %s:\n%s", want, got, text(t, p))
				}
			}
		})
	}
}

func text(t *testing.T, p api.Path) string {
	t.Helper()
	var b strings.Builder
	if err := draw.PathText(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (s scenario) check(w *world, p api.Path) {
	w.Helper()
	if p.Verdict != s.verdict || !strings.Contains(p.Reason, s.reason) || !strings.Contains(p.Fix, s.fix) || (p.Fix == "") != (p.Verdict == api.Delivered) {
		w.Errorf("verdict %s, reason %q, fix %q:\n%s", p.Verdict, p.Reason, p.Fix, text(w.T, p))
	}
	if s.nat != "" && !slices.ContainsFunc(p.Hops, func(h api.Hop) bool { return h.Direction == api.Request && h.Action+" "+h.Detail == s.nat }) {
		w.Errorf("no translation %s:\n%s", s.nat, text(w.T, p))
	}
	place := func(h api.Hop) bool { return strings.HasPrefix(h.NS+" "+string(h.Layer), s.where) }
	if s.verdict == api.Delivered {
		if !slices.ContainsFunc(p.Hops, place) {
			w.Errorf("does not pass %s:\n%s", s.where, text(w.T, p))
		}
	} else if i := slices.IndexFunc(p.Hops, func(h api.Hop) bool {
		return slices.Contains([]string{"drop", "reject", "refuses", "undecided"}, h.Action)
	}); i < 0 || !place(p.Hops[i]) {
		w.Errorf("does not end at %s:\n%s", s.where, text(w.T, p))
	}
	if s.rule != "" && !strings.Contains(text(w.T, p), s.rule) {
		w.Errorf("no rule %s:\n%s", s.rule, text(w.T, p))
	}
}

// expected is what the sender sees of a path.
func expected(p api.Path) string {
	last := p.Hops[len(p.Hops)-1]
	switch {
	case p.Verdict == api.Delivered && p.Reason == "":
		return "answered"
	case p.Verdict == api.Refused:
		return "refused"
	case p.Verdict == api.Rejected, p.Verdict == api.Dropped && strings.Contains(last.Detail, ": E"):
		return "error"
	}
	return "nothing"
}

// try sends the packet.
func (w *world) try(from string, p api.Path) string {
	w.Helper()
	ns := w.spaces[from]
	if ns == nil {
		ns = w.spaces["outside"]
	}
	wait := grace
	if expected(p) != "nothing" {
		wait = patience
	}
	if p.Flow.Dport == 0 {
		if ns.Echo(p.Flow.Dst, wait) == nil {
			return "answered"
		}
		return "nothing"
	}
	return w.dial(ns, netip.AddrPortFrom(p.Flow.Dst, p.Flow.Dport), wait)
}

// table puts tables of somebody else's into a namespace.
func (w *world) table(ns, text string) {
	w.Helper()
	tables, err := rules.ParseTables(text)
	w.must(err)
	c, err := nft.Dial(w.spaces[ns].FD())
	w.must(err)
	w.Cleanup(func() { c.Close() })
	var b nft.Batch
	for _, t := range tables {
		b.AddTableDef(t)
	}
	w.must(c.Commit(w.Context(), &b))
}

// iptables runs a program of that name on the host.
func (w *world) iptables(argv ...string) {
	w.Helper()
	testnet.Require(w, argv[0]+"-binary")
	_, err := w.spaces["host"].Output(w.Context(), argv...)
	w.must(err)
}

func (w *world) noDefault(ns, dst string) {
	w.Helper()
	w.must(w.spaces[ns].Conn(w).DelRoute(w.Context(), rt.Route{Dst: netip.MustParsePrefix(dst)}))
}

func (w *world) mtu(ns, dev string, n int) {
	w.Helper()
	w.must(w.spaces[ns].Conn(w).SetLink(w.Context(), w.index(ns, dev), rt.LinkChange{MTU: &n}))
}

func (w *world) down(ns, dev string) {
	w.Helper()
	w.must(w.spaces[ns].Conn(w).SetLink(w.Context(), w.index(ns, dev), rt.LinkChange{Up: new(false)}))
}

// entries are the addresses that are known behind a port.
func (w *world) entries(port string) []rt.Neighbour {
	w.Helper()
	c := w.spaces["host"].Conn(w)
	list, err := c.Neighbours(w.Context(), rt.NeighbourFilter{Family: unix.AF_BRIDGE, Index: w.index("host", port)}, 0)
	w.must(err)
	return slices.DeleteFunc(list, func(n rt.Neighbour) bool { return n.State&unix.NUD_PERMANENT != 0 || n.Master == 0 })
}

// TestBadQuestions are answered with what is wrong and what to do.
func TestBadQuestions(t *testing.T) {
	w := newWorld(t)
	m := w.machine()
	for _, c := range []struct{ from, to, want, fix string }{
		{"nobody", "web", `there is no sandbox or container "nobody"`, "there are app, cage, db"},
		{"web", "nobody:80", `there is no sandbox or container "nobody"`, "outside"},
		{"web", "app:0", `port "0"`, "db:5432"},
		{"web", "app:http", `port "http"`, "db:5432"},
		{"web", "app:80/gre", `protocol "gre"`, "use tcp, udp or sctp"},
		{"web", "app/tcp", "has a protocol and no port", "db:5432"},
		{"web", ":80", "has no name or address", "db:5432"},
		{"outside:x", "web", `"x" is no address outside`, "outside:192.0.2.1"},
		{"203.0.113.5", "web", "no namespace of this machine has the address 203.0.113.5", "outside:203.0.113.5"},
		{"outside:192.0.2.9", "fd00::2", "two families", ""},
	} {
		_, err := m.Explain(api.PathQuery{From: c.from, To: c.to})
		var e *api.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || !strings.Contains(e.Fix, c.fix) {
			t.Errorf("%s -> %s: %v, %+v; want %q", c.from, c.to, err, e, c.want)
		}
	}
}
