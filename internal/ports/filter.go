//go:build linux

package ports

import (
	"encoding/binary"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Filters are classic BPF, which any program may attach to its own sockets.

// silent drops every packet: return 0, keep no byte.
func silent() []unix.SockFilter { return []unix.SockFilter{ret(0)} }

// Offsets that linux/filter.h gives negative numbers: into the network header,
// whatever is before the packet's data, and to what is known beside it.
const (
	netOffset = 0xfff00000     // SKF_NET_OFF
	protocol  = 0xfffff000 + 0 // SKF_AD_OFF + SKF_AD_PROTOCOL
	wholeOf   = 0xffffffff     // more bytes than a packet has
)

// Where the source is in a header of IPv4 (RFC 791) and of IPv6 (RFC 8200).
const (
	source4 = 12
	source6 = 8
)

func ret(bytes uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: bytes}
}

func load(at uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
}

func and(mask uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
}

// unequal jumps over so many instructions unless the value is k.
func unequal(k uint32, over int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: uint8(over)}
}

// only lets packets of one family in, and of these, if there are any prefixes,
// only those from there.
func only(v4 bool, from []netip.Prefix) []unix.SockFilter {
	family, source := uint32(unix.ETH_P_IPV6), uint32(source6)
	if v4 {
		family, source = unix.ETH_P_IP, source4
	}
	code := []unix.SockFilter{load(protocol), unequal(family, 1), {Code: unix.BPF_JMP | unix.BPF_JA, K: 1}, ret(0)}
	if len(from) == 0 {
		return append(code, ret(wholeOf))
	}
	for _, p := range from {
		code = append(code, match(source, p)...)
	}
	return append(code, ret(0))
}

// match keeps a packet whose source is in the prefix, and goes on otherwise.
func match(source uint32, p netip.Prefix) []unix.SockFilter {
	addr := p.Masked().Addr().AsSlice()
	words := (p.Bits() + 31) / 32
	var code []unix.SockFilter
	for i := range words {
		mask := ^uint32(0)
		if left := p.Bits() - 32*i; left < 32 {
			mask <<= 32 - left
		}
		over := 3*(words-i-1) + 1 // the words after this, and the return
		code = append(code, load(netOffset+source+uint32(4*i)), and(mask), unequal(binary.BigEndian.Uint32(addr[4*i:]), over))
	}
	return append(code, ret(wholeOf))
}

// attach gives a socket a filter in place of the one it had.
func attach(fd int, code []unix.SockFilter) error {
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", err)
}
