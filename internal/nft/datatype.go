package nft

import (
	"fmt"
	"strings"
)

// typeVerdict is the data type of verdict maps.
const typeVerdict = "verdict"

// VerdictDataType is NFT_DATA_VERDICT, the kernel's number for verdict values.
const VerdictDataType uint32 = 0xffffff00

// typeBits is the width of one part in the number of a concatenated type
// (TYPE_BITS of nft's include/datatype.h).
const typeBits = 6

// style is how the values of a data type are written.
type style uint8

const (
	styleInt     style = iota // decimal, or the name of a symbol
	styleHex                  // 0x%x
	styleMark                 // 0x%08x
	styleFlags                // names of bits, joined by commas
	styleIPv4                 // also prefixes
	styleIPv6                 // also prefixes
	styleEther                // 02:00:00:00:00:01
	styleIfname               // "eth0"
	styleIfindex              // a number, or "lo" for 1
	styleVerdict
)

// dataType is one of nft's data types.
type dataType struct {
	name    string
	id      uint32 // enum datatypes of nft
	size    int    // bytes; 0: decided by what is loaded
	host    bool   // host byte order
	style   style
	symbols []symbol
}

// dataTypes lists the types by nft's numbers.
var dataTypes = []dataType{
	{name: typeVerdict, id: 1, style: styleVerdict},
	{name: "nf_proto", id: 2, size: 1, host: true, symbols: nfprotoSymbols},
	{name: "integer", id: 4},
	{name: "ipv4_addr", id: 7, size: 4, style: styleIPv4},
	{name: "ipv6_addr", id: 8, size: 16, style: styleIPv6},
	{name: "ether_addr", id: 9, size: 6, style: styleEther},
	{name: "ether_type", id: 10, size: 2, symbols: etherTypeSymbols},
	{name: "arp_op", id: 11, size: 2, symbols: arpOpSymbols},
	{name: "inet_proto", id: 12, size: 1, symbols: protoSymbols},
	{name: "inet_service", id: 13, size: 2},
	{name: "icmp_type", id: 14, size: 1, symbols: icmpTypeSymbols},
	{name: "tcp_flag", id: 15, size: 1, style: styleFlags, symbols: tcpFlagSymbols},
	{name: "mark", id: 19, size: 4, host: true, style: styleMark},
	{name: "iface_index", id: 20, size: 4, host: true, style: styleIfindex},
	{name: "iface_type", id: 21, size: 2, host: true, symbols: linkTypeSymbols},
	{name: "uid", id: 24, size: 4, host: true},
	{name: "gid", id: 25, size: 4, host: true},
	{name: "ct_state", id: 26, size: 4, host: true, style: styleFlags, symbols: ctStateSymbols},
	{name: "ct_dir", id: 27, size: 1, host: true, symbols: ctDirSymbols},
	{name: "ct_status", id: 28, size: 4, host: true, style: styleFlags, symbols: ctStatusSymbols},
	{name: "icmpv6_type", id: 29, size: 1, symbols: icmpv6TypeSymbols},
	{name: "pkt_type", id: 31, size: 1, host: true, symbols: pktTypeSymbols},
	{name: "icmp_code", id: 32, size: 1, symbols: icmpCodeSymbols},
	{name: "icmpv6_code", id: 33, size: 1, symbols: icmpv6CodeSymbols},
	{name: "icmpx_code", id: 34, size: 1, symbols: icmpxCodeSymbols},
	{name: "devgroup", id: 35, size: 4, host: true},
	{name: "fib_addrtype", id: 38, size: 4, host: true, symbols: addrTypeSymbols},
	{name: "boolean", id: 39, size: 1, host: true, symbols: booleanSymbols},
	{name: "ifname", id: 41, size: 16, host: true, style: styleIfname},
}

// typeByName finds a data type; an unknown name gives a type of raw bytes.
func typeByName(name string) (dataType, bool) {
	for _, t := range dataTypes {
		if t.name == name {
			return t, true
		}
	}
	return dataType{name: name, style: styleHex}, false
}

// integer is a number of size bytes that has no type of its own.
func integer(size int, host bool, s style) dataType {
	return dataType{name: "integer", id: 4, size: size, host: host, style: s}
}

// typeParts splits "a . b" into data types. keyLen gives the size of a lone
// type that has none. An unknown type takes the rest of keyLen.
func typeParts(names string, keyLen int) []dataType {
	var out []dataType
	for _, name := range strings.Split(names, " . ") {
		t, _ := typeByName(name)
		if t.size == 0 {
			t.size = keyLen
		}
		out = append(out, t)
	}
	return out
}

// keyTypes gives the types of the parts of the set's key. In a set of
// intervals all numbers are in network order, so that ranges compare; names
// are bytes in either case.
func (s Set) keyTypes() []dataType {
	parts := typeParts(s.KeyType, s.KeyLen)
	if s.Flags&SetInterval != 0 {
		for i := range parts {
			parts[i].host = parts[i].host && parts[i].style == styleIfname
		}
	}
	return parts
}

// dataTypes gives the types of the parts of the map's value.
func (s Set) dataTypes() []dataType { return typeParts(s.DataType, s.DataLen) }

// TypeID gives nft's number for a type or concatenation of types, as in
// NFTA_SET_KEY_TYPE; false if a part has no number.
func TypeID(names string) (uint32, bool) {
	var id uint32
	for _, name := range strings.Split(names, " . ") {
		t, ok := typeByName(name)
		if !ok {
			return 0, false
		}
		id = id<<typeBits | t.id
	}
	return id, true
}

// TypeName is the inverse of TypeID. A number it does not know becomes
// "type#N".
func TypeName(id uint32) string {
	var names []string
	for rest := id; rest != 0; rest >>= typeBits {
		part := rest & (1<<typeBits - 1)
		name := ""
		for _, t := range dataTypes {
			if t.id == part {
				name = t.name
			}
		}
		if name == "" {
			return fmt.Sprintf("type#%d", id)
		}
		names = append([]string{name}, names...)
	}
	return strings.Join(names, " . ")
}

// TypeLen gives the length in bytes of a value of the type, each part of a
// concatenation padded to 4; false if a part has no length of its own.
func TypeLen(names string) (int, bool) {
	parts := typeParts(names, 0)
	total := 0
	for _, t := range parts {
		if t.size == 0 {
			return 0, false
		}
		total += t.size
		if len(parts) > 1 {
			total = pad4(total)
		}
	}
	return total, true
}

// HostOrder reports whether values of the lone type are in host byte order
// when the set has these flags, which nft keeps in the set's user data.
func HostOrder(name string, flags SetFlags) bool {
	parts := Set{KeyType: name, Flags: flags}.keyTypes()
	return len(parts) == 1 && parts[0].host
}

// pad4 rounds up to a whole number of 4-byte registers.
func pad4(n int) int { return (n + 3) &^ 3 }
