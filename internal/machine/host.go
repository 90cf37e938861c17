package machine

import (
	"slices"

	"github.com/towpath/towpath/internal/nft"
)

// Host is a machine: all its network namespaces that are known.
type Host struct {
	Spaces []Space
	// Unread are namespaces that are there and could not be read, and why.
	Unread []Unread
}

// Unread is a namespace that could not be read.
type Unread struct {
	Inode   uint64
	Holders []Holder
	Cause   string
}

// HostName is the name of the namespace that stands for the machine itself.
const HostName = "host"

// Space is a network namespace.
type Space struct {
	// Name is unique: HostName, that of a sandbox, or a made-up one.
	Name  string
	Inode uint64 // 0: not known
	// Cookie is the kernel's number for it, used once a boot; 0: not known.
	Cookie uint64
	// Holders are what keeps the namespace.
	Holders []Holder
	// Partial says what could not be read or was too much to be read whole, one
	// line each.
	Partial []string

	// Links are in no order; the loopback is among them.
	Links     []Link
	Addresses []Address
	// Routes are those of all tables, the local one among them, each table in
	// the kernel's order.
	Routes     []Route
	Rules      []Rule
	Neighbours []Neighbour
	// Forwarding are the entries of the databases of bridges and VXLANs.
	Forwarding []ForwardingEntry
	// Sysctls by their path under /proc/sys. One that is absent has the value
	// the kernel starts with.
	Sysctls map[string]string
	// Counters are those of the whole namespace, under the names that nstat has
	// ("IpInAddrErrors", "TcpExtListenDrops"); those of connection tracking are
	// "Conntrack" and the column's name ("ConntrackInsertFailed"), those of the two
	// neighbour tables "ArpCache" and "NdiscCache" likewise.
	Counters map[string]uint64

	// Legacy are the tables of the older iptables, as tables of nftables would do
	// the same.
	Tables, Legacy []nft.TableDef

	// Listeners are the sockets that wait for packets; nil: not known, and taken
	// to be there.
	Listeners []Listener
	// Held are sockets that only keep others from a port: what comes to them is
	// gone without a word.
	Held []Listener
	// Connections are those that are tracked already.
	Connections []Connection
}

// Holder keeps a namespace: a process in it, or a file it is bound to.
type Holder struct {
	PID     int    // 0: a file
	Command string // of the process (/proc/PID/comm)
	Cgroup  string // of the process, where a runtime writes the container's name
	Path    string // of the file
}

// Space finds a namespace by its name; nil: there is none.
func (h *Host) Space(name string) *Space {
	i := slices.IndexFunc(h.Spaces, func(s Space) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &h.Spaces[i]
}

// Rename gives namespaces other names; each must stay one's alone.
func (h *Host) Rename(names map[string]string) {
	other := func(name string) string {
		if to := names[name]; to != "" {
			return to
		}
		return name
	}
	for i := range h.Spaces {
		s := &h.Spaces[i]
		s.Name = other(s.Name)
		for j := range s.Links {
			l := &s.Links[j]
			l.PeerNS, l.ParentNS = other(l.PeerNS), other(l.ParentNS)
		}
	}
}

// UnreadChain is the name of the chains that stand for those of a table that
// could not be read; what meets one is not decided.
const UnreadChain = "?"

// Filters are all tables that packets meet: those of nftables and of the older
// iptables.
func (s *Space) Filters() []nft.TableDef { return slices.Concat(s.Tables, s.Legacy) }

// Link finds a link by its name; nil: there is none.
func (s *Space) Link(name string) *Link {
	i := slices.IndexFunc(s.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Links[i]
}
