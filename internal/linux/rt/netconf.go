//go:build linux

package rt

import (
	"github.com/mdlayher/netlink"
)

// Attributes of linux/netconf.h, which golang.org/x/sys/unix does not have.
const (
	netconfHeader  = 4 // struct netconfmsg, one byte, padded
	netconfIndex   = 1 // NETCONFA_IFINDEX
	netconfForward = 2 // NETCONFA_FORWARDING
	netconfRPF     = 3 // NETCONFA_RP_FILTER
)

// decodeNetconf reads struct netconfmsg and its attributes.
func decodeNetconf(b []byte) (Netconf, error) {
	n := Netconf{Forward: -1, RPF: -1}
	err := decode(b, netconfHeader, func(ad *netlink.AttributeDecoder) {
		switch ad.Type() {
		case netconfIndex:
			n.Index = int(ad.Int32())
		case netconfForward:
			n.Forward = int(ad.Int32())
		case netconfRPF:
			n.RPF = int(ad.Int32())
		}
	})
	if err != nil {
		return Netconf{}, err
	}
	n.Family = b[0]
	return n, nil
}
