package api

import (
	"net/netip"
	"slices"
	"strings"
)

// ResolvLines are those of /etc/resolv.conf, in Docker's habit: the host's
// search domains and options, which are given, where none were asked for, and
// ndots:0, so that a name without a dot is first asked for as it is.
func (n Naming) ResolvLines(search, options []string) []string {
	lines := []string{"nameserver " + ResolverAddress}
	if len(n.DNSSearch) > 0 {
		search = slices.DeleteFunc(slices.Clone(n.DNSSearch), func(d string) bool { return d == "." })
	}
	if len(search) > 0 {
		lines = append(lines, "search "+strings.Join(search, " "))
	}
	if len(n.DNSOptions) > 0 {
		options = n.DNSOptions
	}
	if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
		options = append(slices.Clone(options), "ndots:0")
	}
	return append(lines, "options "+strings.Join(options, " "))
}

// HostsLines are those of /etc/hosts: the local names, extra hosts, and the
// names of the sandbox at each of its addresses.
func (s *Sandbox) HostsLines() []string {
	lines := []string{
		"127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback",
		"fe00::0\tip6-localnet", "ff00::0\tip6-mcastprefix", "ff02::1\tip6-allnodes", "ff02::2\tip6-allrouters",
	}
	for _, h := range s.ExtraHosts {
		for _, a := range s.ExtraAddresses(h) {
			lines = append(lines, a.String()+"\t"+h.Name)
		}
	}
	names := strings.Join(s.ownNames(), " ")
	for _, ep := range s.Endpoints {
		for _, a := range ep.Addresses {
			lines = append(lines, a.Addr().String()+"\t"+names)
		}
	}
	return lines
}

// ExtraAddresses are those of an extra host of s; of the host itself there may be
// one a family, or none.
func (s *Sandbox) ExtraAddresses(h ExtraHost) []netip.Addr {
	if h.Address != HostGateway {
		a, err := netip.ParseAddr(h.Address)
		if err != nil {
			return nil // it was checked; a newer version may know more
		}
		return []netip.Addr{a}
	}
	for _, ep := range s.Endpoints {
		if len(ep.Gateways) > 0 {
			return ep.Gateways
		}
	}
	return nil
}

// ownNames are the host name of a sandbox and its name, in full and short.
func (s *Sandbox) ownNames() []string {
	var out []string
	for _, name := range []string{s.HostnameOrName(), s.Name} {
		short, _, _ := strings.Cut(name, ".")
		for _, n := range []string{name, short} {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out
}

// NameWarnings tell what of the names of s will not work as one may expect.
func (s *Sandbox) NameWarnings() []string {
	out := NameWarnings(s.Name, s.Endpoints...)
	for _, h := range s.ExtraHosts {
		if len(s.ExtraAddresses(h)) == 0 {
			out = append(out, "extra host "+h.Name+" has no address: no network of the sandbox has a gateway")
		}
	}
	return out
}
