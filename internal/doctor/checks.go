package doctor

// Checks are all there are, in the order in which they are made.
func Checks() []Check {
	return []Check{
		{"reading", "that every namespace and packet filter can be read", "nothing can be said of what cannot be seen", checkReading},
		{"drift", "that Towpath's own things are in the kernel as they should be", "networks of Towpath do not work as its objects say", checkDrift},
		{"rules-gone", "that the rules of each engine whose networks are in use are there: somebody may have flushed them", "no published port, no translation, no isolation until the engine writes them again", checkRulesGone},
		{"ip-forward", "that the host forwards IPv4 and IPv6 of its networks, on the whole and on each interface", "containers reach nobody outside, and nobody reaches them", checkForwarding},
		{"forward-drop", "chains of other programs at the hook forward that would drop what networks send and get", "every chain of a hook must let a packet pass: an accept elsewhere does not help", checkForwardDrop},
		{"bridge-netfilter", "whether frames within a bridge pass the packet filter of IP (br_netfilter), and which chains", "a rule meant for routed packets drops or translates what two containers of one network say", checkBridgeNF},
		{"masquerade", "that private addresses of networks are translated on the way out", "packets leave with an address to which no answer comes back", checkMasquerade},
		{"rp-filter", "strict reverse path filters where packets come in by another way than the one that leads back", "the kernel drops them without a word", checkRPFilter},
		{"mtu", "interfaces whose MTU does not fit that of the way out, of their bridge, of their other end or of the tunnel's underlay", "small packets pass, large ones are lost", checkMTU},
		{"pmtu", "that the ICMP errors that tell of a smaller MTU pass the packet filter", "connections open and then hang when the first large packet is sent", checkPMTU},
		{"conntrack", "that the table of tracked connections has room, whether it had none, and connections that could not be entered (insert_failed)", "new connections are dropped", checkConntrack},
		{"subnets", "networks whose addresses the host, or another network, has a route of its own to", "packets for one go to the other", checkSubnets},
		{"neighbours", "that the neighbour tables have room, and whether they had none", "addresses on the link are not found any more", checkNeighbours},
		{"gateway", "default routes whose router does not answer for its address", "nothing outside is reached", checkGateway},
		{"iptables-mixed", "rules of iptables-legacy beside those of nftables", "both drop, each shows its own only", checkMixed},
		{"published", "published ports behind which nothing listens, or on 127.0.0.1 only, or to an address nobody has", "clients are refused, or wait", checkPublished},
		{"hairpin", "published ports that a container cannot reach from its own network", "a container does not reach itself by the address others use", checkHairpin},
		{"route-localnet", "published ports on 127.0.0.1 that cannot work, and loopback addresses that come in from outside", "a port on the loopback is not reached, or reached by machines on the link", checkLocalnet},
		{"ephemeral-ports", "published ports among those the kernel gives to outgoing connections, and held by no socket", "another program takes the port", checkEphemeral},
		{"accept-ra", "uplinks that live by router advertisements and forward", "the kernel then ignores advertisements, and the IPv6 default route expires", checkAcceptRA},
		{"links", "interfaces of networks that are down", "nothing passes them", checkLinks},
		{"stale", "pairs and namespaces that were left behind", "they use up names, addresses and ports of bridges", checkStale},
		{"resolv-conf", "resolv.conf files that name no server, or one that cannot be there", "names do not resolve, or only after a wait", checkResolvers},
		{"addresses", "addresses that two have on one network", "each gets some of the other's packets", checkAddresses},
		{"macs", "MAC addresses that two have on one network", "the bridge sends to where it heard the address last", checkMACs},
		{"default-route", "containers on a network with a way out that have no default route", "they reach their own network only", checkDefaultRoute},
		{"drops", "counters of lost packets that rise while the host is looked at, by reason", "packets are being lost now", checkDrops},
	}
}
