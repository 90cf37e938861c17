package firewall

import (
	"fmt"
	"slices"
	"strings"

	"github.com/towpath/towpath/internal/author"
	"github.com/towpath/towpath/internal/kernel"
	"github.com/towpath/towpath/internal/nft"
)

// fix says what to do about a finding: use the door of its author, or let the
// network through by hand. An accept in any other chain would not help.
func (c *Chains) fix(f Finding, n Network) string {
	if f.Outcome == Undecided {
		return "try it, and if it does not pass let " + n.Device + " through there"
	}
	if d, ok := c.door(f); ok {
		return "start towpathd with --cooperate=auto, or by hand: " + byHand(d, n)
	}
	if f.Author == author.Firewalld {
		return "by hand: " + byHand(kernel.Door{Program: kernel.DoorFirewalld}, n)
	}
	if table, legacy := strings.CutPrefix(f.Rule.Table, nft.LegacyTable); legacy {
		return "by hand: " + letThrough(Legacy(f.Rule.Family)+" -t "+table, "FORWARD", n)
	}
	if strings.HasPrefix(f.Rule.Chain, "FORWARD") && f.Rule.Table == "filter" && f.Rule.Family != nft.FamilyInet {
		return "by hand: " + iptables(f.Rule.Family, f.Rule.Chain, n)
	}
	where := fmt.Sprintf("%s %s %s", f.Rule.Family, f.Rule.Table, f.Rule.Chain)
	if f.Rule.Family == nft.FamilyBridge {
		return fmt.Sprintf("by hand: nft insert rule %s meta ibrname %q accept", where, n.Device)
	}
	return fmt.Sprintf("by hand: nft insert rule %s iifname %q accept; nft insert rule %s oifname %q ct state established,related accept; nft insert rule %s oifname %q ct status dnat accept",
		where, n.Device, where, n.Device, where, n.Device)
}

// door is the one to the program whose chain it is.
func (c *Chains) door(f Finding) (kernel.Door, bool) {
	i := slices.IndexFunc(c.doors, func(d kernel.Door) bool {
		if d.Program == kernel.DoorFirewalld {
			return f.Author == author.Firewalld
		}
		// Any chain of the table is behind the door, which comes first.
		return f.Rule.Table == d.Table && f.Rule.Family.String() == d.Family
	})
	if i < 0 {
		return kernel.Door{}, false
	}
	return c.doors[i], true
}

// byHand is what an administrator would type at a door.
func byHand(d kernel.Door, n Network) string {
	switch d.Program {
	case kernel.DoorFirewalld:
		return fmt.Sprintf("firewall-cmd --zone=trusted --add-interface=%s", n.Device)
	case kernel.DoorUFW:
		return fmt.Sprintf("ufw route allow in on %s; ufw route allow out on %s", n.Device, n.Device)
	}
	family := nft.FamilyIP
	if d.Family == nft.FamilyIP6.String() {
		family = nft.FamilyIP6
	}
	return iptables(family, d.Chain, n)
}

func iptables(f nft.Family, chain string, n Network) string {
	tool := "iptables"
	if f == nft.FamilyIP6 {
		tool = "ip6tables"
	}
	return letThrough(tool, chain, n)
}

// Legacy is the tool for the kernel's old tables of a family.
func Legacy(f nft.Family) string {
	if f == nft.FamilyIP6 {
		return "ip6tables-legacy"
	}
	return "iptables-legacy"
}

func letThrough(tool, chain string, n Network) string {
	return fmt.Sprintf("%s -I %s -i %s -j ACCEPT; %s -I %s -o %s -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
		tool, chain, n.Device, tool, chain, n.Device)
}
