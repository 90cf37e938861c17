package author_test

import (
	"testing"

	"github.com/towpath/towpath/internal/author"
)

func TestOf(t *testing.T) {
	tests := []struct {
		what string
		rule author.Rule
		want string
	}{
		{"our table", author.Rule{Table: "towpath", Chain: "forward"}, author.Towpath},
		{"the table of a sandbox", author.Rule{Table: "towpath_names", Chain: "in"}, author.Towpath},
		{"our rule in a chain of Docker's", author.Rule{Table: "filter", Chain: "DOCKER-USER", Comment: "towpath"}, author.Towpath},
		{"a comment that only looks like ours", author.Rule{Table: "filter", Chain: "FORWARD", Comment: "towpaths are nice"}, author.User},
		{"the nftables backend of firewalld", author.Rule{Table: "firewalld", Chain: "filter_FORWARD"}, author.Firewalld},
		{"the iptables backend of firewalld", author.Rule{Table: "filter", Chain: "FWD_public"}, author.Firewalld},
		{"the nftables backend of Docker", author.Rule{Table: "docker-bridges", Chain: "filter-FORWARD", Policy: true}, author.Docker},
		{"a chain of Docker's", author.Rule{Table: "filter", Chain: "DOCKER-ISOLATION-STAGE-2"}, author.Docker},
		{"a jump of Docker's out of a chain of everybody's", author.Rule{Table: "filter", Chain: "FORWARD", Jumps: []string{"DOCKER-USER"}}, author.Docker},
		{"a policy with Docker's chains in the table", author.Rule{Table: "filter", Chain: "FORWARD", Policy: true, Chains: []string{"FORWARD", "DOCKER", "DOCKER-USER"}}, author.Docker},
		{"a policy with ufw's chains in the table", author.Rule{Table: "filter", Chain: "FORWARD", Policy: true, Chains: []string{"FORWARD", "ufw-user-forward"}}, author.UFW},
		{"a policy with chains of both", author.Rule{Table: "filter", Chain: "FORWARD", Policy: true, Chains: []string{"ufw-user-forward", "DOCKER"}}, "docker or ufw"},
		{"a policy beside chains of libvirt, which never sets one", author.Rule{Table: "filter", Chain: "FORWARD", Policy: true, Chains: []string{"LIBVIRT_FWO"}}, author.User},
		{"a rule of the user beside Docker's", author.Rule{Table: "filter", Chain: "FORWARD", Chains: []string{"DOCKER"}}, author.User},
		{"ufw in IPv6", author.Rule{Table: "filter", Chain: "ufw6-user-forward"}, author.UFW},
		{"libvirt by iptables", author.Rule{Table: "filter", Chain: "LIBVIRT_FWI"}, author.Libvirt},
		{"libvirt by nftables", author.Rule{Table: "libvirt_network", Chain: "guest_input"}, author.Libvirt},
		{"kube-proxy by iptables", author.Rule{Table: "filter", Chain: "KUBE-FORWARD"}, author.KubeProxy},
		{"kube-proxy by nftables", author.Rule{Table: "kube-proxy", Chain: "filter-forward"}, author.KubeProxy},
		{"kube-router", author.Rule{Table: "filter", Chain: "KUBE-ROUTER-FORWARD"}, "kube-router"},
		{"Podman", author.Rule{Table: "netavark", Chain: "FORWARD"}, author.Podman},
		{"what Docker lets pass", author.Rule{Table: "filter", Chain: "FORWARD", Text: `iifname "br-1cb483d60b11" oifname != "br-1cb483d60b11" counter accept`}, author.Docker},
		{"what Docker does not let talk", author.Rule{Table: "filter", Chain: "FORWARD", Text: `iifname "docker0" oifname "docker0" counter drop`}, author.Docker},
		{"what Docker translates", author.Rule{Table: "nat", Chain: "POSTROUTING", Text: `oifname != "docker0" ip saddr 172.17.0.0/16 counter xt target "MASQUERADE"`}, author.Docker},
		{"a published port of Docker's, for the container itself", author.Rule{Table: "nat", Chain: "POSTROUTING", Text: `ip saddr 10.8.0.2 ip daddr 10.8.0.2 tcp dport 80 counter xt target "MASQUERADE"`, Chains: []string{"DOCKER"}}, author.Docker},
		{"what the user stops of Docker's", author.Rule{Table: "filter", Chain: "FORWARD", Text: `iifname "docker0" counter drop`}, author.User},
		{"a bridge of the user's", author.Rule{Table: "filter", Chain: "FORWARD", Text: `iifname "br-lan" counter accept`}, author.User},
		{"a chain of the user's that lets Docker pass", author.Rule{Table: "filter", Chain: "mine", Text: `iifname "docker0" accept`}, author.User},
		{"what the user has put where Docker wants it", author.Rule{Table: "filter", Chain: "DOCKER-USER", Text: `ip saddr 10.8.0.2 counter drop`}, author.User},
		{"the end of that chain", author.Rule{Table: "filter", Chain: "DOCKER-USER", Text: "counter return"}, author.Docker},
		{"what podman lets pass", author.Rule{Table: "filter", Chain: "FORWARD", Text: `iifname "podman1" accept`}, author.Podman},
		{"nobody known", author.Rule{Table: "filter", Chain: "forward", Policy: true, Chains: []string{"input", "forward"}}, author.User},
	}
	for _, tt := range tests {
		if got := author.Of(tt.rule); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
}
