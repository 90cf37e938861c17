package walk_test

import (
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
)

// switched is a machine behind a second bridge, which is joined to the first.
const switched = `netns host:
	link up0 type veth master tp-front peer p0 netns switch
	up up0
netns switch:
	link br0 type bridge
	link p0 type veth master br0 peer up0 netns host
	link p1 type veth master br0 peer eth0 netns far
	up br0
	up p0
	up p1
netns far:
	link eth0 type veth address 02:00:00:00:ee:09 peer p1 netns switch
	up eth0
	addr 172.20.0.50/24 dev eth0
	addr fd00::50/64 dev eth0
`

// TestSegment: a network may be more than one bridge.
func TestSegment(t *testing.T) {
	k := newWorld(t).build(switched, nil)
	ask(t, k, []question{
		{"web", "172.20.0.50:80/tcp", api.Delivered, "172.20.0.2:49152 > 172.20.0.50:80", ""},
		{"far", "[fd00::2]:80/udp", api.Delivered, "[fd00::50]:49152 > [fd00::2]:80", ""},
		{"host", "172.20.0.50", api.Delivered, "172.20.0.1 > 172.20.0.50", ""},
		{"far", "172.20.0.51", api.Dropped, "", "nobody on eth0 answers"},
		{"far", "172.20.0.2:80/sctp", api.Refused, "", "nothing in web listens on sctp port 80"},
		{"web", "fe80::ff:fe00:ee09%eth0", api.Delivered, "fe80::ff:fe01:2 > fe80::ff:fe00:ee09", ""},
	})
	var bridges []string
	for _, h := range follow(t, k, "web", "172.20.0.50").Hops {
		if h.Direction == api.Request && h.Action == "bridges" {
			bridges = append(bridges, h.NS+" "+h.Device+" "+h.Port)
		}
	}
	if got := strings.Join(bridges, ", "); got != "host tp-front up0, switch br0 p1" {
		t.Errorf("bridges on the way: %s", got)
	}
}

// TestKnownNeighbours: where nobody has to ask, a frame meets what questions
// would not have passed.
func TestKnownNeighbours(t *testing.T) {
	w := newWorld(t)
	w.view.Networks["front"].ICC = false
	k := w.build("", func(h *machine.Host) {
		space(h, "web").Neighbours = []machine.Neighbour{{Dev: "eth0", IP: netip.MustParseAddr("172.20.0.3"), MAC: macOf(h, "app")}}
	})
	ask(t, k, []question{
		{"web", "172.20.0.3", api.Dropped, "", "ports v-web-eth0 and v-app-eth0 are isolated"},
		{"app", "172.20.0.2", api.Dropped, "", "nobody on eth0 answers for 172.20.0.2"},
	})
}

// TestConcurrent: a Walker serves several at once, each as if alone.
func TestConcurrent(t *testing.T) {
	w := newWorld(t)
	w.publish("web", "8080:80")
	k := w.build("", bridgeNF)
	want := hops(follow(t, k, "app", "192.0.2.10:8080/tcp"))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				if got := hops(follow(t, k, "app", "192.0.2.10:8080/tcp")); got != want {
					t.Errorf("got\n%s want\n%s", got, want)
				}
			}
		})
	}
	all.Wait()
}
