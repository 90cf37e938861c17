package walk

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
)

// Walker is a Host made ready for walks. It may be used by several goroutines.
type Walker struct {
	spaces map[string]*space
	// stations are where floods have gone, which is the same for all packets.
	mu       sync.Mutex
	stations map[origin][]station
}

// New makes a Walker. The Host must not change afterwards.
func New(h machine.Host) (*Walker, error) {
	w := &Walker{spaces: map[string]*space{}, stations: map[origin][]station{}}
	for i := range h.Spaces {
		s := newSpace(&h.Spaces[i])
		if w.spaces[s.Name] != nil {
			return nil, fmt.Errorf("prepare walk: namespace %q is there twice", s.Name)
		}
		w.spaces[s.Name] = s
	}
	return w, nil
}

// space is a Space with its parts indexed.
type space struct {
	*machine.Space
	links  map[string]*machine.Link
	tables map[uint32][]machine.Route // longest prefix first
	rules  []machine.Rule             // lowest priority first
	stages map[string][]stage         // of the packet filter, by hook
	index  map[string]int             // of links; made up where it is not known
}

func newSpace(s *machine.Space) *space {
	x := &space{
		Space: s, links: map[string]*machine.Link{}, tables: map[uint32][]machine.Route{}, rules: slices.Clone(s.Rules),
		index: map[string]int{},
	}
	for i := range s.Links {
		l := &s.Links[i]
		x.links[l.Name] = l
		x.index[l.Name] = cmp.Or(l.Index, unknownIndex+i)
	}
	for _, r := range s.Routes {
		x.tables[r.Table] = append(x.tables[r.Table], r)
	}
	for _, routes := range x.tables {
		slices.SortStableFunc(routes, func(a, b machine.Route) int {
			return cmp.Or(-cmp.Compare(a.Dst.Bits(), b.Dst.Bits()), cmp.Compare(a.Metric, b.Metric))
		})
	}
	slices.SortStableFunc(x.rules, func(a, b machine.Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	x.stages = newStages(s.Filters())
	return x
}

// unknownIndex is the first of the numbers for links whose index is not known:
// rules compare them, and none may be 0, which is "no link".
const unknownIndex = 1 << 24

// up reports whether a link is there and up.
func (s *space) up(dev string) bool {
	l := s.links[dev]
	return l != nil && l.Up
}

// device is a link as rules see it; nil for none.
func (s *space) device(dev string) *nft.Device {
	l := s.links[dev]
	if l == nil {
		return nil
	}
	d := &nft.Device{Index: s.index[dev], Name: dev, Type: 1, Group: l.Group}
	if l.Type == "loopback" {
		d.Type = 772
	}
	return d
}

// sysctl is a number; 0 where there is none.
func (s *space) sysctl(name string) int {
	n, err := strconv.Atoi(s.Sysctls[name])
	if err != nil {
		return 0
	}
	return n
}

// firstTTL is what packets of the namespace start with.
func (s *space) firstTTL(dst netip.Addr) int {
	if n := s.sysctl("net/ipv4/ip_default_ttl"); n > 0 && dst.Is4() {
		return n
	}
	return firstTTL
}

// conf is the value of a parameter of an interface: its own, else that which
// new interfaces get.
func (s *space) conf(family, dev, name string) int {
	for _, d := range []string{dev, "default"} {
		if _, ok := s.Sysctls["net/"+family+"/conf/"+d+"/"+name]; ok {
			return s.sysctl("net/" + family + "/conf/" + d + "/" + name)
		}
	}
	return 0
}

// confAll is that for all interfaces.
func (s *space) confAll(family, name string) int {
	return s.sysctl("net/" + family + "/conf/all/" + name)
}

// forwards4 reports whether IPv4 that comes in over dev is forwarded: a value
// for all interfaces is written to each of them.
func (s *space) forwards4(dev string) bool {
	if _, ok := s.Sysctls["net/ipv4/conf/"+dev+"/forwarding"]; ok {
		return s.conf("ipv4", dev, "forwarding") != 0
	}
	return s.sysctl("net/ipv4/ip_forward") != 0 || s.confAll("ipv4", "forwarding") != 0
}

// forwards6 reports the same of IPv6, where a single interface forwards only
// by force_forwarding (6.17).
func (s *space) forwards6(dev string) bool {
	return s.confAll("ipv6", "forwarding") != 0 || s.confAll("ipv6", "force_forwarding") != 0 ||
		s.conf("ipv6", dev, "force_forwarding") != 0
}

// routesLoopback reports whether 127.0.0.0/8 may leave and come in over dev.
func (s *space) routesLoopback(dev string) bool {
	return s.conf("ipv4", dev, "route_localnet") != 0 || s.confAll("ipv4", "route_localnet") != 0
}

// bridgeNF reports whether frames within a bridge pass the hooks of IP.
func (s *space) bridgeNF(bridge *machine.Link, v6 bool) bool {
	if v6 {
		return bridge.NFCall6 || s.sysctl("net/bridge/bridge-nf-call-ip6tables") != 0
	}
	return bridge.NFCall4 || s.sysctl("net/bridge/bridge-nf-call-iptables") != 0
}

// loopback is the link that every namespace begins with.
const loopback = "lo"
