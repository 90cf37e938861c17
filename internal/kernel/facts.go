package kernel

import "slices"

// Facts is what planning must know of the kernel and of what is not ours.
type Facts struct {
	// UplinkMTU is the MTU of the default route's link, 0 without one.
	UplinkMTU int
	// IPv6 is false where the kernel runs without it.
	IPv6 bool
	// ForceForwarding: the kernel has net.ipv6.conf.IFACE.force_forwarding (6.17).
	ForceForwarding bool
	// SCTP: the kernel has SCTP sockets, so that a port can be held.
	SCTP bool
	// BridgeNF4 and BridgeNF6: frames of the family within a bridge pass the inet
	// hooks (net.bridge.bridge-nf-call-iptables, -ip6tables).
	BridgeNF4, BridgeNF6 bool
	// TableFlags are the flags to protect nftables tables with, "" where the
	// kernel (before 6.9) or the operator will not have them.
	TableFlags string
	// Hooks is how links are hooked to chains of family netdev.
	Hooks HookSupport
	// Uplinks are the host's own links, loopback and bridge ports aside.
	Uplinks []Uplink
	// Listening are bridges of ours behind which somebody may snoop on reports of
	// multicast listeners: they do so themselves, or have ports that are not ours.
	Listening []string
	// Ways are the links that lead out of the host: those of default routes, and
	// such as no other container engine makes.
	Ways []string
	// Doors are the ways past the forward chains of others, and Cooperate says
	// that they are to be used.
	Doors     []Door
	Cooperate bool
}

// Equal reports whether planning would see no difference.
func (h Facts) Equal(o Facts) bool {
	return h.UplinkMTU == o.UplinkMTU && h.IPv6 == o.IPv6 && h.ForceForwarding == o.ForceForwarding &&
		h.BridgeNF4 == o.BridgeNF4 && h.BridgeNF6 == o.BridgeNF6 && h.SCTP == o.SCTP && h.TableFlags == o.TableFlags && h.Hooks == o.Hooks && slices.Equal(h.Uplinks, o.Uplinks) &&
		slices.Equal(h.Listening, o.Listening) && slices.Equal(h.Ways, o.Ways) && slices.Equal(h.Doors, o.Doors) && h.Cooperate == o.Cooperate
}

// Uplink is a link of the host that is not ours.
type Uplink struct {
	Name string
	// AcceptRA is net.ipv6.conf.NAME.accept_ra: 1 stops working when the host forwards.
	AcceptRA int
}

// Has reports whether there is an uplink of that name.
func (h Facts) Has(dev string) bool {
	return slices.ContainsFunc(h.Uplinks, func(l Uplink) bool { return l.Name == dev })
}

// Failure is an op that the kernel refused.
type Failure struct {
	Op  Op
	Err error
}

// Event says that something may have changed behind our back.
type Event struct {
	// Keys are the objects to look at again. With no other field set, the
	// event asks for a look at everything.
	Keys []Key
	// NS is a sandbox to look at as a whole.
	NS string
	// Host says that links or routes of the host that are not ours changed.
	Host bool
	// Why is for the log: "link v-web-eth0 was deleted".
	Why string
}
