//go:build linux

package rt

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// NoNSID stands for "no id" (NETNSA_NSID_NOT_ASSIGNED): the socket's own
// namespace, or one to which its namespace has given none.
const NoNSID = -1

// rtGenMsg is struct rtgenmsg: one byte, padded to the alignment of attributes.
const rtGenMsg = 4

// NSID reads the id that the socket's namespace uses for the namespace nsfd, as
// in Link.PeerNSID and Event.NSID; NoNSID when it has none.
func (c *Conn) NSID(ctx context.Context, nsfd int) (int, error) {
	body, err := attributes(make([]byte, rtGenMsg), func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.NETNSA_FD, uint32(nsfd))
	})
	id := NoNSID
	if err == nil {
		err = c.do(ctx, request{typ: unix.RTM_GETNSID, body: body}, func(_ uint16, b []byte) error {
			var err error
			id, err = decodeNSID(b)
			return err
		})
	}
	if err != nil {
		return NoNSID, fmt.Errorf("get id of network namespace: %w", err)
	}
	return id, nil
}

// SetNSID gives the namespace nsfd an id, NoNSID: one of the kernel's choice.
// An id lasts as long as both namespaces; a second one is an unix.EEXIST.
func (c *Conn) SetNSID(ctx context.Context, nsfd, id int) error {
	body, err := attributes(make([]byte, rtGenMsg), func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.NETNSA_FD, uint32(nsfd))
		ae.Bytes(unix.NETNSA_NSID, binary.NativeEndian.AppendUint32(nil, uint32(int32(id))))
	})
	if err == nil {
		err = c.do(ctx, request{typ: unix.RTM_NEWNSID, body: body}, nil)
	}
	if err != nil {
		return fmt.Errorf("set id of network namespace: %w", err)
	}
	return nil
}

// decodeNSID reads struct rtgenmsg and the id behind it.
func decodeNSID(b []byte) (int, error) {
	id := NoNSID
	err := decode(b, rtGenMsg, func(ad *netlink.AttributeDecoder) {
		if ad.Type() == unix.NETNSA_NSID {
			id = int(ad.Int32())
		}
	})
	return id, err
}
