//go:build linux

// Package diag has one job: to list the sockets that wait for packets in a
// network namespace (sock_diag(7)), and the processes that have them open.
package diag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Socket is a socket that waits for packets.
type Socket struct {
	Proto  uint8 // IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP
	Local  netip.AddrPort
	Index  int  // of the link it is bound to; 0: all
	V6Only bool // an IPv6 socket that takes no IPv4
	UID    uint32
	Inode  uint32 // as in the link /proc/PID/fd/N, socket:[INODE]
}

// ErrTooMany says that there are more sockets than were asked for.
var ErrTooMany = errors.New("more sockets than the limit")

const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY of linux/sock_diag.h
	sizeofReq        = 56 // struct inet_diag_req_v2
	sizeofMsg        = 72 // struct inet_diag_msg
	skV6Only         = 11 // INET_DIAG_SKV6ONLY of linux/inet_diag.h

	stateClose  = 7  // TCP_CLOSE, which a datagram socket without a peer is in
	stateListen = 10 // TCP_LISTEN
)

// Listeners lists the sockets of the namespace of nsfd that wait for packets, at
// most limit of each protocol and family if it is above zero. More are an
// ErrTooMany beside the first ones. SCTP may be missing from the kernel.
func Listeners(ctx context.Context, nsfd, limit int) ([]Socket, error) {
	var out []Socket
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
			list, err := listen(ctx, nsfd, fam, proto, limit)
			out = append(out, list...)
			if proto == unix.IPPROTO_SCTP && errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return out, fmt.Errorf("list sockets: %w", err)
			}
		}
	}
	return out, nil
}

// listen lists those of one family and protocol, by a socket of its own: what is
// left of a listing that is given up goes with it.
func listen(ctx context.Context, nsfd int, fam, proto uint8, limit int) (out []Socket, err error) {
	sock, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: nsfd})
	if err != nil {
		return nil, err
	}
	defer sock.Close()
	stop := context.AfterFunc(ctx, func() { _ = sock.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	state := uint32(1) << stateListen
	if proto == unix.IPPROTO_UDP {
		state = 1 << stateClose
	}
	req := make([]byte, sizeofReq)
	req[0], req[1] = fam, proto
	binary.NativeEndian.PutUint32(req[4:], state)
	if _, err := sock.Send(netlink.Message{
		Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump}, Data: req,
	}); err != nil {
		return nil, err
	}
	for m, err := range sock.ReceiveIter() {
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return out, context.Cause(ctx)
		case err != nil:
			return out, err
		case limit > 0 && len(out) == limit:
			return out, fmt.Errorf("%w of %d", ErrTooMany, limit)
		}
		s, err := decode(proto, m.Data)
		if err != nil {
			return out, err
		}
		out = append(out, s)
	}
	return out, nil
}

// decode reads struct inet_diag_msg and its attributes.
func decode(proto uint8, b []byte) (Socket, error) {
	if len(b) < sizeofMsg {
		return Socket{}, fmt.Errorf("decode socket: %d bytes", len(b))
	}
	addr := netip.AddrFrom16([16]byte(b[8:24]))
	if b[0] == unix.AF_INET {
		addr = netip.AddrFrom4([4]byte(b[8:12]))
	}
	s := Socket{
		Proto: proto,
		Local: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[4:])),
		Index: int(binary.NativeEndian.Uint32(b[40:])),
		UID:   binary.NativeEndian.Uint32(b[64:]), Inode: binary.NativeEndian.Uint32(b[68:]),
	}
	ad, err := netlink.NewAttributeDecoder(b[sizeofMsg:])
	if err != nil {
		return s, fmt.Errorf("decode socket: %w", err)
	}
	for ad.Next() {
		if ad.Type() == skV6Only {
			s.V6Only = ad.Uint8() != 0
		}
	}
	if err := ad.Err(); err != nil {
		return s, fmt.Errorf("decode socket: %w", err)
	}
	return s, nil
}
