package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/nft"
	"github.com/towpath/towpath/internal/owner"
)

// most is how many lines of evidence a finding has.
const most = 8

func checkReading(e *exam) {
	for _, u := range e.Machine.Unread {
		e.cannot("%s: %s", e.Names.Unread(u), u.Cause)
	}
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		for _, line := range s.Partial {
			e.cannot("%s: %s", e.title(s), line)
		}
	}
	for _, line := range e.Unread {
		e.cannot("%s", line)
	}
}

func checkDrift(e *exam) {
	if len(e.Drift) == 0 {
		return
	}
	var evidence []string
	for i, line := range e.Drift {
		if i == most {
			evidence = append(evidence, "towpath diff", fmt.Sprintf("and %d more", len(e.Drift)-most))
			break
		}
		evidence = append(evidence, "towpath diff", line)
	}
	e.find(api.Finding{
		Severity: api.Fault, Summary: "Towpath's own things are not as they should be: " + plural(len(e.Drift), "change", "changes") + " to make",
		Consequence: "networks of Towpath do not work as its objects say", Fix: "towpath doctor --fix", Ours: true,
	}, evidence...)
}

// writers are engines that never run a network without rules, and how each is
// told to write them again.
var writers = []struct {
	engine  string
	authors []string
	fix     string
}{
	{owner.Towpath, []string{author.Towpath}, "towpath doctor --fix"},
	{owner.Docker, []string{author.Docker}, "systemctl restart docker"},
	{owner.Podman, []string{author.Podman, author.CNI}, "podman network reload --all"},
	{owner.Libvirt, []string{author.Libvirt}, "systemctl restart libvirtd"},
}

func checkRulesGone(e *exam) {
	s := e.host()
	there, whole := authors(s)
	if !whole {
		return // they may be there
	}
	for _, w := range writers {
		i := slices.IndexFunc(e.nets, func(n network) bool { return n.engine == w.engine && (len(n.members) > 0 || n.ours) })
		if i < 0 || slices.ContainsFunc(w.authors, func(a string) bool { return there[a] }) {
			continue
		}
		e.find(api.Finding{
			Severity: api.Fault, Summary: fmt.Sprintf("the rules of %s are gone, and its networks are in use", w.engine),
			Consequence: "no published port, no translation, no isolation until they are written again", Fix: w.fix, Ours: w.engine == owner.Towpath,
		}, "bridge "+e.nets[i].link.Name, e.nets[i].name+" has "+plural(len(e.nets[i].members), "member", "members"),
			"nft list ruleset", "no chain of "+w.engine+"'s in "+plural(len(s.Filters()), "table", "tables"))
	}
}

// authors are those who have chains in a namespace; whole: every chain could be read.
func authors(s *machine.Space) (out map[string]bool, whole bool) {
	out, whole = map[string]bool{}, true
	for _, t := range s.Filters() {
		for _, c := range t.Chains {
			out[author.Of(author.Rule{Table: t.Name, Chain: c.Name})] = true
			whole = whole && c.Name != machine.UnreadChain
		}
	}
	return out, whole
}

func checkMixed(e *exam) {
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		modern, legacy := working(s.Tables), working(s.Legacy)
		if len(legacy) == 0 || len(modern) == 0 {
			continue
		}
		e.find(api.Finding{
			Severity:    api.Risk,
			Summary:     fmt.Sprintf("%s has tables of iptables-legacy and of nftables", e.title(s)),
			Consequence: "both are asked about every packet and either may drop it, while each tool lists its own only",
			Fix:         e.enter(s, "iptables-legacy-save") + "   # move what is needed to iptables-nft, then: iptables-legacy -F; iptables-legacy -t nat -F; iptables-legacy -P FORWARD ACCEPT",
		}, "/proc/net/ip_tables_names", strings.Join(legacy, ", "), "nft list tables", strings.Join(modern, ", "))
	}
}

// working are the tables that do anything.
func working(tables []nft.TableDef) []string {
	var out []string
	for _, t := range tables {
		rules, drops := 0, false
		for _, c := range t.Chains {
			rules += len(c.Rules)
			drops = drops || c.Policy == "drop"
		}
		if rules > 0 || drops {
			out = append(out, fmt.Sprintf("%s %s (%s)", t.Family, strings.TrimPrefix(t.Name, nft.LegacyTable), plural(rules, "rule", "rules")))
		}
	}
	return out
}

func checkStale(e *exam) {
	s := e.host()
	for i := range s.Links {
		l := &s.Links[i]
		bridge := s.Link(l.Master)
		if l.Type != "veth" || !l.Elsewhere || bridge == nil || bridge.Type != "bridge" {
			continue
		}
		e.find(api.Finding{
			Severity: api.Risk, Summary: fmt.Sprintf("%s on bridge %s leads into a namespace that no process and no file holds", l.Name, l.Master),
			Consequence: "an open socket may keep it; else it is left over, and takes a port and perhaps an address", Fix: "ip link delete " + l.Name,
		}, "ip -d link show "+l.Name, fmt.Sprintf("index %d, state %s, the other end is in none of %s", l.Index, l.OperState, plural(len(e.Machine.Spaces), "namespace", "namespaces")))
	}
	for i := range e.Machine.Spaces {
		e.staleSpace(&e.Machine.Spaces[i])
	}
}

// staleSpace knows a namespace that an engine made and nobody is in: no
// process, no interface but the loopback.
func (e *exam) staleSpace(s *machine.Space) {
	o := e.Names.Space(s)
	if o.Engine == "" || o.Engine == owner.Towpath || len(s.Links) != 1 || len(s.Holders) == 0 {
		return
	}
	for _, h := range s.Holders {
		if h.PID != 0 {
			return
		}
	}
	p := s.Holders[0].Path
	e.find(api.Finding{
		Severity: api.Risk, Summary: fmt.Sprintf("the namespace of %s is empty and nobody is in it", o),
		Consequence: "it is left over of a container that is gone", Fix: fmt.Sprintf("umount %s && rm %s", p, p),
	}, p, "no process, and no interface but the loopback")
}
