package doctor

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/topology"
)

// port is a published port in words.
func port(p topology.Published) string {
	host := "*"
	if p.Addr.IsValid() {
		host = p.Addr.String()
	}
	return fmt.Sprintf("%s:%d/%s", host, p.First, cmp.Or(p.Proto, "any"))
}

// where is the rule that publishes.
func where(p topology.Published) string {
	return fmt.Sprintf("nft -a list chain %s %s", p.Table, p.Chain)
}

// singlePorts are the published ports of the host that are one port each, of a
// protocol whose sockets are known.
func singlePorts(host *machine.Space) []topology.Published {
	if host == nil {
		return nil
	}
	var out []topology.Published
	for _, p := range topology.PublishedIn(host) {
		if p.First != 0 && p.First == p.Last && (p.Proto == "tcp" || p.Proto == "udp") {
			if p.To.Port() == 0 {
				p.To = netip.AddrPortFrom(p.To.Addr(), p.First)
			}
			out = append(out, p)
		}
	}
	return out
}

func checkPublished(e *exam) {
	for _, p := range e.single {
		to := e.holder(p.To.Addr())
		if to == nil {
			if slices.ContainsFunc(e.nets, func(n network) bool {
				return slices.ContainsFunc(n.subnets, func(s netip.Prefix) bool { return s.Contains(p.To.Addr()) })
			}) {
				e.find(api.Finding{
					Severity: api.Fault, Summary: fmt.Sprintf("published port %s leads to %s, which nobody has", port(p), p.To.Addr()),
					Consequence: "clients wait and get no answer", Fix: e.unpublish(p), Ours: p.Author == author.Towpath,
				}, where(p), fmt.Sprintf("handle %d leads to %s", p.Handle, p.To), "ip address, in all namespaces", "no "+p.To.Addr().String())
			}
			continue
		}
		if to.Listeners == nil {
			e.cannot("sockets of %s are not known", e.title(to))
			continue
		}
		if !topology.Listens(to, p.Proto, p.To) {
			e.deaf(p, to)
		}
	}
}

// deaf tells of a port behind which nothing listens; of one that is published in
// both families once, where neither is heard.
func (e *exam) deaf(p topology.Published, to *machine.Space) {
	twin, listens := e.otherFamily(p)
	both := twin.To.IsValid() && !listens && e.holder(twin.To.Addr()) == to
	if both && p.To.Addr().Is6() {
		return
	}
	i := slices.IndexFunc(to.Listeners, func(l machine.Listener) bool {
		return l.Proto == p.Proto && l.Port == p.To.Port() && l.Addr.IsLoopback()
	})
	if i >= 0 {
		l := to.Listeners[i]
		who := cmp.Or(l.Command, "the program")
		e.find(api.Finding{
			Severity:    api.Fault,
			Summary:     fmt.Sprintf("published port %s: %s in %s listens on %s only", port(p), who, e.title(to), l.Addr),
			Consequence: "clients are refused: what is published comes to " + p.To.Addr().String(), Fix: fmt.Sprintf("have %s listen on 0.0.0.0:%d or on %s", who, l.Port, p.To),
		}, e.enter(to, "ss -ln"), fmt.Sprintf("%s %s", l.Proto, netip.AddrPortFrom(l.Addr, l.Port)), where(p), fmt.Sprintf("leads to %s", p.To))
		return
	}
	at := p.To.String()
	if both {
		at += " or " + twin.To.String()
	}
	f := api.Finding{
		Severity: api.Risk, Summary: fmt.Sprintf("published port %s: nothing listens at %s in %s", port(p), at, e.title(to)),
		Consequence: "clients are refused", Fix: "start the program, or " + e.unpublish(p),
	}
	if listens {
		f.Severity, f.Summary = api.Remark, f.Summary+", and over the other family something does"
		f.Consequence = "clients of this family are refused, and most try the other"
	}
	e.find(f, e.enter(to, "ss -ln"), fmt.Sprintf("no %s socket at port %d", p.Proto, p.To.Port()), where(p), fmt.Sprintf("leads to %s", at))
}

// otherFamily finds a port that is published over the other family too, and
// whether somebody listens there.
func (e *exam) otherFamily(p topology.Published) (twin topology.Published, listens bool) {
	for _, o := range e.single {
		if o.First != p.First || o.Proto != p.Proto || o.To.Addr().Is4() == p.To.Addr().Is4() || o.Addr.IsValid() != p.Addr.IsValid() {
			continue
		}
		to := e.holder(o.To.Addr())
		if to != nil && to.Listeners != nil && topology.Listens(to, o.Proto, o.To) {
			return o, true
		}
		twin = o
	}
	return twin, false
}

func (e *exam) unpublish(p topology.Published) string {
	if p.Author != author.Towpath {
		return fmt.Sprintf("take it back with %s, which published it", p.Author)
	}
	name := "SANDBOX"
	if s := e.holder(p.To.Addr()); s != nil {
		name = e.Names.Space(s).Name
	}
	return fmt.Sprintf("towpath unpublish %s %d:%d/%s", name, p.First, p.To.Port(), p.Proto)
}

// held reports whether a socket of the host has a port, be it to keep others off.
func held(s *machine.Space, p topology.Published) bool {
	return slices.ContainsFunc(append(slices.Clone(s.Held), s.Listeners...), func(l machine.Listener) bool {
		return l.Proto == p.Proto && l.Port == p.First
	})
}

func checkHairpin(e *exam) {
	s := e.host()
	for _, p := range e.single {
		for _, n := range e.nets {
			for _, m := range n.members {
				at := bridged(s, n, p.To.Addr().Is6())
				if m.port.Hairpin || at == "" || address(m, n, p.To.Addr().Is6()) != p.To.Addr() {
					continue
				}
				// A program that listens on the host, as docker-proxy does, answers in the kernel's stead.
				if p.Author != author.Towpath && held(s, p) {
					continue
				}
				e.find(api.Finding{
					Severity: api.Risk, Summary: fmt.Sprintf("%s does not reach itself by its published port %s", e.title(m.space), port(p)),
					Consequence: "with br_netfilter the answer would have to leave by the port it came in by, which a bridge does only in hairpin mode",
					Fix:         "bridge link set dev " + m.port.Name + " hairpin on", Ours: n.ours,
				}, "bridge -d link show dev "+m.port.Name, "hairpin off", at, "1")
			}
		}
	}
}

func checkLocalnet(e *exam) {
	s := e.host()
	all, _ := number(s, "net/ipv4/conf/all/route_localnet")
	for _, p := range e.single {
		if !p.Addr.IsValid() || !p.Addr.Is4() || !p.Addr.IsLoopback() || p.Author != author.Towpath && held(s, p) {
			continue
		}
		for _, n := range e.nets {
			on, known := number(s, "net/ipv4/conf/"+n.link.Name+"/route_localnet")
			if !known || max(on, all) == 1 || !slices.ContainsFunc(n.subnets, func(x netip.Prefix) bool { return x.Contains(p.To.Addr()) }) {
				continue
			}
			f := api.Finding{
				Severity: api.Fault, Summary: fmt.Sprintf("published port %s is not reached: %s may not carry loopback addresses", port(p), n.link.Name),
				Consequence: "the kernel drops packets from 127.0.0.1 that leave by another interface", Ours: n.ours,
			}
			f.Set, f.Fix = set("net/ipv4/conf/"+n.link.Name+"/route_localnet", "1")
			e.find(f, "/proc/sys/net/ipv4/conf/"+n.link.Name+"/route_localnet", "0", where(p), "leads to "+p.To.String())
		}
	}
	rules, from := nft.NewRuleset(s.Filters()...), s.Stranger(false)
	for _, l := range uplinks(s) {
		on, _ := number(s, "net/ipv4/conf/"+l.Name+"/route_localnet")
		if max(on, all) != 1 || !l.Up || !from.IsValid() {
			continue
		}
		p := probe(s, l.Name, "", nft.ProtoTCP, netip.AddrPortFrom(from, 40000), netip.MustParseAddrPort("127.0.0.1:80"), nil)
		if rules.Hook("prerouting", p).Verdict == nft.Drop {
			continue
		}
		f := api.Finding{
			Severity: api.Risk, Summary: "machines on the link of " + l.Name + " reach what listens on 127.0.0.1 only",
			Consequence: "services that are meant for this host alone are open to its neighbours",
		}
		f.Set, f.Fix = set("net/ipv4/conf/"+l.Name+"/route_localnet", "0")
		if all == 1 {
			f.Set, f.Fix = set("net/ipv4/conf/all/route_localnet", "0")
		}
		e.find(f, "/proc/sys/net/ipv4/conf/"+l.Name+"/route_localnet", fmt.Sprintf("%d (all: %d)", on, all), "nft list ruleset", "no rule at prerouting drops it")
	}
}

func checkEphemeral(e *exam) {
	s := e.host()
	var first, last int
	text, _ := sysctl(s, "net/ipv4/ip_local_port_range")
	if n, _ := fmt.Sscan(text, &first, &last); n != 2 {
		return
	}
	reserved, _ := sysctl(s, "net/ipv4/ip_local_reserved_ports")
	for _, p := range e.single {
		if int(p.First) < first || int(p.First) > last || held(s, p) || reservedHas(reserved, int(p.First)) {
			continue
		}
		ports := fmt.Sprint(p.First)
		if reserved != "" {
			ports = reserved + "," + ports
		}
		f := api.Finding{
			Severity: api.Risk, Summary: fmt.Sprintf("published port %s is one that the kernel gives to outgoing connections, and no socket holds it", port(p)),
			Consequence: "a program may get the port, and its packets then go astray",
		}
		f.Set, f.Fix = set("net/ipv4/ip_local_reserved_ports", ports)
		e.find(f, "/proc/sys/net/ipv4/ip_local_port_range", strings.Join(strings.Fields(text), " "), "ss -ln", fmt.Sprintf("no %s socket at port %d", p.Proto, p.First))
	}
}

// reservedHas reads a list as 8080,9000-9010.
func reservedHas(list string, port int) bool {
	for part := range strings.SplitSeq(list, ",") {
		var from, to int
		switch n, _ := fmt.Sscanf(part, "%d-%d", &from, &to); {
		case n == 1 && from == port, n == 2 && from <= port && port <= to:
			return true
		}
	}
	return false
}
