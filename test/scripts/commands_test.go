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

// pair is a line of the page that has the usual commands beside ours.
type pair struct{ question, usual, ours, shows string }

// code is what stands between backticks.
var code = regexp.MustCompile("`([^`]+)`")

// pairs reads the tables of a page.
func pairs(t *testing.T, page string) []pair {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	inside := func(cell string) string {
		m := code.FindStringSubmatch(cell)
		if m == nil {
			return ""
		}
		return m[1]
	}
	var out []pair
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) < 3 || inside(cells[1]) == "" {
			continue
		}
		p := pair{question: strings.TrimSpace(cells[0]), usual: inside(cells[1]), ours: inside(cells[2])}
		if len(cells) > 3 {
			p.shows = inside(cells[3])
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
		"sandbox create web --network front -p 8080:80", "sandbox create db --network back",
	} {
		w.must(strings.Fields(line)...)
	}
	web, _, err := w.place("web")
	if err != nil {
		t.Fatal(err)
	}
	web.ServeTCP(t, netip.MustParseAddrPort("0.0.0.0:80"))
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
		if err != nil {
			t.Errorf("%s: %s: %v\n%s", p.question, p.ours, err, ours)
		}
		if !strings.Contains(usual, p.shows) {
			t.Errorf("%s: %s shows no %q:\n%s", p.question, p.usual, p.shows, usual)
		}
		if !strings.Contains(ours, p.shows) {
			t.Errorf("%s: %s shows no %q:\n%s", p.question, p.ours, p.shows, ours)
		}
	}
	if err := w.clean(); err != nil {
		t.Error(err)
	}
}
