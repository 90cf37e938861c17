package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Hosts is an /etc/hosts: the local names, and the names of the sandbox at
// each of its addresses. Empty names and repeated ones are left out.
func Hosts(addrs []netip.Addr, names ...string) string {
	var own []string
	for _, name := range names {
		if name == "" {
			continue
		}
		short, _, _ := strings.Cut(name, ".")
		for _, n := range []string{name, short} {
			if !slices.Contains(own, n) {
				own = append(own, n)
			}
		}
	}
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	b.WriteString("fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	for _, a := range addrs {
		fmt.Fprintf(&b, "%s\t%s\n", a, strings.Join(own, " "))
	}
	return b.String()
}

// resolvedUpstreams is where systemd-resolved lists the servers behind its own
// address 127.0.0.53 (systemd-resolved(8)).
const resolvedUpstreams = "/run/systemd/resolve/resolv.conf"

// HostResolv is the host's resolv.conf as a sandbox can use it, and whether a
// name server is left in it. A file that is absent is empty.
func HostResolv() (text string, servers bool, err error) {
	for _, path := range []string{"/etc/resolv.conf", resolvedUpstreams} {
		raw, readErr := readIfThere(path)
		if readErr != nil {
			return "", false, fmt.Errorf("read resolv.conf: %w", readErr)
		}
		usable, some := reachable(raw)
		if some {
			return usable, true, nil
		}
		if text == "" {
			text = usable
		}
	}
	return text, false, nil
}

// reachable drops the name servers that mean something only on the host: its
// loopback, and link-local addresses, whose zone is one of its interfaces. It
// reports whether one is left.
func reachable(resolv string) (string, bool) {
	var b strings.Builder
	some := false
	for line := range strings.Lines(resolv) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			b.WriteString(line)
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil || a.Unmap().IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
			continue
		}
		some = true
		b.WriteString(line)
	}
	return b.String(), some
}

// readIfThere reads a file; one that is absent is empty.
func readIfThere(path string) (string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(data), err
}
