package ipam

import (
	"fmt"
	"net/netip"

	"go4.org/netipx"
)

// A Range is where the addresses of a network come from.
type Range struct {
	Subnet  netip.Prefix
	IPRange netip.Prefix // a part of Subnet, or the zero Prefix for all of it
}

// String names the part and the whole.
func (r Range) String() string {
	if !r.IPRange.IsValid() {
		return r.Subnet.String()
	}
	return fmt.Sprintf("%s of %s", r.IPRange, r.Subnet)
}

// NextAddr returns the first address of r behind after, the one given last,
// that a host may have and taken does not report. Behind the last address it
// goes on with the first; after itself is tried last. Where after lies outside
// of r, or is the zero Addr, the search starts with the first address.
//
// The caller's taken reports gateways and reserved addresses too. It is asked
// once for each address that is taken behind after, and once more: the size of
// the subnet does not matter. The error is an *AddrsExhaustedError, or says
// that IPRange is not in Subnet.
func NextAddr(r Range, taken func(netip.Addr) bool, after netip.Addr) (netip.Addr, error) {
	within, err := r.usable()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("allocate address: %w", err)
	}
	if !within.IsValid() {
		return netip.Addr{}, &AddrsExhaustedError{Range: r}
	}
	start := within.From()
	if within.Contains(after) {
		start = next(within, after)
	}
	asked := uint64(0)
	for addr := start; ; {
		if !taken(addr) {
			return addr, nil
		}
		asked++
		if addr = next(within, addr); addr == start {
			return netip.Addr{}, &AddrsExhaustedError{Range: r, Usable: asked}
		}
	}
}

// next is the address behind one, in a range that is closed to a ring.
func next(ring netipx.IPRange, addr netip.Addr) netip.Addr {
	if addr == ring.To() {
		return ring.From()
	}
	return addr.Next()
}

// usable returns the part of r that hosts may have; it may be empty.
func (r Range) usable() (netipx.IPRange, error) {
	hosts := usableIn(r.Subnet)
	if !r.IPRange.IsValid() {
		return hosts, nil
	}
	if !r.Subnet.Contains(r.IPRange.Addr()) || r.IPRange.Bits() < r.Subnet.Bits() {
		return netipx.IPRange{}, fmt.Errorf("range %s is not in subnet %s", r.IPRange, r.Subnet)
	}
	part := netipx.RangeOfPrefix(r.IPRange)
	from, to := part.From(), part.To()
	if from.Less(hosts.From()) {
		from = hosts.From()
	}
	if hosts.To().Less(to) {
		to = hosts.To()
	}
	return netipx.IPRangeFrom(from, to), nil
}

// usableIn returns the addresses that hosts may have in a subnet: for IPv4 not
// its first (the network) nor its last (broadcast), except in a /31, which has
// two hosts and neither of these (RFC 3021); for IPv6 not its first (the
// subnet-router anycast address, RFC 4291 2.6.1). The zero IPRange means none.
func usableIn(subnet netip.Prefix) netipx.IPRange {
	subnet = subnet.Masked()
	bits := subnet.Addr().BitLen() - subnet.Bits()
	if !subnet.IsValid() || bits == 0 {
		return netipx.IPRange{}
	}
	all := netipx.RangeOfPrefix(subnet)
	switch {
	case subnet.Addr().Is6():
		return netipx.IPRangeFrom(all.From().Next(), all.To())
	case bits == 1:
		return all
	}
	return netipx.IPRangeFrom(all.From().Next(), all.To().Prev())
}
