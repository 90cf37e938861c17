package nft

// symbol is a name nft has for a number.
type symbol struct {
	name  string
	value uint64
}

// symbolName finds the first name of v.
func symbolName(table []symbol, v uint64) (string, bool) {
	for _, s := range table {
		if s.value == v {
			return s.name, true
		}
	}
	return "", false
}

// symbolValue finds the number of a name.
func symbolValue(table []symbol, name string) (uint64, bool) {
	for _, s := range table {
		if s.name == name {
			return s.value, true
		}
	}
	return 0, false
}

// The tables of nft 1.0.6. Where two names have one number, the first is the
// one nft prints.
var (
	nfprotoSymbols   = []symbol{{"ipv4", 2}, {"ipv6", 10}}
	etherTypeSymbols = []symbol{{"ip", 0x0800}, {"arp", 0x0806}, {"ip6", 0x86dd}, {"8021q", 0x8100}, {"8021ad", 0x88a8}, {"vlan", 0x8100}}
	arpOpSymbols     = []symbol{{"request", 1}, {"reply", 2}, {"rrequest", 3}, {"rreply", 4}, {"inrequest", 8}, {"inreply", 9}, {"nak", 10}}
	// protoSymbols has the names /etc/protocols gives nft on common systems.
	protoSymbols = []symbol{
		{"ip", 0},
		{"icmp", 1},
		{"igmp", 2},
		{"tcp", 6},
		{"udp", 17},
		{"dccp", 33},
		{"ipv6", 41},
		{"gre", 47},
		{"esp", 50},
		{"ah", 51},
		{"ipv6-icmp", 58},
		{"ospf", 89},
		{"ipcomp", 108},
		{"vrrp", 112},
		{"sctp", 132},
		{"udplite", 136},
		{"icmpv6", 58},
		{"comp", 108},
	}
	icmpTypeSymbols = []symbol{
		{"echo-reply", 0},
		{"destination-unreachable", 3},
		{"source-quench", 4},
		{"redirect", 5},
		{"echo-request", 8},
		{"router-advertisement", 9},
		{"router-solicitation", 10},
		{"time-exceeded", 11},
		{"parameter-problem", 12},
		{"timestamp-request", 13},
		{"timestamp-reply", 14},
		{"info-request", 15},
		{"info-reply", 16},
		{"address-mask-request", 17},
		{"address-mask-reply", 18},
	}
	icmpv6TypeSymbols = []symbol{
		{"destination-unreachable", 1},
		{"packet-too-big", 2},
		{"time-exceeded", 3},
		{"parameter-problem", 4},
		{"echo-request", 128},
		{"echo-reply", 129},
		{"mld-listener-query", 130},
		{"mld-listener-report", 131},
		{"mld-listener-done", 132},
		{"nd-router-solicit", 133},
		{"nd-router-advert", 134},
		{"nd-neighbor-solicit", 135},
		{"nd-neighbor-advert", 136},
		{"nd-redirect", 137},
		{"router-renumbering", 138},
		{"ind-neighbor-solicit", 141},
		{"ind-neighbor-advert", 142},
		{"mld2-listener-report", 143},
		{"mld-listener-reduction", 132},
	}
	icmpCodeSymbols = []symbol{
		{"net-unreachable", 0},
		{"host-unreachable", 1},
		{"prot-unreachable", 2},
		{"port-unreachable", 3},
		{"frag-needed", 4},
		{"net-prohibited", 9},
		{"host-prohibited", 10},
		{"admin-prohibited", 13},
	}
	icmpv6CodeSymbols = []symbol{
		{"no-route", 0}, {"admin-prohibited", 1}, {"addr-unreachable", 3}, {"port-unreachable", 4}, {"policy-fail", 5}, {"reject-route", 6},
	}
	icmpxCodeSymbols = []symbol{{"no-route", 0}, {"port-unreachable", 1}, {"host-unreachable", 2}, {"admin-prohibited", 3}}
	tcpFlagSymbols   = []symbol{{"fin", 1}, {"syn", 2}, {"rst", 4}, {"psh", 8}, {"ack", 16}, {"urg", 32}, {"ecn", 64}, {"cwr", 128}}
	linkTypeSymbols  = []symbol{{"ether", 1}, {"ppp", 512}, {"ipip", 768}, {"ipip6", 769}, {"loopback", 772}, {"sit", 776}, {"ipgre", 778}}
	ctStateSymbols   = []symbol{{"invalid", 1}, {"established", 2}, {"related", 4}, {"new", 8}, {"untracked", 64}}
	ctDirSymbols     = []symbol{{"original", 0}, {"reply", 1}}
	ctStatusSymbols  = []symbol{{"expected", 1}, {"seen-reply", 2}, {"assured", 4}, {"confirmed", 8}, {"snat", 16}, {"dnat", 32}, {"dying", 512}}
	pktTypeSymbols   = []symbol{{"host", 0}, {"broadcast", 1}, {"multicast", 2}, {"other", 3}, {"unicast", 0}}
	addrTypeSymbols  = []symbol{
		{"unspec", 0}, {"unicast", 1}, {"local", 2}, {"broadcast", 3}, {"anycast", 4}, {"multicast", 5}, {"blackhole", 6}, {"unreachable", 7}, {"prohibit", 8},
	}
	booleanSymbols  = []symbol{{"exists", 1}, {"missing", 0}}
	logLevelSymbols = []symbol{{"emerg", 0}, {"alert", 1}, {"crit", 2}, {"err", 3}, {"warn", 4}, {"notice", 5}, {"info", 6}, {"debug", 7}, {"audit", 8}}
	// metaKeys has every NFT_META_* key by nft's name.
	metaKeys = []metaKey{
		{"length", 0, integer(4, true, styleInt), false},
		{"protocol", 1, mustType("ether_type"), false},
		{"priority", 2, integer(4, true, styleHex), false},
		{"mark", 3, mustType("mark"), false},
		{"iif", 4, mustType("iface_index"), true},
		{"oif", 5, mustType("iface_index"), true},
		{"iifname", 6, mustType("ifname"), true},
		{"oifname", 7, mustType("ifname"), true},
		{"iiftype", 8, mustType("iface_type"), false},
		{"oiftype", 9, mustType("iface_type"), false},
		{"skuid", 10, mustType("uid"), false},
		{"skgid", 11, mustType("gid"), false},
		{"nftrace", 12, integer(1, true, styleInt), false},
		{"rtclassid", 13, integer(4, true, styleInt), false},
		{"nfproto", 15, mustType("nf_proto"), false},
		{"l4proto", 16, mustType("inet_proto"), false},
		{"ibrname", 17, mustType("ifname"), false},
		{"obrname", 18, mustType("ifname"), false},
		{"pkttype", 19, mustType("pkt_type"), false},
		{"cpu", 20, integer(4, true, styleInt), false},
		{"iifgroup", 21, mustType("devgroup"), true},
		{"oifgroup", 22, mustType("devgroup"), true},
		{"cgroup", 23, integer(4, true, styleInt), false},
		{"random", 24, integer(4, false, styleInt), false},
		{"ipsec", 25, mustType("boolean"), false},
		{"iifkind", 26, mustType("ifname"), false},
		{"oifkind", 27, mustType("ifname"), false},
		{"sdif", 33, mustType("iface_index"), false},
		{"sdifname", 34, mustType("ifname"), false},
	}
	// ctKeys has the NFT_CT_* keys the package understands.
	ctKeys = []ctKey{
		{"state", 0, mustType("ct_state"), false},
		{"direction", 1, mustType("ct_dir"), false},
		{"status", 2, mustType("ct_status"), false},
		{"mark", 3, mustType("mark"), false},
		{"helper", 6, mustType("ifname"), false},
		{"l3proto", 7, mustType("nf_proto"), true},
		{"protocol", 10, mustType("inet_proto"), true},
		{"proto-src", 11, mustType("inet_service"), true},
		{"proto-dst", 12, mustType("inet_service"), true},
		{"zone", 17, integer(2, true, styleInt), false},
		{"ip saddr", 19, mustType("ipv4_addr"), true},
		{"ip daddr", 20, mustType("ipv4_addr"), true},
		{"ip6 saddr", 21, mustType("ipv6_addr"), true},
		{"ip6 daddr", 22, mustType("ipv6_addr"), true},
	}
)

// metaKey is a key of Meta; bare keys are written without "meta".
type metaKey struct {
	name string
	key  MetaKey
	typ  dataType
	bare bool
}

// ctKey is a key of CT; directed keys need "original" or "reply".
type ctKey struct {
	name     string
	key      CTKey
	typ      dataType
	directed bool
}

// mustType is typeByName for names that are in the table.
func mustType(name string) dataType {
	t, _ := typeByName(name)
	return t
}
