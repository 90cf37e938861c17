package scripts

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/towpath/towpath/internal/doctor"
	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/testnet"
)

// illness is something that root does to a host in its kernel, what the doctor
// must say of it, and how it is taken back. Before and after, nothing is wrong.
type illness struct {
	check, do, undo string
	// says is the line of the finding, with its severity in front.
	says string
	// cure is a command line of towpath instead of undo.
	cure string
	// make does it instead of do, and returns what takes it back.
	make func(*testing.T, *world) (undo func())
	// also is a check that rightly speaks, too.
	also string
}

// labs are two namespaces on a bridge that root made, and a network of Docker's
// name with its rules and one namespace on it.
const labs = `set -e
sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 || true
sysctl -qw net.ipv6.conf.all.forwarding=1
join() { # BRIDGE NAME 4 6
	ip netns add $2
	ip link add to-$2 master $1 type veth peer name eth0 netns $2
	ip link set to-$2 up
	ip -n $2 link set lo up
	ip -n $2 link set eth0 up
	ip -n $2 addr add $3.$4/24 dev eth0
	ip -n $2 route add default via $3.1
}
ip link add lab0 type bridge
ip addr add 10.80.0.1/24 dev lab0
ip addr add fd80::1/64 dev lab0 nodad
ip link set lab0 up
join lab0 one 10.80.0 2
join lab0 two 10.80.0 3
ip -n one addr add fd80::2/64 dev eth0 nodad
ip -n one route add default via fd80::1
ip link add docker0 type bridge
ip addr add 10.81.0.1/24 dev docker0
ip link set docker0 up
join docker0 three 10.81.0 2
nft 'table ip nat {
	chain DOCKER { }
	chain POSTROUTING { type nat hook postrouting priority srcnat; ip saddr 10.81.0.0/24 masquerade; }
	chain PREROUTING { type nat hook prerouting priority dstnat; jump DOCKER; }
}'`

const unlabs = `for n in one two three; do ip netns del $n; done; ip link del lab0; ip link del docker0`

// publish leads a port of the host to three.
const publish = `nft add rule ip nat DOCKER tcp dport 7000 dnat to 10.81.0.2:70`

// illnesses leave out what the daemon mends before it could say so (ip_forward, and
// of IPv6 force_forwarding of every link with a way out), and loopback addresses
// that come in from outside, which its rules drop: TestSick of internal/doctor.
func illnesses() []illness {
	return []illness{
		{check: "drift", do: "sysctl -qw net.ipv4.conf.tp-front.route_localnet=0", cure: "doctor --fix", also: "route-localnet", says: "FAULT drift: Towpath's own things are not as they should be: 1 change to make"},
		{check: "route-localnet", do: "sysctl -qw net.ipv4.conf.tp-front.route_localnet=0", cure: "doctor --fix", also: "drift", says: "FAULT route-localnet: published port 127.0.0.1:8083/tcp is not reached: tp-front may not carry loopback addresses"},
		{check: "ip-forward", do: "sysctl -qw net.ipv4.conf.eth0.forwarding=0", cure: "doctor --fix=ip-forward", says: "FAULT ip-forward: IPv4 of .* is not forwarded: what comes in by eth0 is not forwarded"},
		{check: "rules-gone", do: "nft delete table ip nat", undo: labs[strings.Index(labs, "nft 'table"):], also: "masquerade", says: "FAULT rules-gone: the rules of Docker are gone, and its networks are in use"},
		{check: "masquerade", do: "nft flush chain ip nat POSTROUTING", undo: "nft add rule ip nat POSTROUTING ip saddr 10.81.0.0/24 masquerade", says: `RISK masquerade: what leaves network bridge \(Docker\) by eth0 keeps its private address`},
		{check: "forward-drop", do: "nft 'table inet mine { chain forward { type filter hook forward priority 0; policy drop; ct state established,related accept; }; }'", undo: "nft delete table inet mine", says: `FAULT forward-drop: what leaves network .* is dropped by the policy of chain inet mine forward \(user\)`},
		{check: "bridge-netfilter", do: "sysctl -qw net.bridge.bridge-nf-call-ip6tables=1", undo: "sysctl -qw net.bridge.bridge-nf-call-ip6tables=0", says: "REMARK bridge-netfilter: frames of IPv6 within bridge lab0 pass the packet filter of IP"},
		{check: "bridge-netfilter", do: "sysctl -qw net.bridge.bridge-nf-call-iptables=1", undo: "sysctl -qw net.bridge.bridge-nf-call-iptables=0", says: "REMARK bridge-netfilter: frames of IPv4 within bridge lab0 pass the packet filter of IP"},
		{check: "rp-filter", do: "ip link add eth1 type veth peer name x1; ip addr add 203.0.113.10/24 dev eth1; ip link set x1 up; ip link set eth1 up; ip route add default via 203.0.113.1 dev eth1 metric 100; sysctl -qw net.ipv4.conf.eth1.rp_filter=1", undo: "ip link del eth1", says: "RISK rp-filter: host: what comes in by eth1 is dropped, since the way back is eth0"},
		{check: "mtu", do: "ip link set eth0 mtu 1400", undo: "ip link set eth0 mtu 1500", says: "RISK mtu: eth0 of namespace one sends up to 1500 bytes, and the way out by eth0 takes 1400"},
		{check: "mtu", do: "ip link set lab0 mtu 1400", undo: "ip link set lab0 mtu 1500", says: "FAULT mtu: to-one takes 1500 bytes, its bridge lab0 only 1400"},
		{check: "mtu", do: "ip -n one link set eth0 mtu 1300", undo: "ip -n one link set eth0 mtu 1500", says: "FAULT mtu: the two ends of to-one differ: 1500 bytes at to-one, 1300 in namespace one"},
		{check: "mtu", do: "ip link add vx0 mtu 1500 type vxlan id 7 local 192.0.2.10 remote 192.0.2.1 dstport 4789", undo: "ip link del vx0", says: "FAULT mtu: vxlan vx0 takes 1500 bytes, and with its headers eth0 has room for 1450"},
		{check: "pmtu", do: "nft 'table ip6 mine { chain forward { type filter hook forward priority 0; icmpv6 type packet-too-big drop; }; }'", undo: "nft delete table ip6 mine", says: "FAULT pmtu: ICMPv6 errors about packets that are too big do not reach bridge lab0"},
		{check: "pmtu", do: "nft 'table ip mine { chain forward { type filter hook forward priority 0; icmp type destination-unreachable drop; }; }'", undo: "nft delete table ip mine", says: "FAULT pmtu: ICMP errors about packets that are too big do not reach bridge lab0"},
		{check: "pmtu", do: "sysctl -qw net.ipv4.ip_no_pmtu_disc=1", cure: "doctor --fix=pmtu", says: "RISK pmtu: the host does not look for the MTU of a path"},
		{check: "subnets", do: "ip route add 10.80.0.0/25 dev eth0", undo: "ip route del 10.80.0.0/25 dev eth0", says: "FAULT subnets: bridge lab0 and the host's route over eth0 have the same addresses"},
		{check: "subnets", do: "ip addr add 10.80.0.129/25 dev docker0", undo: "ip addr del 10.80.0.129/25 dev docker0", says: `FAULT subnets: (bridge lab0|network bridge \(Docker\)) and (bridge lab0|network bridge \(Docker\)) have the same addresses`},
		{check: "gateway", do: "ip -n one neigh replace 10.80.0.1 dev eth0 nud failed", undo: "ip -n one neigh del 10.80.0.1 dev eth0", says: "FAULT gateway: the router 10.80.0.1 of namespace one does not answer on eth0"},
		{check: "published", do: publish, undo: "nft flush chain ip nat DOCKER", says: `RISK published: published port \*:7000/tcp: nothing listens at 10.81.0.2:70 in namespace three`},
		{check: "published", do: "nft add rule ip nat DOCKER tcp dport 7001 dnat to 10.81.0.77:70", undo: "nft flush chain ip nat DOCKER", says: `FAULT published: published port \*:7001/tcp leads to 10.81.0.77, which nobody has`},
		{check: "published", make: serveLoopback, says: `FAULT published: published port \*:7000/tcp: .* in namespace three listens on 127.0.0.1 only`},
		{check: "hairpin", do: publish + "; sysctl -qw net.bridge.bridge-nf-call-iptables=1", undo: "sysctl -qw net.bridge.bridge-nf-call-iptables=0; nft flush chain ip nat DOCKER", also: "published bridge-netfilter", says: `RISK hairpin: namespace three does not reach itself by its published port \*:7000/tcp`},
		{check: "ephemeral-ports", do: publish + "; sysctl -qw net.ipv4.ip_local_port_range='6000 7500'", undo: "nft flush chain ip nat DOCKER; sysctl -qw net.ipv4.ip_local_port_range='32768 60999'", also: "published", says: `RISK ephemeral-ports: published port \*:7000/tcp is one that the kernel gives to outgoing connections`},
		{check: "accept-ra", do: "ip -6 route add 2001:db8:7::/48 via fe80::99 dev eth0 proto ra; sysctl -qw net.ipv6.conf.eth0.accept_ra=1", cure: "doctor --fix=accept-ra", says: "FAULT accept-ra: eth0 forwards IPv6 and has routes by router advertisements"},
		{check: "links", do: "ip link set to-two down", undo: "ip link set to-two up", says: "FAULT links: to-two of namespace two is down"},
		{check: "resolv-conf", make: badResolver, says: `FAULT resolv-conf: the name server 127.0.0.53 of sandbox web \(Towpath\) cannot answer: nothing listens there`},
		{check: "addresses", do: "ip -n two addr add 10.80.0.2/24 dev eth0", undo: "ip -n two addr del 10.80.0.2/24 dev eth0", says: "FAULT addresses: 10.80.0.2 is there 2 times on bridge lab0: namespace one eth0, namespace two eth0"},
		{check: "addresses", make: takeAddress, also: "default-route", says: "FAULT addresses: fd80::2 of namespace two is somebody else's on the link of eth0"},
		{check: "macs", do: "ip -n one link set eth0 address 02:00:00:00:80:01; ip -n two link set eth0 address 02:00:00:00:80:01", undo: "ip -n two link set eth0 address 02:00:00:00:80:02", says: "FAULT macs: 02:00:00:00:80:01 is the MAC address of namespace one eth0 and of namespace two eth0 on bridge lab0"},
		{check: "default-route", do: "ip -n one route del default", undo: "ip -n one route add default via 10.80.0.1", says: "FAULT default-route: namespace one has no default route for IPv4"},
	}
}

// elsewhere are the checks whose faults other tests make, or no test can.
func elsewhere() map[string]string {
	return map[string]string{
		"reading":   "of a namespace that cannot be read: TestRemarkAndUnsure of internal/doctor",
		"conntrack": "TestDoctorOfConnections of test/e2e",
		// The limits (gc_thresh) and the counts (/proc/net/stat) are in the first namespace
		// only, and one table is all namespaces': full, the machine's own network would
		// find no neighbour either.
		"neighbours":     "TestSick and TestNeighbourTable of internal/doctor",
		"iptables-mixed": "TestDoctorOfLegacyRules",
		"stale":          "testdata/broken-set-ups.txtar, and TestDoctorOfEmptyNamespace",
		"drops":          "TestDoctorCountsLosses and TestDoctorNamesTheReason of test/e2e",
	}
}

// TestDoctorMakesTheFault makes in the kernel what each check looks for: the doctor
// names it, and is silent before and after.
func TestDoctorMakesTheFault(t *testing.T) {
	testnet.Require(t, "netns", "root", "ip-binary", "nft-binary", "sysctl-binary", "unshare-binary")
	for _, c := range doctor.Checks() {
		made := slices.ContainsFunc(illnesses(), func(x illness) bool { return x.check == c.Name })
		if _, other := elsewhere()[c.Name]; made == other {
			t.Errorf("check %s: made here: %v, elsewhere: %v", c.Name, made, other)
		}
	}
	w := newWorld(t)
	w.shell(labs)
	t.Cleanup(func() { w.shell(unlabs) })
	w.must("network", "create", "--subnet", "172.30.0.0/24", "front")
	w.must("sandbox", "create", "web", "--network", "front", "-p", "127.0.0.1:8083:80")
	web, _, err := w.place("web")
	if err != nil {
		t.Fatal(err)
	}
	web.ServeTCP(t, netip.MustParseAddrPort("0.0.0.0:80"))
	w.healthy("at first")
	for _, x := range illnesses() {
		t.Run(x.check, func(t *testing.T) {
			if x.make != nil {
				t.Cleanup(x.make(t, w))
			} else {
				w.shell(x.do)
			}
			w.diagnosed(t, x)
			switch {
			case x.cure != "":
				_, _ = w.command(append(strings.Fields(x.cure), "--over", "0s")...).Output() // its exit code is an answer
			case x.undo != "":
				w.shell(x.undo)
			}
		})
		w.healthy("after " + x.check)
	}
}

// shell runs a line of sh on the host.
func (w *world) shell(line string) {
	w.Helper()
	if _, err := w.onHost("sh", "-c", line); err != nil {
		w.Fatal(err)
	}
}

func (w *world) healthy(when string) {
	w.Helper()
	if !soon(func() bool { return strings.Contains(w.examined(), "nothing is wrong\n") }) {
		w.Fatalf("%s:\n%s", when, w.examined())
	}
}

func (w *world) examined() string {
	out, _ := w.command("doctor", "--over", "0s").Output() // its exit code is an answer
	return string(out)
}

// diagnosed looks for the finding, which must be whole, and for others, which must
// not be there.
func (w *world) diagnosed(t *testing.T, x illness) {
	t.Helper()
	out := w.examined()
	severity, text, _ := strings.Cut(x.says, " ")
	block := regexp.MustCompile(`(?m)^` + severity + ` +` + text + `.*\n(        seen: .*: .*\n)+        so:   .*\n        fix:  .*\n`)
	if !block.MatchString(out) {
		t.Errorf("no finding %q with what was seen, what comes of it and what to do:\n%s", x.says, out)
	}
	for _, m := range regexp.MustCompile(`(?m)^(?:FAULT|RISK|REMARK|UNSURE) +([a-z-]+): .*`).FindAllStringSubmatch(out, -1) {
		if m[1] != x.check && !slices.Contains(strings.Fields(x.also), m[1]) {
			t.Errorf("it is also told as %s", m[0])
		}
	}
}

// takeAddress gives two the address of one, and waits until the kernel has found
// out (RFC 4862, 5.4).
func takeAddress(t *testing.T, w *world) func() {
	t.Helper()
	w.shell("ip -n two addr add fd80::2/64 dev eth0")
	if !soon(func() bool {
		out, err := w.onHost("ip", "-n", "two", "address", "show", "dadfailed")
		return err == nil && strings.Contains(out, "fd80::2/64")
	}) {
		t.Error("the address is not found to be one's")
	}
	return func() { w.shell("ip -n two addr del fd80::2/64 dev eth0") }
}

// serveLoopback publishes a port of three, where a program listens on the loopback.
func serveLoopback(t *testing.T, w *world) func() {
	t.Helper()
	f, err := netns.Open("/run/netns/three")
	if err != nil {
		t.Fatal(err)
	}
	three := &testnet.NS{Name: "three", F: f}
	l := three.ListenTCP(t, netip.MustParseAddrPort("127.0.0.1:70"))
	w.shell(publish)
	return func() {
		_ = l.Close()
		_ = f.Close()
		w.shell("nft flush chain ip nat DOCKER")
	}
}

// badResolver starts a process in web that sees a resolv.conf which leads nowhere,
// and returns what ends it.
func badResolver(t *testing.T, w *world) func() {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 127.0.0.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := w.command("exec", "web", "--", "unshare", "-m", "sh", "-c", "mount --bind "+file+" /etc/resolv.conf && echo ready && exec cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
}

// TestDoctorOfLegacyRules: two packet filters are named, and by the tools that list
// their rules.
func TestDoctorOfLegacyRules(t *testing.T) {
	testnet.Require(t, "netns", "root", "iptables-legacy-binary", "nft-binary")
	w := newWorld(t)
	w.healthy("at first")
	w.shell("iptables-legacy -A FORWARD -s 203.0.113.7 -j DROP")
	w.diagnosed(t, illness{check: "iptables-mixed", says: "RISK iptables-mixed: host has tables of iptables-legacy and of nftables"})
	w.shell("iptables-legacy -F")
	w.healthy("after")
}

// TestDoctorOfEmptyNamespace: of a machine as a whole the doctor sees namespaces too
// that no link leads to, and one that an engine left behind is named, with the
// command that removes it. The daemon stands for the machine where the first process
// of its PID namespace is on the same network.
func TestDoctorOfEmptyNamespace(t *testing.T) {
	testnet.Require(t, "netns", "root", "unshare-binary")
	w := newWorld(t)
	again := func() {
		t.Helper()
		w.stop(syscall.SIGKILL)
		// It has its own view of mounts, as of when it starts.
		w.under = []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}
		var err error
		if !soon(func() bool { err = w.start(); return err == nil }) { // the one before may still hold the directory
			t.Fatal(err)
		}
	}
	again()
	w.healthy("at first")
	const left = "/run/docker/netns/0123456789ab"
	w.shell("mkdir -p /run/docker/netns && touch " + left + " && unshare --net=" + left + " true")
	again()
	w.diagnosed(t, illness{check: "stale", says: `RISK stale: the namespace of container 0123456789ab \(Docker\) is empty and nobody is in it`})
	_, fix, found := strings.Cut(w.examined(), "fix:  ")
	if !found {
		t.Fatal("no fix")
	}
	fix, _, _ = strings.Cut(fix, "\n")
	w.shell(fix)
	again()
	w.healthy("after " + fix)
}
