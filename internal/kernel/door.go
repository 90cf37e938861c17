package kernel

import (
	"strings"

	"github.com/towpath/towpath/internal/nft"
)

// Programs that made a door: a place in their own rules meant for others.
const (
	DoorDocker    = "docker"
	DoorUFW       = "ufw"
	DoorFirewalld = "firewalld"
)

// Door is a way past another program's forward chain which that program made
// and leaves to others: a chain of iptables-nft, or firewalld's zones, which
// have no chain.
type Door struct{ Program, Family, Table, Chain string }

// DoorChains are the chains that are doors. Where ufw has one the
// administrator's rules are behind it, and Docker's chain before would bypass
// them; so the order is that of preference within a family.
func DoorChains() []Door {
	return []Door{
		{DoorUFW, "ip", "filter", "ufw-user-forward"},
		{DoorDocker, "ip", "filter", "DOCKER-USER"},
		{DoorUFW, "ip6", "filter", "ufw6-user-forward"},
		{DoorDocker, "ip6", "filter", "DOCKER-USER"},
	}
}

// IsDoor reports whether a chain is a door.
func IsDoor(family, table, chain string) bool {
	for _, d := range DoorChains() {
		if d.Family == family && d.Table == table && d.Chain == chain {
			return true
		}
	}
	return false
}

// TrustedZone is the zone of firewalld that lets everything through. It is
// there without being configured, and links go in and out of it at run time.
const TrustedZone = "trusted"

// Entry is a rule of ours in a door: it accepts what goes from one link to
// another, all of it or only connections in some states. It carries our mark as
// its comment.
type Entry struct {
	NS, Family, Table, Chain string
	In, Out                  string // names of links; empty is any
	States                   string // of iptables' conntrack match, with commas; empty is any
}

// Zone puts a link into a zone of firewalld, at run time.
type Zone struct{ NS, Zone, Dev string }

// Key is all of it: an entry is there or not, and never changes.
func (e Entry) Key() Key { return Key{e.NS, KindEntry, strings.TrimPrefix(e.String(), "entry ")} }

// Parents is the namespace. The chain is another program's, and no object.
func (e Entry) Parents() []Key { return nsParents(e.NS) }

// Needs is empty.
func (e Entry) Needs() []Key { return nil }

// String is "entry ip filter DOCKER-USER iifname tp-front oifname eth0 accept".
func (e Entry) String() string {
	w := words{"entry", e.Family, e.Table, e.Chain}
	w.add("iifname", e.In)
	w.add("oifname", e.Out)
	w.add("ctstate", e.States)
	return append(w, "accept").String()
}

// Key is the link: it can be in one zone only.
func (z Zone) Key() Key { return Key{z.NS, KindZone, z.Dev} }

// Parents is the namespace.
func (z Zone) Parents() []Key { return nsParents(z.NS) }

// Needs is empty.
func (z Zone) Needs() []Key { return nil }

// String is "zone tp-front in trusted".
func (z Zone) String() string { return "zone " + z.Dev + " in " + z.Zone }

// Foreign is what of the rules of others decides on what is forwarded. It must
// not be changed.
type Foreign struct {
	// Tables have a base chain at hook forward. Legacy are those of the kernel's
	// old ip_tables and ip6_tables, which nftables does not show.
	Tables, Legacy []nft.TableDef
}
