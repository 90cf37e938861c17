//go:build linux

package rt

import "encoding/binary"

// IPv6Conf is what of net/ipv6/conf of a link the kernel tells with it. To read
// the files costs a walk over the same directory of every namespace: all have
// one place in the kernel's cache of names (proc_sys_compare).
type IPv6Conf struct {
	AcceptRA, Disable int
}

// Places in IFLA_INET6_CONF, DEVCONF_* of linux/ipv6.h.
const (
	devconfAcceptRA    = 3
	devconfDisableIPv6 = 26
)

// toIPv6Conf reads an array of numbers; a shorter one is of another kernel.
func toIPv6Conf(b []byte) *IPv6Conf {
	if len(b) < 4*(devconfDisableIPv6+1) {
		return nil
	}
	at := func(i int) int { return int(int32(binary.NativeEndian.Uint32(b[4*i:]))) }
	return &IPv6Conf{AcceptRA: at(devconfAcceptRA), Disable: at(devconfDisableIPv6)}
}
