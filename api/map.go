package api

import "net/netip"

// MapSchema is the version of the JSON form of a Map.
const MapSchema = 1

// Map is the topology of a machine as its kernel has it: whose namespaces there
// are, what joins them, what is published, and who talks to whom. Everything of
// it is observed, also what others than Towpath have made.
type Map struct {
	Schema int `json:"schema"`
	// Namespaces begin with the host.
	Namespaces []MapNamespace `json:"namespaces"`
	Networks   []MapNetwork   `json:"networks"`
	// Wires join devices of two namespaces or of one.
	Wires        []MapWire        `json:"wires"`
	Publications []MapPublication `json:"publications"`
	Talks        []MapTalk        `json:"talks"`
	// Notes say what is not in the map because it could not be read.
	Notes []string `json:"notes"`
}

// MapNamespace is a network namespace.
type MapNamespace struct {
	// ID is unique in the map, and the Name where that is unique.
	ID string `json:"id"`
	// Kind is "host", "sandbox", "container", "pod", "machine", "namespace",
	// "process" or "unknown"; Engine who made it ("Towpath", "Docker", ...).
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Engine string `json:"engine"`
	// Owner is the three in words: container web (Docker).
	Owner   string      `json:"owner"`
	Inode   uint64      `json:"inode,omitzero"`
	Devices []MapDevice `json:"devices"`
	// Gateways are the next hops of its default routes.
	Gateways []netip.Addr `json:"gateways"`
}

// Roles of devices.
const (
	RoleUplink   = "uplink"   // leads to machines that are not in the map
	RoleNetwork  = "network"  // carries a network
	RolePort     = "port"     // is the host's end of a link into a namespace
	RoleEndpoint = "endpoint" // is a namespace's end
	RoleOther    = "other"
)

// MapDevice is a link, the loopback aside.
type MapDevice struct {
	Name string `json:"name"`
	// Kind is the kernel's ("bridge", "veth", ...), "physical" without one.
	Kind    string `json:"kind"`
	Ifindex int    `json:"ifindex,omitzero"`
	// State is "up", "down", or "no carrier".
	State     string         `json:"state"`
	MAC       string         `json:"macAddress,omitzero"`
	MTU       int            `json:"mtu,omitzero"`
	Addresses []netip.Prefix `json:"addresses"`
	Role      string         `json:"role"`
	// Detail is what is particular to the kind: "vni 42 port 4789".
	Detail string `json:"detail,omitzero"`
}

// MapNetwork is a bridge with what is plugged into it, or a device with the
// macvlans and ipvlans above it.
type MapNetwork struct {
	// Name is that of its engine, or the device's.
	Name   string `json:"name"`
	Engine string `json:"engine"`
	// Kind is "bridge", "macvlan" or "ipvlan"; it is in Namespace, on Device.
	Kind      string         `json:"kind"`
	Namespace string         `json:"namespace"`
	Device    string         `json:"device"`
	State     string         `json:"state"`
	Subnets   []netip.Prefix `json:"subnets"`
	// Gateways are the addresses of the device.
	Gateways []netip.Addr `json:"gateways"`
	Members  []MapMember  `json:"members"`
}

// MapMember is a namespace on a network, or a port that leads elsewhere: out of
// the machine, or into a tunnel.
type MapMember struct {
	// Port is the network's end; "" where the device has none.
	Port string `json:"port"`
	// Namespace and Device are the far end; "" where it is not known.
	Namespace string         `json:"namespace"`
	Device    string         `json:"device"`
	State     string         `json:"state"`
	Addresses []netip.Prefix `json:"addresses"`
	// Detail says what a port is that leads into no namespace.
	Detail string `json:"detail,omitzero"`
}

// MapWire joins two devices.
type MapWire struct {
	// Kind is "veth" (two ends), "port" (To is the bridge, bond or VRF) or
	// "above" (To is the device below a vlan, macvlan, ipvlan or vxlan).
	Kind string `json:"kind"`
	From MapEnd `json:"from"`
	To   MapEnd `json:"to"`
}

// MapEnd is a device of a namespace.
type MapEnd struct {
	Namespace string `json:"namespace"`
	Device    string `json:"device"`
}

// MapPublication is a port of the host that leads into a namespace.
type MapPublication struct {
	HostIP   netip.Addr     `json:"hostIP,omitzero"` // not valid: every address
	HostPort string         `json:"hostPort"`        // a number, or FIRST-LAST
	Proto    string         `json:"proto"`
	To       netip.AddrPort `json:"to"` // port 0: the same as HostPort
	// Namespace has the address; "": nobody.
	Namespace string `json:"namespace"`
	// Listening: somebody listens there. It is null where that is not known.
	Listening *bool  `json:"listening"`
	Author    string `json:"author"`
}

// MapTalk is what connection tracking has of two that talk.
type MapTalk struct {
	// From and To are namespaces, "outside" for machines that are not in the map.
	From  string     `json:"from"`
	To    string     `json:"to"`
	Addr  netip.Addr `json:"addr"` // of To, after translation
	Proto string     `json:"proto"`
	Port  uint16     `json:"port,omitzero"` // of To, after translation
	// Via is the address and port that was asked for, where it is another.
	Via         netip.AddrPort `json:"via,omitzero"`
	Connections int            `json:"connections"`
	Packets     uint64         `json:"packets,omitzero"`
	Bytes       uint64         `json:"bytes,omitzero"`
}
