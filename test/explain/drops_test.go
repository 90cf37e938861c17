package explain

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
)

// ending is how the kernel itself tells of the end of a packet.
type ending struct {
	action, ns string
	// layer is that at level full; without hooks that of the packet filter is not known.
	layer  api.Layer
	reason string // of Linux 6.18: earlier ones have fewer
}

// endings are those of the scenarios that end by the kernel's own decision.
func endings() map[string]ending {
	noSocket := ending{"refuses", "app", api.LayerSocket, "NO_SOCKET"}
	noNeighbour := ending{"drop", "web", api.LayerNeighbour, "NEIGH_FAILED"}
	noNeighbour6 := ending{"drop", "web", api.LayerNeighbour, "NOT_SPECIFIED"}
	routed := func(action, reason string) ending { return ending{action, "host", api.LayerRoute, reason} }
	filtered := func(layer api.Layer) ending { return ending{"drop", "host", layer, "NETFILTER_DROP"} }
	return map[string]ending{
		"legacy iptables drop":                filtered(api.LayerForward),
		"legacy iptables drop v6":             filtered(api.LayerForward),
		"conntrack table full":                filtered(api.LayerPrerouting),
		"conntrack table full v6":             filtered(api.LayerPrerouting),
		"no route on the host":                routed("reject", "IP_INNOROUTES"),
		"no route on the host v6":             routed("reject", "IP_INNOROUTES"),
		"blackhole":                           routed("drop", "NOT_SPECIFIED"),
		"blackhole v6":                        routed("drop", "NOT_SPECIFIED"),
		"unreachable":                         routed("reject", "NOT_SPECIFIED"),
		"prohibit v6":                         routed("reject", "IP_INNOROUTES"),
		"forwarding off":                      routed("drop", "IP_INADDRERRORS"),
		"forwarding off v6":                   routed("drop", "IP_INADDRERRORS"),
		"rp_filter, neighbour known":          routed("drop", "IP_RPFILTER"),
		"neighbour failed":                    noNeighbour,
		"neighbour failed v6":                 noNeighbour6,
		"neighbour failed beyond the host":    {"drop", "host", api.LayerNeighbour, "NEIGH_FAILED"},
		"neighbour failed beyond the host v6": {"drop", "host", api.LayerNeighbour, "NOT_SPECIFIED"},
		"time to live":                        routed("reject", "IP_INHDR"),
		"time to live, given v6":              routed("reject", "IP_INHDR"),
		"MTU of the host's link":              routed("reject", "PKT_TOO_BIG"),
		"MTU of the host's link v6":           routed("reject", "PKT_TOO_BIG"),
		"closed port":                         noSocket,
		"closed port v6":                      noSocket,
		"closed udp port":                     noSocket,
		"closed udp port v6":                  noSocket,
		"port of the bridge down":             noNeighbour,
		"port of the bridge down v6":          noNeighbour6,
	}
}

// TestEndings: the scenarios that are told to end by the kernel's decision are there.
func TestEndings(t *testing.T) {
	all := scenarios()
	for name := range endings() {
		if !slices.ContainsFunc(all, func(s scenario) bool { return s.name == name }) {
			t.Errorf("there is no scenario %q", name)
		}
	}
}

// saying is how a hop tells of the kernel's own word: what it calls the reason, and
// the function that dropped the packet.
var saying = regexp.MustCompile(`\(([A-Z0-9_]+) in [a-z0-9_.]+\)$`)

// word compares the kernel's own word on the end of the packet: what became of it,
// where, and why. No level tells of one that it cannot hear.
func (c *comparison) word() {
	c.Helper()
	i := slices.IndexFunc(c.got.Hops, func(h api.Hop) bool { return saying.MatchString(h.Detail) })
	if c.got.Level == api.LevelTaps {
		if i >= 0 || saying.MatchString(c.got.Reason) {
			c.Errorf("level taps cannot know what the kernel says\n%s", c.told)
		}
		return
	}
	if i >= 0 {
		c.known(saying.FindStringSubmatch(c.got.Hops[i].Detail)[1])
	}
	want, ok := endings()[c.s.name]
	if !ok {
		return
	}
	if i < 0 {
		c.Fatalf("no word of the kernel\n%s", c.told)
	}
	h := c.got.Hops[i]
	if h.Direction != api.Request || h.NS != want.ns || h.Action != want.action || !slices.Equal(h.Sources, []string{"bpf"}) || !h.Certain || h.NSInode == 0 || h.Device != "" && h.Ifindex == 0 {
		c.Errorf("hop %+v, want %+v\n%s", h, want, c.told)
	}
	if c.got.Level != api.LevelFull && want.reason == "NETFILTER_DROP" {
		want.layer = ""
	}
	got := saying.FindStringSubmatch(h.Detail)[1]
	if h.Layer != want.layer || got != want.reason && saysAll(c.T) {
		c.Errorf("layer %q, reason %s; want %+v\n%s", h.Layer, got, want, c.told)
	}
	if c.got.Verdict == api.Dropped && !strings.Contains(c.got.Reason, got) {
		c.Errorf("reason %q does not name %s", c.got.Reason, got)
	}
}

// known: a reason is one that this very kernel has.
func (c *comparison) known(reason string) {
	c.Helper()
	types, err := btf.LoadKernelSpec()
	c.must(err)
	var all *btf.Enum
	c.must(types.TypeByName("skb_drop_reason", &all))
	if !slices.ContainsFunc(all.Values, func(v btf.EnumValue) bool { return v.Name == "SKB_DROP_REASON_"+reason }) {
		c.Errorf("this kernel has no reason %s\n%s", reason, c.told)
	}
}

// saysAll reports whether this kernel has all reasons that are expected.
func saysAll(t *testing.T) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	return slices.Compare(numbers(unix.ByteSliceToString(u.Release[:])), []int{6, 18}) >= 0
}

// numbers are the first two of a release of the kernel.
func numbers(release string) []int {
	out := []int{0}
	for _, c := range release {
		switch {
		case c >= '0' && c <= '9':
			out[len(out)-1] = out[len(out)-1]*10 + int(c-'0')
		case c == '.' && len(out) < 2:
			out = append(out, 0)
		default:
			return out
		}
	}
	return out
}
