//go:build linux

package rt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Lookup is a packet that the kernel is asked the route of. Src decides nothing
// but rules and, of a packet that comes in, whether it may come that way
// (rp_filter); it may be zero.
type Lookup struct {
	Dst, Src netip.Addr
	// IIF is the link it comes in by; 0: it is sent here.
	IIF          int
	Mark         uint32
	Proto        uint8 // IPPROTO_TCP, _UDP, _ICMP or _ICMPV6; 0: none
	Sport, Dport uint16
}

// Route asks the kernel how it would route a packet now (RTM_GETROUTE without
// NLM_F_DUMP). The answer has the table that the route is of, and the one of several next hops
// that it takes. The error is the one that the packet meets: ENETUNREACH where
// there is no route, EHOSTUNREACH and EACCES of routes of type unreachable and
// prohibit, EINVAL of a blackhole, and of what may not come in by that link:
// an address that belongs elsewhere or, since Linux 6.14, a source to which the way
// back is by another link (fib_validate_source); older ones say EXDEV.
func (c *Conn) Route(ctx context.Context, l Lookup) (Route, error) {
	h := make([]byte, unix.SizeofRtMsg)
	h[0], h[1] = family(l.Dst), uint8(l.Dst.Unmap().BitLen())
	if l.Src.IsValid() {
		h[2] = h[1]
	}
	if h[0] == unix.AF_INET { // IPv6 always says it, and refuses to be asked
		binary.NativeEndian.PutUint32(h[8:], unix.RTM_F_LOOKUP_TABLE)
	}
	body, err := attributes(h, func(ae *netlink.AttributeEncoder) {
		putAddr(ae, unix.RTA_DST, l.Dst)
		putAddr(ae, unix.RTA_SRC, l.Src)
		if l.IIF != 0 {
			ae.Uint32(unix.RTA_IIF, uint32(l.IIF))
		}
		if l.Mark != 0 {
			ae.Uint32(unix.RTA_MARK, l.Mark)
		}
		if l.Proto != 0 {
			ae.Uint8(unix.RTA_IP_PROTO, l.Proto)
		}
		for typ, port := range map[uint16]uint16{unix.RTA_SPORT: l.Sport, unix.RTA_DPORT: l.Dport} {
			if port != 0 {
				ae.Bytes(typ, binary.BigEndian.AppendUint16(nil, port))
			}
		}
	})
	var out Route
	if err == nil {
		err = c.do(ctx, request{typ: unix.RTM_GETROUTE, body: body}, func(_ uint16, b []byte) error {
			out, err = decodeRoute(b)
			return err
		})
	}
	if err == nil {
		err = refusedBy(out.Type)
	}
	if err != nil {
		return Route{}, fmt.Errorf("look up route to %s: %w", l.Dst, err)
	}
	return out, nil
}

// refusedBy is the error of a route that leads nowhere, where the kernel answers
// with the route itself (fib_props).
func refusedBy(typ uint8) error {
	switch typ {
	case unix.RTN_BLACKHOLE:
		return unix.EINVAL
	case unix.RTN_UNREACHABLE:
		return unix.EHOSTUNREACH
	case unix.RTN_PROHIBIT:
		return unix.EACCES
	}
	return nil
}

// Refusal is the error number with which the kernel refuses to route; 0: err is
// another one.
func Refusal(err error) unix.Errno {
	for _, e := range []unix.Errno{unix.ENETUNREACH, unix.EINVAL, unix.EHOSTUNREACH, unix.EACCES, unix.EXDEV} {
		if errors.Is(err, e) {
			return e
		}
	}
	return 0
}
