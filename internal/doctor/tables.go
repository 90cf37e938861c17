package doctor

import (
	"fmt"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/machine"
)

func checkConntrack(e *exam) {
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		e.room(s)
		e.clashes(s)
	}
}

// before is a namespace some time before; nil: nothing is there to compare with.
func (e *exam) before(s *machine.Space) *machine.Space {
	if e.Earlier == nil {
		return nil
	}
	if was := e.Earlier.Space(s.Name); was != nil && was.Inode == s.Inode {
		return was
	}
	return nil
}

// rise is by how much a count of counters rose since then.
func (e *exam) rise(s *machine.Space, count func(map[string]uint64) uint64) uint64 {
	before := e.before(s)
	if before == nil {
		return 0
	}
	now := count(s.Counters)
	return now - min(now, count(before.Counters))
}

// turnedAway counts new connections for which a table of connections had no room,
// and those that were thrown out for them. A connection that clashes with another
// is counted as drop too (nf_ct_resolve_clash), and is among insert_failed; among
// these are further ones whose chain of the table was too long.
func turnedAway(c map[string]uint64) uint64 {
	clashes := notEntered(c) - min(notEntered(c), c["ConntrackChainlength"])
	return c["ConntrackDrop"] - min(c["ConntrackDrop"], clashes) + c["ConntrackEarlyDrop"]
}

// notEntered counts connections that another one kept out of the table.
func notEntered(c map[string]uint64) uint64 { return c["ConntrackInsertFailed"] }

// room asks whether the table of connections has some.
func (e *exam) room(s *machine.Space) {
	count, ok1 := number(s, "net/netfilter/nf_conntrack_count")
	limit, ok2 := number(s, "net/netfilter/nf_conntrack_max")
	if !ok1 || !ok2 || limit == 0 {
		return
	}
	turned, rise := turnedAway(s.Counters), e.rise(s, turnedAway)
	f := api.Finding{Consequence: `a new connection is dropped, or throws out another, while there is no room ("table full" in the log); those that are there go on`}
	var says string
	f.Severity, says = filled(count, limit)
	switch {
	case rise > 0:
		f.Severity, says = api.Fault, fmt.Sprintf("turns connections away now, %d of them while it was looked at", rise)
	case says != "":
	case turned > 0:
		// The counter stays as it is until the next boot, also when there is room for more since.
		f.Severity, says = api.Remark, "has turned "+plural(int(turned), "connection", "connections")+" away"
	default:
		return
	}
	f.Summary = fmt.Sprintf("the table of tracked connections of %s %s: %d of %d are taken", e.title(s), says, count, limit)
	f.Set, f.Fix = set("net/netfilter/nf_conntrack_max", fmt.Sprint(limit*2))
	f.Fix += "   # on the host, for all namespaces; who takes them: " + e.enter(s, "conntrack -L")
	if f.Severity == api.Remark {
		f.Set = nil // each --fix would double it again
	}
	e.find(f, e.enter(s, "sysctl net.netfilter.nf_conntrack_count"), fmt.Sprint(count), "/proc/sys/net/netfilter/nf_conntrack_max", fmt.Sprint(limit),
		e.enter(s, "conntrack -S")+": drop, early_drop, less insert_failed", e.reading(s, turnedAway))
}

// filled says how near a table is to its limit; "": not near.
func filled(used, limit int) (api.Severity, string) {
	switch {
	case used*100 >= limit*95:
		return api.Fault, "is full"
	case used*100 >= limit*80:
		return api.Risk, "is nearly full"
	}
	return "", ""
}

// clashes asks whether connections could not be entered, although there was room.
func (e *exam) clashes(s *machine.Space) {
	failed, rise := notEntered(s.Counters), e.rise(s, notEntered)
	if failed == 0 {
		return
	}
	f := api.Finding{
		Severity: api.Remark, Summary: fmt.Sprintf("%s could not be tracked in %s, since another one has the same addresses and ports", plural(int(failed), "connection", "connections"), e.title(s)),
		Consequence: "the packet that began each was dropped: a connection takes a second longer, or is never made; a question about a name waits, five seconds as a rule",
		Fix: "if names are slow: a line `options single-request-reopen` in resolv.conf of who asks; else give the rule that translates sources more ports or addresses, or fully-random: " +
			e.enter(s, "nft list ruleset"),
	}
	if rise > 0 {
		f.Severity = api.Fault
		f.Summary = fmt.Sprintf("%s could not be tracked in %s while it was looked at, since another one has the same addresses and ports", plural(int(rise), "connection", "connections"), e.title(s))
	}
	e.find(f, e.enter(s, "conntrack -S")+": insert_failed", e.reading(s, notEntered), e.enter(s, "conntrack -S")+": chaintoolong", fmt.Sprint(s.Counters["ConntrackChainlength"]))
}

// reading is a count as evidence: before and now, where it was read twice.
func (e *exam) reading(s *machine.Space, count func(map[string]uint64) uint64) string {
	before := e.before(s)
	if before == nil {
		return fmt.Sprint(count(s.Counters))
	}
	return fmt.Sprintf("%d, then %d", count(before.Counters), count(s.Counters))
}

// family is one of the two that have a neighbour table.
type family struct {
	name, sysctl, stat, fulls string
	v4                        bool
}

func families() []family {
	return []family{
		{"IPv4", "net/ipv4/neigh/default/gc_thresh3", "/proc/net/stat/arp_cache", "ArpCacheTableFulls", true},
		{"IPv6", "net/ipv6/neigh/default/gc_thresh3", "/proc/net/stat/ndisc_cache", "NdiscCacheTableFulls", false},
	}
}

// checkNeighbours adds up all namespaces: the kernel has one table a family, and
// shows its limit in the first namespace only.
func checkNeighbours(e *exam) {
	s := e.host()
	for _, a := range families() {
		limit, ok := number(s, a.sysctl)
		if !ok || limit <= 0 {
			continue
		}
		used, most := e.neighbours(a)
		fulls := func(c map[string]uint64) uint64 { return c[a.fulls] }
		rise := e.rise(s, fulls)
		f := api.Finding{
			Consequence: `while it is full no further address on any link of this machine is found ("neighbour table overflow" in the log)`,
		}
		var says string
		f.Severity, says = filled(used, limit)
		switch {
		case rise > 0:
			f.Severity, says = api.Fault, "has no room now, "+plural(int(rise), "address", "addresses")+" found none while it was looked at"
		case says != "":
		case fulls(s.Counters) > 0:
			f.Severity, says = api.Remark, "was full"
		default:
			continue
		}
		f.Summary = fmt.Sprintf("the neighbour table of %s %s: %d of %d", a.name, says, used, limit)
		f.Set, f.Fix = set(a.sysctl, fmt.Sprint(limit*4))
		if f.Severity == api.Remark {
			f.Set = nil
		}
		e.find(f, "/proc/sys/"+a.sysctl, fmt.Sprint(limit), "ip neighbour, in all namespaces", fmt.Sprintf("%d, most of them in %s", used, most),
			a.stat+": table_fulls", e.reading(s, fulls))
	}
}

// neighbours counts those of a family that take room in its table, and names the
// namespace that has most.
func (e *exam) neighbours(a family) (used int, most string) {
	largest := -1
	for i := range e.Machine.Spaces {
		s := &e.Machine.Spaces[i]
		has := 0
		for _, n := range s.Neighbours {
			// Those that are permanent or need no question are not collected.
			if n.IP.Is4() == a.v4 && n.State&(machine.NeighbourPermanent|machine.NeighbourNoARP) == 0 {
				has++
			}
		}
		if used += has; has > largest {
			largest, most = has, e.title(s)
		}
	}
	return used, most
}
