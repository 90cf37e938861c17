package reach

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/owner"
)

// page is a host with two bridges, web on one, db on the other, and a filter
// that lets only port 5432 from web to db, and of a published port.
const page = `netns host:
	netns web
	netns db
	sysctl net.ipv4.ip_forward = 1
	link eth0 type veth address 02:00:00:00:ff:01
	link br0 type bridge address 02:00:00:00:00:00
	link br1 type bridge address 02:00:00:00:00:01
	link v-web type veth address 02:00:00:00:01:01 master br0 peer eth0 netns web
	link v-db type veth address 02:00:00:00:01:02 master br1 peer eth0 netns db
	up br0
	up br1
	up eth0
	up v-web
	up v-db
	addr 192.0.2.10/24 dev eth0
	addr 172.20.0.1/24 dev br0
	addr 172.20.1.1/24 dev br1
	route default via 192.0.2.1 dev eth0
	table inet mine {
		chain fwd {
			type filter hook forward priority filter; policy drop;
			ct state established,related accept
			iifname "br0" oifname "br1" tcp dport 5432 accept comment "db only"
			ct status dnat accept
			iifname "br0" oifname "eth0" accept
		}

		chain nat {
			type nat hook prerouting priority dstnat; policy accept;
			fib daddr type local tcp dport 8080 dnat ip to 172.20.0.2:80
		}

		chain out {
			type nat hook postrouting priority srcnat; policy accept;
			oifname "eth0" masquerade
		}
	}
netns web:
	link eth0 type veth address 02:00:00:00:02:01 peer v-web netns host
	up lo
	up eth0
	addr 172.20.0.2/24 dev eth0
	route default via 172.20.0.1 dev eth0
netns db:
	link eth0 type veth address 02:00:00:00:02:02 peer v-db netns host
	up lo
	up eth0
	addr 172.20.1.2/24 dev eth0
	route default via 172.20.1.1 dev eth0
`

func world(t *testing.T) (*machine.Host, *owner.Names) {
	t.Helper()
	s, err := kernel.Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	h, err := machine.FromState(s)
	if err != nil {
		t.Fatal(err)
	}
	listen := func(name string, port uint16) {
		h.Space(name).Listeners = []machine.Listener{{Proto: "tcp", Addr: netip.IPv4Unspecified(), Port: port}}
	}
	listen("web", 80)
	listen("db", 5432)
	h.Space("host").Listeners = []machine.Listener{}
	for i := range h.Spaces {
		if s := &h.Spaces[i]; s.Name != machine.HostName {
			s.Holders = []machine.Holder{{Path: "/run/towpath/netns/" + s.Name}}
		}
	}
	return &h, owner.New(owner.Facts{RunDir: "/run/towpath"})
}

func lines(r api.Reach) []string {
	var out []string
	for _, row := range r.Rows {
		rule := ""
		if row.Rule != nil {
			rule = " [" + row.Rule.Chain + " by " + row.Rule.Author + "]"
		}
		port := ""
		if row.Port != 0 {
			port = fmt.Sprintf(":%d", row.Port)
		}
		out = append(out, fmt.Sprintf("%s -> %s %s%s %s: %s %v%s", row.From, row.To, row.Addr, port, strings.Join(row.Packets, "; "), row.Verdict, row.Reaches, rule))
	}
	return out
}

func TestTable(t *testing.T) {
	h, names := world(t)
	r, err := Table(t.Context(), h, names, Ask{})
	if err != nil {
		t.Fatal(err)
	}
	got := lines(r)
	for _, want := range []string{
		"web -> db 172.20.1.2 icmp; tcp 1-5431,5433-65535; udp: dropped false [fwd by user]",
		"web -> db 172.20.1.2 tcp 5432: delivered true",
		"db -> web 172.20.0.2 icmp; tcp; udp: dropped false [fwd by user]",
		"web -> outside 198.51.100.1 icmp; tcp; udp: delivered true",
		"db -> outside 198.51.100.1 icmp; tcp; udp: dropped false [fwd by user]",
		"outside -> web 192.0.2.10:8080 tcp 8080: delivered true",
		"outside -> db 172.20.1.2 icmp; tcp; udp: dropped false [fwd by user]",
		"host -> web 172.20.0.2 icmp; tcp 80: delivered true",
		"db -> web 192.0.2.10:8080 tcp 8080: delivered true",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, strings.Join(got, "\n"))
		}
	}
	if r.Walks == 0 {
		t.Error("no walks")
	}
}

// TestNamedByTheTable: a namespace without a name is called in a reason as it is in
// the row.
func TestNamedByTheTable(t *testing.T) {
	h, names := world(t)
	web := h.Space("web")
	h.Space("host").Link("v-web").PeerNS = "net:[4026534651]"
	web.Name, web.Routes = "net:[4026534651]", nil
	web.Holders = []machine.Holder{{PID: 4, Command: "sleep"}}
	r, err := Table(t.Context(), h, names, Ask{To: "db"})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(r.Rows, func(row api.ReachRow) bool { return row.From == "sleep[4]" })
	if want := "sleep[4] has no route to 172.20.1.2: ENETUNREACH"; i < 0 || r.Rows[i].Reason != want {
		t.Errorf("no row of sleep[4] with reason %q: %+v", want, r.Rows)
	}
}

// TestTableIsWhole: every port is in some class, once.
func TestTableIsWhole(t *testing.T) {
	h, _ := world(t)
	t1 := &table{h: h, ids: map[string]string{}, ask: Ask{}}
	t1.namePorts()
	next := map[string]int{"tcp": 1, "udp": 1}
	for _, c := range t1.classes(h.Space("db")) {
		if c.proto == "icmp" {
			continue
		}
		if int(c.first) != next[c.proto] || c.last < c.first {
			t.Errorf("%+v, the class before ended at %d", c, next[c.proto]-1)
		}
		next[c.proto] = int(c.last) + 1
	}
	if !slices.Contains(t1.classes(h.Space("db")), class{"tcp", 8080, 8080}) {
		t.Error("a port that a rule names is no class of its own")
	}
	if next["tcp"] != 65536 || next["udp"] != 65536 {
		t.Errorf("ends: %v", next)
	}
}

func TestAsk(t *testing.T) {
	h, names := world(t)
	r, err := Table(t.Context(), h, names, Ask{From: "web", To: "db", Port: 5432})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"web -> db 172.20.1.2 tcp 5432: delivered true", "web -> db 172.20.1.2 udp 5432: dropped false [fwd by user]"}
	if got := lines(r); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r, err = Table(t.Context(), h, names, Ask{From: "outside", To: "web", Port: 80})
	if got := lines(r); err != nil || !slices.Contains(got, "outside -> web 192.0.2.10:8080 tcp 8080: delivered true") {
		t.Errorf("got %q, %v", got, err)
	}
	_, err = Table(t.Context(), h, names, Ask{To: "nobody"})
	if api.CodeOf(err) != api.NotFound || !strings.Contains(err.Error(), `there is no namespace "nobody"`) {
		t.Errorf("%v", err)
	}
}

// TestBounded: a table that would take too long is refused with a way out.
func TestBounded(t *testing.T) {
	h, names := world(t)
	for i := range 400 {
		a := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(1 + i%250)}), 24)
		h.Spaces = append(h.Spaces, machine.Space{Name: fmt.Sprint("s", i), Addresses: []machine.Address{{Dev: "eth0", Prefix: a}}})
	}
	if _, err := Table(t.Context(), h, names, Ask{}); api.CodeOf(err) != api.Invalid || !strings.Contains(err.Error(), "50000 is the limit") {
		t.Errorf("%v", err)
	}
	if _, err := Table(t.Context(), h, names, Ask{From: "web", To: "db"}); err != nil {
		t.Error(err)
	}
}

func TestWords(t *testing.T) {
	got := words([]class{{"icmp", 0, 0}, {"tcp", 1, 79}, {"tcp", 80, 80}, {"tcp", 90, 90}, {"udp", 1, 65535}})
	if want := []string{"icmp", "tcp 1-80,90", "udp"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
