package api

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// reservedNames have a meaning of their own in commands.
func reservedNames() []string { return []string{"host", "outside", "none", "container"} }

// ValidName checks the name of a network or sandbox. what is the noun for the message.
func ValidName(what, name string) error {
	if name == "" {
		return Errorf(Invalid, "%s name is empty", what).WithFix("give it one")
	}
	if !regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`).MatchString(name) {
		return Errorf(Invalid, "%s name %q is not valid", what, clip(name)).
			WithFix("use letters, digits, '_', '.' and '-', starting with a letter or digit, at most 128")
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return Errorf(Invalid, "%s name %q reads as an address", what, name).WithFix("choose another name")
	}
	if slices.Contains(reservedNames(), strings.ToLower(name)) {
		return Errorf(Invalid, "%s name %q is reserved", what, name).WithFix("choose another name")
	}
	return nil
}

// clip keeps a message readable when the value in it is not.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// ValidIfname checks the name of an interface: the kernel's dev_valid_name,
// and no '%', which the kernel expands on creation.
func ValidIfname(name string) error {
	switch {
	case name == "", len(name) > 15:
		return Errorf(Invalid, "interface name %q is not 1 to 15 bytes long", clip(name)).WithFix("choose one the kernel takes, as eth1")
	case name == ".", name == "..", name == "lo", strings.ContainsAny(name, "/:% \t\n\v\f\r\""):
		return Errorf(Invalid, "interface name %q is not one the kernel accepts here", name).WithFix("choose letters and digits, as eth1")
	}
	for _, r := range name {
		if r < 0x21 || r > 0x7e {
			return Errorf(Invalid, "interface name %q has a character that is not printable ASCII", name).WithFix("choose letters and digits, as eth1")
		}
	}
	return nil
}

// ParseMAC reads a unicast 48-bit address and returns its canonical form.
func ParseMAC(s string) (string, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return "", Errorf(Invalid, "MAC address %q is not six hexadecimal bytes", clip(s)).WithFix("write it as 02:00:5e:10:00:01")
	}
	if hw[0]&1 != 0 {
		return "", Errorf(Invalid, "MAC address %s is a group address", s).WithFix("clear the lowest bit of its first byte")
	}
	if slices.Max(hw) == 0 {
		return "", Errorf(Invalid, "MAC address %s is all zero", s).WithFix("leave it out to get one")
	}
	return hw.String(), nil
}

// Validate checks what can be said of the spec without looking at other
// objects. Problems of allocation (overlaps, exhausted pools) are the engine's.
func (s *NetworkSpec) Validate() error {
	if err := ValidName("network", s.Name); err != nil {
		return err
	}
	if s.Driver != "" && s.Driver != DriverBridge {
		return Errorf(Invalid, "driver %q is not known", clip(s.Driver)).WithFix("known drivers: %s", DriverBridge)
	}
	if s.MTU != 0 && (s.MTU < 68 || s.MTU > 65535) {
		return Errorf(Invalid, "mtu %d is out of range", s.MTU).WithFix("use 68 to 65535 (1280 at least with IPv6)")
	}
	if s.Device != "" {
		if err := ValidIfname(s.Device); err != nil {
			return err
		}
	}
	v4 := s.IPv4 == nil || *s.IPv4
	if !v4 && !s.IPv6 {
		return Errorf(Invalid, "a network needs IPv4 or IPv6").WithFix("add --ipv6, or leave out --ipv4=false")
	}
	if s.MTU != 0 && s.MTU < 1280 && s.wants6() {
		return Errorf(Invalid, "mtu %d is below 1280, the least IPv6 allows (RFC 8200)", s.MTU).WithFix("use --mtu 1280 or more")
	}
	if o, given := s.Options[OptionSpoofGuard]; given && o != "on" && o != "off" {
		return Errorf(Invalid, "option %s=%s is neither on nor off", OptionSpoofGuard, clip(o)).WithFix("leave it out, or say %s=off", OptionSpoofGuard)
	}
	if err := s.validateMode(); err != nil {
		return err
	}
	if err := validateDNSOptions(s.Options); err != nil {
		return err
	}
	if err := s.validateSubnets(v4); err != nil {
		return err
	}
	return s.validateMembers()
}

func (s *NetworkSpec) validateMode() error {
	switch s.GatewayMode {
	case "", GatewayNAT, GatewayRouted:
		return nil
	case GatewayIsolated:
		if s.Internal {
			return nil
		}
		return Errorf(Invalid, "gateway mode isolated is for internal networks").WithFix("add --internal")
	default:
		return Errorf(Invalid, "gateway mode %q is not known", clip(s.GatewayMode)).WithFix("use nat, routed or isolated")
	}
}

func (s *NetworkSpec) wants6() bool {
	return s.IPv6 || slices.ContainsFunc(s.Subnets, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

func (s *NetworkSpec) validateSubnets(v4 bool) error {
	for i, p := range s.Subnets {
		switch {
		case !p.IsValid():
			return Errorf(Invalid, "a subnet is not an address range").WithFix("write it as 172.20.0.0/24")
		case p.Addr().Is4In6():
			return Errorf(Invalid, "subnet %s is an IPv4-mapped range", p).WithFix("write it as plain IPv4")
		case p != p.Masked():
			return Errorf(Invalid, "subnet %s has bits set behind its mask", p).WithFix("did you mean %s?", p.Masked())
		case p.Addr().Is4() && (p.Bits() < 8 || p.Bits() > 30), p.Addr().Is6() && (p.Bits() < 16 || p.Bits() > 126):
			return Errorf(Invalid, "subnet %s is too large or too small for a network", p).WithFix("use /8 to /30 for IPv4, /16 to /126 for IPv6")
		case p.Addr().IsMulticast(), p.Addr().IsLoopback(), p.Addr().IsUnspecified(), p.Addr().IsLinkLocalUnicast():
			return Errorf(Invalid, "subnet %s is not a unicast range that can be routed", p).WithFix("use a private one, as 172.20.0.0/24 or fd00:1::/64")
		case p.Addr().Is4() && !v4:
			return Errorf(Invalid, "subnet %s is IPv4, which --ipv4=false turns off", p).WithFix("leave out the one or the other")
		}
		for _, q := range s.Subnets[:i] {
			if p.Overlaps(q) {
				return Errorf(Invalid, "subnets %s and %s overlap", q, p).WithFix("leave one out, or choose another")
			}
		}
	}
	return nil
}

// within finds the subnet that holds a.
func (s *NetworkSpec) within(a netip.Addr) (netip.Prefix, bool) {
	i := slices.IndexFunc(s.Subnets, func(p netip.Prefix) bool { return p.Contains(a) })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return s.Subnets[i], true
}

func (s *NetworkSpec) validateMembers() error {
	for _, g := range s.Gateways {
		p, ok := s.within(g)
		if !ok {
			return Errorf(Invalid, "gateway %s lies in none of the subnets given", g).WithFix("give the --subnet that contains it")
		}
		if !UsableIn(p, g) {
			return Errorf(Invalid, "gateway %s is the network or broadcast address of %s", g, p).WithFix("choose another address of it")
		}
	}
	for _, r := range s.IPRanges {
		p, ok := s.within(r.Addr())
		if !r.IsValid() || !ok || r.Bits() < p.Bits() {
			return Errorf(Invalid, "ip-range %s lies in none of the subnets given", r).WithFix("give the --subnet that contains it")
		}
		if r != r.Masked() {
			return Errorf(Invalid, "ip-range %s has bits set behind its mask", r).WithFix("did you mean %s?", r.Masked())
		}
	}
	for name, a := range s.AuxAddresses {
		if p, ok := s.within(a); !ok || !UsableIn(p, a) {
			return Errorf(Invalid, "aux-address %s=%s lies in none of the subnets given", clip(name), a).WithFix("give the --subnet that contains it")
		}
	}
	return nil
}

// UsableIn reports whether a host may have address a in subnet p: inside, not
// the subnet's own address (for IPv6 the subnet-router anycast, RFC 4291
// 2.6.1) and, for IPv4, not its broadcast address.
func UsableIn(p netip.Prefix, a netip.Addr) bool {
	if !p.Contains(a) || a == p.Masked().Addr() {
		return false
	}
	return a.Is6() || p.Contains(a.Next())
}

// Validate checks what can be said of the spec without looking at other objects.
func (s *SandboxSpec) Validate() error {
	if err := ValidName("sandbox", s.Name); err != nil {
		return err
	}
	if s.Hostname != "" {
		if err := ValidHostname(s.Hostname); err != nil {
			return err
		}
	}
	if err := s.validateNaming(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range s.Networks {
		e := &s.Networks[i]
		if err := e.Validate(); err != nil {
			return err
		}
		if e.Ifname != "" && seen[e.Ifname] {
			return Errorf(Invalid, "interface name %s is given twice", e.Ifname).WithFix("choose another for one of them, or leave it out")
		}
		seen[e.Ifname] = true
	}
	return nil
}

// Validate checks what can be said of the spec without looking at other objects.
func (s *EndpointSpec) Validate() error {
	if s.Network == "" {
		return Errorf(Invalid, "network name is empty").WithFix("name the network to connect to")
	}
	if s.Ifname != "" {
		if err := ValidIfname(s.Ifname); err != nil {
			return err
		}
	}
	if s.MAC != "" {
		mac, err := ParseMAC(s.MAC)
		if err != nil {
			return err
		}
		s.MAC = mac
	}
	if s.IP.IsValid() && !s.IP.Is4() {
		return Errorf(Invalid, "ip %s is not IPv4", s.IP).WithFix("give IPv6 addresses with --ip6 (or ip6=)")
	}
	if s.IP6.IsValid() && (!s.IP6.Is6() || s.IP6.Is4In6()) {
		return Errorf(Invalid, "ip6 %s is not IPv6", s.IP6).WithFix("give IPv4 addresses with --ip (or ip=)")
	}
	for _, a := range s.Aliases {
		if a == "" {
			return Errorf(Invalid, "an alias is empty").WithFix("leave it out")
		}
	}
	for name := range s.Sysctls {
		if _, err := InterfaceSysctl(name, "eth0"); err != nil {
			return err
		}
	}
	return nil
}

// InterfaceSysctl is the path under /proc/sys of a sysctl of an interface,
// which the name calls IFNAME or by its own name. Others are refused: they
// would be the whole namespace's, or the host's.
func InterfaceSysctl(name, ifname string) (string, error) {
	path := name
	if !strings.Contains(name, "/") {
		path = strings.NewReplacer(".", "/", "/", ".").Replace(name)
	}
	f := strings.Split(path, "/")
	known := len(f) == 5 && f[0] == "net" && (f[1] == "ipv4" || f[1] == "ipv6") && (f[2] == "conf" || f[2] == "neigh")
	if !known || f[3] != "IFNAME" && f[3] != ifname || !regexp.MustCompile(`^[a-z0-9_]+$`).MatchString(f[4]) {
		return "", Errorf(Invalid, "sysctl %q is not one of the interface", clip(name)).
			WithFix("use net.ipv4.conf.IFNAME.*, net.ipv6.conf.IFNAME.*, or neigh in place of conf")
	}
	f[3] = ifname
	return strings.Join(f, "/"), nil
}
