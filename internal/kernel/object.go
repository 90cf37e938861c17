// Package kernel describes the kernel's network configuration as plain data:
// what is wanted and what is there have the same form, a flat map of
// comparable objects, so that the difference between the two is a list of ops
// and an op can be applied to data as well as to the kernel.
package kernel

import (
	"net/netip"
	"strings"
)

// Host is the name of the namespace the daemon runs in. Sandboxes have their
// own names; none can be called "host".
const Host = "host"

// Kind is what an object is.
type Kind string

// The kinds of objects.
const (
	KindNamespace Kind = "netns"
	KindLink      Kind = "link"
	KindUp        Kind = "up"
	KindAddress   Kind = "addr"
	KindRoute     Kind = "route"
	KindRule      Kind = "rule"
	KindNeighbour Kind = "neigh"
	KindSysctl    Kind = "sysctl"
	KindSocket    Kind = "socket"
	KindFlows     Kind = "flows"
	KindTable     Kind = "table"
	KindSet       Kind = "set"
	KindChain     Kind = "chain"
	KindElement   Kind = "element"
	KindHook      Kind = "hook"
	KindEntry     Kind = "entry"
	KindZone      Kind = "zone"
)

// Key identifies an object: no two objects of a State share one.
type Key struct {
	NS   string // the namespace it is in
	Kind Kind
	Name string // unique for the kind in the namespace
}

// String is "front: link eth0".
func (k Key) String() string { return k.NS + ": " + string(k.Kind) + " " + k.Name }

// Object is one thing in the kernel, with the attributes we set and no others.
// Every implementation is a comparable struct: two objects are the same when
// they are ==.
type Object interface {
	Key() Key
	// Parents take this object with them when they go.
	Parents() []Key
	// Needs must be there before this object can be made.
	Needs() []Key
	// String is the object in the look of ip(8) or nft(8), without its namespace.
	String() string
}

// Namespace is a network namespace kept by a bind mount under the run directory.
type Namespace struct {
	Name string
	// Cookie is the identity of an adopted namespace; 0 is one we make ourselves.
	Cookie uint64
}

// Link is a network interface. Attributes that do not apply are zero.
type Link struct {
	NS, Name string
	Type     string // "bridge" or "veth"
	MAC      string // canonical, lower case
	MTU      int    // bytes
	Master   string // the bridge it is a port of
	// PeerNS and Peer are the other end of a veth pair. Only the end in the
	// host's namespace names its peer: making it makes both, and removing
	// either removes both.
	PeerNS, Peer string
	// PeerOf, on the end in a sandbox, names the host end that brings it.
	PeerOf string
	// Hairpin lets a bridge port send a frame back where it came from: with
	// br_netfilter on, a container that reaches its own published port needs it.
	Hairpin bool
	// Isolated keeps a bridge port from exchanging frames with other isolated ports.
	Isolated bool
	// Locked lets a bridge port take frames only from the MAC addresses that the
	// bridge has static entries for, and learn none.
	Locked bool
	// Mark says whose it is: the ifalias, "towpath UNIT".
	Mark string
}

// Up is the administrative state of a link; it is an object of its own because
// a link is made down and raised when all that guards it is in place.
type Up struct{ NS, Dev string }

// Address is an address of a link.
type Address struct {
	NS, Dev string
	Prefix  netip.Prefix
}

// Route is a unicast route of the main table unless Table says otherwise.
type Route struct {
	NS, Dev string
	Dst     netip.Prefix
	Via     netip.Addr
	Table   uint32 // 0 is main
	Metric  uint32
	// Local makes the destination an address of the host itself, when it comes
	// in over Dev.
	Local bool
}

// Rule sends what comes from an address to a routing table of its own: answers
// leave by the interface the question came in on.
type Rule struct {
	NS       string
	From     netip.Prefix
	Table    uint32
	Priority uint32
}

// Neighbour is a permanent entry of the neighbour table or, with no IP, a
// static entry of the forwarding database of Master, the bridge that Dev is a
// port of.
type Neighbour struct {
	NS, Dev string
	IP      netip.Addr
	MAC     string
	Master  string
}

// Sysctl is one value under /proc/sys, by its path there: "net/ipv4/ip_forward".
type Sysctl struct {
	NS, Name, Value string
	// Dev is the link the sysctl belongs to and goes with; empty for one of the namespace.
	Dev string
}

// Socket is a socket the daemon holds open in a namespace.
type Socket struct {
	NS    string
	Proto string // "tcp" (listening), "udp", or "udp,tcp": a pair; with a 6 behind it takes no IPv4
	Addr  netip.AddrPort
	// Count above 1 makes it one socket for each of so many ports, from Addr's on.
	Count uint16
	// To is where the daemon passes on clients of the other family than To's, of
	// a range those of the first port: families cannot be translated into each
	// other. Not valid: the port is only held.
	To netip.AddrPort
	// From are the sources that are passed on, prefixes with commas; "" is all.
	From string
}

// Table is an nftables table. Flags is "", "owner,persist", or "persist" for one
// whose owner is gone.
type Table struct{ NS, Family, Name, Flags string }

// Set is an nftables set or, with a data type in Type, a map:
// "ifname . ifname : verdict". Flags as nft writes them.
type Set struct{ NS, Family, Table, Name, Type, Flags string }

// Chain is an nftables chain with all its rules. Base is the line that hooks a
// base chain, without its devices, empty for others; Rules are nft rules, one a
// line.
type Chain struct{ NS, Family, Table, Name, Base, Rules string }

// Element is one element of a set or map, in nft's notation: Elem the key,
// Value what a map gives for it.
type Element struct {
	NS, Family, Table, Set, Elem, Value string
	// Count above 1 makes it so many elements: the ports with which key and
	// value end count up.
	Count uint16
	// Lacks says which of these are not there: their places, "3,5-7". No plan
	// has it; a range that was observed may.
	Lacks string
}

func linkKey(ns, dev string) Key { return Key{ns, KindLink, dev} }

// nsParents is the namespace an object dies with; the host's outlives us.
func nsParents(ns string) []Key {
	if ns == Host {
		return nil
	}
	return []Key{{Host, KindNamespace, ns}}
}

// Key, Parents and Needs of each kind follow.

// Key names the namespace within the host's.
func (n Namespace) Key() Key { return Key{Host, KindNamespace, n.Name} }

// Parents is empty: nothing takes a namespace with it.
func (n Namespace) Parents() []Key { return nil }

// Needs is empty.
func (n Namespace) Needs() []Key { return nil }

// Key is the name in the namespace.
func (l Link) Key() Key { return linkKey(l.NS, l.Name) }

// Parents are the namespace and, for the sandbox's end of a pair, the host's.
func (l Link) Parents() []Key {
	p := nsParents(l.NS)
	if l.PeerOf != "" {
		p = append(p, linkKey(Host, l.PeerOf))
	}
	return p
}

// Needs is the bridge of a port, and the namespace of the other end. That
// namespace is no parent: it lives on while a process is in it, so the pair is
// removed by an op of its own, before the namespace is let go.
func (l Link) Needs() []Key {
	var n []Key
	if l.Master != "" {
		n = append(n, linkKey(l.NS, l.Master))
	}
	if l.PeerNS != "" {
		n = append(n, nsParents(l.PeerNS)...)
	}
	return n
}

// Key is the name of the link.
func (u Up) Key() Key { return Key{u.NS, KindUp, u.Dev} }

// Parents is the link; the loopback is the namespace's own.
func (u Up) Parents() []Key {
	if u.Dev == "lo" {
		return nsParents(u.NS)
	}
	return []Key{linkKey(u.NS, u.Dev)}
}

// Needs is empty.
func (u Up) Needs() []Key { return nil }

// Key is the address on its link.
func (a Address) Key() Key { return Key{a.NS, KindAddress, a.Prefix.String() + " dev " + a.Dev} }

// Parents is the link.
func (a Address) Parents() []Key { return []Key{linkKey(a.NS, a.Dev)} }

// Needs is empty.
func (a Address) Needs() []Key { return nil }

// Key is what the kernel tells routes apart by: destination, table and metric,
// and the device, since two interfaces may have a default route each.
func (r Route) Key() Key {
	name := dstText(r.Dst) + " dev " + r.Dev
	if r.Table != 0 {
		name += " table " + utoa(r.Table)
	}
	return Key{r.NS, KindRoute, name + " metric " + utoa(r.Metric)}
}

// Parents is the link's being up: the kernel drops the routes of a link that goes down.
func (r Route) Parents() []Key { return []Key{{r.NS, KindUp, r.Dev}} }

// Needs is empty; routes come after addresses by their phase.
func (r Route) Needs() []Key { return nil }

// Key is the priority and the source, by which we tell our rules apart.
func (r Rule) Key() Key { return Key{r.NS, KindRule, utoa(r.Priority) + " from " + r.From.String()} }

// Parents is the namespace: a rule outlives the links that its table uses.
func (r Rule) Parents() []Key { return nsParents(r.NS) }

// Needs is empty.
func (r Rule) Needs() []Key { return nil }

// Key is the address, or for the forwarding database the MAC, on its link.
func (n Neighbour) Key() Key {
	if !n.IP.IsValid() {
		return Key{n.NS, KindNeighbour, "fdb " + n.MAC + " dev " + n.Dev}
	}
	return Key{n.NS, KindNeighbour, n.IP.String() + " dev " + n.Dev}
}

// Parents are the link and the bridge whose entry it is.
func (n Neighbour) Parents() []Key {
	p := []Key{linkKey(n.NS, n.Dev)}
	if n.Master != "" {
		p = append(p, linkKey(n.NS, n.Master))
	}
	return p
}

// Needs is empty.
func (n Neighbour) Needs() []Key { return nil }

// Key is the path of the value.
func (s Sysctl) Key() Key { return Key{s.NS, KindSysctl, s.Name} }

// Parents is the link, or the namespace.
func (s Sysctl) Parents() []Key {
	if s.Dev != "" {
		return []Key{linkKey(s.NS, s.Dev)}
	}
	return nsParents(s.NS)
}

// Needs is empty.
func (s Sysctl) Needs() []Key { return nil }

// Key is protocol and address.
func (s Socket) Key() Key { return Key{s.NS, KindSocket, s.Proto + " " + s.text()} }

// Parents is empty even in a sandbox: an open socket keeps its namespace
// alive, so it must be closed first and never goes by itself.
func (s Socket) Parents() []Key { return nil }

// Needs is the namespace.
func (s Socket) Needs() []Key { return nsParents(s.NS) }

func tableKey(ns, family, table string) Key { return Key{ns, KindTable, family + " " + table} }

// Key is family and name.
func (t Table) Key() Key { return tableKey(t.NS, t.Family, t.Name) }

// Parents is the namespace.
func (t Table) Parents() []Key { return nsParents(t.NS) }

// Needs is empty.
func (t Table) Needs() []Key { return nil }

// Key is the set's name in its table.
func (s Set) Key() Key { return Key{s.NS, KindSet, s.Family + " " + s.Table + " " + s.Name} }

// Parents is the table.
func (s Set) Parents() []Key { return []Key{tableKey(s.NS, s.Family, s.Table)} }

// Needs is empty.
func (s Set) Needs() []Key { return nil }

// Key is the chain's name in its table.
func (c Chain) Key() Key { return Key{c.NS, KindChain, c.Family + " " + c.Table + " " + c.Name} }

// Parents is the table.
func (c Chain) Parents() []Key { return []Key{tableKey(c.NS, c.Family, c.Table)} }

// Needs is empty: chains and sets of one table come and go in one transaction,
// whose order is that of the phases.
func (c Chain) Needs() []Key { return nil }

// Key is the element in its set.
func (e Element) Key() Key {
	return Key{e.NS, KindElement, e.Family + " " + e.Table + " " + e.Set + " " + spanned(e.Elem, e.Count)}
}

// Parents is the set.
func (e Element) Parents() []Key {
	return []Key{{e.NS, KindSet, e.Family + " " + e.Table + " " + e.Set}}
}

// Needs is the chain that a verdict jumps to.
func (e Element) Needs() []Key {
	_, chain, ok := strings.Cut(e.Value, "jump ")
	if !ok {
		return nil
	}
	return []Key{{e.NS, KindChain, e.Family + " " + e.Table + " " + chain}}
}

// IsNFT reports whether objects of the kind are changed by nftables
// transactions.
func (k Kind) IsNFT() bool {
	switch k {
	case KindTable, KindSet, KindChain, KindElement, KindHook:
		return true
	default:
		return false
	}
}
