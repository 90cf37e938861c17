package scripts

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/testnet"
)

// varying are the parts of an output that differ from run to run: times, ports
// that the kernel chose, handles.
var varying = regexp.MustCompile(`[0-9]+\.[0-9] |: [0-9]+ µs|handle [0-9]+|(:[0-9]{5})\b`)

// steady is a text without what varies.
func steady(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		out = append(out, strings.Join(strings.Fields(varying.ReplaceAllString(line, "N ")), " "))
	}
	return strings.TrimSpace(strings.Join(out, "\n"))
}

// TestReadmeOpensWithWhatIsSeen probes as the first lines of the README do, and
// must see what they show.
func TestReadmeOpensWithWhatIsSeen(t *testing.T) {
	testnet.Require(t, "netns")
	t.Parallel()
	w := newWorld(t)
	for _, line := range []string{
		"network create --subnet 172.30.0.0/24 front", "network create --subnet 172.31.0.0/24 back",
		"sandbox create web --network front", "sandbox create db --network back",
	} {
		w.must(strings.Fields(line)...)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for block := range strings.SplitSeq(string(text), "\n    $ towpath probe ") {
		if seen++; seen == 1 { // what stands before the first
			continue
		}
		command, shown, _ := strings.Cut(block, "\n")
		shown, _, _ = strings.Cut(shown, "\n\n")
		if !strings.Contains(shown, "as expected") { // one of the lines of the first session
			continue
		}
		out, _ := w.command(append([]string{"probe"}, strings.Fields(command)...)...).Output() // its exit code is an answer
		if got, want := steady(string(out)), steady(shown); got != want {
			t.Errorf("towpath probe %s:\n%s\nthe README shows:\n%s\nin full:\n%s", command, got, want, out)
		}
	}
	if seen < 3 {
		t.Errorf("the README shows %d probes", seen-1)
	}
	if err := w.clean(); err != nil {
		t.Error(err)
	}
}
