package nft

import (
	"encoding/binary"
	"net/netip"
)

// Bits of enum nf_nat_range flags: which parts of a range count. The rest have
// the numbers of NATFlags.
const (
	rangeAddresses = 1
	rangePorts     = 2
)

// Sizes of struct nf_nat_ipv4_multi_range_compat, with one range, and of struct
// nf_nat_range; nf_nat_range2 begins like the latter.
const (
	multiRangeSize = 20
	rangeSize      = 40
)

// xtNAT is the translation that a target of iptables asks for; false for targets
// that translate nothing or have a form that is not known.
func (x XT) xtNAT() (Translation, string, bool) {
	var t Translation
	var action string
	old := false // the struct that IPv4 had first
	switch {
	case x.Name == "DNAT" && x.Rev <= 2:
		t.Type, action, old = DNAT, "dnat", x.Rev == 0
	case x.Name == "SNAT" && x.Rev <= 1:
		t.Type, action, old = SNAT, "snat", x.Rev == 0
	case x.Name == "MASQUERADE" && x.Rev == 0:
		t.Type, t.Masquerade, action, old = SNAT, true, "masquerade", len(x.Info) < rangeSize
	case x.Name == "REDIRECT" && x.Rev == 0:
		t.Type, t.Redirect, action, old = DNAT, true, "redirect", len(x.Info) < rangeSize
	default:
		return t, "", false
	}
	if old {
		return t, action, t.multiRange(x.Info)
	}
	return t, action, t.natRange(x.Info)
}

// multiRange reads struct nf_nat_ipv4_multi_range_compat.
func (t *Translation) multiRange(b []byte) bool {
	if len(b) < multiRangeSize || binary.NativeEndian.Uint32(b) != 1 {
		return false
	}
	return t.fill(binary.NativeEndian.Uint32(b[4:]), b[8:12], b[12:16], b[16:20])
}

// natRange reads struct nf_nat_range: 16 bytes an address, of which IPv4 has the
// first four.
func (t *Translation) natRange(b []byte) bool {
	if len(b) < rangeSize {
		return false
	}
	lo, hi := b[4:20], b[20:36]
	if isIPv4(lo) && isIPv4(hi) {
		lo, hi = lo[:4], hi[:4]
	}
	return t.fill(binary.NativeEndian.Uint32(b), lo, hi, b[36:40])
}

// isIPv4 reports whether of a union of addresses only the first four bytes are
// used. No address of IPv6 that packets are translated to looks so.
func isIPv4(b []byte) bool {
	for _, x := range b[4:] {
		if x != 0 {
			return false
		}
	}
	return true
}

// fill takes over what the flags say counts.
func (t *Translation) fill(flags uint32, lo, hi, ports []byte) bool {
	if flags&rangeAddresses != 0 {
		t.Addr, _ = netip.AddrFromSlice(lo)
		if last, _ := netip.AddrFromSlice(hi); last != t.Addr {
			t.AddrMax = last
		}
	}
	if flags&rangePorts != 0 {
		t.Port = binary.BigEndian.Uint16(ports)
		if last := binary.BigEndian.Uint16(ports[2:]); last != t.Port {
			t.PortMax = last
		}
	}
	t.Flags = NATFlags(flags) & (NATRandom | NATPersistent | NATFullyRandom)
	return true
}
