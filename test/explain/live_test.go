package explain

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
	"github.com/towpath/towpath/internal/trace/follow"
)

// trace watches while do sends something, and gives the first path that is
// wanted or, when there is none, the last of all.
func (w *world) trace(q api.TraceQuery, do func(), wanted func(api.Path) bool) api.Path {
	w.Helper()
	l, err := follow.Open(w.Context(), w.machine(), w.looking().Open, q)
	w.must(err)
	defer func() { w.must(l.Close()) }()
	do()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	var last api.Path
	for {
		paths, err := l.Next(ctx)
		if err != nil && last.Kind == "" {
			w.Fatalf("no path for %+v: %v", q, err)
		}
		for _, p := range paths {
			if last = p; wanted(p) {
				return p
			}
		}
		if err != nil {
			return last
		}
	}
}

// TestLive tells of flows that others begin.
func TestLive(t *testing.T) {
	for _, c := range []struct {
		name, from, to string
		query          api.TraceQuery
		change         func(*world)
		verdict        api.Verdict
		says           string
	}{
		{"masquerade", "web", "192.0.2.1:80", api.TraceQuery{From: "web", Port: 80}, nil, api.Answered, `masquerade   172.20.0.2:`},
		{"masquerade v6", "web", "[2001:db8::1]:80", api.TraceQuery{From: "web", Proto: "tcp"}, nil, api.Answered, `masquerade   [fd00::2]:`},
		{"from outside", "outside", "192.0.2.10:8080", api.TraceQuery{To: "web", Port: 8080}, nil, api.Answered, "dnat         192.0.2.10:8080 -> 172.20.0.2:80"},
		{"from the host's loopback", "host", "127.0.0.1:8080", api.TraceQuery{From: "host", To: "web"}, nil, api.Answered, "masquerade   127.0.0.1:"},
		{"from the host's loopback v6", "host", "[::1]:8080", api.TraceQuery{From: "host", To: "web"}, func(w *world) { w.bridgeNF("0") }, api.Answered, "masquerade   [::1]:"},
		{"hairpin", "web", "192.0.2.10:8080", api.TraceQuery{Port: 8080}, nil, api.Answered, `rule "hairpin"`},
		{"same bridge", "web", "172.20.0.3:80", api.TraceQuery{From: "web", To: "app"}, nil, api.Answered, "bridges      to port v-app"},
		{"isolated", "web", "172.20.1.2:80", api.TraceQuery{Drops: true}, nil, api.Dropped, `rule "isolation"`},
		{"closed port", "web", "172.20.0.3:81", api.TraceQuery{To: "app"}, nil, api.Refused, "nothing listens on port 81"},
		{"foreign drop", "web", "192.0.2.1:80", api.TraceQuery{Drops: true}, func(w *world) {
			w.table("host", `table ip f { chain c { type filter hook forward priority 10; policy accept; ip saddr 172.20.0.2 drop comment "no web" } }`)
		}, api.Dropped, `rule "no web"`},
		{"blackhole", "web", "198.51.100.7:80", api.TraceQuery{Drops: true}, func(w *world) {
			w.route("host", rt.Route{Dst: netip.MustParsePrefix("198.51.100.0/24"), Type: unix.RTN_BLACKHOLE})
		}, api.Dropped, "its route leads nowhere: a blackhole"},
		{"another table", "web", "192.0.2.1:80", api.TraceQuery{From: "web"}, func(w *world) { w.byPort(80, 100) }, api.Answered, "192.0.2.1 dev eth0 table 100"},
	} {
		for _, level := range allLevels() {
			t.Run(string(level)+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				requireLevel(t, level)
				w := newWorld(t)
				if c.change != nil {
					c.change(w)
				}
				query := c.query
				query.Level = level
				wanted := func(p api.Path) bool {
					return p.Verdict == c.verdict && strings.Contains(text(t, p), c.says) && p.Kind == api.Actual && p.Level == level && p.Complete
				}
				p := w.trace(query, func() { w.dial(w.spaces[c.from], netip.MustParseAddrPort(c.to), grace) }, wanted)
				if !wanted(p) {
					t.Errorf("verdict %s, want %s and %q:\n%s", p.Verdict, c.verdict, c.says, text(t, p))
				}
			})
		}
	}
}

// TestLiveRenamed: of two that send from the same port to the same place the
// second gets another port on the way out. Each is one path, there and back.
func TestLiveRenamed(t *testing.T) {
	for _, level := range allLevels() {
		for _, proto := range []string{"answered", "refused"} {
			t.Run(string(level)+"/"+proto, func(t *testing.T) {
				t.Parallel()
				requireLevel(t, level)
				w := newWorld(t)
				to := netip.MustParseAddrPort("192.0.2.1:5300")
				if proto == "answered" {
					w.echo(w.spaces["outside"], to)
				}
				l, err := follow.Open(t.Context(), w.machine(), w.looking().Open, api.TraceQuery{Level: level, Port: to.Port()})
				w.must(err)
				defer func() { w.must(l.Close()) }()
				for _, from := range []string{"web", "app"} {
					c := w.spaces[from].ListenUDP(t, netip.MustParseAddrPort("0.0.0.0:5000"))
					_, err := c.WriteToUDPAddrPort([]byte("?"), to)
					w.must(err)
				}
				told := w.toldOfBoth(l)
				for from, addr := range map[string]string{"web": "172.20.0.2", "app": "172.20.0.3"} {
					p := told[from]
					if string(p.Verdict) != proto || !strings.Contains(text(t, p), "masquerade   "+addr+":5000 -> 192.0.2.10:") || !strings.Contains(text(t, p), "un-snat ") {
						t.Errorf("of %s %s, want %s:\n%s", from, p.Verdict, proto, text(t, p))
					}
				}
				if strings.Contains(text(t, told["web"]), "192.0.2.10:5000") == strings.Contains(text(t, told["app"]), "192.0.2.10:5000") {
					t.Errorf("the ports do not differ:\n%s\n%s", text(t, told["web"]), text(t, told["app"]))
				}
			})
		}
	}
}

// TestLiveEvenPorts: a flow from a port to the same one, as NTP has them, is one path,
// there and back.
func TestLiveEvenPorts(t *testing.T) {
	for _, level := range allLevels() {
		for _, c := range []struct{ from, to, at, says, back string }{
			{"web", "192.0.2.1:123", "outside", "masquerade   172.20.0.2:123 -> 192.0.2.10:123", "un-snat"},
			{"web", "[2001:db8::1]:123", "outside", "masquerade   [fd00::2]:123 -> [2001:db8::10]:123", "un-snat"},
			{"outside", "192.0.2.10:123", "web", "dnat         192.0.2.10:123 -> 172.20.0.2:123", "un-dnat"},
			{"app", "172.20.0.2:123", "web", "bridges      to port v-web", "bridges      to port v-app"},
			{"app", "192.0.2.10:123", "web", "masquerade   172.20.0.3:123 -> 172.20.0.1:123", "un-dnat"},
		} {
			t.Run(string(level)+"/"+c.from+" to "+c.to, func(t *testing.T) {
				t.Parallel()
				requireLevel(t, level)
				w := newWorld(t)
				to := netip.MustParseAddrPort(c.to)
				w.table("host", `table ip p { chain c { type nat hook prerouting priority dstnat; ip daddr 192.0.2.10 udp dport 123 dnat to 172.20.0.2:123 } }`)
				w.echo(w.spaces[c.at], netip.AddrPortFrom(netip.IPv6Unspecified(), 123))
				l, err := follow.Open(t.Context(), w.machine(), w.looking().Open, api.TraceQuery{Level: level, Port: 123, Proto: "udp"})
				w.must(err)
				defer func() { w.must(l.Close()) }()
				_, err = w.spaces[c.from].ListenUDP(t, netip.AddrPortFrom(netip.IPv6Unspecified(), 123)).WriteToUDPAddrPort([]byte("?"), to)
				w.must(err)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				paths, err := l.Next(ctx)
				w.must(err)
				if len(paths) != 1 {
					t.Fatalf("%d paths", len(paths))
				}
				there, back, _ := strings.Cut(text(t, paths[0]), "answer")
				if paths[0].Verdict != api.Answered || paths[0].From.Name != c.from || !strings.Contains(there, c.says) || !strings.Contains(back, c.back) {
					t.Errorf("%s, want %s and back %s:\n%s", paths[0].Verdict, c.says, c.back, text(t, paths[0]))
				}
			})
		}
	}
}

// echo answers every datagram.
func (w *world) echo(ns *testnet.NS, at netip.AddrPort) {
	w.Helper()
	c := ns.ListenUDP(w, at)
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
}

// TestLiveRenamedEcho: of two that ask the same address with the same identifier the
// second gets another on the way out. Each is one path, there and back.
func TestLiveRenamedEcho(t *testing.T) {
	for _, level := range allLevels() {
		for _, c := range []struct{ to, masquerade, web, app string }{
			{"192.0.2.1", "192.0.2.10", "172.20.0.2", "172.20.0.3"}, {"2001:db8::1", "2001:db8::10", "fd00::2", "fd00::3"},
		} {
			t.Run(string(level)+"/"+c.to, func(t *testing.T) {
				t.Parallel()
				requireLevel(t, level)
				w := newWorld(t)
				l, err := follow.Open(t.Context(), w.machine(), w.looking().Open, api.TraceQuery{Level: level, Proto: "icmp"})
				w.must(err)
				defer func() { w.must(l.Close()) }()
				for _, from := range []string{"web", "app"} {
					w.ping(from, netip.MustParseAddr(c.to), 777)
				}
				told := w.toldOfBoth(l)
				for from, addr := range map[string]string{"web": c.web, "app": c.app} {
					out := text(t, told[from])
					if told[from].Verdict != api.Answered || !strings.Contains(out, "masquerade   "+addr+" -> "+c.masquerade) || !strings.Contains(out, "un-snat ") {
						t.Errorf("of %s:\n%s", from, out)
					}
				}
			})
		}
	}
}

// ping sends an echo request with an identifier, from a socket of the kind that the
// kernel keeps identifiers of (icmp_echo).
func (w *world) ping(from string, to netip.Addr, id uint16) {
	w.Helper()
	w.sysctl(from, "net/ipv4/ping_group_range", "0 0") // that of the test, the only one where an ordinary user runs it
	w.spaces[from].Do(w, func() error {
		domain, proto, request := unix.AF_INET6, unix.IPPROTO_ICMPV6, byte(128)
		var at, dst unix.Sockaddr = &unix.SockaddrInet6{Port: int(id)}, &unix.SockaddrInet6{Addr: to.As16()}
		if to.Is4() {
			domain, proto, request = unix.AF_INET, unix.IPPROTO_ICMP, 8
			at, dst = &unix.SockaddrInet4{Port: int(id)}, &unix.SockaddrInet4{Addr: to.As4()}
		}
		fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			return err
		}
		w.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.Bind(fd, at); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte{request, 0, 0, 0, 0, 0, 0, 1}, 0, dst)
	})
}

// toldOfBoth waits for one path from web and one from app.
func (w *world) toldOfBoth(l *follow.Watcher) map[string]api.Path {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	told := map[string]api.Path{}
	for len(told) < 2 {
		paths, err := l.Next(ctx)
		w.must(err)
		for _, p := range paths {
			if p.From.NS != "web" && p.From.NS != "app" || told[p.From.NS].Kind != "" {
				w.Errorf("one more path:\n%s", text(w.T, p))
			}
			told[p.From.NS] = p
		}
	}
	return told
}
