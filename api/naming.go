package api

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Where a sandbox asks for names: an address of its own loopback, so that it is
// the same in every sandbox, and the port behind 53 that the daemon has there.
const (
	ResolverAddress = "127.0.0.11"
	ResolverPort    = 40053
)

// HostGateway as the address of an extra host stands for the host itself: the
// gateway of the sandbox's network.
const HostGateway = "host-gateway"

// Options of a network about what is asked of DNS servers.
const (
	// OptionDNSFrom is from where they are asked: "host", the default, or
	// "sandbox", over the sandbox's own routes, as Docker does.
	OptionDNSFrom = "dns_from"
	// OptionDNSForward is whether they are asked at all: "true", the default but
	// of internal networks, or "false".
	OptionDNSForward = "dns_forward"
)

// validateDNSOptions checks the options that are Towpath's own.
func validateDNSOptions(options map[string]string) error {
	for key, known := range map[string][]string{OptionDNSFrom: {"host", "sandbox"}, OptionDNSForward: {"true", "false"}} {
		if v, given := options[key]; given && !slices.Contains(known, v) {
			return Errorf(Invalid, "option %s=%s is not valid", key, clip(v)).WithFix("use %s", strings.Join(known, " or "))
		}
	}
	return nil
}

// ForwardsNames reports whether DNS servers are asked for names that are no
// sandbox's.
func (n *Network) ForwardsNames() bool {
	if v, given := n.Options[OptionDNSForward]; given {
		return v == "true"
	}
	return !n.Internal
}

// Naming is how names are resolved in a sandbox.
type Naming struct {
	// DNS are the servers that are asked for what is not the name of a sandbox;
	// without any, the host's.
	DNS []netip.Addr `json:"dns,omitempty"`
	// DNSSearch are the domains that a short name is tried in; "." alone is
	// none at all, and nothing the host's.
	DNSSearch []string `json:"dnsSearch,omitempty"`
	// DNSOptions are options of resolv.conf(5); without any, the host's.
	DNSOptions []string `json:"dnsOptions,omitempty"`
	// ExtraHosts are further lines of /etc/hosts.
	ExtraHosts []ExtraHost `json:"extraHosts,omitempty"`
}

// ExtraHost is a name with an address of its own in one sandbox.
type ExtraHost struct {
	Name string `json:"name"`
	// Address is an IP address, or HostGateway.
	Address string `json:"address"`
}

// String is the form of --add-host.
func (h ExtraHost) String() string { return h.Name + ":" + h.Address }

// Limits of what a sandbox may say of names: resolv.conf(5) has 6 search
// domains of 256 bytes in all in older C libraries, and none since glibc 2.26;
// these keep files and answers small.
const (
	maxServers    = 8
	maxSearch     = 32
	maxExtraHosts = 256
)

// validateNaming checks what can be said without looking at other objects.
func (n *Naming) validateNaming() error {
	if len(n.DNS) > maxServers || len(n.DNSSearch) > maxSearch || len(n.DNSOptions) > maxSearch || len(n.ExtraHosts) > maxExtraHosts {
		return Errorf(Invalid, "%d DNS servers, %d search domains, %d options and %d extra hosts are too many", len(n.DNS), len(n.DNSSearch), len(n.DNSOptions), len(n.ExtraHosts)).
			WithFix("give at most %d, %d, %d and %d", maxServers, maxSearch, maxSearch, maxExtraHosts)
	}
	for _, a := range n.DNS {
		if err := ValidServer(a); err != nil {
			return err
		}
	}
	for _, d := range n.DNSSearch {
		if err := validSearch(d, len(n.DNSSearch)); err != nil {
			return err
		}
	}
	for _, o := range n.DNSOptions {
		if !regexp.MustCompile(`^[a-z0-9-]+(:[0-9]+)?$`).MatchString(o) || len(o) > 32 {
			return Errorf(Invalid, "DNS option %q is not one of resolv.conf(5)", clip(o)).WithFix("write it as in resolv.conf: ndots:2, timeout:1, rotate")
		}
	}
	for _, h := range n.ExtraHosts {
		if err := h.validate(); err != nil {
			return err
		}
	}
	return nil
}

// ValidServer checks the address of a DNS server to forward to.
func ValidServer(a netip.Addr) error {
	switch {
	case !a.IsValid(), a.IsUnspecified(), a.IsMulticast():
		return Errorf(Invalid, "DNS server %s is not the address of a server", a).WithFix("give that of one host, as 192.0.2.53")
	case a.Unmap() == netip.MustParseAddr(ResolverAddress):
		return Errorf(Invalid, "DNS server %s is Towpath's own resolver, which would ask itself", a).
			WithFix("leave it out: a sandbox asks it in any case")
	}
	return nil
}

func validSearch(domain string, of int) error {
	switch {
	case domain == "." && of == 1:
		return nil
	case domain == ".":
		return Errorf(Invalid, "search domain . means none, and goes with no other").WithFix("leave out the one or the others")
	}
	if why := Unresolvable(strings.TrimSuffix(domain, ".")); why != "" {
		return Errorf(Invalid, "search domain %q is not valid: %s", clip(domain), why).WithFix("write it as example.org; a single . is none at all")
	}
	return nil
}

func (h ExtraHost) validate() error {
	if why := Unresolvable(h.Name); why != "" {
		return Errorf(Invalid, "extra host %q is not a host name: %s", clip(h.Name), why).WithFix("write NAME:IP or NAME:%s", HostGateway)
	}
	if h.Address == HostGateway {
		return nil
	}
	if a, err := netip.ParseAddr(h.Address); err != nil || a.IsUnspecified() || a.IsMulticast() {
		return Errorf(Invalid, "extra host %s: %q is not the address of a host", h.Name, clip(h.Address)).WithFix("write NAME:IP or NAME:%s", HostGateway)
	}
	return nil
}

// ParseExtraHosts reads the value of --add-host: NAME:ADDRESS, or
// NAME=ADDRESS, where an IPv6 address may be in brackets (Docker), with several
// names separated by semicolons (Podman).
func ParseExtraHosts(s string) ([]ExtraHost, error) {
	names, addr, ok := strings.Cut(s, "=")
	if !ok {
		names, addr, ok = strings.Cut(s, ":")
	}
	if !ok || names == "" || addr == "" {
		return nil, Errorf(Invalid, "%q is not of the form NAME:IP", clip(s)).WithFix("write NAME:IP or NAME:%s", HostGateway)
	}
	if inner, ok := strings.CutPrefix(addr, "["); ok && strings.HasSuffix(inner, "]") {
		addr = strings.TrimSuffix(inner, "]")
	}
	if a, err := netip.ParseAddr(addr); err == nil {
		addr = a.String()
	}
	var out []ExtraHost
	for _, name := range strings.Split(names, ";") {
		h := ExtraHost{Name: name, Address: addr}
		if err := h.validate(); err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

// Unresolvable says why a name cannot be asked for by DNS, "" if it can: labels
// of 1 to 63 bytes (RFC 1035 2.3.4) of letters, digits, '-' and '_', at most 253
// bytes in all.
func Unresolvable(name string) string {
	if name == "" {
		return "it is empty"
	}
	if len(name) > 253 {
		return "it is over 253 bytes"
	}
	for _, label := range strings.Split(name, ".") {
		switch {
		case label == "":
			return "it has an empty label"
		case len(label) > 63:
			return "a label is over 63 bytes"
		case strings.HasPrefix(label, "-"), strings.HasSuffix(label, "-"):
			return "a label begins or ends with '-'"
		case !regexp.MustCompile(`^[a-zA-Z0-9_-]+$`).MatchString(label):
			return "a label has something else than letters, digits, '-' and '_'"
		}
	}
	return ""
}

// NameWarnings tell which names of a sandbox and its endpoints work everywhere
// but in DNS.
func NameWarnings(sandbox string, endpoints ...Endpoint) []string {
	var out []string
	add := func(what, name string) {
		if why := Unresolvable(name); why != "" {
			if text := what + " " + clip(name) + " does not resolve: " + why; !slices.Contains(out, text) {
				out = append(out, text)
			}
		}
	}
	add("sandbox", sandbox)
	for _, e := range endpoints {
		for _, a := range e.Aliases {
			add("alias", a)
		}
	}
	return out
}
