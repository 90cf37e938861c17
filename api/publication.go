package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Publication makes ports of a sandbox reachable at ports of the host. A range
// is one publication: Count ports from HostPort and from Port on.
type Publication struct {
	Sandbox string `json:"sandbox"`
	// HostIP is the host's address to publish at: 0.0.0.0 or :: is any of that
	// family, none at all any of both.
	HostIP   netip.Addr     `json:"hostIP"`
	HostPort uint16         `json:"hostPort"`
	Port     uint16         `json:"port"`
	Count    uint16         `json:"count"`
	Proto    string         `json:"proto"`
	From     []netip.Prefix `json:"from"`

	// State is "ready", "conflict", "waiting" or "error"; Message says why.
	// Warnings are what stands in the way of one that is ready. They are filled in
	// answers and never stored.
	State    string   `json:"state,omitempty"`
	Message  string   `json:"message,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// ID is what tells publications of a host apart, and names them.
func (p *Publication) ID() string {
	host := "*"
	switch {
	case p.HostIP.Is4():
		host = p.HostIP.String()
	case p.HostIP.Is6():
		host = "[" + p.HostIP.String() + "]"
	}
	return host + ":" + portRange(p.HostPort, p.Count) + "/" + p.Proto
}

// String is the publication as ParsePublication reads it.
func (p *Publication) String() string {
	var b strings.Builder
	if p.HostIP.IsValid() {
		host := p.HostIP.String()
		if p.HostIP.Is6() {
			host = "[" + host + "]"
		}
		b.WriteString(host + ":")
	}
	if p.HostPort != 0 {
		b.WriteString(portRange(p.HostPort, p.Count) + ":")
	} else if p.HostIP.IsValid() {
		b.WriteString(":")
	}
	b.WriteString(portRange(p.Port, p.Count) + "/" + p.Proto)
	for _, f := range p.From {
		b.WriteString(",from=" + f.String())
	}
	return b.String()
}

func portRange(first, count uint16) string {
	if count <= 1 {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, int(first)+int(count)-1)
}

// Overlaps reports whether two publications want the same port of the host.
func (p *Publication) Overlaps(q *Publication) bool {
	if p.Proto != q.Proto || int(p.HostPort)+int(p.Count) <= int(q.HostPort) || int(q.HostPort)+int(q.Count) <= int(p.HostPort) {
		return false
	}
	if !p.HostIP.IsValid() || !q.HostIP.IsValid() || p.HostIP == q.HostIP {
		return true
	}
	return p.HostIP.Is4() == q.HostIP.Is4() && (p.HostIP.IsUnspecified() || q.HostIP.IsUnspecified())
}

// ParsePublication reads [HOSTIP:][HOSTPORT[-END]:]PORT[-END][/PROTO][,from=CIDR]...
// An IPv6 host address is written in brackets. Without HOSTIP the address is
// not valid, without HOSTPORT the port is 0: the daemon chooses.
func ParsePublication(s string) (Publication, error) {
	p := Publication{Proto: "tcp", From: []netip.Prefix{}}
	spec, opts, _ := strings.Cut(s, ",")
	if opts != "" {
		for _, opt := range strings.Split(opts, ",") {
			if err := p.option(opt); err != nil {
				return p, publicationError(s, err)
			}
		}
	}
	ports, proto, hasProto := strings.Cut(spec, "/")
	if hasProto {
		p.Proto = strings.ToLower(proto)
	}
	if err := p.parsePorts(ports); err != nil {
		return p, publicationError(s, err)
	}
	if err := p.Validate(); err != nil {
		return p, publicationError(s, err)
	}
	return p, nil
}

func publicationError(s string, err error) error {
	e := Errorf(Invalid, "publication %q: %w", clip(s), err)
	return e.WithFix("write it as [HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|udp|sctp][,from=CIDR]")
}

func (p *Publication) option(opt string) error {
	key, value, _ := strings.Cut(opt, "=")
	if key != "from" {
		return fmt.Errorf("option %q is not known", key)
	}
	prefix, err := netip.ParsePrefix(value)
	if err != nil {
		a, aerr := netip.ParseAddr(value)
		if aerr != nil {
			return fmt.Errorf("from=%s is not an address range", value)
		}
		prefix = netip.PrefixFrom(a, a.BitLen())
	}
	if prefix != prefix.Masked() {
		return fmt.Errorf("from=%s has bits set behind its mask, did you mean %s?", value, prefix.Masked())
	}
	p.From = append(p.From, prefix)
	return nil
}

// parsePorts reads what stands before the protocol.
func (p *Publication) parsePorts(s string) error {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		host, after, closed := strings.Cut(rest, "]")
		ports, colon := strings.CutPrefix(after, ":")
		if !closed || !colon {
			return fmt.Errorf("%q is not [ADDRESS]:PORTS", s)
		}
		if err := p.parseHost(host, true); err != nil {
			return err
		}
		s = ports
	}
	parts := strings.Split(s, ":")
	if len(parts) == 3 && !p.HostIP.IsValid() {
		if err := p.parseHost(parts[0], false); err != nil {
			return err
		}
		parts = parts[1:]
	}
	if len(parts) > 2 {
		return fmt.Errorf("%q has too many colons (an IPv6 address is written in brackets)", s)
	}
	port, count, err := parseRange(parts[len(parts)-1])
	if err != nil {
		return err
	}
	p.Port, p.Count = port, count
	if len(parts) == 1 || parts[0] == "" {
		return nil
	}
	hostPort, hostCount, err := parseRange(parts[0])
	if err != nil {
		return err
	}
	if hostCount != count {
		return fmt.Errorf("%s and %s are ranges of different length", parts[0], parts[1])
	}
	p.HostPort = hostPort
	return nil
}

func (p *Publication) parseHost(s string, v6 bool) error {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is6() != v6 || a.Zone() != "" {
		return fmt.Errorf("%q is not an address of the host", s)
	}
	p.HostIP = a
	return nil
}

// parseRange reads PORT or FIRST-LAST.
func parseRange(s string) (first, count uint16, err error) {
	a, b, isRange := strings.Cut(s, "-")
	first, err = parsePort(a)
	if err != nil || !isRange {
		return first, 1, err
	}
	last, err := parsePort(b)
	if err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("range %s runs backwards", s)
	}
	return first, last - first + 1, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%q is not a port, 1 to 65535", s)
	}
	return uint16(n), nil
}

// Validate checks what can be said of a publication without looking at others.
func (p *Publication) Validate() error {
	switch {
	case !slices.Contains([]string{"tcp", "udp", "sctp"}, p.Proto):
		return Errorf(Invalid, "protocol %q is not known: use tcp, udp or sctp", clip(p.Proto))
	case p.Port == 0 || p.Count == 0 || int(p.Port)+int(p.Count) > 65536:
		return Errorf(Invalid, "ports %d to %d do not exist", p.Port, int(p.Port)+int(p.Count)-1)
	case p.HostPort != 0 && int(p.HostPort)+int(p.Count) > 65536:
		return Errorf(Invalid, "host ports %d to %d do not exist", p.HostPort, int(p.HostPort)+int(p.Count)-1)
	case p.HostIP.IsMulticast(), p.HostIP.Is4In6(), p.HostIP.IsLinkLocalUnicast():
		return Errorf(Invalid, "host address %s cannot be published at", p.HostIP)
	}
	for _, f := range p.From {
		if p.HostIP.IsValid() && f.Addr().Is4() != p.HostIP.Is4() {
			return Errorf(Invalid, "from=%s lets nobody in: it and host address %s are of different families", f, p.HostIP)
		}
	}
	return nil
}
