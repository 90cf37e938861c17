package engine

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/driver"
	"github.com/towpath/towpath/internal/ipam"
)

// maxIfname is IFNAMSIZ less the final zero (linux/if.h).
const maxIfname = 15

// ifname is the readable name if the kernel can hold it and no one has it,
// else prefix and a hash of it: the same on every run.
func ifname(prefix, rest string, taken func(string) bool) string {
	if name := prefix + rest; len(name) <= maxIfname && api.ValidIfname(name) == nil && !taken(name) {
		return name
	}
	for salt := rest; ; salt += "'" {
		sum := sha256.Sum256([]byte(salt))
		if name := (prefix + hex.EncodeToString(sum[:]))[:maxIfname]; !taken(name) {
			return name
		}
	}
}

func (d *draft) deviceTaken(name string) bool {
	for _, n := range d.view.Networks {
		if n.Device == name {
			return true
		}
	}
	return d.view.OverPort(name) != nil
}

// newMAC is a random locally administered unicast address.
func newMAC() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return ipam.MAC(b).String()
}

// claims are the prefixes that a new subnet must not overlap: those of other
// networks, and the host's live routes.
func (d *draft) claims(host []ipam.Taken) []ipam.Taken {
	taken := slices.Clone(host)
	for _, n := range d.view.Networks {
		for _, s := range n.Subnets {
			taken = append(taken, ipam.Taken{Prefix: s.Subnet, Owner: "network " + n.Name})
		}
	}
	return taken
}

// chooseSubnet gives the next free slice of the family's pools.
func (e *Engine) chooseSubnet(d *draft, v4 bool, taken []ipam.Taken) (netip.Prefix, error) {
	var pools []ipam.Pool
	for _, p := range e.Pools {
		if p.Base.Addr().Is4() == v4 {
			pools = append(pools, p)
		}
	}
	last := d.meta.subnets["4"]
	if !v4 {
		last = d.meta.subnets["6"]
		if len(pools) == 0 {
			pools = d.ulaPools()
		}
	}
	p, err := ipam.NextSubnet(pools, taken, last)
	if err != nil {
		return p, api.Errorf(api.Exhausted, "%w", err).WithFix("remove a network, give --subnet, or start towpathd with more --pool")
	}
	d.gaveSubnet(p)
	return p, nil
}

// ulaPools is the host's /48 of RFC 4193, made at first need.
func (d *draft) ulaPools() []ipam.Pool {
	if !d.meta.ula.IsValid() {
		var b [5]byte
		_, _ = rand.Read(b[:])
		d.setULA(ipam.NewULA(b))
	}
	return ipam.DefaultPools6(d.meta.ula)
}

// draftSubnets gives the network its subnets: those asked for, and one of each
// family that was asked for without.
func (e *Engine) draftSubnets(d *draft, spec *api.NetworkSpec, host []ipam.Taken) ([]api.Subnet, error) {
	taken := d.claims(host)
	prefixes := slices.Clone(spec.Subnets)
	for _, p := range prefixes {
		if t, ok := ipam.Overlaps(p, taken); ok {
			return nil, api.Errorf(api.Conflict, "subnet %s overlaps with %s of %s", p, t.Prefix, t.Owner).
				WithFix("choose another subnet, or leave --subnet out to get a free one")
		}
	}
	has := func(v4 bool) bool {
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr().Is4() == v4 })
	}
	for _, want := range []struct{ v4, on bool }{{true, spec.IPv4 == nil || *spec.IPv4}, {false, spec.IPv6}} {
		if !want.on || has(want.v4) {
			continue
		}
		p, err := e.chooseSubnet(d, want.v4, taken)
		if err != nil {
			return nil, err
		}
		prefixes = append(prefixes, p)
	}
	var out []api.Subnet
	for _, p := range prefixes {
		s, err := subnet(p, spec)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// subnet gathers what the spec says of one prefix, and chooses a gateway.
func subnet(p netip.Prefix, spec *api.NetworkSpec) (api.Subnet, error) {
	s := api.Subnet{Subnet: p}
	for name, a := range spec.AuxAddresses {
		if p.Contains(a) {
			if s.Aux == nil {
				s.Aux = map[string]netip.Addr{}
			}
			s.Aux[name] = a
		}
	}
	for _, r := range spec.IPRanges {
		if p.Overlaps(r) {
			if s.IPRange.IsValid() {
				return s, api.Errorf(api.Invalid, "subnet %s has two ip-ranges, %s and %s", p, s.IPRange, r).WithFix("leave one out")
			}
			s.IPRange = r
		}
	}
	for _, g := range spec.Gateways {
		if p.Contains(g) {
			if s.Gateway.IsValid() {
				return s, api.Errorf(api.Invalid, "subnet %s has two gateways, %s and %s", p, s.Gateway, g).WithFix("leave one out")
			}
			s.Gateway = g
		}
	}
	for name, a := range s.Aux {
		if a == s.Gateway {
			return s, api.Errorf(api.Invalid, "aux-address %s=%s is the gateway", name, a).WithFix("choose another address for one of the two")
		}
	}
	if s.Gateway.IsValid() {
		return s, nil
	}
	gw, err := ipam.NextAddr(ipam.Range{Subnet: p}, func(a netip.Addr) bool { return isAux(s, a) }, netip.Addr{})
	if err != nil {
		return s, api.Errorf(api.Exhausted, "choose gateway of %s: %w", p, err)
	}
	s.Gateway = gw
	return s, nil
}

func isAux(s api.Subnet, a netip.Addr) bool {
	for _, aux := range s.Aux {
		if aux == a {
			return true
		}
	}
	return false
}

// chooseAddresses gives an endpoint one address of each family of its network.
func (d *draft) chooseAddresses(n *api.Network, spec *api.EndpointSpec) ([]netip.Prefix, []netip.Addr, error) {
	var addrs []netip.Prefix
	var gateways []netip.Addr
	for _, v4 := range []bool{true, false} {
		subnets := slices.DeleteFunc(slices.Clone(n.Subnets), func(s api.Subnet) bool { return s.Subnet.Addr().Is4() != v4 })
		asked := spec.IP
		if !v4 {
			asked = spec.IP6
		}
		if len(subnets) == 0 && !asked.IsValid() {
			continue
		}
		s, a, err := d.chooseAddress(n, subnets, asked)
		if err != nil {
			return nil, nil, err
		}
		addrs = append(addrs, netip.PrefixFrom(a, s.Subnet.Bits()))
		if n.GatewayMode != api.GatewayIsolated {
			gateways = append(gateways, s.Gateway)
		}
	}
	return addrs, gateways, nil
}

// chooseAddress of one family: the one asked for, else the next free one of
// the first subnet that has one.
func (d *draft) chooseAddress(n *api.Network, subnets []api.Subnet, asked netip.Addr) (api.Subnet, netip.Addr, error) {
	if asked.IsValid() {
		s, err := d.checkAddress(n, subnets, asked)
		return s, asked, err
	}
	var err error
	for _, s := range subnets {
		taken := func(a netip.Addr) bool { return d.view.WithAddress(n.Name, a) != nil || a == s.Gateway || isAux(s, a) }
		var a netip.Addr
		a, err = ipam.NextAddr(ipam.Range{Subnet: s.Subnet, IPRange: s.IPRange}, taken, d.meta.leases[leaseName(n.Name, s.Subnet)])
		if err == nil {
			d.gaveAddress(n.Name, s.Subnet, a)
			return s, a, nil
		}
	}
	return api.Subnet{}, netip.Addr{}, api.Errorf(api.Exhausted, "network %s has no free address: %w", n.Name, err).
		WithFix("%s; remove one, or make a larger network", heldBy(d.view.EndpointsOn(n.Name)))
}

// heldBy names some of those who hold addresses.
func heldBy(holders []*api.Endpoint) string {
	var list []string // sorted, as they are
	for _, e := range holders {
		list = append(list, e.Sandbox)
	}
	list = slices.Compact(list)
	if len(list) > 5 {
		return fmt.Sprintf("held by %s and %d more", strings.Join(list[:5], ", "), len(list)-5)
	}
	return "held by " + strings.Join(list, ", ")
}

func (d *draft) checkAddress(n *api.Network, subnets []api.Subnet, a netip.Addr) (api.Subnet, error) {
	var ranges []string
	for _, s := range subnets {
		ranges = append(ranges, s.Subnet.String())
		if !s.Subnet.Contains(a) {
			continue
		}
		for name, aux := range s.Aux {
			if aux == a {
				return s, api.Errorf(api.Conflict, "address %s is kept for %s (aux-address)", a, name).WithFix("choose another address")
			}
		}
		holder := d.view.WithAddress(n.Name, a)
		switch {
		case !api.UsableIn(s.Subnet, a):
			return s, api.Errorf(api.Invalid, "address %s is the network or broadcast address of %s", a, s.Subnet).WithFix("choose another address")
		case a == s.Gateway:
			return s, api.Errorf(api.Conflict, "address %s is the gateway of network %s", a, n.Name).WithFix("choose another address")
		case holder != nil:
			return s, api.Errorf(api.Conflict, "address %s is taken by sandbox %s", a, holder.Sandbox).WithFix("choose another address, or leave it out to get a free one")
		}
		return s, nil
	}
	if len(ranges) == 0 {
		return api.Subnet{}, api.Errorf(api.Invalid, "network %s has no subnet of the family of %s", n.Name, a).WithFix("leave the address out, or choose a network that has one")
	}
	return api.Subnet{}, api.Errorf(api.Invalid, "address %s is outside of network %s (%s)", a, n.Name, strings.Join(ranges, ", ")).
		WithFix("choose one inside, or leave it out to get a free one")
}

// freeIfname is the first ethN that the sandbox does not have.
func (d *draft) freeIfname(sandbox string) string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("eth%d", i)
		if _, taken := d.view.Endpoints[driver.EndpointID{Sandbox: sandbox, Ifname: name}]; !taken {
			return name
		}
	}
}
