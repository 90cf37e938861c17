// Package ipam finds the next free subnet, address and MAC address out of what
// is taken. It is pure: it remembers nothing, and what it returns is taken only
// once the caller has stored it, in the transaction that creates its user.
//
// What was given last comes last: each search starts behind it and wraps. An
// address that was just given up is so not at once somebody else's, while
// peers, conntrack and ARP caches still know it.
package ipam

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// ErrExhausted matches a *SubnetsExhaustedError and an *AddrsExhaustedError.
var ErrExhausted = errors.New("exhausted")

// A Pool is a range of addresses that is cut into subnets, its slices.
type Pool struct {
	Base netip.Prefix
	Size int // prefix length of a slice, at least Base's; at most 30 for IPv4, 126 for IPv6
}

// String is as the flag writes it: 172.20.0.0/14,size=24.
func (p Pool) String() string { return fmt.Sprintf("%s,size=%d", p.Base, p.Size) }

// Taken is a range that cannot be given: a network's subnet, a route of the
// host. Owner is its name in messages, such as "network front".
type Taken struct {
	Prefix netip.Prefix
	Owner  string
}

// DefaultPools4 returns /24 slices of two private ranges (RFC 1918): 1024 and
// then 4096 of them, of 253 endpoints each.
//
// The default networks of Docker (172.17.0.0/16) and Podman (10.88.0.0/16) are
// in neither, nor are the ranges which clouds and clusters use by default and
// of which a host has no route to see: 10.128.0.0/9 (subnets of a Google Cloud
// network in auto mode), 10.96.0.0/12 (services of kubeadm), 10.244.0.0/16
// (Flannel), 10.42.0.0/15 (k3s), 172.31.0.0/16 (default network of AWS).
// Docker's further networks may lie in 172.20.0.0/14: those have routes.
func DefaultPools4() []Pool {
	return []Pool{
		{Base: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 20}), 14), Size: 24},
		{Base: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64}), 12), Size: 24},
	}
}

// DefaultPools6 returns the 65536 /64 slices of a host's /48, see NewULA.
func DefaultPools6(ula netip.Prefix) []Pool { return []Pool{{Base: ula, Size: 64}} }

// NewULA makes a unique local /48: fd00::/8 and 40 random bits of global ID
// (RFC 4193, 3.1 and 3.2). It is made once a host and kept, so that two hosts
// that are joined one day do not collide.
func NewULA(random [5]byte) netip.Prefix {
	addr := [16]byte{0xfd}
	copy(addr[1:], random[:])
	return netip.PrefixFrom(netip.AddrFrom16(addr), 48)
}

// MAC makes an address for an interface: unicast, locally administered, and 40
// random bits. The low nibble of the first byte is 2, which IEEE 802c leaves to
// the administrator of the network.
func MAC(random [5]byte) net.HardwareAddr {
	return append(net.HardwareAddr{0x02}, random[:]...)
}

// SubnetsExhaustedError says that pools have no free slice.
type SubnetsExhaustedError struct {
	Pools   []Pool
	Slices  uint64   // how many there are in all, at most 2^64-1
	Holders []string // owners of what is taken in them, by size of the range, the largest first
	More    int      // owners that Holders does not name
}

// Error names the pools and who holds them.
func (e *SubnetsExhaustedError) Error() string {
	pools := make([]string, len(e.Pools))
	for i, p := range e.Pools {
		pools[i] = p.String()
	}
	text := fmt.Sprintf("allocate subnet: none of %d is free in %s", e.Slices, strings.Join(pools, " and "))
	if len(e.Holders) > 0 {
		text += "; taken by " + strings.Join(e.Holders, ", ")
	}
	if e.More > 0 {
		text += fmt.Sprintf(" and %d more", e.More)
	}
	return text
}

// Is makes the error match ErrExhausted.
func (e *SubnetsExhaustedError) Is(target error) bool { return target == ErrExhausted }

// AddrsExhaustedError says that a range has no free address.
type AddrsExhaustedError struct {
	Range  Range
	Usable uint64 // addresses a host may have, all of them taken
}

// Error names the range and its size.
func (e *AddrsExhaustedError) Error() string {
	return fmt.Sprintf("allocate address: none of %d is free in %s", e.Usable, e.Range)
}

// Is makes the error match ErrExhausted.
func (e *AddrsExhaustedError) Is(target error) bool { return target == ErrExhausted }
