package draw

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
)

func p(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// small is a host with three containers on two networks of two engines, a
// tunnel, a macvlan, and what there may be besides.
func small() api.Map {
	yes, no := true, false
	return api.Map{
		Schema: api.MapSchema,
		Namespaces: []api.MapNamespace{
			{ID: "host", Kind: "host", Name: "host", Owner: "host", Gateways: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Devices: []api.MapDevice{
				{Name: "eth0", Kind: "physical", State: "up", MTU: 1500, MAC: "02:00:00:00:00:01", Addresses: []netip.Prefix{p("192.0.2.10/24"), p("fe80::1/64")}, Role: api.RoleUplink},
				{Name: "tp-front", Kind: "bridge", State: "up", Role: api.RoleNetwork, Addresses: []netip.Prefix{p("172.20.0.1/24")}},
				{Name: "v-web-eth0", Kind: "veth", State: "up", Role: api.RolePort},
				{Name: "docker0", Kind: "bridge", State: "no carrier", Role: api.RoleNetwork, Addresses: []netip.Prefix{p("172.17.0.1/16")}},
				{Name: "wg0", Kind: "wireguard", State: "up", Role: api.RoleOther, Addresses: []netip.Prefix{p("10.9.0.1/24")}},
			}},
			{ID: "web", Kind: "sandbox", Name: "web", Engine: "Towpath", Owner: "sandbox web (Towpath)", Devices: []api.MapDevice{
				{Name: "eth0", Kind: "veth", State: "up", Role: api.RoleEndpoint, Addresses: []netip.Prefix{p("172.20.0.2/24")}},
			}},
			{ID: "api", Kind: "sandbox", Name: "api", Engine: "Towpath", Owner: "sandbox api (Towpath)", Devices: []api.MapDevice{
				{Name: "eth0", Kind: "veth", State: "up", Role: api.RoleEndpoint, Addresses: []netip.Prefix{p("172.20.0.3/24")}},
			}},
			{ID: "db", Kind: "container", Name: "db", Engine: "Docker", Owner: "container db (Docker)", Devices: []api.MapDevice{
				{Name: "eth0", Kind: "veth", State: "down", Role: api.RoleEndpoint, Addresses: []netip.Prefix{p("172.17.0.2/16")}},
			}},
			{ID: "net:[1]", Kind: "process", Name: "nginx", Owner: "process nginx [4711]"},
		},
		Networks: []api.MapNetwork{
			{
				Name: "front", Engine: "Towpath", Kind: "bridge", Namespace: "host", Device: "tp-front", State: "up", Subnets: []netip.Prefix{p("172.20.0.0/24")},
				Gateways: []netip.Addr{netip.MustParseAddr("172.20.0.1")}, Members: []api.MapMember{
					{Port: "v-web-eth0", Namespace: "web", Device: "eth0", State: "up", Addresses: []netip.Prefix{p("172.20.0.2/24")}},
					{Port: "v-api-eth0", Namespace: "api", Device: "eth0", State: "up", Addresses: []netip.Prefix{p("172.20.0.3/24")}},
					{Port: "vx42", State: "up", Detail: "vxlan vni 42 to 192.0.2.2"},
				},
			},
			{
				Name: "bridge", Engine: "Docker", Kind: "bridge", Namespace: "host", Device: "docker0", State: "no carrier", Subnets: []netip.Prefix{p("172.17.0.0/16")},
				Gateways: []netip.Addr{netip.MustParseAddr("172.17.0.1")}, Members: []api.MapMember{
					{Port: "veth1", Namespace: "db", Device: "eth0", State: "down", Addresses: []netip.Prefix{p("172.17.0.2/16")}},
				},
			},
			{Name: "eth0", Kind: "macvlan", Namespace: "host", Device: "eth0", State: "up", Members: []api.MapMember{
				{Namespace: "api", Device: "eth1", State: "up", Addresses: []netip.Prefix{p("192.0.2.60/24")}},
			}},
			{Name: "br-lan", Kind: "bridge", Namespace: "host", Device: "br-lan", State: "down"},
		},
		Wires: []api.MapWire{
			{Kind: "veth", From: api.MapEnd{Namespace: "host", Device: "v-web-eth0"}, To: api.MapEnd{Namespace: "web", Device: "eth0"}},
			{Kind: "port", From: api.MapEnd{Namespace: "host", Device: "v-web-eth0"}, To: api.MapEnd{Namespace: "host", Device: "tp-front"}},
			{Kind: "above", From: api.MapEnd{Namespace: "host", Device: "wg0"}, To: api.MapEnd{Namespace: "host", Device: "eth0"}},
		},
		Publications: []api.MapPublication{
			{HostPort: "8080", Proto: "tcp", To: netip.MustParseAddrPort("172.20.0.2:80"), Namespace: "web", Listening: &yes, Author: "towpath"},
			{HostPort: "8080", Proto: "tcp", To: netip.MustParseAddrPort("[fd00::2]:80"), Namespace: "web", Listening: &yes, Author: "towpath"},
			{HostIP: netip.MustParseAddr("::1"), HostPort: "53", Proto: "udp", To: netip.MustParseAddrPort("172.20.0.2:53"), Namespace: "web", Listening: &no, Author: "towpath"},
			{HostPort: "7000-7002", Proto: "tcp", To: netip.AddrPortFrom(netip.MustParseAddr("172.17.0.9"), 0), Author: "docker"},
		},
		Talks: []api.MapTalk{
			{From: "web", To: "api", Addr: netip.MustParseAddr("172.20.0.3"), Proto: "tcp", Port: 9000, Connections: 3},
			{From: "outside", To: "web", Addr: netip.MustParseAddr("172.20.0.2"), Proto: "tcp", Port: 80, Via: netip.MustParseAddrPort("192.0.2.10:8080"), Connections: 12},
			{From: "api", To: "outside", Addr: netip.MustParseAddr("198.51.100.7"), Proto: "tcp", Port: 443, Connections: 1},
		},
		Notes: []string{"namespace of process cron [12]: permission denied"},
	}
}

// large is a host with many containers.
func large(n int) api.Map {
	m := api.Map{Schema: api.MapSchema}
	host := api.MapNamespace{ID: "host", Kind: "host", Name: "host", Owner: "host", Gateways: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	host.Devices = []api.MapDevice{{Name: "eth0", Kind: "physical", State: "up", Addresses: []netip.Prefix{p("192.0.2.10/24")}, Role: api.RoleUplink}}
	m.Namespaces = append(m.Namespaces, host)
	engines := []string{"Towpath", "Docker", "Podman", "CNI"}
	share := []int{n * 6 / 10, n * 2 / 10, n / 10, n - n*6/10 - n*2/10 - n/10}
	for i, engine := range engines {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 20 + byte(i), 0, 0}), 16)
		net := api.MapNetwork{
			Name: fmt.Sprintf("net%d", i), Engine: engine, Kind: "bridge", Namespace: "host", Device: fmt.Sprintf("br%d", i), State: "up",
			Subnets: []netip.Prefix{subnet}, Gateways: []netip.Addr{subnet.Addr().Next()},
		}
		for j := range share[i] {
			id := fmt.Sprintf("%s-%d", strings.ToLower(engine), j)
			a := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 20 + byte(i), byte(j / 250), byte(2 + j%250)}), 16)
			m.Namespaces = append(m.Namespaces, api.MapNamespace{ID: id, Kind: "container", Name: id, Engine: engine, Owner: "container " + id + " (" + engine + ")"})
			net.Members = append(net.Members, api.MapMember{Port: "v-" + id, Namespace: id, Device: "eth0", State: "up", Addresses: []netip.Prefix{a}})
			if j%9 == 0 {
				m.Publications = append(m.Publications, api.MapPublication{HostPort: fmt.Sprint(8000 + len(m.Publications)), Proto: "tcp", To: netip.AddrPortFrom(a.Addr(), 80), Namespace: id, Author: strings.ToLower(engine)})
			}
		}
		m.Networks = append(m.Networks, net)
	}
	return m
}

func TestMapText(t *testing.T) {
	want, err := os.ReadFile("testdata/map.txt")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := MapText(&b, small()); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("TOWPATH_UPDATE") != "" {
		if err := os.WriteFile("testdata/map.txt", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		want = []byte(b.String())
	}
	if b.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// TestMapHasAll: no drawing leaves anything out.
func TestMapHasAll(t *testing.T) {
	draw := map[string]func(io.Writer, api.Map) error{"text": MapText, "svg": MapSVG, "dot": MapDOT}
	for name, f := range draw {
		for _, m := range []api.Map{small(), large(30), large(300), {}} {
			var b strings.Builder
			if err := f(&b, m); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, s := range m.Namespaces {
				if !strings.Contains(b.String(), escape(s.Owner)) {
					t.Errorf("%s of %d namespaces lacks %s", name, len(m.Namespaces), s.Owner)
				}
			}
			for _, n := range m.Networks {
				for _, e := range n.Members {
					for _, a := range e.Addresses {
						if name != "dot" && !strings.Contains(b.String(), a.Addr().String()) {
							t.Errorf("%s lacks %s", name, a)
						}
					}
				}
			}
		}
	}
}

// TestMapSVGStandsAlone: it is XML, and names nothing that would be fetched.
func TestMapSVGStandsAlone(t *testing.T) {
	nasty := small()
	nasty.Namespaces[1].Owner, nasty.Namespaces[1].Name = "<script>&\"\x01\xff", "<b>&\"\x01\xff"
	nasty.Notes = append(nasty.Notes, "</svg><!-- ")
	for _, m := range []api.Map{small(), nasty, large(300), {}} {
		var b strings.Builder
		if err := MapSVG(&b, m); err != nil {
			t.Fatal(err)
		}
		dec := xml.NewDecoder(strings.NewReader(b.String()))
		for {
			tok, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("not XML: %v", err)
			}
			e, ok := tok.(xml.StartElement)
			if !ok {
				continue
			}
			if e.Name.Local == "script" || e.Name.Local == "image" {
				t.Errorf("there is an element %s", e.Name.Local)
			}
			for _, a := range e.Attr {
				if strings.Contains(a.Value, "://") && a.Name.Local != "xmlns" {
					t.Errorf("%s=%q", a.Name.Local, a.Value)
				}
			}
		}
		for _, word := range []string{"prefers-color-scheme", "@media screen", "NaN", "Inf"} {
			if strings.Contains(b.String(), word) != (len(word) > 4) {
				t.Errorf("%q: %v", word, !strings.Contains(b.String(), word))
			}
		}
	}
}

// TestMapLayout: no card lies on another or sticks out of its network.
func TestMapLayout(t *testing.T) {
	for _, n := range []int{3, 12, 13, 30, 61, 300, 1000} {
		l := newLayout(newChart(large(n)))
		var all []box
		for _, pl := range l.panels {
			if pl.x < l.host.x || pl.x+pl.w > l.host.x+l.host.w || pl.bottom() > l.host.bottom() {
				t.Errorf("%d: a network sticks out: %+v", n, pl.box)
			}
			for _, c := range pl.cards {
				if c.x < pl.x || c.x+c.w > pl.x+pl.w || c.y < pl.y || c.bottom() > pl.bottom() {
					t.Errorf("%d: a card sticks out: %+v of %+v", n, c, pl.box)
				}
			}
			all = append(all, pl.cards...)
		}
		for i, a := range all {
			for _, b := range all[i+1:] {
				if a.x < b.x+b.w && b.x < a.x+a.w && a.y < b.bottom() && b.y < a.bottom() {
					t.Fatalf("%d: %+v lies on %+v", n, a, b)
				}
			}
		}
	}
}

// TestTalksInDOT: who talks to whom is drawn, as far as there is somebody to draw it to.
func TestTalksInDOT(t *testing.T) {
	space := func(id string, up bool) api.MapNamespace {
		d := api.MapDevice{Name: "eth0"}
		if up {
			d.Role = "uplink"
		}
		return api.MapNamespace{ID: id, Name: id, Devices: []api.MapDevice{d}}
	}
	m := api.Map{
		Namespaces: []api.MapNamespace{space("host", true), space("web", false), space("db", false)},
		Talks: []api.MapTalk{
			{From: "web", To: "db", Proto: "tcp", Port: 5432, Connections: 3},
			{From: "outside", To: "web", Proto: "tcp", Port: 80, Connections: 1},
			{From: "web", To: "host", Proto: "udp", Port: 53, Connections: 2},
			{From: "web", To: "gone", Proto: "tcp", Port: 1, Connections: 1},
		},
	}
	var b strings.Builder
	if err := MapDOT(&b, m); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"web/eth0" -- "db/eth0" [dir=forward, style=dashed, color="#c2571a", constraint=false, label="5432/tcp\n×3"];`,
		`outside -- "web/eth0" [dir=forward, style=dashed`, `"web/eth0" -- "host/eth0" [dir=forward, style=dashed`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
	if n := strings.Count(b.String(), "style=dashed"); n != 3 {
		t.Errorf("%d conversations are drawn", n)
	}
}

func TestQuoteDOT(t *testing.T) {
	if got, want := quoteDOT("a\"b\\n\nc"), `"a\"b\\n\nc"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestRenderings writes drawings to look at, where TOWPATH_RENDER names a folder.
func TestRenderings(t *testing.T) {
	dir := os.Getenv("TOWPATH_RENDER")
	if dir == "" {
		dir = t.TempDir()
	}
	for name, m := range map[string]api.Map{"3": small(), "30": large(30), "300": large(300)} {
		f, err := os.Create(filepath.Join(dir, "map-"+name+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(MapSVG(f, m), f.Close()); err != nil {
			t.Error(err)
		}
	}
}
