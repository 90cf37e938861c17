package e2e

import (
	"context"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/towpath/towpath/internal/linux/ct"
	"github.com/towpath/towpath/internal/testnet"
)

// TestDoctorCountsLosses: what is lost while the doctor looks is told with the
// rule that drops it, and is no finding when nothing is sent any more.
func TestDoctorCountsLosses(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.must("network", "create", "front")
	w.must("network", "create", "back")
	w.must("sandbox", "create", "web", "--network", "front")
	w.must("sandbox", "create", "db", "--network", "back")
	web, _ := w.sandbox("web")
	_, db := w.sandbox("db")
	ping, err := web.EchoEvery(t.Context(), db.Endpoints[0].Addresses[0].Addr(), 5*time.Millisecond)
	w.check(err)
	r := w.towpath("doctor", "--over", "300ms")
	want := regexp.MustCompile(`(?m)^FAULT   drops: host loses packets now: rule .*isolation.* of towpath dropped [0-9]+ packets$`)
	if r.code != 1 || !want.MatchString(r.stdout) {
		t.Errorf("exit %d:\n%s", r.code, r.stdout)
	}
	ping.Stop(time.Millisecond)
	if r := w.towpath("doctor", "--over", "300ms"); r.code != 0 {
		t.Errorf("nothing is sent any more, exit %d:\n%s", r.code, r.stdout)
	}
}

// sendEvery sends a datagram each 5 ms, until it is stopped.
func sendEvery(t *testing.T, from *testnet.NS, to netip.AddrPort, size int) (stop func()) {
	t.Helper()
	c, err := from.DialUDP(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ; ctx.Err() == nil; <-tick.C {
			_, _ = c.Write(make([]byte, size)) // that it is refused is what is counted
		}
	}()
	return func() {
		cancel()
		<-ended
		_ = c.Close()
	}
}

// TestDoctorNamesTheReason: of packets that get lost while it looks the doctor
// tells where, why and how many.
func TestDoctorNamesTheReason(t *testing.T) {
	testnet.Require(t, "ip-binary")
	w := newWorld(t)
	w.start()
	w.must("network", "create", "front")
	w.must("sandbox", "create", "web", "--network", "front")
	web, s := w.sandbox("web")
	run := func(ns *testnet.NS, argv ...string) {
		t.Helper()
		if len(argv) == 0 {
			return
		}
		if _, err := ns.Output(t.Context(), append([]string{"ip"}, argv...)...); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		what     string
		at       *testnet.NS
		do, undo string // of ip
		from     *testnet.NS
		to       string
		size     int
		want     string
	}{
		{what: "no route on the way", at: w.host, do: "route del default", undo: "route add default via " + outside4().String(), from: web, to: "198.51.100.9:9", want: `host loses packets now: no route for what is to be forwarded: \d+ packets \(IpExtInNoRoutes\)`},
		{what: "nothing listens", from: w.host, to: s.Endpoints[0].Addresses[0].Addr().String() + ":9", want: `sandbox web \(Towpath\) loses packets now: nothing listens \(UDP\): \d+ packets \(UdpNoPorts\)`},
		{what: "other end takes less", at: w.outside, do: "link set eth0 mtu 600", undo: "link set eth0 mtu 1500", from: w.host, to: outside4().String() + ":9", size: 1400, want: `host loses packets now: interface eth0 dropped \d+ packets to be sent`},
		{what: "way back is another", at: w.outside, do: "route add 192.0.2.10 dev eth0 src 198.51.100.1", undo: "route del 192.0.2.10 dev eth0", from: w.outside, to: host4().String() + ":9", want: `host loses packets now: reverse path filter: \d+ packets \(TcpExtIPReversePathFilter\)`},
	} {
		if strings.Contains(tt.what, "way back") {
			run(w.outside, "address", "add", "198.51.100.1", "dev", "lo")
			run(w.host, "route", "add", "198.51.100.0/24", "dev", "tp-front")
			w.sysctl("net/ipv4/conf/eth0/rp_filter", "1")
		}
		run(tt.at, strings.Fields(tt.do)...)
		stop := sendEvery(t, tt.from, netip.MustParseAddrPort(tt.to), tt.size)
		r := w.towpath("doctor", "--over", "300ms")
		stop()
		run(tt.at, strings.Fields(tt.undo)...)
		want := regexp.MustCompile(`(?m)^FAULT   drops: ` + tt.want + `\n        seen: .*: \d+, then \d+\n        so:   .*\n        fix:  .*$`)
		if r.code != 1 || !want.MatchString(r.stdout) {
			t.Errorf("%s: exit %d:\n%s", tt.what, r.code, r.stdout)
		}
	}
}

// TestDoctorOfConnections: connections that clash, and a table of connections that
// has no room, are told while it happens, each as what it is; afterwards they are
// worth knowing.
func TestDoctorOfConnections(t *testing.T) {
	testnet.Require(t, "conntrack")
	w := newWorld(t)
	w.start()
	w.must("network", "create", "front")
	w.must("sandbox", "create", "web", "--network", "front")
	web, _ := w.sandbox("web")
	says := func(code int, over, want, not string) {
		t.Helper()
		r := w.towpath("doctor", "--over", over)
		if r.code != code || !regexp.MustCompile("(?m)^"+want).MatchString(r.stdout) || strings.Contains(r.stdout, not) {
			t.Errorf("exit %d, want %d, %q and not %q:\n%s", r.code, code, want, not, r.stdout)
		}
	}

	undo := w.clash(web)
	says(1, "300ms", `FAULT   conntrack: \d+ connections? could not be tracked in host while it was looked at, .*\n        seen: conntrack -S: insert_failed: \d+, then \d+\n`, "the table of tracked connections")
	undo()
	says(0, "0s", `REMARK  conntrack: \d+ connections? could not be tracked in host, `, "the table of tracked connections")

	w.host.FillConntrack(t)
	says(1, "0s", `FAULT   conntrack: the table of tracked connections of host is full: (\d+) of \d+ are taken\n(        seen: .*\n)+        so: .*\n        fix:  sysctl -w net.netfilter.nf_conntrack_max=\d+ `, "UNSURE")
	ping, err := web.EchoEvery(t.Context(), outside4(), 5*time.Millisecond)
	w.check(err)
	says(1, "300ms", `FAULT   conntrack: the table of tracked connections of host turns connections away now, \d+ of them while it was looked at: \d+ of \d+ are taken`, "is full")
	ping.Stop(time.Millisecond)
	c, err := ct.Dial(w.host.FD())
	w.check(err)
	defer c.Close()
	_, err = c.Purge(t.Context(), func(ct.Entry) bool { return true })
	w.check(err)
	says(0, "300ms", `REMARK  conntrack: the table of tracked connections of host has turned \d+ connections away: \d of \d+ are taken`, "FAULT")
}

// clash has all connections to one server leave by one port of the host, opens one,
// and tries others, until it is ended.
func (w *world) clash(from *testnet.NS) (end func()) {
	w.Helper()
	undo := w.table("table ip narrow { chain post { type nat hook postrouting priority 90; policy accept; tcp dport 9 snat to " + host4().String() + ":7777 } }")
	server := w.outside.ServeTCP(w, netip.AddrPortFrom(outside4(), 9))
	first, err := from.DialTCP(w.Context(), server)
	w.check(err)
	ctx, cancel := context.WithCancel(w.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			within, stop := context.WithTimeout(ctx, 20*time.Millisecond)
			if c, err := from.DialTCP(within, server); err == nil {
				w.Error("two connections have one address and port")
				_ = c.Close()
			}
			stop()
		}
	}()
	return func() {
		w.Helper()
		cancel()
		<-ended
		w.check(first.Close())
		undo()
	}
}
