package nft

// field is a header field by nft's name.
type field struct {
	proto  string // ether, ip, ip6, arp, tcp, ...; th for any with ports
	name   string
	base   PayloadBase
	offset uint32 // bytes
	typ    dataType
}

// fields lists the header fields that are whole bytes.
var fields = []field{
	{"ether", "daddr", BaseLink, 0, mustType("ether_addr")},
	{"ether", "saddr", BaseLink, 6, mustType("ether_addr")},
	{"ether", "type", BaseLink, 12, mustType("ether_type")},

	{"ip", "length", BaseNetwork, 2, integer(2, false, styleInt)},
	{"ip", "id", BaseNetwork, 4, integer(2, false, styleInt)},
	{"ip", "frag-off", BaseNetwork, 6, integer(2, false, styleInt)},
	{"ip", "ttl", BaseNetwork, 8, integer(1, false, styleInt)},
	{"ip", "protocol", BaseNetwork, 9, mustType("inet_proto")},
	{"ip", "checksum", BaseNetwork, 10, integer(2, false, styleInt)},
	{"ip", "saddr", BaseNetwork, 12, mustType("ipv4_addr")},
	{"ip", "daddr", BaseNetwork, 16, mustType("ipv4_addr")},

	{"ip6", "length", BaseNetwork, 4, integer(2, false, styleInt)},
	{"ip6", "nexthdr", BaseNetwork, 6, mustType("inet_proto")},
	{"ip6", "hoplimit", BaseNetwork, 7, integer(1, false, styleInt)},
	{"ip6", "saddr", BaseNetwork, 8, mustType("ipv6_addr")},
	{"ip6", "daddr", BaseNetwork, 24, mustType("ipv6_addr")},

	{"arp", "htype", BaseNetwork, 0, integer(2, false, styleInt)},
	{"arp", "ptype", BaseNetwork, 2, mustType("ether_type")},
	{"arp", "hlen", BaseNetwork, 4, integer(1, false, styleInt)},
	{"arp", "plen", BaseNetwork, 5, integer(1, false, styleInt)},
	{"arp", "operation", BaseNetwork, 6, mustType("arp_op")},
	{"arp", "saddr ether", BaseNetwork, 8, mustType("ether_addr")},
	{"arp", "saddr ip", BaseNetwork, 14, mustType("ipv4_addr")},
	{"arp", "daddr ether", BaseNetwork, 18, mustType("ether_addr")},
	{"arp", "daddr ip", BaseNetwork, 24, mustType("ipv4_addr")},

	{"tcp", "sport", BaseTransport, 0, mustType("inet_service")},
	{"tcp", "dport", BaseTransport, 2, mustType("inet_service")},
	{"tcp", "sequence", BaseTransport, 4, integer(4, false, styleInt)},
	{"tcp", "ackseq", BaseTransport, 8, integer(4, false, styleInt)},
	{"tcp", "flags", BaseTransport, 13, mustType("tcp_flag")},
	{"tcp", "window", BaseTransport, 14, integer(2, false, styleInt)},
	{"tcp", "checksum", BaseTransport, 16, integer(2, false, styleInt)},
	{"tcp", "urgptr", BaseTransport, 18, integer(2, false, styleInt)},

	{"udp", "sport", BaseTransport, 0, mustType("inet_service")},
	{"udp", "dport", BaseTransport, 2, mustType("inet_service")},
	{"udp", "length", BaseTransport, 4, integer(2, false, styleInt)},
	{"udp", "checksum", BaseTransport, 6, integer(2, false, styleInt)},

	{"udplite", "sport", BaseTransport, 0, mustType("inet_service")},
	{"udplite", "dport", BaseTransport, 2, mustType("inet_service")},

	{"sctp", "sport", BaseTransport, 0, mustType("inet_service")},
	{"sctp", "dport", BaseTransport, 2, mustType("inet_service")},
	{"sctp", "vtag", BaseTransport, 4, integer(4, false, styleInt)},

	{"dccp", "sport", BaseTransport, 0, mustType("inet_service")},
	{"dccp", "dport", BaseTransport, 2, mustType("inet_service")},

	{"icmp", "type", BaseTransport, 0, mustType("icmp_type")},
	{"icmp", "code", BaseTransport, 1, mustType("icmp_code")},
	{"icmp", "checksum", BaseTransport, 2, integer(2, false, styleInt)},

	{"icmpv6", "type", BaseTransport, 0, mustType("icmpv6_type")},
	{"icmpv6", "code", BaseTransport, 1, mustType("icmpv6_code")},
	{"icmpv6", "checksum", BaseTransport, 2, integer(2, false, styleInt)},

	{protoTH, "sport", BaseTransport, 0, mustType("inet_service")},
	{protoTH, "dport", BaseTransport, 2, mustType("inet_service")},
}

// protoTH is nft's name for "whatever transport header there is".
const protoTH = "th"

// l4Numbers gives the IP protocol number of the transport headers with fields.
var l4Numbers = []symbol{
	{"icmp", 1}, {"tcp", 6}, {"udp", 17}, {"dccp", 33}, {"icmpv6", 58}, {"sctp", 132}, {"udplite", 136},
}

// l3EtherTypes gives the ethertype of the network headers with fields.
var l3EtherTypes = []symbol{{"ip", 0x0800}, {"arp", 0x0806}, {"ip6", 0x86dd}}

// l3NFProtos gives the NFPROTO number of the network headers that pass IP hooks.
var l3NFProtos = []symbol{{"ip", uint64(FamilyIP)}, {"ip6", uint64(FamilyIP6)}}

// fieldByName finds a field of a header.
func fieldByName(proto, name string) (field, bool) {
	for _, f := range fields {
		if f.proto == proto && f.name == name {
			return f, true
		}
	}
	return field{}, false
}

// fieldAt finds the field of a header that begins at an offset.
func fieldAt(proto string, base PayloadBase, offset uint32) (field, bool) {
	for _, f := range fields {
		if f.proto == proto && f.base == base && f.offset == offset {
			return f, true
		}
	}
	return field{}, false
}
