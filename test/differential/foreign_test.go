package differential

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/linux/nft"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/machine"
	rules "github.com/towpath/towpath/internal/nft"
)

// foreign is what somebody else has put beside Towpath's: on the host (Where is
// "host") or into a sandbox.
type foreign struct {
	Where string
	Table string // its name in foreignTables
}

// foreignTables are of the kinds that other programs make, and some more.
func foreignTables() map[string]string {
	return map[string]string{
		"forward policy drop": `table ip f_forward {
			chain c { type filter hook forward priority filter + 10; policy drop;
				ct state established,related accept
				ip saddr 172.20.0.0/24 accept } }`,
		"forward reject": `table inet f_reject {
			chain c { type filter hook forward priority filter - 10; policy accept;
				udp dport 7000 reject with icmpx admin-prohibited
				tcp dport 7000 reject with tcp reset
				ip6 nexthdr ipv6-icmp ip6 daddr 2001:db8::1 reject } }`,
		"input": `table inet f_input {
			chain c { type filter hook input priority filter; policy accept;
				tcp dport 7000 reject with tcp reset
				udp dport 7001 drop
				ip saddr 192.0.2.1 meta l4proto icmp reject with icmp host-prohibited } }`,
		"output": `table inet f_output {
			chain c { type filter hook output priority filter; policy accept;
				udp dport 7001 reject
				tcp dport 7001 drop
				ct state established tcp sport 7000 meta mark set 0x1 } }`,
		"snat": `table ip f_snat {
			chain c { type nat hook postrouting priority srcnat - 10; policy accept;
				ip saddr 172.20.0.0/24 ip daddr 192.0.2.1 tcp dport 7000 snat to 192.0.2.10
				ip saddr 172.20.1.0/24 ip daddr 192.0.2.1 snat to 192.0.2.10 } }`,
		"redirect": `table inet f_redirect {
			chain c { type nat hook prerouting priority dstnat - 10; policy accept;
				udp dport 7001 redirect to :7000
				tcp dport 7001 ip daddr 172.20.0.1 dnat ip to 192.0.2.1:7000 }
			chain d { type nat hook output priority -110; policy accept;
				ip daddr 198.51.100.7 tcp dport 7000 redirect
				ip6 daddr 2001:db8:5::7 udp dport 7001 redirect to :7000 } }`,
		"dnat to others": `table ip f_dnat {
			chain c { type nat hook prerouting priority dstnat; policy accept;
				ip daddr 172.20.0.250 dnat to 172.20.0.2
				ip daddr 192.0.2.77 dnat to 192.0.2.1 }
			chain d { type nat hook output priority -100; policy accept;
				ip daddr 192.0.2.77 udp dport 7000 dnat to 172.20.0.2:7001 } }`,
		"notrack": `table inet f_raw {
			chain c { type filter hook prerouting priority raw; policy accept;
				udp dport 7000 notrack
				ct state established drop }
			chain d { type filter hook output priority raw; policy accept;
				udp sport 7000 notrack } }`,
		"rewrite": `table ip f_rewrite {
			chain c { type filter hook prerouting priority raw; policy accept;
				udp dport 7001 udp dport set 7000
				udp sport 7000 udp sport set 7001 }
			chain d { type filter hook output priority raw; policy accept;
				udp dport 7001 udp dport set 7000 } }`,
		"mark": `table ip f_mark {
			chain c { type filter hook prerouting priority mangle; policy accept;
				ip daddr 192.0.2.1 udp dport 7000 meta mark set 0x7 }
			chain d { type route hook output priority mangle; policy accept;
				ip daddr 192.0.2.1 tcp dport 7001 meta mark set 0x7 } }`,
		"reverse path": `table inet f_rpf {
			chain c { type filter hook prerouting priority raw; policy accept;
				fib saddr . iif oif missing drop
				fib daddr type { broadcast, multicast } accept
				ip ttl < 64 meta l4proto udp drop } }`,
		"late filter": `table inet f_late {
			chain c { type filter hook postrouting priority srcnat + 50; policy accept;
				ip saddr 192.0.2.10 udp dport 7000 drop
				ct status dnat tcp dport 7000 drop }
			chain d { type filter hook prerouting priority filter; policy accept;
				ip daddr 172.20.0.0/16 ct direction reply tcp sport 7000 drop } }`,
		"ingress": `table netdev f_ingress {
			chain c { type filter hook ingress device "eth0" priority filter; policy accept;
				ip saddr 192.0.2.1 udp dport 7001 drop
				tcp dport 7000 ip6 daddr 2001:db8::10 drop } }`,
	}
}

// tableNames are those of foreignTables, in an order to draw from.
func tableNames() []string {
	var names []string
	for name := range foreignTables() {
		names = append(names, name)
	}
	names = append(names, iptables)
	slices.Sort(names)
	return names
}

// iptables names the table that has matches and targets of iptables, which no
// text of nft can hold.
const iptables = "iptables"

// iptablesTable is as iptables-nft makes one. Its matches are those that need no
// protocol told beside the rule (NFTA_RULE_COMPAT).
func iptablesTable() rules.TableDef {
	host := func(parts ...any) []byte {
		var b []byte
		for _, p := range parts {
			switch p := p.(type) {
			case uint8:
				b = append(b, p)
			case uint16:
				b = binary.NativeEndian.AppendUint16(b, p)
			case uint32:
				b = binary.NativeEndian.AppendUint32(b, p)
			}
		}
		return b
	}
	match := func(name string, rev uint32, info []byte) rules.Expr {
		return rules.XT{Name: name, Rev: rev, Info: append(info, make([]byte, (8-len(info)%8)%8)...)}.Expr()
	}
	port := func(port uint16) []rules.Expr {
		r, err := rules.ParseRule(rules.FamilyIP, fmt.Sprintf("th dport %d", port))
		if err != nil {
			panic(err) // it is the same on every run
		}
		return r.Exprs
	}
	reject := rules.XT{Target: true, Name: "REJECT", Info: host(uint32(3), uint32(0))}.Expr()
	accept, drop := rules.Verdict{Code: rules.Accept}, rules.Verdict{Code: rules.Drop}
	list := [][]rules.Expr{
		append(port(7001), match("conntrack", 3, rules.ConntrackMatch("dnat").Info), drop),
		{match("conntrack", 3, rules.ConntrackMatch("related", "established").Info), accept},
		{match("addrtype", 1, host(uint16(0), uint16(1<<3|1<<5), uint32(0))), accept}, // to a broadcast or multicast address
		append(port(7000), match("ttl", 0, host(uint8(2), uint8(63))), reject),
		append(port(7001), match("mark", 1, host(uint32(0), uint32(7), uint8(0))), match("comment", 0, make([]byte, 256)), reject),
		{match("conntrack", 3, rules.ConntrackMatch("invalid").Info), drop},
	}
	def := rules.TableDef{Table: rules.Table{Family: rules.FamilyIP, Name: "filter"}} // where REJECT may be
	for _, hook := range []string{"input", "forward"} {
		c := rules.ChainDef{Chain: rules.Chain{
			Family: rules.FamilyIP, Table: "filter", Name: strings.ToUpper(hook), Type: "filter", Hook: hook, Policy: "accept",
			// Not that of iptables, which is ours too: of two alike the kernel runs the newer first.
			Priority: -5,
		}}
		for _, exprs := range list {
			c.Rules = append(c.Rules, rules.Rule{Family: rules.FamilyIP, Exprs: exprs})
		}
		def.Chains = append(def.Chains, c)
	}
	return def
}

// markedTable is where the host looks up packets with mark 7: it holds a blackhole.
const markedTable = 77

// intrude puts what is foreign in place, and tells the walk.
func (w *world) intrude() {
	w.Helper()
	for _, f := range w.spec.Foreign {
		ns, known := w.spaces[f.Where]
		if !known {
			continue
		}
		def := iptablesTable()
		if f.Table != iptables {
			var err error
			def, err = rules.ParseTable(foreignTables()[f.Table])
			w.must(err)
		}
		c, err := nft.Dial(ns.FD())
		w.must(err)
		w.Cleanup(func() { c.Close() })
		var b nft.Batch
		b.AddTableDef(def)
		w.must(c.Commit(w.Context(), &b))
		s := w.space(f.Where)
		s.Tables = append(s.Tables, def)
	}
	if slices.Contains(w.spec.Foreign, foreign{"host", "mark"}) {
		w.route4("0.0.0.0/0", unix.RTN_BLACKHOLE, markedTable)
		w.must(w.spaces["host"].Conn(w).AddRule(w.Context(), rt.Rule{Family: unix.AF_INET, Priority: 100, Mark: 7, Table: markedTable}))
		host := w.space("host")
		host.Rules = append(host.Rules, machine.Rule{Priority: 100, Mark: 7, Mask: 7, Action: machine.Unicast, Table: markedTable, SuppressPrefix: -1})
	}
	if w.spec.Nowhere != 0 {
		w.route4("198.51.100.0/24", w.spec.Nowhere, machine.TableMain)
		w.route4("2001:db8:5::/48", w.spec.Nowhere, machine.TableMain)
	}
}

// route4 adds a route of a type to the host.
func (w *world) route4(dst string, typ uint8, table uint32) {
	w.Helper()
	p := netip.MustParsePrefix(dst)
	w.must(w.spaces["host"].Conn(w).AddRoute(w.Context(), rt.Route{Dst: p, Type: typ, Table: table}))
	host := w.space("host")
	host.Routes = append(host.Routes, machine.Route{Table: table, Type: machine.RouteType(typ), Dst: p})
}

// space is a namespace as the walk sees it.
func (w *world) space(name string) *machine.Space {
	i := slices.IndexFunc(w.host.Spaces, func(s machine.Space) bool { return s.Name == name })
	return &w.host.Spaces[i]
}
