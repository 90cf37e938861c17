package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/linux/rt"
)

// TestPublishRefusals: what cannot be published is refused in one line that names
// the thing, the cause and what to do, and nothing of it stays.
func TestPublishRefusals(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "inner", "--internal")
	w.must("network", "create", "six", "--ipv6", "--ipv4=false")
	w.must("sandbox", "create", "web", "-p", "8080:80", "-p", "9000-9009:90-99")
	w.must("sandbox", "create", "late")
	w.must("sandbox", "create", "cell", "--network", "inner")
	w.must("sandbox", "create", "alone", "--network", "none")
	w.must("sandbox", "create", "new", "--network", "six")
	plan := w.must("plan")
	const form = "write it as [HOSTIP:][HOSTPORT[-END]:]PORT[-END][/tcp|udp|sctp][,from=CIDR]"
	for name, tc := range map[string]struct {
		args      []string
		want, fix string
	}{
		"port 0":                   {[]string{"publish", "late", "8081:0"}, `"0" is not a port, 1 to 65535`, form},
		"host port 0":              {[]string{"publish", "late", "0:80"}, `"0" is not a port, 1 to 65535`, form},
		"port 65536":               {[]string{"publish", "late", "65536"}, `"65536" is not a port, 1 to 65535`, form},
		"host port 65536":          {[]string{"publish", "late", "65536:80/udp"}, `"65536" is not a port, 1 to 65535`, form},
		"range beyond the last":    {[]string{"publish", "late", "65530-65536:80-86"}, `"65536" is not a port, 1 to 65535`, form},
		"reversed":                 {[]string{"publish", "late", "8010-8000:80-90"}, "range 8010-8000 runs backwards", form},
		"unequal":                  {[]string{"publish", "late", "8000-8010:80-81"}, "8000-8010 and 80-81 are ranges of different length", form},
		"unknown protocol":         {[]string{"publish", "late", "80/dccp"}, `protocol "dccp" is not known: use tcp, udp or sctp`, form},
		"no port":                  {[]string{"publish", "late", "http"}, `"http" is not a port`, form},
		"host address malformed":   {[]string{"publish", "late", "192.0.2:8081:80"}, `"192.0.2" is not an address of the host`, form},
		"IPv6 without brackets":    {[]string{"publish", "late", "::1:8081:80"}, "an IPv6 address is written in brackets", form},
		"host address of a group":  {[]string{"publish", "late", "224.0.0.1:8081:80"}, "host address 224.0.0.1 cannot be published at", form},
		"sources malformed":        {[]string{"publish", "late", "80,from=192.0.2.1/33"}, "from=192.0.2.1/33 is not an address range", form},
		"sources with host bits":   {[]string{"publish", "late", "80,from=192.0.2.1/24"}, "did you mean 192.0.2.0/24?", form},
		"sources of other family":  {[]string{"publish", "late", "127.0.0.1:81:80,from=2001:db8::/64"}, "are of different families", form},
		"sources no client has":    {[]string{"publish", "late", "0.0.0.0:81:80,from=2001:db8::/64"}, "from=2001:db8::/64 lets nobody in: it and host address 0.0.0.0 are of different families", form},
		"sources no client has, 6": {[]string{"publish", "late", "[::]:81:80,from=192.0.2.0/24"}, "from=192.0.2.0/24 lets nobody in: it and host address :: are of different families", form},
		"unknown option":           {[]string{"publish", "late", "80,to=192.0.2.1"}, `option "to" is not known`, form},
		"twice":                    {[]string{"publish", "web", "8080:80"}, "*:8080/tcp is published already, for sandbox web (*:8080/tcp)", "choose another host port"},
		"twice in one line":        {[]string{"publish", "late", "81:81", "81:81"}, "is published already, for sandbox late", "choose another host port"},
		"one of a range":           {[]string{"publish", "late", "9004:80"}, "*:9004/tcp is published already, for sandbox web (*:9000-9009/tcp)", "choose another host port"},
		"internal network":         {[]string{"publish", "cell", "81:80"}, "it is on internal networks only", "towpath network connect NETWORK cell"},
		"no network":               {[]string{"publish", "alone", "81:80"}, "it is on no network", "towpath network connect NETWORK alone"},
		"no network, with create":  {[]string{"sandbox", "create", "x", "--network", "none", "-p", "81:80"}, "it is on no network", "towpath network connect NETWORK x"},
		"no network, with run":     {[]string{"run", "--network", "none", "-p", "81:80", "--", "true"}, "it is on no network", "towpath network connect NETWORK run-"},
		"host's network":           {[]string{"run", "--network", "host", "-p", "81:80", "--", "true"}, "-p does not go with --network host", "leave it out"},
		"network of another":       {[]string{"run", "--network", "container:web", "-p", "81:80", "--", "true"}, "-p does not go with --network container:web", "towpath publish web 81:80/tcp"},
		"sctp to the other family": {[]string{"publish", "new", "192.0.2.10:81:80/sctp"}, "sctp is not passed on from one to the other", "towpath network connect NETWORK new"},
	} {
		code := 1
		if tc.args[0] == "run" {
			code = 125
		}
		r := w.towpath(tc.args...)
		if r.code != code || !strings.HasPrefix(r.stderr, "towpath: ") || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, want %d and one line: %q", name, r.code, code, r.stderr)
		}
		if !strings.Contains(r.stderr, tc.want) || !strings.Contains(r.stderr, tc.fix) {
			t.Errorf("%s: %q does not say %q and %q", name, r.stderr, tc.want, tc.fix)
		}
	}
	if after := w.must("plan"); after != plan {
		t.Errorf("refusals changed the plan from\n%s\nto\n%s", plan, after)
	}
	w.clean()
}

// TestPublishSCTP: a kernel without SCTP sockets translates SCTP all the same; it
// is published, and said what is missing. One that has them keeps the port.
func TestPublishSCTP(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("sandbox", "create", "web")
	r := w.towpath("publish", "web", "3868:3868/sctp")
	if r.code != 0 || r.stdout != "3868/sctp -> *:3868\n" {
		t.Errorf("exit %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	plan := w.must("plan")
	if !strings.Contains(plan, "sctp . 3868") {
		t.Errorf("no element for it in\n%s", plan)
	}
	if strings.Contains(plan, "socket sctp") { // this kernel has them
		if r.stderr != "" {
			t.Errorf("said %q", r.stderr)
		}
	} else if want := "towpath: warning: this kernel has no SCTP sockets: host port 3868 is not kept from others\n"; r.stderr != want {
		t.Errorf("said %q, want %q", r.stderr, want)
	}
	w.clean()
	w.must("unpublish", "web", "3868:3868/sctp")
	// Two families are two ports, as of tcp.
	w.must("sandbox", "create", "web2")
	w.must("publish", "web", "0.0.0.0:3868:3868/sctp")
	w.must("publish", "web2", "[::]:3868:3868/sctp")
	plan = w.must("plan")
	if strings.Count(plan, "sctp . 3868 : ") != 2 || strings.Count(plan, "sctp . 3868 : 172.") != 1 {
		t.Errorf("not an element a family in\n%s", plan)
	}
	w.clean()
	r = w.towpath("publish", "web", "3868:3868/sctp")
	if r.code != 1 || !strings.Contains(r.stderr, "*:3868/sctp is published already, for sandbox web") {
		t.Errorf("of both families: exit %d, %q", r.code, r.stderr)
	}
	w.must("unpublish", "web", "0.0.0.0:3868:3868/sctp")
	w.must("unpublish", "web2", "[::]:3868:3868/sctp")
	w.clean()
}

// TestPublishWaits: a publication at an address that the host does not have yet
// holds the port, says what it waits for, and works when the address is there.
func TestPublishWaits(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("sandbox", "create", "web")
	web, _ := w.sandbox("web")
	w.tellSource(web, 80)
	for _, late := range []netip.Prefix{netip.MustParsePrefix("192.0.2.77/24"), netip.MustParsePrefix("2001:db8::77/64")} {
		at := netip.AddrPortFrom(late.Addr(), 8080)
		if late.Addr().Is6() {
			at = netip.AddrPortFrom(late.Addr(), 8081)
		}
		spec := fmt.Sprintf("%s:80", at)
		waits := fmt.Sprintf(" (waiting: the host has no address %s yet; the port is held and works as soon as it has)", late.Addr())
		if out := w.must("publish", "web", spec); !strings.Contains(out, waits) {
			t.Errorf("publish printed %q, want %q", out, waits)
		}
		w.clean()
		if out := w.must("port", "web"); !strings.Contains(out, waits) {
			t.Errorf("port printed %q, want %q", out, waits)
		}
		w.keepsOff(at)
		c := w.host.Conn(t)
		l, err := c.LinkByName(t.Context(), "eth0")
		w.check(err)
		w.check(c.AddAddress(t.Context(), rt.Address{Index: l.Index, Prefix: late, NoDAD: true}))
		// The kernel takes an IPv6 address into use a moment after it has been added.
		w.eventually("the address is there, and port says so", func() bool {
			return !strings.Contains(w.must("port", "web"), at.Addr().String()+" yet")
		})
		if _, err := ask(w, w.outside, "tcp", at, patience); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		w.clean()
	}
}

// keepsOff checks that no other program of the host gets a port on all addresses
// of the family.
func (w *world) keepsOff(at netip.AddrPort) {
	w.Helper()
	all := netip.IPv4Unspecified()
	if at.Addr().Is6() {
		all = netip.IPv6Unspecified()
	}
	err := netns.Do(w.host.F, func() error {
		l, err := net.Listen("tcp", netip.AddrPortFrom(all, at.Port()).String())
		if err == nil {
			l.Close()
		}
		return err
	})
	if !errors.Is(err, syscall.EADDRINUSE) {
		w.Errorf("another program that wants %s gets %v, want %v", at, err, syscall.EADDRINUSE)
	}
}

// TestPublishBothFamiliesApart: a port may be published for IPv4 to one sandbox
// and for IPv6 to another, and one of them be another program's.
func TestPublishBothFamiliesApart(t *testing.T) {
	w := newWorld(t)
	w.start()
	four := w.host.ListenTCP(t, netip.AddrPortFrom(host4(), 9090))
	defer four.Close()
	for i, at := range []string{"0.0.0.0", "[::]"} {
		name := []string{"one", "two"}[i]
		w.must("sandbox", "create", name)
		ns, _ := w.sandbox(name)
		w.sayName(ns, 53)
		w.tellSource(ns, 80)
		w.must("publish", name, at+":8080:80", at+":53:53/udp")
	}
	for _, host := range []netip.Addr{host4(), host6()} {
		if _, err := ask(w, w.outside, "tcp", netip.AddrPortFrom(host, 8080), patience); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		c, err := w.outside.DialUDP(t.Context(), netip.AddrPortFrom(host, 53))
		w.check(err)
		defer c.Close()
		want := "one"
		if host.Is6() {
			want = "two"
		}
		if got := knock(c, patience); got != want {
			t.Errorf("at %s %q answers, want %s", host, got, want)
		}
	}
	w.must("publish", "two", "[::]:9090:80") // IPv4's is another's
	if r := w.towpath("publish", "two", "9090:80"); r.code != 1 || !strings.Contains(r.stderr, "published already") {
		t.Errorf("exit %d, %s", r.code, r.stderr)
	}
	w.clean()
	w.kill()
	w.start()
	w.clean()
	if out := w.must("port", "two"); strings.Contains(out, "conflict") {
		t.Errorf("after a new start:\n%s", out)
	}
}

// TestPublishConflict: a port that somebody takes while the daemon is away makes
// its publication a conflict, withdrawn and named; it comes back by itself. A
// range is in or out as a whole; a port that is passed on to the other family is
// no different.
func TestPublishConflict(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "four")
	w.must("sandbox", "create", "web", "-p", "8080:80", "-p", "8000-8009:80-89", "-p", "5353:80/udp", "-p", "[::]:8090:80")
	w.must("sandbox", "create", "old", "--network", "four", "-p", "8070:80", "-p", "8071:80/udp")
	for _, name := range []string{"web", "old"} {
		ns, _ := w.sandbox(name)
		w.tellSource(ns, 80)
	}
	all := []struct {
		rival, shown string // what somebody takes, and what that stands in the way of
		proto        string
		to           netip.AddrPort // where a client reaches it
	}{
		{"0.0.0.0:8080", "80/tcp -> *:8080", "tcp", netip.AddrPortFrom(host4(), 8080)},
		{"127.0.0.1:8005", "80-89/tcp -> *:8000-8009", "tcp", netip.AddrPortFrom(host4(), 8000)},
		{"192.0.2.10:5353", "80/udp -> *:5353", "udp", netip.AddrPortFrom(host6(), 5353)},
		{"[::1]:8090", "80/tcp -> [::]:8090", "tcp", netip.AddrPortFrom(host6(), 8090)},
		{"[::1]:8070", "80/tcp -> *:8070", "tcp", netip.AddrPortFrom(host6(), 8070)},
		{"[::1]:8071", "80/udp -> *:8071", "udp", netip.AddrPortFrom(host6(), 8071)},
	}
	ports := func() string { return w.must("port", "web") + w.must("port", "old") }
	w.kill()
	var let []func()
	for _, c := range all {
		at := netip.MustParseAddrPort(c.rival)
		if c.proto == "udp" {
			u := w.host.ListenUDP(t, at)
			let = append(let, func() { u.Close() })
			continue
		}
		l := w.host.ListenTCP(t, at)
		let = append(let, func() { l.Close() })
	}
	w.start()
	said := ports()
	for _, c := range all {
		want := fmt.Sprintf("%s (conflict: ", c.shown)
		who := fmt.Sprintf("in use by %s (pid %d)", comm(w), os.Getpid())
		if line := grep(said, want); !strings.Contains(line, who) {
			t.Errorf("no %q with %q in\n%s", want, who, said)
		}
		if got, err := ask(w, w.outside, c.proto, c.to, impatience); err == nil {
			t.Errorf("%s is in conflict, and answers %q at %s", c.shown, got, c.to)
		}
	}
	for _, free := range let {
		free()
	}
	for _, c := range all {
		w.eventually(c.shown+" is back", func() bool { return strings.Contains(ports(), c.shown+"\n") })
		if _, err := ask(w, w.outside, c.proto, c.to, patience); err != nil {
			t.Errorf("%s is back: %v", c.shown, err)
		}
	}
	w.clean()
}

// TestDefaultPublishAddress: where no address is given, the daemon's own is taken.
func TestDefaultPublishAddress(t *testing.T) {
	w := newWorld(t)
	w.flags = []string{"--default-publish-address", "127.0.0.1"}
	w.start()
	w.must("sandbox", "create", "web")
	web, _ := w.sandbox("web")
	w.tellSource(web, 80)
	if out := w.must("publish", "web", "8080:80", "0.0.0.0:8081:80", "81"); !strings.HasPrefix(out, "80/tcp -> 127.0.0.1:8080\n80/tcp -> 0.0.0.0:8081\n81/tcp -> 127.0.0.1:") {
		t.Errorf("publish printed %s", out)
	}
	if _, err := ask(w, w.host, "tcp", netip.MustParseAddrPort("127.0.0.1:8080"), patience); err != nil {
		t.Errorf("from the host: %v", err)
	}
	if got, err := ask(w, w.outside, "tcp", netip.AddrPortFrom(host4(), 8080), impatience); err == nil {
		t.Errorf("from outside: %q, want nothing", got)
	}
	if _, err := ask(w, w.outside, "tcp", netip.AddrPortFrom(host4(), 8081), patience); err != nil {
		t.Errorf("from outside, at any address: %v", err)
	}
	w.clean()
	w.must("unpublish", "web", "8080:80")
	const want = "from=2001:db8::/64 lets nobody in: it and host address 127.0.0.1 are of different families"
	if r := w.towpath("publish", "web", "8082:80,from=2001:db8::/64"); r.code != 1 || !strings.Contains(r.stderr, want) {
		t.Errorf("sources of the other family than the daemon's address: exit %d, %q", r.code, r.stderr)
	}
	w.clean()
	if got := w.startFails(nil, "--default-publish-address=localhost"); !strings.Contains(got, `--default-publish-address "localhost" is not an address of the host`) {
		t.Errorf("a name: %s", got)
	}
}

// comm is the name of this process.
func comm(w *world) string {
	w.Helper()
	raw, err := os.ReadFile("/proc/self/comm")
	w.check(err)
	return strings.TrimSpace(string(raw))
}
