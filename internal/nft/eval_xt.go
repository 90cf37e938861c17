package nft

import (
	"encoding/binary"
	"slices"
)

// xt runs a match or target of iptables. Those that programs use in filter
// tables are known.
func (r *run) xt(u Unknown) status {
	x, ok := u.XT()
	if !ok {
		return unknown("unknown expression %q", u.Name)
	}
	if x.Target {
		return r.xtTarget(x)
	}
	return r.xtMatch(x)
}

func (r *run) xtMatch(x XT) status {
	switch x.Name {
	case "comment":
		return goOn()
	case "conntrack":
		return r.xtConntrack(x)
	case "addrtype":
		return r.xtAddrType(x)
	case "tcp", "udp":
		return r.xtPorts(x)
	case "multiport":
		return r.xtMultiport(x)
	case "icmp", "icmp6":
		return r.xtICMP(x)
	case "mark":
		return r.xtMark(x)
	case "ttl", "hl":
		return r.xtHops(x)
	case "rt":
		return r.xtRouting(x)
	case "physdev":
		return r.xtPhysdev(x)
	case "iprange":
		return r.xtIPRange(x)
	}
	return unknown("%s of iptables is not known", x)
}

// xtConntrack matches on state and direction of the connection (conntrack_mt
// of net/netfilter/xt_conntrack.c).
func (r *run) xtConntrack(x XT) status {
	flags, invert, states, ok := x.conntrack()
	if !ok || flags&^(xtConntrackState|xtConntrackDirection) != 0 {
		return unknown("%s of iptables asks what is not known", x)
	}
	ct := r.p.CT
	if flags&xtConntrackState != 0 && (states&xtStateBits(ct) != 0) == (invert&xtConntrackState != 0) {
		return mismatch()
	}
	if flags&xtConntrackDirection != 0 && (ct == nil || ct.Reply != (invert&xtConntrackDirection != 0)) {
		return mismatch()
	}
	return goOn()
}

func xtStateBits(ct *Conntrack) uint16 {
	var bits uint16
	switch {
	case ct == nil || ct.State&StateInvalid != 0:
		return xtStateInvalid
	case ct.State&StateUntracked != 0:
		return xtStateUntracked
	case ct.State&StateEstablished != 0:
		bits = xtStateEstablished
	case ct.State&StateRelated != 0:
		bits = xtStateRelated
	default:
		bits = xtStateNew
	}
	if ct.Status&StatusSNAT != 0 {
		bits |= xtStateSNAT
	}
	if ct.Status&StatusDNAT != 0 {
		bits |= xtStateDNAT
	}
	return bits
}

// xtAddrType asks the routing table what kind of address it is (struct
// xt_addrtype_info_v1: masks of RTN_* for source and destination, flags).
func (r *run) xtAddrType(x XT) status {
	if x.Rev != 1 || len(x.Info) < 8 || r.p.FIB == nil {
		return unknown("%s of iptables has no routing table to ask", x)
	}
	flags := binary.NativeEndian.Uint32(x.Info[4:])
	if flags&^3 != 0 { // --limit-iface-in, --limit-iface-out
		return unknown("%s of iptables asks what is not known", x)
	}
	for i, side := range []FIBFlags{FIBSAddr, FIBDAddr} {
		mask := binary.NativeEndian.Uint16(x.Info[2*i:])
		if mask == 0 {
			continue
		}
		addr := r.p.source()
		if side == FIBDAddr {
			addr = r.p.destination()
		}
		a, ok := r.p.FIB(addr, side)
		if !ok {
			return unknown("the route of %s is not known", addr)
		}
		if (mask&(1<<a.Type) != 0) == (flags&(1<<i) != 0) {
			return mismatch()
		}
	}
	return goOn()
}

// ports are those of the transport header; false for a packet without.
func (r *run) ports() (src, dst uint16, ok bool) {
	h, ok := r.header(BaseTransport)
	if !ok || len(h) < 4 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint16(h), binary.BigEndian.Uint16(h[2:]), true
}

// xtPorts matches on ranges of ports (struct xt_tcp, xt_udp: two of the source,
// two of the destination; flags of TCP are a mask and a value).
func (r *run) xtPorts(x XT) status {
	size, invertAt := 12, 11
	if x.Name == "udp" {
		size, invertAt = 9, 8
	}
	if len(x.Info) < size {
		return unknown("%s of iptables is too short", x)
	}
	src, dst, ok := r.ports()
	if !ok {
		return mismatch()
	}
	invert := x.Info[invertAt]
	for i, port := range []uint16{src, dst} {
		lo, hi := binary.NativeEndian.Uint16(x.Info[4*i:]), binary.NativeEndian.Uint16(x.Info[4*i+2:])
		if (port >= lo && port <= hi) == (invert&(1<<i) != 0) {
			return mismatch()
		}
	}
	if x.Name == "udp" {
		return goOn()
	}
	h, _ := r.header(BaseTransport)
	if option, mask := x.Info[8], x.Info[9]; option != 0 || mask != 0 && len(h) < 14 {
		return unknown("%s of iptables asks for an option", x)
	} else if mask != 0 && (h[13]&mask == x.Info[10]) == (invert&4 != 0) {
		return mismatch()
	}
	return goOn()
}

// xtMultiport matches on a list of ports and ranges (struct xt_multiport_v1).
func (r *run) xtMultiport(x XT) status {
	const most = 15
	if x.Rev != 1 || len(x.Info) < 2+3*most+1 || x.Info[0] > 2 || x.Info[1] > most {
		return unknown("%s of iptables has a form that is not known", x)
	}
	src, dst, ok := r.ports()
	if !ok {
		return mismatch()
	}
	asked := [][]uint16{{src}, {dst}, {src, dst}}[x.Info[0]]
	found := false
	for i := 0; i < int(x.Info[1]); i++ {
		lo := binary.NativeEndian.Uint16(x.Info[2+2*i:])
		hi := lo
		if x.Info[2+2*most+i] != 0 && i+1 < int(x.Info[1]) { // this and the next are a range
			i++
			hi = binary.NativeEndian.Uint16(x.Info[2+2*i:])
		}
		found = found || slices.ContainsFunc(asked, func(p uint16) bool { return p >= lo && p <= hi })
	}
	return status{ok: found == (x.Info[2+3*most] == 0)}
}

// xtICMP matches on type and range of codes (struct ipt_icmp, ip6t_icmp; type
// 255 is any in IPv4).
func (r *run) xtICMP(x XT) status {
	_, proto, ok, _ := r.p.transport()
	h, whole := r.header(BaseTransport)
	want := ProtoICMP
	if x.Name == "icmp6" {
		want = ProtoICMPv6
	}
	switch {
	case len(x.Info) < 4:
		return unknown("%s of iptables is too short", x)
	case !ok || !whole || len(h) < 2 || proto != want:
		return mismatch()
	}
	anyType := x.Name == "icmp" && x.Info[0] == 255
	matches := anyType || h[0] == x.Info[0] && h[1] >= x.Info[1] && h[1] <= x.Info[2]
	return status{ok: matches == (x.Info[3]&1 == 0)}
}

// xtMark matches on the packet's mark (struct xt_mark_mtinfo1).
func (r *run) xtMark(x XT) status {
	if x.Rev != 1 || len(x.Info) < 9 {
		return unknown("%s of iptables has a form that is not known", x)
	}
	mark, mask := binary.NativeEndian.Uint32(x.Info), binary.NativeEndian.Uint32(x.Info[4:])
	return status{ok: (r.p.Mark&mask == mark) == (x.Info[8] == 0)}
}

// xtHops compares the hops that are left (struct ipt_ttl_info, ip6t_hl_info:
// how, and the number).
func (r *run) xtHops(x XT) status {
	at, proto := 8, EtherTypeIPv4
	if x.Name == "hl" {
		at, proto = 7, EtherTypeIPv6
	}
	if len(x.Info) < 2 || x.Info[0] > 3 {
		return unknown("%s of iptables has a form that is not known", x)
	}
	if r.p.Protocol != proto || len(r.p.Network) <= at {
		return mismatch()
	}
	hops, than := r.p.Network[at], x.Info[1]
	return status{ok: []bool{hops == than, hops != than, hops < than, hops > than}[x.Info[0]]}
}

// xtRouting matches on a routing header (RFC 8200, 4.4), which few packets have.
func (r *run) xtRouting(x XT) status {
	const routing = 43
	_, proto, _, _ := r.p.transport()
	if r.p.Protocol != EtherTypeIPv6 || len(r.p.Network) < 40 || r.p.Network[6] == proto && proto != routing {
		return mismatch()
	}
	return unknown("%s of iptables asks what is not known", x)
}

// xtTarget runs a target.
func (r *run) xtTarget(x XT) status {
	if t, action, ok := x.xtNAT(); ok {
		s := decide(Verdict{Code: Accept}, action)
		s.nat = &t
		return s
	}
	switch {
	case slices.Contains([]string{"LOG", "NFLOG", "AUDIT", "TRACE", "CHECKSUM", "TCPMSS", "CLASSIFY"}, x.Name):
		return goOn()
	case x.Name == "MARK" && x.Rev == 2 && len(x.Info) >= 8:
		mark, mask := binary.NativeEndian.Uint32(x.Info), binary.NativeEndian.Uint32(x.Info[4:])
		r.p.Mark = r.p.Mark&^mask ^ mark
		return goOn()
	case x.Name == "REJECT" && len(x.Info) >= 4:
		reject := xtReject(binary.NativeEndian.Uint32(x.Info), r.p.Protocol == EtherTypeIPv6)
		r.out.Reject = &reject
		return decide(Verdict{Code: Drop}, "reject")
	}
	return unknown("%s of iptables is not known", x)
}

// xtReject gives the answer of enum ipt_reject_with or ip6t_reject_with.
func xtReject(with uint32, ipv6 bool) Reject {
	codes, reset := []uint8{0, 1, 2, 3, 3, 9, 10, 0, 13}, uint32(7)
	if ipv6 {
		codes, reset = []uint8{0, 1, 2, 3, 4, 4, 0, 5, 6}, 6
	}
	switch {
	case with == reset:
		return Reject{Type: RejectTCP}
	case int(with) < len(codes):
		return Reject{Type: RejectICMP, Code: codes[with]}
	}
	return Reject{Type: RejectICMP, Code: codes[3]}
}
