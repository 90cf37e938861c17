package explain

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
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
		{"hairpin", "web", "192.0.2.10:8080", api.TraceQuery{Port: 8080}, nil, api.Answered, `rule "hairpin"`},
		{"same bridge", "web", "172.20.0.3:80", api.TraceQuery{From: "web", To: "app"}, nil, api.Answered, "bridges      to port v-app"},
		{"isolated", "web", "172.20.1.2:80", api.TraceQuery{Drops: true}, nil, api.Dropped, `rule "isolation"`},
		{"closed port", "web", "172.20.0.3:81", api.TraceQuery{To: "app"}, nil, api.Refused, "nothing listens on port 81"},
		{"foreign drop", "web", "192.0.2.1:80", api.TraceQuery{Drops: true}, func(w *world) {
			w.table("host", `table ip f { chain c { type filter hook forward priority 10; policy accept; ip saddr 172.20.0.2 drop comment "no web" } }`)
		}, api.Dropped, `rule "no web"`},
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
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				told := map[string]api.Path{}
				for len(told) < 2 {
					paths, err := l.Next(ctx)
					w.must(err)
					for _, p := range paths {
						if p.From.NS != "web" && p.From.NS != "app" || told[p.From.NS].Kind != "" {
							t.Errorf("one more path:\n%s", text(t, p))
						}
						told[p.From.NS] = p
					}
				}
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
