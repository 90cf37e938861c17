package e2e

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/testnet"
)

// warns checks that a verb is done, and that it warns of something.
func (w *world) warns(of string, args ...string) result {
	w.Helper()
	r := w.towpath(args...)
	if r.code != 0 || !strings.HasPrefix(r.stderr, "towpath: warning: ") || !strings.Contains(r.stderr, of) {
		w.Errorf("towpath %s: exit %d, said %q; want a warning with %q", strings.Join(args, " "), r.code, r.stderr, of)
	}
	return r
}

// silent checks that a verb is done, and warns of nothing.
func (w *world) silent(args ...string) {
	w.Helper()
	if r := w.towpath(args...); r.code != 0 || r.stderr != "" {
		w.Errorf("towpath %s: exit %d, said %q", strings.Join(args, " "), r.code, r.stderr)
	}
}

// advice are the commands that the warnings of a verb say to type.
func advice(stderr string) []string {
	var out []string
	for line := range strings.Lines(stderr) {
		if _, commands, ok := strings.Cut(line, "by hand: "); ok {
			out = append(out, strings.Split(strings.TrimSpace(commands), "; ")...)
		}
	}
	return out
}

// TestWarnings: a chain of the administrator's, to which there is no door, is
// named by every verb it matters to; and what is advised helps.
func TestWarnings(t *testing.T) {
	testnet.Require(t, "netns", "nft-binary")
	w := newWorld(t)
	w.sysctl("net/bridge/bridge-nf-call-iptables", "0")
	w.start()
	w.silent("network", "create", "before")
	w.program("", "nft", "add table inet mine; add chain inet mine through { type filter hook forward priority 5; policy drop; }; add rule inet mine through ct state established accept")
	const chain = "is dropped by the policy of chain inet mine through (user)"
	made := w.warns("what leaves network front "+chain, "network", "create", "front", "--ipv6")
	w.warns("what leaves network front "+chain, "sandbox", "create", "web", "--network", "front", "-p", "8081:81")
	w.warns("what leaves network before "+chain, "network", "connect", "before", "web")
	w.warns("what comes in to published port 8080/tcp "+chain, "publish", "web", "8080:80")
	if r := w.warns(chain, "run", "--network", "front", "--", "echo", "hello"); r.stdout != "hello\n" {
		t.Errorf("the command's output is %q", r.stdout)
	}
	w.silent("network", "create", "inner", "--internal") // what does not leave is not dropped

	var n api.Network
	r := w.towpath("--json", "network", "create", "back")
	if err := json.Unmarshal([]byte(r.stdout), &n); err != nil || len(n.Warnings) == 0 || !strings.Contains(n.Warnings[0], chain) || r.stderr != "" {
		t.Errorf("as JSON: warnings %q, %v, and on stderr %q", n.Warnings, err, r.stderr)
	}
	var all []api.Network
	if err := json.Unmarshal([]byte(w.must("network", "inspect", "back")), &all); err != nil || len(all[0].Warnings) != 0 {
		t.Errorf("inspect: %v, %+v", err, all)
	}

	for _, command := range advice(made.stderr) {
		w.program("", "sh", "-c", command)
	}
	web, _ := w.sandbox("web")
	w.tellSource(web, 80)
	w.tellSource(w.outside, 9000)
	w.passes(web, true, false)
	w.silent("publish", "web", "8082:82")
	w.silent("network", "connect", "front", "web")
}

// TestAdvice: what is advised where there is a door that is not to be used.
func TestAdvice(t *testing.T) {
	testnet.Require(t, "netns", "nft-binary", "iptables-nft-binary", "ip6tables-nft-binary", "iptables-binary", "ip6tables-binary")
	w := newWorld(t)
	docker(w)
	w.flags = []string{"--cooperate", "off"}
	w.start()
	for _, command := range advice(w.towpath("network", "create", "front", "--ipv6").stderr) {
		w.program("", "sh", "-c", command)
	}
	w.silent("sandbox", "create", "web", "--network", "front", "-p", "8080:80")
	web, _ := w.sandbox("web")
	w.tellSource(web, 80)
	w.tellSource(w.outside, 9000)
	w.passes(web, true, false)
}

// TestLegacyRules: the old ip_tables are asked as well, and what shows them is named.
func TestLegacyRules(t *testing.T) {
	testnet.Require(t, "netns", "iptables-legacy-binary")
	w := newWorld(t)
	w.start()
	if r := w.finish(exec.Command("iptables-legacy", "-P", "FORWARD", "DROP")); r.code != 0 {
		t.Skipf("skip: needs ip_tables: %s", r.stderr)
	}
	w.warns("what leaves network front is dropped by the policy of chain ip legacy:filter FORWARD (user); by hand: iptables-legacy -t filter -I FORWARD -i tp-front -j ACCEPT", "network", "create", "front")
	w.program("", "iptables-legacy", "-A", "FORWARD", "-i", "tp-back", "-j", "ACCEPT")
	w.warns("answers to network back are dropped by the policy of chain ip legacy:filter FORWARD (user)", "network", "create", "back")
	w.program("", "iptables-legacy", "-t", "filter", "-I", "FORWARD", "-o", "tp-back", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT", "-j", "ACCEPT")
	w.must("network", "rm", "back")
	w.silent("network", "create", "back")
	w.program("", "iptables-legacy", "-F", "FORWARD")
	w.program("", "iptables-legacy", "-P", "FORWARD", "ACCEPT")
	w.silent("network", "create", "third")
}

// TestZoneOfTheAdministrator: a link that somebody has put into a zone stays
// there, and is not taken out of it.
func TestZoneOfTheAdministrator(t *testing.T) {
	testnet.Require(t, "netns", "root", "firewalld-binary", "firewall-cmd-binary", "dbus-daemon-binary", "nft-binary")
	w := newWorld(t)
	firewalld(w)
	w.program("", "firewall-cmd", "--zone=dmz", "--add-interface=tp-front")
	w.start()
	w.warns("what leaves network front is rejected by rule", "network", "create", "front")
	w.clean()
	zone := func() string {
		return strings.TrimSpace(w.program("", "firewall-cmd", "--get-zone-of-interface=tp-front"))
	}
	if got := zone(); got != "dmz" {
		t.Errorf("the link is in zone %q, want dmz", got)
	}
	w.must("network", "rm", "front")
	if got := zone(); got != "dmz" {
		t.Errorf("after the network the link is in zone %q, want dmz", got)
	}
}
