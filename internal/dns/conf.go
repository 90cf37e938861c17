package dns

import (
	"net/netip"
	"slices"
	"strings"
)

// Port is where resolvers listen.
const Port = 53

// Conf is what resolv.conf(5) says.
type Conf struct {
	Nameservers []netip.Addr
	Search      []string
	Options     []string
}

// ParseConf reads a resolv.conf as the C library does: what it does not
// understand means nothing, and of several search lists the last one holds. It
// takes all name servers, not only three.
func ParseConf(text string) Conf {
	var c Conf
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.ContainsAny(line[:1], "#; \t") {
			continue
		}
		switch rest := fields[1:]; fields[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(rest[0]); err == nil && !slices.Contains(c.Nameservers, a) {
				c.Nameservers = append(c.Nameservers, a)
			}
		case "search":
			c.Search = rest
		case "domain":
			c.Search = rest[:1]
		case "options":
			c.Options = append(c.Options, rest...)
		}
	}
	return c
}

// Upstreams gives the name servers with the port.
func (c Conf) Upstreams() []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range c.Nameservers {
		out = append(out, netip.AddrPortFrom(a.Unmap(), Port))
	}
	return out
}

// stub tells whether the file names nothing but the stubs of systemd-resolved.
// What these ask is in a file of its own.
func (c Conf) stub() bool {
	return len(c.Nameservers) > 0 && !slices.ContainsFunc(c.Nameservers, func(a netip.Addr) bool {
		return a != netip.AddrFrom4([4]byte{127, 0, 0, 53}) && a != netip.AddrFrom4([4]byte{127, 0, 0, 54})
	})
}
