package api

import "net/netip"

// ReachSchema is the version of the JSON form of a Reach.
const ReachSchema = 1

// Reach is who can reach whom, by a walk of every class of packets through the
// state of the kernel. Nothing is sent.
type Reach struct {
	Schema int        `json:"schema"`
	Rows   []ReachRow `json:"rows"`
	// Walks is how many packets were followed.
	Walks int `json:"walks"`
	// Notes say what was left out.
	Notes []string `json:"notes"`
}

// ReachRow is what becomes of some packets from one to another.
type ReachRow struct {
	// From and To are namespaces as a map names them, "host" or "outside".
	From string `json:"from"`
	To   string `json:"to"`
	// Addr and, of a published port, Port are what is asked for.
	Addr netip.Addr `json:"addr"`
	Port uint16     `json:"port,omitzero"`
	// Packets are the classes: "icmp", "tcp 80", "udp 1-52,54-65535".
	Packets []string `json:"packets"`
	// Reaches: they arrive, and what is sent back arrives too.
	Reaches bool    `json:"reaches"`
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason"`
	Rule    *Rule   `json:"rule"`
}
