package explain

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/towpath/towpath/api"
	"github.com/towpath/towpath/internal/testnet"
)

// TestConnect makes whole connections, or tries to.
func TestConnect(t *testing.T) {
	reject := func(with string) func(*world) {
		return func(w *world) {
			w.table("host", `table inet f { chain c { type filter hook forward priority 10; policy accept; tcp dport 80 reject with `+with+` comment "no http" } }`)
		}
	}
	for _, c := range []struct {
		name, to string
		change   func(*world)
		verdict  api.Verdict
		says     string
	}{
		{"open", "192.0.2.1:80", nil, api.Answered, "masquerade"},
		{"open v6", "[2001:db8::1]:80", nil, api.Answered, "masquerade"},
		{"closed", "192.0.2.1:81", nil, api.Refused, "nothing listens on port 81"},
		{"closed v6", "[2001:db8::1]:81", nil, api.Refused, "nothing listens on port 81"},
		{"rejected by an error", "192.0.2.1:80", reject("icmpx admin-prohibited"), api.Rejected, `rule "no http"`},
		{"rejected by an error v6", "[2001:db8::1]:80", reject("icmpx admin-prohibited"), api.Rejected, `rule "no http"`},
		{"rejected by a reset", "192.0.2.1:80", reject("tcp reset"), api.Rejected, `rule "no http"`},
		{"rejected by a reset v6", "[2001:db8::1]:80", reject("tcp reset"), api.Rejected, `rule "no http"`},
		{"isolated", "db:80", nil, api.Dropped, `rule "isolation"`},
	} {
		for _, level := range allLevels() {
			t.Run(string(level)+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				requireLevel(t, level)
				w := newWorld(t)
				if c.change != nil {
					c.change(w)
				}
				p, err := w.send(api.ProbeQuery{PathQuery: api.PathQuery{From: "web", To: c.to}, Level: level, Connect: true})
				w.must(err)
				told := text(t, p.Actual)
				if p.Verdict != c.verdict || !strings.Contains(told, c.says) || p.FirstDifference != nil {
					t.Errorf("verdict %s, want %s and %q, difference %v\n%s\n%s", p.Verdict, c.verdict, c.says, p.FirstDifference, told, text(t, p.Expected))
				}
			})
		}
	}
}

// TestOtherPort: a probe is not sent from the port that it goes to, by which it would
// be taken for its answer.
func TestOtherPort(t *testing.T) {
	testnet.Require(t, "netns")
	w := newWorld(t)
	w.sysctl("web", "net/ipv4/ip_local_port_range", "5300 5301")
	for _, port := range []uint16{5300, 5301} {
		w.spaces["outside"].ServeTCP(t, netip.AddrPortFrom(netip.IPv6Unspecified(), port))
		p, err := w.send(api.ProbeQuery{PathQuery: api.PathQuery{From: "web", To: fmt.Sprintf("192.0.2.1:%d", port)}, Level: api.LevelTaps})
		w.must(err)
		if p.Verdict != api.Answered || p.Actual.Flow.Sport != 5300+5301-port {
			t.Errorf("to %d from %d: %s\n%s", port, p.Actual.Flow.Sport, p.Verdict, text(t, p.Actual))
		}
	}
}
