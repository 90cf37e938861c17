package scripts

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/testnet"
)

// pair is a line of the page that has the usual commands beside ours, and what
// each shows.
type pair struct{ question, usual, ours, shown, told string }

// code is what stands between backticks.
var code = regexp.MustCompile("`([^`]+)`")

// pairs reads the tables of a page.
func pairs(t *testing.T, page string) []pair {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	inside := func(cell string) (first, last string) {
		m := code.FindAllStringSubmatch(cell, -1)
		if m == nil {
			return "", ""
		}
		return m[0][1], m[len(m)-1][1]
	}
	var out []pair
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) < 4 {
			continue
		}
		p := pair{question: strings.TrimSpace(cells[0])}
		p.usual, _ = inside(cells[1])
		p.ours, _ = inside(cells[2])
		if p.shown, p.told = inside(cells[3]); p.usual == "" {
			continue // the head of a table
		}
		if p.shown == "" {
			t.Errorf("%s: the page does not say what is shown", p.question)
		}
		out = append(out, p)
	}
	return out
}

// TestUsualCommandsAndOurs runs every line of docs/commands.md.
func TestUsualCommandsAndOurs(t *testing.T) {
	testnet.Require(t, "netns", "ip-binary", "bridge-binary", "nft-binary", "iptables-binary", "nsenter-binary", "unshare-binary")
	t.Parallel()
	w := newWorld(t)
	for _, line := range []string{
		"network create --subnet 172.30.0.0/24 front", "network create --subnet 172.31.0.0/24 back",
		"sandbox create web --network front -p 8080:80", "sandbox create app --network front", "sandbox create db --network back",
	} {
		w.must(strings.Fields(line)...)
	}
	w.burden()
	web, _, err := w.place("web")
	if err != nil {
		t.Fatal(err)
	}
	web.ServeTCP(t, netip.MustParseAddrPort("0.0.0.0:80"))
	if err := web.Echo(netip.MustParseAddr("172.30.0.1"), patience); err != nil {
		t.Fatal(err)
	}
	all := pairs(t, filepath.Join("..", "..", "docs", "commands.md"))
	if len(all) < 20 {
		t.Fatalf("the page has few lines: %+v", all)
	}
	for _, p := range all {
		usual, err := w.host.Output(t.Context(), "sh", "-c", strings.ReplaceAll(p.usual, "/run/towpath", w.dir))
		if err != nil {
			t.Errorf("%s: %v", p.question, err)
		}
		ours, err := example(w, p.ours)
		if finds := strings.HasPrefix(p.ours, "towpath doctor"); (err != nil) != finds {
			t.Errorf("%s: %s: %v\n%s", p.question, p.ours, err, ours)
		}
		if !strings.Contains(usual, p.shown) {
			t.Errorf("%s: %s shows no %q:\n%s", p.question, p.usual, p.shown, usual)
		}
		if !strings.Contains(ours, p.told) {
			t.Errorf("%s: %s shows no %q:\n%s", p.question, p.ours, p.told, ours)
		}
	}
	if err := w.clean(); err != nil {
		t.Error(err)
	}
}

// burden puts on the host what the page says that others have left there.
func (w *world) burden() {
	w.Helper()
	if err := w.orphan("tp-front", "vethold"); err != nil {
		w.Fatal(err)
	}
	for _, line := range []string{
		"iptables -t nat -A PREROUTING -p tcp --dport 9090 -j DNAT --to-destination 172.30.0.2:80",
		`nft 'table ip mine { chain c { type filter hook forward priority 10; ip saddr 172.31.0.0/24 oifname "eth0" drop comment "no way for back"; }; }'`,
	} {
		if _, err := w.onHost("sh", "-c", line); err != nil {
			w.Fatal(err)
		}
	}
}
