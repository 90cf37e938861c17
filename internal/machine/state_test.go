package machine_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/machine"
)

// TestFromState: what the kernel adds to a link that is up, and not to others.
func TestFromState(t *testing.T) {
	s, err := kernel.Parse(`netns host:
	netns web
	sysctl net.ipv6.conf.all.forwarding = 1
	link br0 type bridge address 02:00:00:00:00:01
	link br1 type bridge address 02:00:00:00:00:02
	link v0 type veth address 02:00:00:00:00:03 master br0 peer eth0 netns web hairpin on isolated on
	up br0
	up v0
	addr 172.20.0.1/24 dev br0
	addr 192.0.2.1/32 dev br0
	addr 192.0.2.2/31 dev br0
	addr 172.21.0.1/24 dev br1
	addr fd00::1/64 dev br0
	route ::1/128 type local dev br0 table 255 metric 1
	route 198.51.100.0/24 via 172.20.0.9 dev br0
	rule from 172.20.0.1/32 lookup 100 priority 50
	neigh 172.20.0.2 lladdr 02:00:00:00:00:09 dev br0 nud permanent
	socket tcp [::]:8080
	table inet f {
		set s {
			type ifname
			elements = { "br0" }
		}

		chain c {
			type filter hook forward priority filter; policy accept;
			iifname @s drop
		}
	}
netns web:
	sysctl net.ipv6.conf.eth0.disable_ipv6 = 1 dev eth0
	link eth0 type veth address 02:00:00:00:00:04 peer-of v0
	up eth0
	socket udp 127.0.0.11:53
`)
	if err != nil {
		t.Fatal(err)
	}
	h, err := machine.FromState(s)
	if err != nil {
		t.Fatal(err)
	}
	host, web := h.Space("host"), h.Space("web")
	if diff := cmp.Diff(strings.TrimSpace(`
br0 172.20.0.1/24
br0 192.0.2.1/32
br0 192.0.2.2/31
br0 fd00::1/64
br0 fe80::ff:fe00:1/64
br1 172.21.0.1/24
lo 127.0.0.1/8
lo ::1/128`), addresses(host)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(strings.TrimSpace(`
100 none
254 1 172.20.0.0/24 dev br0 src 172.20.0.1 metric 0
254 1 192.0.2.2/31 dev br0 src 192.0.2.2 metric 0
254 1 198.51.100.0/24 dev br0 via 172.20.0.9 metric 0
254 1 ::1/128 dev lo metric 256
254 1 fd00::/64 dev br0 metric 256
254 1 fe80::/64 dev br0 metric 256
255 2 127.0.0.0/8 dev lo src 127.0.0.1 metric 0
255 2 127.0.0.1/32 dev lo src 127.0.0.1 metric 0
255 2 172.20.0.1/32 dev br0 src 172.20.0.1 metric 0
255 2 192.0.2.1/32 dev br0 src 192.0.2.1 metric 0
255 2 192.0.2.2/32 dev br0 src 192.0.2.2 metric 0
255 2 ::1/128 dev br0 metric 1
255 2 ::1/128 dev lo metric 0
255 2 fd00::1/128 dev br0 metric 0
255 2 fe80::ff:fe00:1/128 dev br0 metric 0
255 3 127.255.255.255/32 dev lo src 127.0.0.1 metric 0
255 3 172.20.0.255/32 dev br0 src 172.20.0.1 metric 0
255 4 fd00::/128 dev br0 metric 0
255 4 fe80::/128 dev br0 metric 0
255 5 ff00::/8 dev br0 metric 256`), "100 none\n"+routeTexts(host)); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if !slices.Equal(host.Held, []machine.Listener{{Proto: "tcp", Addr: netip.IPv6Unspecified(), Port: 8080}}) || web.Held != nil {
		t.Errorf("held %v and %v", host.Held, web.Held)
	}
	if len(host.Tables) != 1 || len(host.Rules) != 6 || len(host.Neighbours) != 1 || host.Listeners != nil {
		t.Errorf("host %+v", host)
	}
	want := machine.Link{Name: "v0", Type: "veth", MAC: "02:00:00:00:00:03", Up: true, Master: "br0", PeerNS: "web", Peer: "eth0", Hairpin: true, Isolated: true, Learning: true}
	if diff := cmp.Diff(&want, host.Link("v0"), addrs()); diff != "" {
		t.Errorf("link (-want +got):\n%s", diff)
	}
	// The loopback of a namespace that we made is up only if the state says so.
	if lo := web.Links[len(web.Links)-1]; lo.Name != "lo" || lo.Up {
		t.Errorf("loopback of web %+v", lo)
	}
	if got := addresses(web); got != "lo 127.0.0.1/8\nlo ::1/128" {
		t.Errorf("with IPv6 disabled and without addresses web has %q", got)
	}
}

// addrs compares addresses as such.
func addrs() cmp.Option { return cmp.Comparer(func(a, b netip.Addr) bool { return a == b }) }

func addresses(s *machine.Space) string {
	var out []string
	for _, a := range s.Addresses {
		out = append(out, a.Dev+" "+a.Prefix.String())
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func routeTexts(s *machine.Space) string {
	var out []string
	for _, r := range s.Routes {
		text := fmt.Sprintf("%d %d %s dev %s", r.Table, r.Type, r.Dst, r.Dev)
		if r.Via.IsValid() {
			text += " via " + r.Via.String()
		}
		if r.Src.IsValid() {
			text += " src " + r.Src.String()
		}
		out = append(out, fmt.Sprintf("%s metric %d", text, r.Metric))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// TestFromStateRefuses a table that cannot be read.
func TestFromStateRefuses(t *testing.T) {
	s := kernel.NewState(
		kernel.Table{NS: kernel.Host, Family: "inet", Name: "f"},
		kernel.Chain{NS: kernel.Host, Family: "inet", Table: "f", Name: "c", Rules: "what is this\n"},
	)
	if _, err := machine.FromState(s); err == nil || !strings.Contains(err.Error(), "read state: parse table") {
		t.Errorf("error %v", err)
	}
}
