package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/machine"
)

// trouble is a packet that did not get through, for the table of remedies.
type trouble struct {
	*Machine
	path     *api.Path
	hop      *api.Hop // at which it ended
	from, to party
	space    *machine.Space // of the hop
	prefix   string         // puts a command into that namespace
}

// fix is a command, or else in words what to do, so that the packet arrives; ""
// where it does.
func (m *Machine) fix(path *api.Path, p *planned) string {
	h := cmp.Or(culprit(path), answered(path))
	if h == nil {
		return ""
	}
	t := &trouble{Machine: m, path: path, hop: h, from: p.from, to: p.to, space: m.Host.Space(h.NS), prefix: inside(m, h.NS)}
	if t.space == nil {
		t.space = &machine.Space{Name: h.NS}
	}
	if h.Action == "undecided" {
		return "send a packet and see: towpath probe " + p.from.name + " " + t.target()
	}
	if h.Rule != nil {
		return t.ruled()
	}
	if h.Action == "refuses" {
		return t.refused()
	}
	for _, r := range remedies() {
		if strings.Contains(h.Detail, r.says) {
			return r.fix(t)
		}
	}
	return ""
}

// inside is what to put before a command so that it runs in a namespace.
func inside(m *Machine, space string) string {
	s := m.Host.Space(space)
	switch {
	case space == machine.HostName || s == nil:
		return ""
	case m.sandbox(space) != nil:
		return "towpath exec " + space + " -- "
	}
	for _, h := range s.Holders {
		if h.PID != 0 {
			return fmt.Sprintf("nsenter --net=/proc/%d/ns/net ", h.PID)
		}
	}
	for _, h := range s.Holders {
		return "nsenter --net=" + h.Path + " "
	}
	return ""
}

// target is the destination as it would be asked for again.
func (t *trouble) target() string {
	f := t.path.Flow
	who := t.to.name
	if who == "" || who == outside {
		who = t.to.addr.String()
	}
	if f.Dport == 0 {
		return who
	}
	if strings.Contains(who, ":") {
		who = "[" + who + "]"
	}
	if f.Proto != "tcp" {
		return fmt.Sprintf("%s:%d/%s", who, f.Dport, f.Proto)
	}
	return fmt.Sprintf("%s:%d", who, f.Dport)
}

// port is the destination's for publish: 80, or 53/udp.
func (t *trouble) port() string {
	f := t.path.Flow
	switch {
	case f.Dport == 0:
		return "PORT"
	case f.Proto == "tcp":
		return fmt.Sprint(f.Dport)
	}
	return fmt.Sprintf("%d/%s", f.Dport, f.Proto)
}

// remedy is what to do about a reason that a walk gives in these words.
type remedy struct {
	says string
	fix  func(*trouble) string
}

func remedies() []remedy {
	say := func(format string) func(*trouble) string {
		return func(t *trouble) string {
			return strings.NewReplacer("IN ", t.prefix, "DEV", t.hop.Device, "SRC", t.hop.Before.Src.String(), "DST", t.hop.Before.Dst.String()).Replace(format)
		}
	}
	return []remedy{
		{"does not forward IPv4", (*trouble).noForwarding},
		{"does not forward IPv6", say("IN sysctl -w net.ipv6.conf.all.forwarding=1")},
		{"has no route to", (*trouble).noRoute},
		{"is a blackhole", (*trouble).badRoute},
		{"is unreachable", (*trouble).badRoute},
		{"prohibits it", (*trouble).badRoute},
		{"rp_filter", (*trouble).reversePath},
		{"route_localnet", say("IN sysctl -w net.ipv4.conf.DEV.route_localnet=1, with a rule that drops 127.0.0.0/8 from other machines")},
		{"is an address of", say("give the sender another address: SRC is taken")},
		{"is for many", say("send from an address of one machine")},
		{"table of connections", (*trouble).fullTable},
		{"is down", (*trouble).linkDown},
		{"has no carrier", say("see why: IN ip -details link show DEV")},
		{"answers for", say("see that the machine with that address is up, on this link, and of this prefix: IN ip neigh show dev DEV")},
		{"is locked", say("use the address and MAC that the container was given; or IN bridge fdb replace MAC dev DEV master static")},
		{"neighbour discovery", say("let ICMPv6 types 135 and 136 pass: IN nft list ruleset")},
		{"do not fit the MTU", (*trouble).tooBig},
		{"too big", (*trouble).tooBig}, // in the kernel's words
		{"time to live is over", say("look for a loop of routes: IN ip route get DST")},
		{"hairpin is off", say("IN bridge link set dev DEV hairpin on")},
		{"are isolated", (*trouble).noICC},
		{"no port of bridge", say("see which port leads there: IN bridge fdb show br DEV")},
		{"held for a publication", say("publish the port for this sender too: towpath publish, without from= or with another address")},
		{"is a broadcast address", say("send to the address of one machine")},
		{"no address to send from", say("IN ip addr add ADDRESS/LENGTH dev DEV")},
		{"echo requests are ignored", say("IN sysctl -w net.ipv4.icmp_echo_ignore_all=0 net.ipv6.icmp.echo_ignore_all=0")},
	}
}

// noForwarding: where the switch for all links is on already, the kernel takes it
// for no change, and leaves that of the one link (devinet_sysctl_forward).
func (t *trouble) noForwarding() string {
	if t.space.Sysctls["net/ipv4/ip_forward"] == "1" {
		return fmt.Sprintf("%ssysctl -w net.ipv4.conf.%s.forwarding=1", t.prefix, t.hop.Device)
	}
	return t.prefix + "sysctl -w net.ipv4.ip_forward=1"
}

// reversePath: the filter may be that of a neighbour who does not answer, and who
// is then named before.
func (t *trouble) reversePath() string {
	dev, prefix := t.hop.Device, t.prefix
	if i := strings.Index(t.hop.Detail, " ("); i >= 0 {
		who, _, _ := strings.Cut(t.hop.Detail[i+2:], " has it")
		prefix = inside(t.Machine, who)
	}
	if i := strings.LastIndex(t.hop.Detail, ", not "); i >= 0 {
		dev = strings.TrimRight(strings.Fields(t.hop.Detail[i+6:])[0], "):")
	}
	return fmt.Sprintf("%ssysctl -w net.ipv4.conf.%s.rp_filter=2 net.ipv4.conf.all.rp_filter=2, or a route back over %s", prefix, dev, dev)
}

// noRoute: a sandbox gets its routes from its networks.
func (t *trouble) noRoute() string {
	dst := t.hop.Before.Dst
	if c := t.connect("NETWORK"); c != "" && t.space.Name == t.from.space {
		return c + ", one that has a way there"
	}
	if t.sandbox(t.space.Name) == nil {
		return fmt.Sprintf("%sip route add %s via GATEWAY", t.prefix, dst)
	}
	if n := t.of(dst); n != nil {
		return fmt.Sprintf("towpath network connect %s %s", n.Name, t.space.Name)
	}
	return t.wayOut(t.space.Name)
}

// defaultNetwork is the one that sandboxes are on without being asked.
const defaultNetwork = "bridge"

// wayOut connects a sandbox to a network that leads out.
func (t *trouble) wayOut(sandbox string) string {
	best := ""
	for _, n := range t.Networks {
		if !n.Internal && n.GatewayMode != api.GatewayIsolated && !t.on(sandbox, n.Name) && (best == "" || n.Name == defaultNetwork || n.Name < best && best != defaultNetwork) {
			best = n.Name
		}
	}
	if best == "" {
		return "towpath network create out && towpath network connect out " + sandbox
	}
	return fmt.Sprintf("towpath network connect %s %s", best, sandbox)
}

// on reports whether a sandbox is on a network.
func (t *trouble) on(sandbox, network string) bool {
	s := t.sandbox(sandbox)
	return s != nil && slices.ContainsFunc(s.Endpoints, func(e api.Endpoint) bool { return e.Network == network })
}

// badRoute removes the route that leads nowhere.
func (t *trouble) badRoute() string {
	names := map[machine.RouteType]string{machine.Blackhole: "blackhole", machine.Unreachable: "unreachable", machine.Prohibit: "prohibit"}
	var best *machine.Route
	for i := range t.space.Routes {
		r := &t.space.Routes[i]
		if names[r.Type] != "" && r.Dst.Contains(t.hop.Before.Dst) && (best == nil || r.Dst.Bits() > best.Dst.Bits()) {
			best = r
		}
	}
	if best == nil {
		return fmt.Sprintf("see which rule says so: %sip rule show", t.prefix)
	}
	table := ""
	if best.Table != machine.TableMain {
		table = fmt.Sprintf(" table %d", best.Table)
	}
	return fmt.Sprintf("%sip route del %s %s%s", t.prefix, names[best.Type], best.Dst, table)
}

func (t *trouble) fullTable() string {
	return "sysctl -w net.netfilter.nf_conntrack_max=" + doubled(t.space.Sysctls["net/netfilter/nf_conntrack_max"]) +
		", and find who makes so many connections: towpath doctor"
}

func doubled(s string) string {
	n := 0
	if _, err := fmt.Sscan(s, &n); err != nil || n <= 0 {
		return "524288"
	}
	return fmt.Sprint(2 * n)
}

func (t *trouble) linkDown() string {
	dev := t.hop.Device
	// The reason may name the other end of a pair.
	if _, rest, ok := strings.Cut(t.hop.Detail, "its other end "); ok {
		var far, in string
		if n, _ := fmt.Sscanf(rest, "%s in %s is down", &far, &in); n == 2 {
			return fmt.Sprintf("%sip link set %s up", inside(t.Machine, in), far)
		}
	}
	if _, rest, ok := strings.Cut(t.hop.Detail, "("); ok {
		var far, in string
		if n, _ := fmt.Sscanf(rest, "%s has it, but its link %s is down)", &in, &far); n == 2 {
			return fmt.Sprintf("%sip link set %s up", inside(t.Machine, in), far)
		}
	}
	return fmt.Sprintf("%sip link set %s up", t.prefix, dev)
}

// noICC: the containers of this network must not talk to each other.
func (t *trouble) noICC() string {
	if t.to.sandbox != nil && t.path.Flow.Dport != 0 {
		return fmt.Sprintf("towpath publish %s %s, or put both on a network made without --icc=false", t.to.sandbox.Name, t.port())
	}
	return "put both on a network made without --icc=false"
}

// refused: nothing listens.
func (t *trouble) refused() string {
	f := t.hop.Before
	for _, l := range t.space.Listeners {
		if l.Port == f.Dport && l.Proto == f.Proto && l.Addr.IsLoopback() {
			who := ""
			if l.Command != "" {
				who = l.Command + " "
			}
			return fmt.Sprintf("%slistens on %s only: have it listen on 0.0.0.0 or %s", who, netip.AddrPortFrom(l.Addr, l.Port), f.Dst)
		}
	}
	if t.space.Name == machine.HostName {
		if s := t.publishable(); s != "" {
			return fmt.Sprintf("towpath publish %s %d:%s", s, f.Dport, t.port())
		}
		return fmt.Sprintf("start what is to listen on port %d of the host, or publish a container's: towpath publish SANDBOX %s", f.Dport, t.port())
	}
	return fmt.Sprintf("start what is to listen on port %d; what does now: %sss -ltunp", f.Dport, t.prefix)
}

// publishable is the one sandbox that listens on the port that was asked for; ""
// for none or more.
func (t *trouble) publishable() string {
	found := ""
	for i := range t.Sandboxes {
		s := t.Host.Space(t.Sandboxes[i].Name)
		if s == nil || !slices.ContainsFunc(s.Listeners, func(l machine.Listener) bool {
			return l.Port == t.hop.Before.Dport && l.Proto == t.hop.Before.Proto && !l.Addr.IsLoopback()
		}) {
			continue
		}
		if found != "" {
			return ""
		}
		found = s.Name
	}
	return found
}

// ruled: a rule of the packet filter has decided.
func (t *trouble) ruled() string {
	r := t.hop.Rule
	if r.Author == author.Towpath {
		return t.ours()
	}
	if table, tool := r.Legacy(); tool != "" {
		return t.legacy(table, tool)
	}
	if keepsApart(r) && t.connect("") != "" {
		return t.isolated()
	}
	where := fmt.Sprintf("%s %s %s", r.Family, r.Table, r.Chain)
	if r.Author != author.User && r.Author != "" && t.hop.Layer == api.LayerForward && t.onDevice(t.hop.Device) != nil {
		return t.door(r)
	}
	switch {
	case r.Handle != 0:
		return fmt.Sprintf("%snft delete rule %s handle %d, if it is not meant", t.prefix, where, r.Handle)
	case r.Text == "":
		return fmt.Sprintf("let it pass before the policy decides: %snft add rule %s %s accept", t.prefix, where, t.match())
	}
	return "see chain " + where + " of " + t.space.Name
}

// legacy: a rule of the older iptables has.
func (t *trouble) legacy(table, tool string) string {
	r, f := t.hop.Rule, t.hop.Before
	if r.Handle != 0 {
		return fmt.Sprintf("%s%s -t %s -D %s %d, if it is not meant", t.prefix, tool, table, r.Chain, r.Handle)
	}
	return fmt.Sprintf("let it pass before the policy decides: %s%s -t %s -I %s -s %s -d %s -j ACCEPT", t.prefix, tool, table, r.Chain, f.Src, f.Dst)
}

// match is the packet as a condition of nft.
func (t *trouble) match() string {
	f := t.hop.Before
	ip := "ip"
	if f.Dst.Is6() {
		ip = "ip6"
	}
	out := fmt.Sprintf("%s saddr %s %s daddr %s", ip, f.Src, ip, f.Dst)
	if f.Dport != 0 {
		out += fmt.Sprintf(" %s dport %d", f.Proto, f.Dport)
	}
	return out
}

// door is how the author of a foreign rule lets others through: by a door, which
// the daemon can use, or by hand.
func (t *trouble) door(r *api.Rule) string {
	const auto = "start towpathd with --cooperate=auto, or by hand: "
	dev, tool := t.onDevice(t.hop.Device).Device, "iptables"
	if r.Family == "ip6" {
		tool = "ip6tables"
	}
	switch r.Author {
	case author.Firewalld:
		return auto + "firewall-cmd --zone=trusted --add-interface=" + dev
	case author.UFW:
		return auto + "ufw route allow in on " + dev
	case author.Docker:
		if t.hasChain(r, "DOCKER-USER") { // which Docker does not always make for IPv6
			return fmt.Sprintf("%s%s -I DOCKER-USER -i %s -j ACCEPT", auto, tool, dev)
		}
	}
	return fmt.Sprintf("%s -I %s -i %s -j ACCEPT", tool, r.Chain, dev)
}

// ours: one of Towpath's own rules has.
func (t *trouble) ours() string {
	f := t.hop.Before
	src, dst := t.onDevice(t.hop.Device), t.of(f.Dst)
	switch c := t.hop.Rule.Comment; {
	case strings.Contains(t.hop.Rule.Text, "invalid"):
		return fmt.Sprintf("let the answer go the way that the packet came: see %sip route get %s", inside(t.Machine, t.to.space), t.path.Flow.Src)
	case c == "isolation" && dst != nil && t.from.sandbox != nil:
		return fmt.Sprintf("towpath network connect %s %s", dst.Name, t.from.sandbox.Name)
	case strings.HasPrefix(c, "spoofed") && t.from.sandbox != nil:
		return "send from an address that it was given: towpath sandbox inspect " + t.from.sandbox.Name
	case c == "icc off":
		return t.noICC()
	case c == "direct access from outside" && t.to.sandbox != nil:
		return fmt.Sprintf("towpath publish %s %s, and send to the host", t.to.sandbox.Name, t.port())
	case src != nil && src.Internal && t.from.sandbox != nil:
		return t.wayOut(t.from.sandbox.Name)
	case strings.HasPrefix(c, "loopback"):
		return "nobody but the machine itself may send to 127.0.0.0/8: use its address on the network"
	case t.from.sandbox != nil && dst != nil:
		return fmt.Sprintf("towpath network connect %s %s", dst.Name, t.from.sandbox.Name)
	}
	return "see what was asked for: towpath plan"
}
