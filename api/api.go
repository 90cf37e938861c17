// Package api holds Towpath's public nouns: what a user creates, and what the
// daemon answers. They are plain data with validation; the JSON form of each
// is the wire form of the HTTP API and, for the records, the form in the store.
package api

import (
	"net/netip"
	"slices"
	"time"
)

// Driver names of networks.
const (
	DriverBridge = "bridge"
)

// DefaultNetwork is the network a sandbox gets when none is asked for. It is
// made at the daemon's first start on the device DefaultDevice.
const (
	DefaultNetwork = "bridge"
	DefaultDevice  = "towpath0"
)

// Subnet is one address range of a network.
type Subnet struct {
	// Subnet is the masked prefix of the range.
	Subnet netip.Prefix `json:"subnet"`
	// Gateway is the host's own address in the range: the address of the bridge.
	Gateway netip.Addr `json:"gateway"`
	// IPRange, where valid, narrows automatic allocation to a part of Subnet.
	IPRange netip.Prefix `json:"ipRange,omitzero"`
	// Aux are addresses kept for machines Towpath does not run, by name.
	Aux map[string]netip.Addr `json:"auxAddresses,omitempty"`
}

// Gateway modes of a network.
const (
	// GatewayNAT hides containers behind the host's address: the default.
	GatewayNAT = "nat"
	// GatewayRouted lets containers be seen with their own addresses: someone
	// has to route them to this host. Ping comes in; the rest as without.
	GatewayRouted = "routed"
	// GatewayIsolated keeps the host itself off an internal network.
	GatewayIsolated = "isolated"
)

// Network is a layer-2 segment with its address ranges. What is chosen
// (device, subnets) is chosen when it is created and never recomputed.
type Network struct {
	Name   string `json:"name"`
	Driver string `json:"driver"`
	// Device is the name of the bridge in the host's namespace.
	Device string `json:"device"`
	// MAC is the bridge's address, chosen once so that neighbours of the
	// gateway never have to learn another.
	MAC     string   `json:"macAddress"`
	Subnets []Subnet `json:"subnets"`
	// Internal networks have no way out of the host.
	Internal bool `json:"internal"`
	// ICC says whether containers of this network may talk to each other.
	ICC bool `json:"icc"`
	// GatewayMode is "nat", "routed" or "isolated".
	GatewayMode string `json:"gatewayMode"`
	// MTU in bytes; 0 follows the host's uplink.
	MTU     int               `json:"mtu"`
	Labels  map[string]string `json:"labels"`
	Options map[string]string `json:"options"`

	// Endpoints and Status are filled in answers and never stored; Warnings in
	// the answer that made it: what stands in the way, and what to do.
	Endpoints []Endpoint `json:"endpoints,omitzero"`
	Status    *Status    `json:"status,omitempty"`
	Warnings  []string   `json:"warnings,omitempty"`
}

// Has4 reports whether the network has an IPv4 subnet.
func (n *Network) Has4() bool {
	return slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Subnet.Addr().Is4() })
}

// Has6 reports whether the network has an IPv6 subnet.
func (n *Network) Has6() bool {
	return slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Subnet.Addr().Is6() })
}

// OptionSpoofGuard is the option that says whether what containers send is
// checked: "on", as it is without it, or "off".
const OptionSpoofGuard = "towpath.spoof-guard"

// SpoofGuard reports whether containers of the network may send only with
// addresses of their own.
func (n *Network) SpoofGuard() bool { return n.Options[OptionSpoofGuard] != "off" }

// NetworkSpec asks for a network. Lists pair up by address: a gateway, range
// or auxiliary address belongs to the subnet that contains it.
type NetworkSpec struct {
	Name         string                `json:"name"`
	Driver       string                `json:"driver,omitempty"`
	Device       string                `json:"device,omitempty"`
	Subnets      []netip.Prefix        `json:"subnets,omitempty"`
	Gateways     []netip.Addr          `json:"gateways,omitempty"`
	IPRanges     []netip.Prefix        `json:"ipRanges,omitempty"`
	AuxAddresses map[string]netip.Addr `json:"auxAddresses,omitempty"`
	// IPv4 is true unless said otherwise; IPv6 false.
	IPv4     *bool `json:"ipv4,omitempty"`
	IPv6     bool  `json:"ipv6,omitempty"`
	Internal bool  `json:"internal,omitempty"`
	ICC      *bool `json:"icc,omitempty"`
	// GatewayMode is "nat" unless said otherwise.
	GatewayMode string            `json:"gatewayMode,omitempty"`
	MTU         int               `json:"mtu,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Options     map[string]string `json:"options,omitempty"`
}

// Sandbox origins: who made the namespace, which decides what happens to the
// sandbox when the machine restarts.
const (
	// OriginMade: the daemon made the namespace for `sandbox create`; it is
	// made again after a reboot.
	OriginMade = "made"
	// OriginRun: the daemon made it for `run`; it goes with the command.
	OriginRun = "run"
	// OriginAdopted: the caller brought the namespace.
	OriginAdopted = "adopted"
)

// Sandbox is a network namespace with the endpoints in it.
type Sandbox struct {
	Name string `json:"name"`
	// Netns is the path under which the namespace can be entered.
	Netns  string `json:"netns"`
	Origin string `json:"origin"`
	// Cookie is the kernel's identity of an adopted namespace (SO_NETNS_COOKIE).
	Cookie   uint64            `json:"cookie,omitempty"`
	Hostname string            `json:"hostname,omitempty"`
	Labels   map[string]string `json:"labels"`
	Naming
	// Process is the `run` that the sandbox goes with.
	Process *Process `json:"process,omitempty"`

	// What follows is filled in answers and never stored.

	Endpoints    []Endpoint    `json:"endpoints"`
	Publications []Publication `json:"publications"`
	// ResolvConf and Hosts are the lines of /etc/resolv.conf and /etc/hosts that
	// belong to the sandbox.
	ResolvConf []string `json:"resolvConf,omitempty"`
	Hosts      []string `json:"hosts,omitempty"`
	// Warnings tell what will not work as one may expect.
	Warnings []string `json:"warnings,omitempty"`
	Live     *Live    `json:"live,omitempty"`
	Status   *Status  `json:"status,omitempty"`
}

// SandboxSpec asks for a sandbox. With Adopt the request carries the
// namespace as a file descriptor beside it.
type SandboxSpec struct {
	Name     string            `json:"name"`
	Hostname string            `json:"hostname,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Naming
	// Networks are connected in order, as eth0, eth1, ...; nil means the default network.
	Networks []EndpointSpec `json:"networks"`
	// Publish are the ports to publish from the start.
	Publish []Publication `json:"publish,omitempty"`
	Adopt   bool          `json:"adopt,omitempty"`
	// Run marks a sandbox that goes with the calling process.
	Run bool `json:"run,omitempty"`
}

// Process identifies a process across the reuse of its number: by its start
// time in clock ticks since boot (proc(5), /proc/PID/stat field 22).
type Process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// EndpointSpec asks for one attachment of a sandbox to a network.
type EndpointSpec struct {
	Network string     `json:"network"`
	IP      netip.Addr `json:"ip,omitzero"`
	IP6     netip.Addr `json:"ip6,omitzero"`
	MAC     string     `json:"macAddress,omitempty"`
	Ifname  string     `json:"ifname,omitempty"`
	Aliases []string   `json:"aliases,omitempty"`
	// GwPriority: the endpoint with the highest gives the default route; ties
	// go to the first interface.
	GwPriority int `json:"gwPriority,omitempty"`
	// Sysctls of the interface, by name in either notation; IFNAME in a name
	// stands for the interface: net.ipv4.conf.IFNAME.log_martians.
	Sysctls map[string]string `json:"sysctls,omitempty"`
}

// Endpoint is one attachment: the pair (sandbox, interface).
type Endpoint struct {
	Sandbox string `json:"sandbox"`
	Network string `json:"network"`
	Ifname  string `json:"ifname"`
	// HostIfname is the other end of the veth pair, a port of the bridge.
	HostIfname string         `json:"hostIfname"`
	MAC        string         `json:"macAddress"`
	Addresses  []netip.Prefix `json:"addresses"`
	Gateways   []netip.Addr   `json:"gateways"`
	Aliases    []string       `json:"aliases"`
	GwPriority int            `json:"gwPriority,omitempty"`
	// Sysctls by their path under /proc/sys.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Index orders the endpoints of a sandbox: the order in which they were connected.
	Index int `json:"index"`

	// Warnings and Status are filled in answers and never stored.
	Warnings []string `json:"warnings,omitempty"`
	Status   *Status  `json:"status,omitempty"`
}

// Status says whether the kernel holds what the object asks for. It is
// observed, never stored.
type Status struct {
	// State is "ready", "pending" or "error".
	State   string `json:"state"`
	Message string `json:"message,omitempty"`
}

// Live is what the kernel shows now of a sandbox, both sides, one line an
// object in the look of ip(8) and nft(8).
type Live struct {
	Links      []string `json:"links"`
	Addresses  []string `json:"addresses"`
	Routes     []string `json:"routes"`
	Neighbours []string `json:"neighbours"`
	Chains     []string `json:"chains"`
}

// Event is something that happened: a verb that was carried out, a repair, a
// failure.
type Event struct {
	ID   int64     `json:"id"`
	Time time.Time `json:"time"`
	// Kind is "network", "sandbox", "endpoint", "publication", "resolver" or "host".
	Kind string `json:"kind"`
	// Name is that of the object: "front", "web", "web/eth0".
	Name string `json:"name"`
	// Action is "create", "remove", "connect", "disconnect", "publish",
	// "unpublish", "heal", "fail", "recover", "upstreams" or "throttle".
	Action string `json:"action"`
	// Detail says more: what was repaired and why, or the kernel's words.
	Detail string `json:"detail,omitempty"`
}

// Preview is the answer to a request with dryRun: the ops it would cause, one
// a line; nothing was changed.
type Preview struct {
	Ops []string `json:"ops"`
}

// State is the desired or the observed kernel state as text, one object a line.
type State struct {
	Text string `json:"text"`
}

// Version says what the daemon is.
type Version struct {
	Version string `json:"version"`
	Kernel  string `json:"kernel,omitempty"`
	Boot    string `json:"bootID,omitempty"`
}
