package api

import (
	"net/netip"
	"strings"
	"time"
)

// PathSchema is the version of the JSON form of a Path.
const PathSchema = 1

// Path is the way of one packet, and of its answer, hop by hop: the one it
// should take by the state of the kernel (explain), or the one it was seen to
// take (probe, trace).
type Path struct {
	Schema int      `json:"schema"`
	Kind   PathKind `json:"kind"`
	// Level is by what means the hops are known.
	Level PathLevel `json:"level"`
	// Complete is false where hops may be missing.
	Complete bool      `json:"complete"`
	Start    time.Time `json:"start"`
	From     Party     `json:"from"`
	To       Party     `json:"to"`
	// Flow is the packet as its sender made it.
	Flow    Flow    `json:"flow"`
	Verdict Verdict `json:"verdict"`
	// Reason says why, in words: for the request, or else for its answer.
	Reason string `json:"reason"`
	// Culprit is the rule that ended the packet or could not be evaluated.
	Culprit *Rule  `json:"culprit"`
	Fix     string `json:"fix"`
	// Summary is the way in a few words: network "front", NAT.
	Summary string `json:"summary,omitzero"`
	// Alike is how many more were like this one, of which nothing else is told.
	Alike uint64 `json:"alike,omitzero"`
	Hops  []Hop  `json:"hops"`
}

// PathKind tells an expected path from one that was seen.
type PathKind string

// The kinds of paths.
const (
	Expected PathKind = "expected"
	Actual   PathKind = "actual"
)

// PathLevel is the source of a path: what it can know depends on it.
type PathLevel string

// The levels, the one that knows most first. LevelWalk computes, the others observe.
const (
	LevelFull        PathLevel = "full"
	LevelTracepoints PathLevel = "tracepoints"
	LevelTaps        PathLevel = "taps"
	LevelWalk        PathLevel = "walk"
)

// Verdict is what became of a packet.
type Verdict string

// The verdicts.
const (
	// Delivered: a listener (for an echo request the stack) took it.
	Delivered Verdict = "delivered"
	// Answered: delivered, and its answer came back.
	Answered Verdict = "answered"
	// Refused: the destination's own stack says that nothing listens.
	Refused Verdict = "refused"
	// Dropped: gone without such an answer, the place is known.
	Dropped Verdict = "dropped"
	// Rejected: an ICMP error or reset of somebody else came back.
	Rejected Verdict = "rejected"
	// Lost: gone, the place is not known.
	Lost Verdict = "lost"
	// Undecided: a rule on the way cannot be evaluated.
	Undecided Verdict = "undecided"
)

// Party is one end of a path.
type Party struct {
	Name string     `json:"name"` // of the sandbox, "host" or "outside"
	NS   string     `json:"ns"`
	Addr netip.Addr `json:"addr"`
}

// Flow is what a packet is known by. Ports of ICMP are 0, types of others too.
type Flow struct {
	Proto    string     `json:"proto"` // "tcp", "udp", "sctp", "icmp", "icmpv6"
	Src      netip.Addr `json:"src"`
	Sport    uint16     `json:"sport"`
	Dst      netip.Addr `json:"dst"`
	Dport    uint16     `json:"dport"`
	ICMPType uint8      `json:"icmpType"`
	ICMPCode uint8      `json:"icmpCode"`
}

// Rule names a rule of a packet filter, or by its chain alone the policy.
type Rule struct {
	Family string `json:"family"`
	// Table is "legacy:filter" for table filter of the older iptables.
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Handle  uint64 `json:"handle"` // 0: the rule is not in the kernel
	Comment string `json:"comment"`
	// Text is the rule as nft writes it.
	Text string `json:"text,omitzero"`
	// Object is what the rule was made for ("network front"), Author who made it.
	Object string `json:"object"`
	Author string `json:"author"`
}

// legacyTable is what the names of tables of the older iptables begin with.
const legacyTable = "legacy:"

// Legacy is the table of the older iptables that a rule is in, and the program
// that shows it, to which Handle is the rule's number; "" for rules of nftables.
func (r Rule) Legacy() (table, tool string) {
	table, ok := strings.CutPrefix(r.Table, legacyTable)
	switch {
	case !ok:
		return "", ""
	case r.Family == "ip6":
		return table, "ip6tables-legacy"
	}
	return table, "iptables-legacy"
}

// Direction of a hop.
type Direction string

// The directions: of the packet, of its answer, of an ICMP error it caused.
const (
	Request   Direction = "request"
	Reply     Direction = "reply"
	ErrorBack Direction = "error"
)

// Layer is the part of the kernel a hop is in.
type Layer string

// The layers. The hooks of the packet filter have their own names.
const (
	LayerLink        Layer = "link"
	LayerBridge      Layer = "bridge"
	LayerRoute       Layer = "route"
	LayerNeighbour   Layer = "neighbour"
	LayerIngress     Layer = "ingress"
	LayerPrerouting  Layer = "prerouting"
	LayerInput       Layer = "input"
	LayerForward     Layer = "forward"
	LayerOutput      Layer = "output"
	LayerPostrouting Layer = "postrouting"
	LayerEgress      Layer = "egress"
	LayerSocket      Layer = "socket"
	// LayerName is before all packets: the destination's name is looked up.
	LayerName Layer = "name"
)

// Hop is one thing that happened to the packet.
type Hop struct {
	Index     int       `json:"index"`
	Direction Direction `json:"direction"`
	NS        string    `json:"ns"`
	NSInode   uint64    `json:"nsInode,omitzero"`
	// Owner is whose the namespace or device is, where it is not Towpath's.
	Owner   string `json:"owner,omitzero"`
	Device  string `json:"device"`
	Ifindex int    `json:"ifindex,omitzero"`
	// Port is the bridge port the frame came in by or leaves by.
	Port string `json:"port,omitzero"`
	// Layer is "" of a packet that the packet filter dropped, where it cannot be
	// known at which hook.
	Layer Layer `json:"layer"`
	// Action is a verb: resolves, sends, receives, bridges, routes, delivers, refuses; or
	// what a rule did: accept, drop, reject, rewrites, undecided, dnat, snat,
	// masquerade, redirect, and for answers un-dnat and un-snat.
	Action string `json:"action"`
	Detail string `json:"detail"`
	Rule   *Rule  `json:"rule,omitzero"`
	// Before is the packet as it came to the hop, After as it left it, where
	// the two differ.
	Before *Flow  `json:"before,omitzero"`
	After  *Flow  `json:"after,omitzero"`
	Encap  *Encap `json:"encap,omitzero"`
	// AtMicros counts from Start.
	AtMicros float64 `json:"atMicros"`
	// Sources are who saw it: "bpf", "nftrace", "tap", "conntrack", "route", "walk".
	Sources []string `json:"sources"`
	// Certain is false where the hop is a conclusion from others.
	Certain bool `json:"certain"`
}

// Encap is the outer header of an encapsulated packet.
type Encap struct {
	Kind string     `json:"kind"` // "vxlan"
	VNI  uint32     `json:"vni"`
	Src  netip.Addr `json:"src"`
	Dst  netip.Addr `json:"dst"`
}

// PathQuery asks for the path of a packet.
type PathQuery struct {
	// From is a sandbox, a container, an address of one, "host" or
	// "outside[:ADDRESS]".
	From string `json:"from"`
	// To is as From, or a name that the sender can resolve, and
	// [:PORT[/PROTO]] after it; without a port the packet is an ICMP echo request.
	To string `json:"to"`
	// Family is 4, 6 or, for either, 0.
	Family int `json:"family,omitzero"`
	// Size is how many bytes the packet has in all, which may not be cut up; 0:
	// it fits everywhere.
	Size int `json:"size,omitzero"`
	// TTL is how many machines may take the packet in, the last included; 0: what
	// the sender's kernel gives it.
	TTL int `json:"ttl,omitzero"`
	// Source is the address that the packet says it comes from, whether the sender
	// has it or not; zero: the kernel chooses.
	Source netip.Addr `json:"source,omitzero"`
	// Desired walks what is wanted, not what is there.
	Desired bool `json:"desired,omitzero"`
}

// Probe is one packet that was sent: the path it should have taken beside the
// one it was seen to take.
type Probe struct {
	Verdict Verdict `json:"verdict"`
	// Answered: an answer came back, be it a refusal or not.
	Answered  bool    `json:"answered"`
	RTTMicros float64 `json:"rttMicros"`
	Expected  Path    `json:"expected"`
	Actual    Path    `json:"actual"`
	// FirstDifference is the first hop of Expected that Actual does not have, of
	// those that its level can know; nil: there is none.
	FirstDifference *int   `json:"firstDifference"`
	Fix             string `json:"fix"`
}

// ProbeQuery asks for one packet.
type ProbeQuery struct {
	PathQuery
	// Connect makes a whole TCP handshake, not only its first packet.
	Connect bool `json:"connect,omitzero"`
	// Level is by what means it is watched: full, tracepoints or taps; "": the
	// best that there is.
	Level PathLevel `json:"level,omitzero"`
}

// TraceQuery asks for the paths of flows as they begin. What is absent is not
// asked for.
type TraceQuery struct {
	From  string    `json:"from,omitzero"` // a sandbox, a container, an address, "host", "outside"
	To    string    `json:"to,omitzero"`
	Port  uint16    `json:"port,omitzero"` // of the destination, before or after translation
	Proto string    `json:"proto,omitzero"`
	Level PathLevel `json:"level,omitzero"`
	// Drops leaves out what arrives.
	Drops bool `json:"drops,omitzero"`
}

// TraceHeader is the header of an answer that streams paths: the level, and how
// many namespaces are watched.
const TraceHeader = "Towpath-Trace"
