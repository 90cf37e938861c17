package explain

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/owner"
)

// Target is a destination as it is written: DST[:PORT[/PROTO]].
type Target struct {
	// Host is a name, "host" or "outside"; with Addr it is "" or "outside".
	Host string
	Addr netip.Addr
	Port uint16
	// Proto is "tcp", "udp", "sctp", or "icmp" where there is no port.
	Proto string
}

// targetFix says how a destination is written.
const targetFix = "write NAME, ADDRESS, host or outside, and :PORT or :PORT/udp after it: db:5432, [fd00::2]:53/udp, outside:192.0.2.1:443"

// ParseTarget reads a destination. An IPv6 address with a port is in brackets.
func ParseTarget(s string) (Target, error) {
	t := Target{Proto: "icmp"}
	rest, proto, hasProto := strings.Cut(s, "/")
	rest, outside := strings.CutPrefix(rest, "outside:")
	if outside {
		t.Host = "outside"
	}
	engine, rest := cutEngine(rest)
	host, port, hasPort := splitPort(rest, outside)
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	switch {
	case err == nil:
		t.Addr = addr.Unmap()
	case outside && host != "":
		return t, api.Errorf(api.Invalid, "%q is no address outside", host).WithFix(targetFix)
	case strings.HasPrefix(host, "["):
		return t, api.Errorf(api.Invalid, "destination %q has no address in its brackets", s).WithFix(targetFix)
	case host == "" && !outside:
		return t, api.Errorf(api.Invalid, "destination %q has no name or address", s).WithFix(targetFix)
	case !outside:
		t.Host = engine + host
	}
	if !hasPort {
		if hasProto && proto != "icmp" {
			return t, api.Errorf(api.Invalid, "destination %q has a protocol and no port", s).WithFix(targetFix)
		}
		return t, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return t, api.Errorf(api.Invalid, "port %q of destination %q is no number from 1 to 65535", port, s).WithFix(targetFix)
	}
	t.Port, t.Proto = uint16(n), "tcp"
	switch {
	case !hasProto:
	case proto == "tcp" || proto == "udp" || proto == "sctp":
		t.Proto = proto
	default:
		return t, api.Errorf(api.Invalid, "protocol %q of destination %q has no ports", proto, s).WithFix("use tcp, udp or sctp, or leave the port out for an ICMP echo")
	}
	return t, nil
}

// cutEngine cuts off what says whose container a name is, docker:web, and is no
// name with a port, docker:80.
func cutEngine(s string) (engine, rest string) {
	for _, e := range []string{owner.Docker, owner.Podman, owner.Containerd} {
		e = strings.ToLower(e) + ":"
		if rest, ok := strings.CutPrefix(s, e); ok && strings.Trim(rest, "0123456789") != "" {
			return e, rest
		}
	}
	return "", s
}

// splitPort cuts the port off: what is behind the last colon, unless the colons
// are those of an IPv6 address.
func splitPort(s string, outside bool) (host, port string, ok bool) {
	if _, err := netip.ParseAddr(s); err == nil {
		return s, "", false
	}
	i := strings.LastIndexByte(s, ':')
	switch {
	case strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]"):
		return s, "", false
	case i >= 0:
		return s[:i], s[i+1:], true
	case outside && s != "" && strings.Trim(s, "0123456789") == "": // outside:443
		return "", s, true
	}
	return s, "", false
}
