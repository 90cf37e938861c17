//go:build linux

package look

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/linux/xt"
	rules "github.com/towpath/towpath/internal/nft"
)

// proc is where the files of the calling thread's namespace are. /proc/net would
// be that of the process.
const proc = "/proc/thread-self/net/"

// inside reads what only files tell, on one thread that enters the namespace.
func (r *reading) inside(ctx context.Context) error {
	return netns.Do(r.file, func() error {
		for _, key := range fixed() {
			r.sysctl(key)
		}
		for _, l := range r.links {
			read := r.sysctl
			if r.knew(l) {
				read = r.sysctlBefore
			}
			for _, key := range perLink() {
				read(strings.Replace(key, "*", l.Name, 1))
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		r.counters()
		r.legacy()
		return nil
	})
}

// sysctl reads one parameter; one that is not there is left out. Below net/ the
// parameters are those of the thread that opens the file.
func (r *reading) sysctl(key string) {
	b, err := os.ReadFile("/proc/sys/" + key)
	if err == nil {
		r.space.Sysctls[key] = strings.TrimSuffix(string(b), "\n")
	}
}

// knew reports whether an earlier look found that link. Reading the parameters of
// each is most of what it takes to read a host with many.
func (r *reading) knew(l rt.Link) bool {
	if r.before == nil {
		return false
	}
	was := r.before.Link(l.Name)
	return was != nil && was.Index == l.Index
}

// sysctlBefore takes a parameter over from an earlier look.
func (r *reading) sysctlBefore(key string) {
	if v, ok := r.before.Sysctls[key]; ok {
		r.space.Sysctls[key] = v
	}
}

// fixed are the parameters of a namespace that matter to packets.
func fixed() []string {
	out := []string{
		"net/ipv4/ip_forward", "net/ipv4/ip_default_ttl", "net/ipv4/icmp_echo_ignore_all", "net/ipv4/icmp_echo_ignore_broadcasts",
		"net/ipv4/ip_local_port_range", "net/ipv4/ip_local_reserved_ports", "net/ipv4/ip_unprivileged_port_start",
		"net/ipv4/ip_no_pmtu_disc", "net/ipv4/tcp_mtu_probing", "net/ipv4/neigh/default/gc_thresh3", "net/ipv4/neigh/default/gc_thresh2",
		"net/ipv6/icmp/echo_ignore_all", "net/ipv6/neigh/default/gc_thresh3", "net/ipv6/neigh/default/gc_thresh2", "net/ipv6/bindv6only",
		"net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables", "net/bridge/bridge-nf-call-arptables",
		"net/bridge/bridge-nf-filter-vlan-tagged", "net/bridge/bridge-nf-pass-vlan-input-dev",
		"net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_buckets",
		"net/netfilter/nf_conntrack_tcp_loose", "net/netfilter/nf_conntrack_tcp_be_liberal", "net/netfilter/nf_conntrack_checksum",
		"net/netfilter/nf_log_all_netns",
	}
	for _, dev := range []string{"all", "default"} {
		for _, key := range perLink() {
			out = append(out, strings.Replace(key, "*", dev, 1))
		}
	}
	return out
}

// perLink are those of each interface.
func perLink() []string {
	return []string{
		"net/ipv4/conf/*/forwarding", "net/ipv4/conf/*/rp_filter", "net/ipv4/conf/*/accept_local", "net/ipv4/conf/*/route_localnet",
		"net/ipv4/conf/*/send_redirects", "net/ipv4/conf/*/proxy_arp", "net/ipv4/conf/*/arp_ignore", "net/ipv4/conf/*/ignore_routes_with_linkdown",
		"net/ipv6/conf/*/forwarding", "net/ipv6/conf/*/force_forwarding", "net/ipv6/conf/*/disable_ipv6", "net/ipv6/conf/*/accept_ra",
		"net/ipv6/conf/*/proxy_ndp",
	}
}

// counters reads those of the namespace: pairs of lines of names and values
// ("Ip: InReceives ..."), IPv6's one a line, and the columns of connection
// tracking and of the neighbour tables.
func (r *reading) counters() {
	for _, file := range []string{"snmp", "netstat"} {
		lines := strings.Split(readText(proc+file), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j := 1; j < len(names) && j < len(values); j++ {
				r.count(strings.TrimSuffix(names[0], ":")+names[j], values[j], 10)
			}
		}
	}
	for line := range strings.Lines(readText(proc + "snmp6")) {
		if f := strings.Fields(line); len(f) == 2 {
			r.count(f[0], f[1], 10)
		}
	}
	// Those of the neighbour tables, of all namespaces, are in the first one only.
	for file, prefix := range map[string]string{"nf_conntrack": "Conntrack", "arp_cache": "ArpCache", "ndisc_cache": "NdiscCache"} {
		r.columns(prefix, readText(proc+"stat/"+file))
	}
}

// columns reads a table of counters in hexadecimal: a line of names, and one a
// processor.
func (r *reading) columns(prefix, text string) {
	lines := strings.Split(text, "\n")
	names := strings.Fields(lines[0])
	for _, line := range lines[1:] {
		for i, v := range strings.Fields(line) {
			// The first column is the number of entries, the same on each line.
			if i > 0 && i < len(names) {
				r.count(prefix+camel(names[i]), v, 16)
			}
		}
	}
}

// count adds to a counter; negative values, which are no counts, are left out.
func (r *reading) count(name, value string, base int) {
	if n, err := strconv.ParseUint(value, base, 64); err == nil {
		r.space.Counters[name] += n
	}
}

// camel makes "insert_failed" InsertFailed.
func camel(s string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(s, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

func readText(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

// legacy notes whether there are tables of the older iptables.
func (r *reading) legacy() {
	r.old = strings.TrimSpace(readText(proc+"ip_tables_names")+readText(proc+"ip6_tables_names")) != ""
}

// legacyRules reads what the tables of the older iptables do. Those of a family
// that cannot be read decide nothing.
func (r *reading) legacyRules() error {
	if !r.old {
		return nil
	}
	x := xt.New(r.file)
	defer x.Close() //nolint:errcheck // nothing was written
	var errs []error
	for _, family := range []rules.Family{rules.FamilyIP, rules.FamilyIP6} {
		tables, err := x.Tables(family == rules.FamilyIP6)
		if err != nil {
			errs = append(errs, err)
			tables = []rules.TableDef{r.opaque(rules.Table{Family: family, Name: rules.LegacyTable + "?"}, err)}
		}
		r.space.Legacy = append(r.space.Legacy, tables...)
	}
	return errors.Join(errs...)
}
