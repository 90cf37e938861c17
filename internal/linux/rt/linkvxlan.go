//go:build linux

package rt

import (
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

func (v *VXLAN) attribute(ad *netlink.AttributeDecoder) {
	switch ad.Type() {
	case unix.IFLA_VXLAN_ID:
		v.VNI = ad.Uint32()
	case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
		v.Local = toAddr(ad.Bytes())
	case unix.IFLA_VXLAN_GROUP, unix.IFLA_VXLAN_GROUP6:
		v.Remote = toAddr(ad.Bytes())
	case unix.IFLA_VXLAN_PORT:
		v.Port = binary.BigEndian.Uint16(append(ad.Bytes(), 0, 0))
	case unix.IFLA_VXLAN_LEARNING:
		v.Learning = ad.Uint8() != 0
	case unix.IFLA_VXLAN_LINK:
		v.Link = int(ad.Uint32())
	}
}
