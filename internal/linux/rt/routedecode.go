//go:build linux

package rt

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// decodeRoute reads struct rtmsg and its attributes.
func decodeRoute(b []byte) (Route, error) {
	if len(b) < unix.SizeofRtMsg {
		return Route{}, fmt.Errorf("decode route: %d bytes", len(b))
	}
	r := Route{TOS: b[3], Table: uint32(b[4]), Protocol: b[5], Scope: b[6], Type: b[7]}
	r.Flags = binary.NativeEndian.Uint32(b[8:])
	r.Onlink = r.Flags&unix.RTNH_F_ONLINK != 0
	var dst []byte
	err := decode(b, unix.SizeofRtMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.RTA_DST:
			dst = ad.Bytes()
		case unix.RTA_SRC:
			r.From = netip.PrefixFrom(toAddr(ad.Bytes()), int(b[2]))
		default:
			r.attribute(ad)
		}
	})
	if err != nil {
		return Route{}, err
	}
	r.Dst = prefix(b[0], dst, int(b[1]))
	return r, nil
}

// attribute takes one attribute of a route message.
func (r *Route) attribute(ad *netlink.AttributeDecoder) {
	switch ad.Type() {
	case unix.RTA_TABLE:
		r.Table = ad.Uint32()
	case unix.RTA_GATEWAY:
		r.Gateway = toAddr(ad.Bytes())
	case unix.RTA_VIA:
		r.Gateway = toVia(ad.Bytes())
	case unix.RTA_OIF:
		r.OIF = int(ad.Uint32())
	case unix.RTA_PRIORITY:
		r.Metric = ad.Uint32()
	case unix.RTA_PREFSRC:
		r.Src = toAddr(ad.Bytes())
	case unix.RTA_MULTIPATH:
		ad.Do(func(b []byte) error {
			var err error
			r.Hops, err = decodeHops(b)
			return err
		})
	case unix.RTA_ENCAP_TYPE:
		r.Encap = ad.Uint16()
	case rtaNHID:
		r.NextHopID = ad.Uint32()
	case unix.RTA_METRICS:
		inside(ad, func(in *netlink.AttributeDecoder) {
			if in.Type() == metricMTU {
				r.MTU = int(in.Uint32())
			}
		})
	}
}

// toVia reads struct rtvia: a family of two bytes, then the address.
func toVia(b []byte) netip.Addr {
	if len(b) < 2 {
		return netip.Addr{}
	}
	return toAddr(b[2:])
}

// decodeHops reads an array of struct rtnexthop.
func decodeHops(b []byte) ([]Hop, error) {
	var out []Hop
	for len(b) >= nextHopHeader {
		size := int(binary.NativeEndian.Uint16(b))
		if size < nextHopHeader || size > len(b) {
			return nil, fmt.Errorf("decode next hop: %d bytes in %d", size, len(b))
		}
		hop := Hop{
			Onlink: b[2]&unix.RTNH_F_ONLINK != 0,
			Weight: int(b[3]) + 1,
			OIF:    int(binary.NativeEndian.Uint32(b[4:])),
		}
		err := decode(b[:size], nextHopHeader, func(ad *netlink.AttributeDecoder) {
			switch ad.Type() {
			case unix.RTA_GATEWAY:
				hop.Gateway = toAddr(ad.Bytes())
			case unix.RTA_VIA:
				hop.Gateway = toVia(ad.Bytes())
			}
		})
		if err != nil {
			return nil, err
		}
		out = append(out, hop)
		b = b[min((size+3)&^3, len(b)):]
	}
	return out, nil
}
