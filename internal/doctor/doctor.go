// Package doctor finds what is wrong with a machine's network, whoever made it:
// an observed machine in, findings out, each with its evidence, its consequence
// and a command that mends it. A check is one small function in a table.
package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/owner"
	"github.com/towpath/towpath/internal/topology"
)

// Input is everything that is looked at.
type Input struct {
	Machine machine.Host
	// Earlier is the machine some time before; nil: counters are not compared.
	Earlier *machine.Host
	Names   *owner.Names
	// Resolvers are the resolv.conf files of namespaces, by their names.
	Resolvers map[string]Resolver
	// Drift is what the daemon would change now: its own things that are not as
	// they should be. Device and name of networks without a way out are in Internal.
	Drift    []string
	Internal map[string]bool
	// Doors are the ways that other programs leave through their rules.
	Doors []kernel.Door
	// Unread says what could not be read at all, one line each.
	Unread []string
}

// Resolver is a resolv.conf.
type Resolver struct {
	Path    string
	Servers []netip.Addr
	// Missing: there is no such file.
	Missing bool
}

// Check is one check.
type Check struct {
	Name string
	// Looks is what it looks for, Means what comes of it, for the manual.
	Looks, Means string
	run          func(*exam)
}

// exam is one run of a check.
type exam struct {
	*Input
	check    string
	ids      map[string]string
	nets     []network
	single   []topology.Published // see singlePorts
	findings []api.Finding
	unsure   []string
}

// Examine makes all checks.
func Examine(in *Input) api.Diagnosis {
	d := api.Diagnosis{Schema: api.DoctorSchema, Findings: []api.Finding{}, Checks: []api.CheckResult{}}
	ids, nets := topology.IDs(&in.Machine, in.Names), networksOf(in)
	single := singlePorts(in.Machine.Space(machine.HostName))
	for _, c := range Checks() {
		e := &exam{Input: in, check: c.Name, ids: ids, nets: nets, single: single}
		c.run(e)
		d.Findings = append(d.Findings, e.findings...)
		d.Checks = append(d.Checks, api.CheckResult{Name: c.Name, Findings: len(e.findings), Unsure: strings.Join(e.unsure, "; ")})
	}
	slices.SortStableFunc(d.Findings, func(a, b api.Finding) int { return rank(a.Severity) - rank(b.Severity) })
	return d
}

func rank(s api.Severity) int {
	return slices.Index([]api.Severity{api.Fault, api.Risk, api.Remark}, s)
}

// find notes a finding. The slices of evidence are pairs of where and what.
func (e *exam) find(f api.Finding, evidence ...string) {
	f.Check = e.check
	f.Evidence = []api.Evidence{}
	for i := 0; i+1 < len(evidence); i += 2 {
		f.Evidence = append(f.Evidence, api.Evidence{Where: evidence[i], What: evidence[i+1]})
	}
	f.Settable = f.Settable || len(f.Set) > 0
	e.findings = append(e.findings, f)
}

// cannot notes why the check is not complete.
func (e *exam) cannot(format string, args ...any) {
	e.unsure = append(e.unsure, fmt.Sprintf(format, args...))
}

// host is the machine's own namespace.
func (e *exam) host() *machine.Space {
	if s := e.Machine.Space(machine.HostName); s != nil {
		return s
	}
	return &machine.Space{Name: machine.HostName}
}

// title is a namespace in words.
func (e *exam) title(s *machine.Space) string { return e.Names.Space(s).String() }

// enter is a command line in a namespace.
func (e *exam) enter(s *machine.Space, command string) string {
	o := e.Names.Space(s)
	switch {
	case s.Name == machine.HostName:
		return command
	case o.Kind == owner.Sandbox:
		return "towpath exec " + o.Name + " -- " + command
	}
	for _, h := range s.Holders {
		if h.PID != 0 {
			return fmt.Sprintf("nsenter -t %d -n %s", h.PID, command)
		}
	}
	for _, h := range s.Holders {
		return fmt.Sprintf("nsenter --net=%s %s", h.Path, command)
	}
	return command
}

// set is a setting, and the command that makes it.
func set(name, value string) ([]api.Setting, string) {
	return []api.Setting{{Name: name, Value: value}}, "sysctl -w " + dotted(name) + "=" + value
}

// dotted is the name that sysctl(8) has for a parameter. It exchanges dots and
// slashes, since names of interfaces may have dots.
func dotted(name string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '/':
			return '.'
		case '.':
			return '/'
		}
		return r
	}, name)
}

// network is a bridge of the host, with who is on it.
type network struct {
	link    *machine.Link
	name    string // network front (Towpath)
	short   string // front
	ours    bool
	engine  string
	subnets []netip.Prefix // addresses of the bridge with their lengths
	members []member
	inward  bool // it has no way out by intent
}

// member is a namespace on a network.
type member struct {
	port  *machine.Link
	space *machine.Space
	end   *machine.Link
}

func (n network) has(v6 bool) bool {
	return slices.ContainsFunc(n.subnets, func(p netip.Prefix) bool { return p.Addr().Is6() == v6 && !p.Addr().IsLinkLocalUnicast() })
}

// networksOf lists the bridges of the host.
func networksOf(in *Input) []network {
	s := in.Machine.Space(machine.HostName)
	if s == nil {
		return nil
	}
	var out []network
	for i := range s.Links {
		l := &s.Links[i]
		if l.Type != "bridge" {
			continue
		}
		n := network{link: l, name: "bridge " + l.Name, short: l.Name}
		if known, ok := in.Names.Network(l); ok {
			n.name, n.short, n.engine = fmt.Sprintf("network %s (%s)", known.Name, known.Engine), known.Name, known.Engine
			n.ours = known.Engine == owner.Towpath
			n.inward = n.ours && in.Internal[known.Name]
		}
		for _, a := range s.Addresses {
			if a.Dev == l.Name {
				n.subnets = append(n.subnets, a.Prefix)
			}
		}
		for j := range s.Links {
			port := &s.Links[j]
			if far := in.Machine.Space(port.PeerNS); port.Master == l.Name && port.Peer != "" && far != nil && far.Name != s.Name {
				n.members = append(n.members, member{port, far, far.Link(port.Peer)})
			}
		}
		out = append(out, n)
	}
	return out
}

// sysctl is a parameter of a namespace; ok is false where it is not known.
func sysctl(s *machine.Space, name string) (value string, ok bool) {
	value, ok = s.Sysctls[name]
	return value, ok
}

// number is one that is a number.
func number(s *machine.Space, name string) (n int, ok bool) {
	text, ok := sysctl(s, name)
	if !ok {
		return 0, false
	}
	_, err := fmt.Sscan(text, &n)
	return n, err == nil
}

// uplinks are the links of the host that default routes lead over.
func uplinks(s *machine.Space) []*machine.Link {
	var out []*machine.Link
	for _, r := range s.Routes {
		if r.Dst.Bits() != 0 || r.Table != machine.TableMain || r.Type != machine.Unicast {
			continue
		}
		if l := s.Link(r.Dev); l != nil && !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
