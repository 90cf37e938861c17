//go:build linux

package rt

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ifAddrMsg is the size of struct ifaddrmsg.
const ifAddrMsg = unix.SizeofIfAddrmsg

// Address is an address of a link.
type Address struct {
	Index  int          // of the link
	Prefix netip.Prefix // the address itself, with the length of its network
	Peer   netip.Addr   // the other end of a point-to-point address; else zero
	// Proto says who set the address (IFA_PROTO, Linux 5.18; older kernels
	// ignore it). 0 to 3 are the kernel's own.
	Proto uint8
	NoDAD bool  // usable at once, without duplicate address detection (IPv6)
	Scope uint8 // RT_SCOPE_*; the kernel decides it for IPv6
	// Flags are IFA_F_* as read, such as IFA_F_TENTATIVE and IFA_F_DADFAILED.
	// They are not written; NoDAD is.
	Flags uint32
}

// Addresses lists the addresses of the link index, filtered in the kernel, or of
// all links when index is 0.
func (c *Conn) Addresses(ctx context.Context, index int) ([]Address, error) {
	h := make([]byte, ifAddrMsg)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	req := request{typ: unix.RTM_GETADDR, body: h}
	out, err := list(ctx, c, req, 0, func(_ uint16, b []byte) (Address, bool, error) {
		a, err := decodeAddress(b)
		return a, index == 0 || a.Index == index, err
	})
	if err != nil {
		return out, fmt.Errorf("list addresses: %w", err)
	}
	return out, nil
}

// AddAddress adds an address. One that is there is an unix.EEXIST.
func (c *Conn) AddAddress(ctx context.Context, a Address) error {
	return c.changeAddress(ctx, "add", unix.RTM_NEWADDR, netlink.Create|netlink.Excl, a)
}

// ReplaceAddress adds an address, or changes the flags and the Proto of one that
// is there.
func (c *Conn) ReplaceAddress(ctx context.Context, a Address) error {
	return c.changeAddress(ctx, "replace", unix.RTM_NEWADDR, netlink.Create|netlink.Replace, a)
}

// DelAddress deletes an address by link and prefix. There being none is an
// unix.EADDRNOTAVAIL.
func (c *Conn) DelAddress(ctx context.Context, a Address) error {
	return c.changeAddress(ctx, "delete", unix.RTM_DELADDR, 0, a)
}

func (c *Conn) changeAddress(ctx context.Context, verb string, typ uint16, flags netlink.HeaderFlags, a Address) error {
	body, err := a.encode()
	if err == nil {
		err = c.do(ctx, request{typ: typ, flags: flags, body: body}, nil)
	}
	if err != nil {
		return fmt.Errorf("%s address %s on link %d: %w", verb, a.Prefix, a.Index, err)
	}
	return nil
}

// encode writes struct ifaddrmsg and its attributes. An IPv4 network that has a
// broadcast address (RFC 3021: not a /31 or /32) gets it set.
func (a Address) encode() ([]byte, error) {
	if !a.Prefix.IsValid() {
		return nil, fmt.Errorf("prefix %s: %w", a.Prefix, unix.EINVAL)
	}
	h := make([]byte, ifAddrMsg)
	h[0] = family(a.Prefix.Addr())
	h[1] = uint8(a.Prefix.Bits())
	h[3] = a.Scope
	binary.NativeEndian.PutUint32(h[4:], uint32(a.Index))
	return attributes(h, func(ae *netlink.AttributeEncoder) {
		putAddr(ae, unix.IFA_LOCAL, a.Prefix.Addr())
		if a.Peer.IsValid() {
			putAddr(ae, unix.IFA_ADDRESS, a.Peer)
		} else {
			putAddr(ae, unix.IFA_ADDRESS, a.Prefix.Addr())
			putAddr(ae, unix.IFA_BROADCAST, broadcast(a.Prefix))
		}
		if a.NoDAD {
			ae.Uint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
		}
		if a.Proto != 0 {
			ae.Uint8(ifaProto, a.Proto)
		}
	})
}

// broadcast gives the last address of an IPv4 network longer than two.
func broadcast(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}
	}
	b := p.Addr().As4()
	host := uint32(1)<<(32-p.Bits()) - 1
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|host)
	return netip.AddrFrom4(b)
}

// decodeAddress reads struct ifaddrmsg and its attributes. IFA_LOCAL is the
// address where both are there and differ; IPv6 without a peer has only the
// other one.
func decodeAddress(b []byte) (Address, error) {
	if len(b) < ifAddrMsg {
		return Address{}, fmt.Errorf("decode address: %d bytes", len(b))
	}
	a := Address{Scope: b[3], Flags: uint32(b[2]), Index: int(binary.NativeEndian.Uint32(b[4:]))}
	var local, address netip.Addr
	err := decode(b, ifAddrMsg, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case unix.IFA_LOCAL:
			local = toAddr(ad.Bytes())
		case unix.IFA_ADDRESS:
			address = toAddr(ad.Bytes())
		case unix.IFA_FLAGS:
			a.Flags = ad.Uint32()
		case ifaProto:
			a.Proto = ad.Uint8()
		}
	})
	if err != nil {
		return Address{}, err
	}
	if !local.IsValid() {
		local = address
	}
	if address != local {
		a.Peer = address
	}
	a.Prefix = netip.PrefixFrom(local, int(b[1]))
	a.NoDAD = a.Flags&unix.IFA_F_NODAD != 0
	return a, nil
}
