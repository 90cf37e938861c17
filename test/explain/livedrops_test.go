package explain

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/trace/follow"
)

// death is a packet that ends on the host, and how that is told.
type death struct {
	from, to string
	verdict  api.Verdict
	says     string
	// hint is what is said without programs in the kernel; "": the same.
	hint string
}

// deaths are several ways to end, in several containers.
func deaths() []death {
	return []death{
		{from: "web", to: "192.0.2.1:443/tcp", verdict: api.Dropped, says: `by: rule "no https", nft ip f c handle 2 (user)`},
		{from: "web", to: "172.20.1.2:80/tcp", verdict: api.Dropped, says: `rule "isolation"`},
		{from: "app", to: "172.20.0.2:82/tcp", verdict: api.Refused, says: "nothing listens on port 82"},
		{from: "app", to: "172.20.0.2:83/udp", verdict: api.Refused, says: "nothing listens on port 83"},
		{from: "app", to: "198.51.100.7:53/udp", verdict: api.Dropped, says: "its route leads nowhere: a blackhole"},
		{from: "db", to: "203.0.113.7:53/udp", verdict: api.Rejected, says: "172.20.1.1 answers: prohibited by an administrator"},
		{from: "db", to: "172.20.1.99:80/udp", verdict: api.Dropped, says: "nobody answers for the next hop", hint: "gives it up: host unreachable"},
		{from: "one", to: "192.0.2.1:54/udp", verdict: api.Dropped, says: "the way back to its source is by another link (rp_filter)"},
	}
}

// breakThings makes them end so.
func (w *world) breakThings() {
	w.Helper()
	w.table("host", `table ip f { chain c { type filter hook forward priority 10; policy accept; tcp dport 443 drop comment "no https" } }`)
	w.route("host", rt.Route{Dst: netip.MustParsePrefix("198.51.100.0/24"), Type: 6}) // blackhole
	w.route("host", rt.Route{Dst: netip.MustParsePrefix("203.0.113.0/24"), Type: 8})  // prohibit
	gateway, err := w.spaces["host"].Conn(w).LinkByName(w.Context(), "tp-quiet")
	w.must(err)
	w.must(w.spaces["one"].Conn(w).ReplaceNeighbour(w.Context(), rt.Neighbour{Index: w.index("one", "eth0"), IP: netip.MustParseAddr("172.20.3.1"), MAC: gateway.MAC}))
	w.route("host", rt.Route{Dst: netip.MustParsePrefix("172.20.3.2/32"), OIF: w.index("host", "eth0")})
	w.sysctl("host", "net/ipv4/conf/tp-quiet/rp_filter", "1")
}

// dies sends one.
func (w *world) dies(d death) {
	w.Helper()
	at, proto, _ := strings.Cut(d.to, "/")
	to := netip.MustParseAddrPort(at)
	if proto == "tcp" {
		w.dial(w.spaces[d.from], to, grace)
		return
	}
	_, err := w.spaces[d.from].ListenUDP(w, netip.MustParseAddrPort("0.0.0.0:0")).WriteToUDPAddrPort([]byte("?"), to)
	w.must(err)
}

// TestLiveDrops: whatever dies on the host is told once, whoever sent it, with where
// and why, as far as the level can know; nothing else is.
func TestLiveDrops(t *testing.T) {
	for _, level := range allLevels() {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			requireLevel(t, level)
			w := newWorld(t)
			w.breakThings()
			l, err := follow.Open(t.Context(), w.machine(), w.looking().Open, api.TraceQuery{Level: level, Drops: true})
			w.must(err)
			defer func() { w.must(l.Close()) }()
			for _, d := range deaths() {
				w.dies(d)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			told := map[string]bool{}
			for len(told) < len(deaths()) {
				paths, err := l.Next(ctx)
				if err != nil {
					t.Errorf("told were %v: %v", told, err)
					return
				}
				for _, p := range paths {
					w.death(p, level, told)
				}
			}
		})
	}
}

// death compares a path with what was sent.
func (w *world) death(p api.Path, level api.PathLevel, told map[string]bool) {
	w.Helper()
	to := netip.AddrPortFrom(p.Flow.Dst, p.Flow.Dport).String() + "/" + p.Flow.Proto
	i := slices.IndexFunc(deaths(), func(d death) bool { return d.to == to })
	out := text(w.T, p)
	if i < 0 || told[to] {
		w.Errorf("one more path:\n%s", out)
		return
	}
	told[to] = true
	d := deaths()[i]
	if level == api.LevelTaps && d.hint != "" {
		d.says = d.hint
	}
	if p.From.NS != d.from || p.Verdict != d.verdict || !strings.Contains(out, d.says) || !strings.HasPrefix(out, d.from+" -> ") {
		w.Errorf("want %+v:\n%s", d, out)
	}
	b, err := json.Marshal(p)
	w.must(err)
	var again api.Path
	w.must(json.Unmarshal(b, &again))
	if again.Reason == "" || again.Level != level || p.Verdict == api.Dropped && strings.Contains(d.says, "rule") && again.Culprit == nil {
		w.Errorf("as JSON: %s", b)
	}
}

// TestLiveDropsFlood: of a flood one path is told at once, and then how many more
// there were.
func TestLiveDropsFlood(t *testing.T) {
	for _, level := range allLevels() {
		t.Run(string(level), func(t *testing.T) {
			t.Parallel()
			requireLevel(t, level)
			w := newWorld(t)
			w.table("host", `table ip f { chain c { type filter hook forward priority 10; policy accept; udp dport 7 drop comment "no echo" } }`)
			l, err := follow.Open(t.Context(), w.machine(), w.looking().Open, api.TraceQuery{Level: level, Drops: true})
			w.must(err)
			defer func() { w.must(l.Close()) }()
			const sent = 500
			for range sent {
				w.dies(death{from: "web", to: "192.0.2.1:7/udp"})
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			told, alike := 0, uint64(0)
			for alike == 0 {
				paths, err := l.Next(ctx)
				if err != nil {
					t.Fatalf("%d told, and no word of others: %v", told, err)
				}
				for _, p := range paths {
					if p.From.NS != "web" || p.Flow.Dport != 7 {
						t.Errorf("another:\n%s", text(t, p))
					}
					told, alike = told+1, alike+p.Alike
					if p.Alike > 0 && !strings.Contains(text(t, p), " more like it\n") {
						t.Errorf("no word of others:\n%s", text(t, p))
					}
				}
			}
			if told > 10 || uint64(told)+alike > 2*sent {
				t.Errorf("%d were told, %d more counted, of %d", told, alike, sent)
			}
		})
	}
}
