package kernel

import "net/netip"

// Flows are the connections of an address in conntrack: they may be there as
// long as the address is somebody's, and go with it.
type Flows struct {
	NS   string
	Addr netip.Addr
}

// Misled are the connections to At which conntrack leads to To, and which the
// rules of now would not lead there. They are never wanted: only observed.
type Misled struct {
	NS     string
	Proto  string
	At, To netip.AddrPort
}

// Key is the address.
func (f Flows) Key() Key { return Key{f.NS, KindFlows, f.Addr.String()} }

// Parents is the namespace.
func (f Flows) Parents() []Key { return nsParents(f.NS) }

// Needs is empty.
func (f Flows) Needs() []Key { return nil }

// Key is protocol and both addresses.
func (m Misled) Key() Key {
	return Key{m.NS, KindFlows, m.Proto + " " + m.At.String() + " to " + m.To.String()}
}

// Parents is the namespace.
func (m Misled) Parents() []Key { return nsParents(m.NS) }

// Needs is empty.
func (m Misled) Needs() []Key { return nil }

// String is "flows of 172.20.0.2".
func (f Flows) String() string { return "flows of " + f.Addr.String() }

// String is "flows udp 192.0.2.10:53 to 172.20.0.2:53".
func (m Misled) String() string {
	return "flows " + m.Proto + " " + m.At.String() + " to " + m.To.String()
}
