//go:build linux

package rt_test

import (
	"net/netip"
	"os"
	"testing"

	"github.com/towpath/towpath/internal/linux/rt"
	"golang.org/x/sys/unix"
)

// TestLookup asks the kernel for the routes of packets that are sent and that
// come in, in both families.
func TestLookup(t *testing.T) {
	ns, c, br := host(t)
	ns.Do(t, func() error {
		for name, value := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/br0/rp_filter": "1"} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})
	const table = 1000
	for _, p := range []string{"10.9.0.1/24", "fd09::1/64"} {
		must(t, c.AddAddress(t.Context(), rt.Address{Index: br.Index, Prefix: pfx(p), NoDAD: true}))
	}
	for _, r := range []rt.Route{
		{Dst: pfx("198.51.100.0/24"), Gateway: ip("10.9.0.254"), OIF: br.Index},
		{Dst: pfx("2001:db8:1::/48"), Gateway: ip("fd09::fe"), OIF: br.Index},
		{Dst: pfx("198.51.100.0/24"), Gateway: ip("10.9.0.253"), OIF: br.Index, Table: table},
		{Dst: pfx("2001:db8:1::/48"), Gateway: ip("fd09::fd"), OIF: br.Index, Table: table},
		{Dst: pfx("10.66.0.0/16"), Type: unix.RTN_BLACKHOLE},
		{Dst: pfx("2001:db8:66::/48"), Type: unix.RTN_BLACKHOLE},
		{Dst: pfx("10.67.0.0/16"), Type: unix.RTN_PROHIBIT},
		{Dst: pfx("2001:db8:67::/48"), Type: unix.RTN_PROHIBIT},
		{Dst: pfx("10.68.0.0/16"), Type: unix.RTN_UNREACHABLE},
		{Dst: pfx("2001:db8:68::/48"), Type: unix.RTN_UNREACHABLE},
	} {
		must(t, c.AddRoute(t.Context(), r))
	}
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		must(t, c.AddRule(t.Context(), rt.Rule{Family: fam, Priority: 100, Mark: 7, Mask: ^uint32(0), Table: table, Action: unix.FR_ACT_TO_TBL}))
		must(t, c.AddRule(t.Context(), rt.Rule{Family: fam, Priority: 101, IPProto: unix.IPPROTO_TCP, DstPorts: [2]uint16{443, 443}, Table: table, Action: unix.FR_ACT_TO_TBL}))
	}
	in := br.Index
	for _, x := range []struct {
		name    string
		ask     rt.Lookup
		gateway string
		table   uint32
		refusal unix.Errno
	}{
		{"sent", rt.Lookup{Dst: ip("198.51.100.7")}, "10.9.0.254", unix.RT_TABLE_MAIN, 0},
		{"sent, v6", rt.Lookup{Dst: ip("2001:db8:1::7")}, "fd09::fe", unix.RT_TABLE_MAIN, 0},
		{"comes in", rt.Lookup{Dst: ip("198.51.100.7"), Src: ip("10.9.0.2"), IIF: in}, "10.9.0.254", unix.RT_TABLE_MAIN, 0},
		{"comes in, v6", rt.Lookup{Dst: ip("2001:db8:1::7"), Src: ip("fd09::2"), IIF: in}, "fd09::fe", unix.RT_TABLE_MAIN, 0},
		{"mark", rt.Lookup{Dst: ip("198.51.100.7"), Mark: 7}, "10.9.0.253", table, 0},
		{"mark, v6", rt.Lookup{Dst: ip("2001:db8:1::7"), Mark: 7}, "fd09::fd", table, 0},
		{"port", rt.Lookup{Dst: ip("198.51.100.7"), Src: ip("10.9.0.2"), IIF: in, Proto: unix.IPPROTO_TCP, Sport: 5, Dport: 443}, "10.9.0.253", table, 0},
		{"port, v6", rt.Lookup{Dst: ip("2001:db8:1::7"), Src: ip("fd09::2"), IIF: in, Proto: unix.IPPROTO_TCP, Sport: 5, Dport: 443}, "fd09::fd", table, 0},
		{"other port", rt.Lookup{Dst: ip("198.51.100.7"), Proto: unix.IPPROTO_TCP, Dport: 80}, "10.9.0.254", unix.RT_TABLE_MAIN, 0},
		{"itself", rt.Lookup{Dst: ip("10.9.0.1"), Src: ip("10.9.0.2"), IIF: in}, "", unix.RT_TABLE_LOCAL, 0},
		{"no route", rt.Lookup{Dst: ip("203.0.113.1")}, "", 0, unix.ENETUNREACH},
		{"no route, v6", rt.Lookup{Dst: ip("2001:db8:9::1"), Src: ip("fd09::2"), IIF: in}, "", 0, unix.ENETUNREACH},
		{"blackhole", rt.Lookup{Dst: ip("10.66.0.1"), Src: ip("10.9.0.2"), IIF: in}, "", 0, unix.EINVAL},
		{"blackhole, v6", rt.Lookup{Dst: ip("2001:db8:66::1"), Src: ip("fd09::2"), IIF: in}, "", 0, unix.EINVAL},
		{"prohibit", rt.Lookup{Dst: ip("10.67.0.1"), Src: ip("10.9.0.2"), IIF: in}, "", 0, unix.EACCES},
		{"prohibit, v6", rt.Lookup{Dst: ip("2001:db8:67::1")}, "", 0, unix.EACCES},
		{"unreachable", rt.Lookup{Dst: ip("10.68.0.1")}, "", 0, unix.EHOSTUNREACH},
		{"unreachable, v6", rt.Lookup{Dst: ip("2001:db8:68::1"), Src: ip("fd09::2"), IIF: in}, "", 0, unix.EHOSTUNREACH},
		{"wrong way", rt.Lookup{Dst: ip("198.51.100.7"), Src: ip("203.0.113.9"), IIF: in}, "", 0, unix.EINVAL},
	} {
		r, err := c.Route(t.Context(), x.ask)
		var via netip.Addr
		if x.gateway != "" {
			via = ip(x.gateway)
		}
		got := rt.Refusal(err)
		if got == unix.EXDEV { // before Linux 6.14
			got = unix.EINVAL
		}
		if got != x.refusal || (err != nil) != (x.refusal != 0) {
			t.Errorf("%s: %v (%d), want errno %d", x.name, err, got, x.refusal)
		} else if err == nil && (r.Gateway != via || r.Table != x.table || x.gateway != "" && r.OIF != br.Index) {
			t.Errorf("%s: %+v, want via %s, table %d", x.name, r, x.gateway, x.table)
		}
	}
}
