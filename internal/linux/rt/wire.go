//go:build linux

package rt

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Constants that golang.org/x/sys/unix does not have, from the kernel's uapi.
const (
	ifaProto            = 11  // IFA_PROTO, linux/if_addr.h, Linux 5.18
	fraSportMask        = 28  // FRA_SPORT_MASK, linux/fib_rules.h, Linux 6.15
	fraDportMask        = 29  // FRA_DPORT_MASK
	ndaProtocol         = 12  // NDA_PROTOCOL, linux/neighbour.h, Linux 4.20
	rtaNHID             = 30  // RTA_NH_ID, linux/rtnetlink.h
	vethInfoPeer        = 1   // VETH_INFO_PEER, linux/veth.h
	extFilterSkipStats  = 8   // RTEXT_FILTER_SKIP_STATS, linux/rtnetlink.h
	ifBrNFCallIP6Tables = 37  // IFLA_BR_NF_CALL_IP6TABLES, linux/if_link.h
	nextHopHeader       = 8   // sizeof(struct rtnexthop)
	scopeNowhere        = 255 // RT_SCOPE_NOWHERE: any scope, in a deletion
	metricMTU           = 2   // RTAX_MTU
	addrGenNone         = 1   // IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
)

// attributes encodes attributes after a fixed header.
func attributes(header []byte, fill func(*netlink.AttributeEncoder)) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	fill(ae)
	b, err := ae.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode netlink attributes: %w", err)
	}
	return append(header, b...), nil
}

// nested writes an attribute that holds attributes.
func nested(ae *netlink.AttributeEncoder, typ uint16, fill func(*netlink.AttributeEncoder)) {
	ae.Nested(typ, func(in *netlink.AttributeEncoder) error {
		fill(in)
		return nil
	})
}

// decode skips a fixed header of size bytes and gives each attribute to each.
func decode(body []byte, size int, each func(*netlink.AttributeDecoder)) error {
	if len(body) < size {
		return fmt.Errorf("decode netlink message: %d bytes, header of %d", len(body), size)
	}
	ad, err := netlink.NewAttributeDecoder(body[size:])
	if err != nil {
		return fmt.Errorf("decode netlink attributes: %w", err)
	}
	for ad.Next() {
		each(ad)
	}
	if err := ad.Err(); err != nil {
		return fmt.Errorf("decode netlink attributes: %w", err)
	}
	return nil
}

// inside gives each attribute of a nested attribute to each.
func inside(ad *netlink.AttributeDecoder, each func(*netlink.AttributeDecoder)) {
	ad.Nested(func(in *netlink.AttributeDecoder) error {
		for in.Next() {
			each(in)
		}
		return nil
	})
}

// putAddr writes an address, unless it is the zero Addr.
func putAddr(ae *netlink.AttributeEncoder, typ uint16, a netip.Addr) {
	if a.IsValid() {
		ae.Bytes(typ, a.Unmap().AsSlice())
	}
}

// putBool writes a switch of one byte.
func putBool(ae *netlink.AttributeEncoder, typ uint16, on bool) {
	var v uint8
	if on {
		v = 1
	}
	ae.Uint8(typ, v)
}

// optional writes a switch of one byte, unless it is nil.
func optional(ae *netlink.AttributeEncoder, typ uint16, on *bool) {
	if on != nil {
		putBool(ae, typ, *on)
	}
}

// toAddr reads 4 or 16 bytes; anything else is the zero Addr.
func toAddr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// family gives the address family of an address: AF_INET for an IPv4 one, also
// one written as IPv6; AF_UNSPEC for none.
func family(a netip.Addr) uint8 {
	switch {
	case !a.IsValid():
		return unix.AF_UNSPEC
	case a.Is4() || a.Is4In6():
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// unspecified gives the address of all zeros in a family.
func unspecified(fam uint8) netip.Addr {
	if fam == unix.AF_INET {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// prefix makes a prefix from an attribute that is absent when the length is 0.
func prefix(fam uint8, b []byte, bits int) netip.Prefix {
	a := toAddr(b)
	if !a.IsValid() {
		a = unspecified(fam)
	}
	return netip.PrefixFrom(a, bits)
}

// ifInfo is struct ifinfomsg.
func ifInfo(fam uint8, index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	b[0] = fam
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}
