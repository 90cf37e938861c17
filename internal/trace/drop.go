package trace

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/towpath/towpath/api"
)

// Drop is the kernel's word that it has dropped a packet, and why.
type Drop struct {
	At    time.Duration // since the packet was sent
	Space string
	Link  string // "": none
	// Reason is the kernel's name for it, without SKB_DROP_REASON_; "": it gives none.
	Reason string
	// Symbol is the function of the kernel that dropped it.
	Symbol string
	Packet
}

// final is the drop that ended the packet, its answer, or the error about it;
// nil: there is none.
func (j *join) final() *Drop {
	var last *Drop
	slices.SortStableFunc(j.Drops, func(a, b Drop) int { return cmp.Compare(a.At, b.At) })
	for i := range j.Drops {
		x := &j.Drops[i]
		d, ok := j.Direction(x.Packet)
		if !ok || j.aside(d, x) {
			continue
		}
		last = x
	}
	return last
}

// aside reports whether what was dropped is a copy: what a bridge floods is
// dropped by all but one, and a packet that goes on was not dropped. An answer to
// a raw socket is no socket's of TCP, nor of ping's; and of one that came back to
// where it is waited for, every raw socket there gets a copy, which is dropped
// unread when the socket is closed.
func (j *join) aside(d api.Direction, x *Drop) bool {
	back := d != api.Request && x.Space == j.From
	if x.copy() || d == api.Reply && back && x.Reason == "NO_SOCKET" || back && x.Reason == "QUEUE_PURGE" {
		return true
	}
	if x.filtered() && slices.ContainsFunc(j.seen[d], func(s Sighting) bool { return s.Stopped && s.Space == x.Space }) {
		return true
	}
	return slices.ContainsFunc(j.seen[d], func(s Sighting) bool { return s.At > x.At })
}

// complains reports whether who dropped a packet sent an error about it.
func (j *join) complains(x *Drop) bool {
	return x.Space != j.From && len(j.seen[api.ErrorBack]) > 0 && j.seen[api.ErrorBack][0].Space == x.Space
}

// copy reports whether it is one of those that a bridge floods, dropped where it is
// not for.
func (x *Drop) copy() bool {
	return x.Reason == "OTHERHOST" || x.Reason == "IPV6_NDISC_NS_OTHERHOST"
}

// dropHop is the hop of a drop.
func (j *join) dropHop(d api.Direction, x *Drop) api.Hop {
	h := api.Hop{
		Direction: d, NS: x.Space, Device: x.Link, Layer: x.layer(), Action: "drop", Detail: x.words(), Before: new(x.Flow),
		AtMicros: micros(x.At), Sources: []string{"bpf"}, Certain: true,
	}
	switch {
	case x.Reason == "NO_SOCKET":
		h.Action = "refuses"
	case h.Layer == api.LayerRoute && j.complains(x):
		h.Action = "reject"
	case x.filtered():
		h.Layer = "" // which hook is known only where hooks are watched
	}
	for _, c := range j.hooks[d][x.Space] {
		if x.filtered() && c.left == nil {
			h.Layer, h.Device = api.Layer(c.Hook), cmp.Or(h.Device, c.In, c.Out)
		}
	}
	j.place(&h)
	return h
}

// dropped adds the hop of a drop: behind what happened to the packet before. Where
// a rule told that it dropped it, that is the same hop.
func (j *join) dropped(x *Drop) {
	d, _ := j.Direction(x.Packet)
	at := j.end(d)
	for i := range j.path.Hops[:at] {
		p := &j.path.Hops[i]
		if p.Direction == d && p.NS == x.Space && p.Rule != nil && (p.Action == "drop" || p.Action == "reject") {
			p.Sources = append(p.Sources, "bpf")
			return
		}
	}
	j.path.Hops = slices.Insert(j.path.Hops, at, j.dropHop(d, x))
}

// gone: the kernel dropped it, and nobody told its sender.
func (j *join) gone(x *Drop) {
	d, _ := j.Direction(x.Packet)
	j.path.Verdict, j.path.Reason = api.Dropped, x.place()+x.words()
	if d != api.Request {
		j.path.Reason = "its answer does not come back: " + j.path.Reason
	}
}

// alone makes a drop all there is of the path.
func (j *join) alone(x *Drop) {
	h := j.dropHop(api.Request, x)
	j.path.Hops = append(j.path.Hops, h)
	j.path.Verdict, j.path.Reason = api.Dropped, x.place()+x.words()
}

// place is where it was dropped.
func (x *Drop) place() string {
	if x.Link == "" {
		return "in " + x.Space + ": "
	}
	return "at " + x.Link + " of " + x.Space + ": "
}

// end is the place behind the hops of a direction.
func (j *join) end(d api.Direction) int {
	at := len(j.path.Hops)
	for at > 0 && after(j.path.Hops[at-1].Direction, d) {
		at--
	}
	return at
}

// after reports whether the hops of one direction stand behind those of another.
func after(a, b api.Direction) bool {
	order := []api.Direction{api.Request, api.Reply, api.ErrorBack}
	return slices.Index(order, a) > slices.Index(order, b)
}

// filtered reports whether the packet filter dropped it.
func (x *Drop) filtered() bool {
	return x.Reason == "NETFILTER_DROP" || strings.HasPrefix(x.Symbol, "nft_") || strings.HasPrefix(x.Symbol, "nf_")
}

// words are what the drop means, and what the kernel calls it.
func (x *Drop) words() string {
	words := cmp.Or(placed()[[2]string{x.Symbol, x.Reason}], reasons()[x.Reason])
	switch {
	case x.Reason == "IP_INHDR" && x.TTL <= 1 && strings.Contains(x.Symbol, "forward"):
		words = "its time to live is over"
	case words == "" && x.filtered():
		words = "the packet filter drops it"
	case words == "" && x.unsaid():
		words = "the kernel gives no reason"
	case words == "":
		words = "the kernel drops it"
	}
	name := x.Reason
	if x.Symbol != "" {
		name = strings.TrimSpace(name + " in " + x.Symbol)
	}
	if name == "" {
		return words
	}
	return fmt.Sprintf("%s (%s)", words, name)
}

// unsaid reports whether the kernel has no reason for this drop.
func (x *Drop) unsaid() bool { return x.Reason == "" || x.Reason == "NOT_SPECIFIED" }

// placed are words for reasons that mean something else, or anything at all, by
// the function that drops for them.
func placed() map[[2]string]string {
	return map[[2]string]string{
		{"ip_error", "IP_INADDRERRORS"}:             "this namespace does not forward IPv4",                                                                                  // ip_error asks IN_DEV_FORWARD first
		{"ip6_forward", "IP_INADDRERRORS"}:          "this namespace does not forward IPv6",                                                                                  // or the source is none that is forwarded, such as ::1
		{"ip_error", "NOT_SPECIFIED"}:               "its route leads nowhere: a blackhole, or what is unreachable or prohibited, which the kernel does not tell every time", // ip_rt_error_burst
		{"dst_discard_out", "NOT_SPECIFIED"}:        "its route leads nowhere: a blackhole",
		{"ip6_rcv_core", "IP_INHDR"}:                "its header is not valid, or has a loopback address, which may not come by a link", // as the answer to [::1] has behind a bridge with br_netfilter
		{"ip6_pkt_prohibit", "IP_INNOROUTES"}:       "its route is a prohibition",
		{"ip6_pkt_prohibit_out", "IP_OUTNOROUTES"}:  "its route is a prohibition",
		{"neigh_invalidate", "NOT_SPECIFIED"}:       "nobody answers for the next hop", // ndisc_error_report
		{"nf_hook_slow", "NETFILTER_DROP"}:          "a hook of the packet filter drops it, and no rule of nftables: the older iptables, connection tracking, or a program",
		{"br_handle_frame_finish", "NOT_SPECIFIED"}: "the bridge does not take it in",
		{"__dev_forward_skb2", "NOT_SPECIFIED"}:     "it is too big for the other end of the pair, or that end is off", // is_skb_forwardable
		{"br_flood", "NOT_SPECIFIED"}:               "no port of the bridge may send it on",
	}
}

// layer is the part of the kernel that dropped it: that of the function, of those
// that do so for any reason and where the kernel has none, else that of the reason.
// No prefix is that of another.
func (x *Drop) layer() api.Layer {
	switch x.Symbol {
	case "neigh_invalidate":
		return api.LayerNeighbour
	case "br_handle_frame_finish", "br_flood":
		return api.LayerBridge // no port may send it on
	case "ip_error", "dst_discard", "dst_discard_out", "ip6_pkt_discard", "ip6_pkt_prohibit", "ip6_pkt_discard_out", "ip6_pkt_prohibit_out":
		return api.LayerRoute // what a route that leads nowhere does
	}
	name, layers := x.Reason, map[string]api.Layer{
		"NEIGH_": api.LayerNeighbour, "TCP_": api.LayerSocket, "UDP_": api.LayerSocket, "SOCKET_": api.LayerSocket, "NO_SOCKET": api.LayerSocket,
		"PROTO_MEM": api.LayerSocket, "XFRM_POLICY": api.LayerSocket, "IP_": api.LayerRoute, "IPV6": api.LayerRoute, "PKT_TOO_BIG": api.LayerRoute,
		"TC_INGRESS": api.LayerIngress, "XDP": api.LayerIngress, "TC_EGRESS": api.LayerEgress, "QDISC_": api.LayerEgress, "BRIDGE_": api.LayerBridge,
	}
	if x.unsaid() {
		name, layers = x.Symbol, map[string]api.Layer{
			"neigh_": api.LayerNeighbour, "arp_": api.LayerNeighbour, "ndisc_": api.LayerNeighbour, "tcp_": api.LayerSocket, "udp": api.LayerSocket,
			"ip_": api.LayerRoute, "ip6_": api.LayerRoute, "br_": api.LayerBridge,
		}
	}
	for prefix, layer := range layers {
		if strings.HasPrefix(name, prefix) {
			return layer
		}
	}
	return api.LayerLink
}

// reasons are the kernel's reasons (enum skb_drop_reason) in words, of those that
// people meet. The others are told by their names alone.
func reasons() map[string]string {
	return map[string]string{
		"NO_SOCKET":                "nothing listens there",
		"NETFILTER_DROP":           "the packet filter drops it",
		"OTHERHOST":                "its MAC address is another's",
		"IP_RPFILTER":              "the way back to its source is by another link (rp_filter)",
		"IP_INNOROUTES":            "there is no route to its destination",
		"IP_OUTNOROUTES":           "there is no route to its destination",
		"IP_INADDRERRORS":          "it may not come with these addresses",
		"IP_LOCAL_SOURCE":          "its source is an address of this very host",
		"IP_INVALID_SOURCE":        "its source is no address that may send",
		"IP_INVALID_DEST":          "its destination is no address that may be sent to",
		"IP_LOCALNET":              "a loopback address may not come by a link",
		"IP_INHDR":                 "its header is not valid",
		"IP_CSUM":                  "its checksum is wrong",
		"IP_NOPROTO":               "nothing takes this protocol",
		"IPV6DISABLED":             "IPv6 is switched off there",
		"PKT_TOO_BIG":              "it is too big for the next link, and may not be cut up",
		"PKT_TOO_SMALL":            "it is cut off",
		"NEIGH_FAILED":             "nobody answers for the next hop",
		"NEIGH_CREATEFAIL":         "the table of neighbours is full",
		"NEIGH_QUEUEFULL":          "too many wait for the next hop to answer",
		"NEIGH_DEAD":               "the neighbour's entry is gone",
		"DEV_READY":                "the link is down",
		"DEV_HDR":                  "the link makes no header for it",
		"QDISC_DROP":               "the queue of the link drops it",
		"QDISC_OVERLIMIT":          "the queue of the link is full",
		"QDISC_CONGESTED":          "the queue of the link is full",
		"CPU_BACKLOG":              "the processor has too much to do",
		"FULL_RING":                "the ring of the device is full",
		"TC_INGRESS":               "a filter of tc drops it as it comes in",
		"TC_EGRESS":                "a filter of tc drops it as it goes out",
		"XDP":                      "a program of XDP drops it",
		"BPF_CGROUP_EGRESS":        "a program of its control group drops it",
		"SOCKET_FILTER":            "the socket's filter drops it",
		"SOCKET_RCVBUFF":           "the socket's buffer is full",
		"SOCKET_BACKLOG":           "the socket's backlog is full",
		"TCP_LISTEN_OVERFLOW":      "too many connections wait for the listener",
		"TCP_CSUM":                 "its checksum is wrong",
		"UDP_CSUM":                 "its checksum is wrong",
		"ICMP_CSUM":                "its checksum is wrong",
		"UNHANDLED_PROTO":          "nothing takes this protocol",
		"LOCAL_MAC":                "it comes with the bridge's own MAC address",
		"MAC_INVALID_SOURCE":       "its MAC address may not send there",
		"NO_TX_TARGET":             "no port may send it on",
		"BRIDGE_INGRESS_STP_STATE": "the port of the bridge does not forward",
		"VXLAN_VNI_NOT_FOUND":      "nobody has this VXLAN",
		"VXLAN_INVALID_HDR":        "its VXLAN header is not valid",
		"UNICAST_IN_L2_MULTICAST":  "it is for one, and came to all",
		"XFRM_POLICY":              "the policy of IPsec drops it",
		"SECURITY_HOOK":            "a security module drops it",
		"QUEUE_PURGE":              "it waited in a queue that was emptied",
		"NOMEM":                    "there is no memory left for it",
		"DUP_FRAG":                 "this part of it was there already",
		"FRAG_REASM_TIMEOUT":       "parts of it did not come in time",
	}
}
