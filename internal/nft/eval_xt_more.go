package nft

import (
	"net/netip"
)

// Bits of xt_physdev.h.
const (
	xtPhysdevIn      = 0x01
	xtPhysdevOut     = 0x02
	xtPhysdevBridged = 0x04
	xtPhysdevIsIn    = 0x08
	xtPhysdevIsOut   = 0x10
)

// xtPhysdev matches on the bridge ports that a packet comes in and goes out by
// (struct xt_physdev_info: name and mask of each, inversion, and what to look
// at). What is not bridged passes what is asked in the negative only.
func (r *run) xtPhysdev(x XT) status {
	if len(x.Info) < 66 {
		return unknown("%s of iptables is too short", x)
	}
	in, out := r.p.PortIn, r.p.PortOut
	invert, mask := x.Info[64], x.Info[65]
	for bit, is := range map[uint8]bool{
		xtPhysdevIn:      in != "" && sameName(in, x.Info[0:16], x.Info[16:32]),
		xtPhysdevOut:     out != "" && sameName(out, x.Info[32:48], x.Info[48:64]),
		xtPhysdevBridged: out != "",
		xtPhysdevIsIn:    in != "",
		xtPhysdevIsOut:   out != "",
	} {
		if mask&bit != 0 && is == (invert&bit != 0) {
			return mismatch()
		}
	}
	return goOn()
}

// sameName compares a name of a device under a mask (ifname_compare_aligned).
func sameName(name string, want, mask []byte) bool {
	var have [16]byte
	copy(have[:], name)
	for i := range have {
		if (have[i]^want[i])&mask[i] != 0 {
			return false
		}
	}
	return true
}

// Bits of xt_iprange.h.
const (
	xtIPRangeSrc    = 1 << 0
	xtIPRangeDst    = 1 << 1
	xtIPRangeInvert = 4 // by how much the bits of inversion are shifted
)

// xtIPRange matches on ranges of addresses (struct xt_iprange_mtinfo: first and
// last source, first and last destination, flags).
func (r *run) xtIPRange(x XT) status {
	if x.Rev != 1 || len(x.Info) < 65 {
		return unknown("%s of iptables has a form that is not known", x)
	}
	flags := x.Info[64]
	for i, a := range []netip.Addr{r.p.source(), r.p.destination()} {
		bit := uint8(xtIPRangeSrc << i)
		if flags&bit == 0 {
			continue
		}
		lo, _ := netip.AddrFromSlice(x.Info[32*i : 32*i+a.BitLen()/8])
		hi, _ := netip.AddrFromSlice(x.Info[32*i+16 : 32*i+16+a.BitLen()/8])
		within := a.Compare(lo) >= 0 && a.Compare(hi) <= 0
		if within == (flags&(bit<<xtIPRangeInvert) != 0) {
			return mismatch()
		}
	}
	return goOn()
}
