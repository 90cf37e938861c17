// Package author says which program wrote a firewall rule, by the names it
// gave: the kernel does not keep who wrote what.
package author

import (
	"slices"
	"strings"
)

// The authors that others ask for by name. Others are named as they are
// recognised; what nobody is known for is the user's.
const (
	Towpath   = "towpath"
	Docker    = "docker"
	Podman    = "podman"
	CNI       = "cni"
	Firewalld = "firewalld"
	UFW       = "ufw"
	Libvirt   = "libvirt"
	KubeProxy = "kube-proxy"
	User      = "user"
)

// Mark begins the comment of rules that Towpath keeps in chains which other
// programs made for that.
const Mark = "towpath"

// Rule is what is known of a rule, or with Policy of a chain's policy.
type Rule struct {
	Table, Chain string
	Comment      string
	// Text is the rule as nft writes it.
	Text string
	// Jumps are the chains it jumps or goes to.
	Jumps  []string
	Policy bool
	// Chains are all chains of the table. The tables of iptables are shared by
	// all programs, so that a policy is whoever's chains are there.
	Chains []string
}

// Of is the author of a rule: one of the names above or another program's, or
// two or more joined by " or " when a policy may be each one's.
func Of(r Rule) string {
	if r.Comment == Mark || strings.HasPrefix(r.Comment, Mark+" ") {
		return Towpath
	}
	if who := ofTable(r.Table); who != "" {
		return who
	}
	if r.Chain == "DOCKER-USER" && r.Text != "" && !strings.HasSuffix(r.Text, "return") {
		return User // the chain is Docker's, and what it is for is the user's
	}
	if who := ofChain(r.Chain); who != "" {
		return who
	}
	for _, to := range r.Jumps {
		if who := ofChain(to); who != "" {
			return who
		}
	}
	if strings.HasPrefix(r.Comment, "kubernetes ") {
		return KubeProxy
	}
	if who := ofText(r); who != "" {
		return who
	}
	if r.Policy {
		if who := setsPolicy(r.Chains); who != "" {
			return who
		}
	}
	return User
}

// named is a name, or with a star in the end how one begins.
type named struct{ name, author string }

func find(list []named, name string) string {
	for _, n := range list {
		prefix, begins := strings.CutSuffix(n.name, "*")
		if name == n.name || begins && strings.HasPrefix(name, prefix) {
			return n.author
		}
	}
	return ""
}

// ofTable knows the tables that programs have to themselves.
func ofTable(name string) string {
	return find([]named{
		{"towpath", Towpath},
		{"towpath_*", Towpath},
		{"firewalld", Firewalld},
		{"docker-bridges", Docker},
		{"netavark", Podman},
		{"libvirt_network", Libvirt},
		{"kube-proxy", KubeProxy},
		{"cni_*", CNI},
		{"ufw*", UFW},
		{"fw4", "openwrt"},
		{"lxd", "lxd"},
		{"incus", "incus"},
		{"nixos-fw", "nixos"},
		{"flannel-*", "flannel"},
		{"calico", "calico"},
		{"f2b-table", "fail2ban"},
		{"tailscale", "tailscale"},
	}, name)
}

// ofChain knows the chains that programs make in tables of iptables.
func ofChain(name string) string {
	return find([]named{
		{"DOCKER", Docker},
		{"DOCKER-*", Docker},
		{"DOCKER_*", Docker},
		{"NETAVARK*", Podman},
		{"CNI-*", CNI},
		{"LIBVIRT_*", Libvirt},
		{"KUBE-ROUTER-*", "kube-router"},
		{"KUBE-*", KubeProxy},
		{"ufw-*", UFW},
		{"ufw6-*", UFW},
		// The backend of firewalld that uses iptables; "direct" is what it was told to add.
		{"FORWARD_direct", Firewalld},
		{"FORWARD_ZONES*", Firewalld},
		{"FORWARD_POLICIES_*", Firewalld},
		{"FWD_*", Firewalld},
		{"FWDI_*", Firewalld},
		{"FWDO_*", Firewalld},
		{"INPUT_ZONES*", Firewalld},
		{"IN_*", Firewalld},
		{"cali-*", "calico"},
		{"CILIUM_*", "cilium"},
		{"FLANNEL-*", "flannel"},
		{"WEAVE-*", "weave"},
		{"f2b-*", "fail2ban"},
		{"ts-*", "tailscale"},
		{"nixos-fw*", "nixos"},
	}, name)
}

// setsPolicy names the programs that are known to set the policy of FORWARD to
// DROP and have chains in the table.
func setsPolicy(chains []string) string {
	var found []string
	for _, c := range chains {
		who := ofChain(c)
		if (who == Docker || who == UFW) && !slices.Contains(found, who) {
			found = append(found, who)
		}
	}
	slices.Sort(found)
	return strings.Join(found, " or ")
}
