package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/testnet"
)

// verb is a command that does something, as its help shows it.
type verb struct {
	// path is the words behind towpath.
	path     []string
	examples []string
}

// verbs reads the help of the command at path and of those below it.
func verbs(w *world, path ...string) []verb {
	help := w.must(append(slices.Clone(path), "--help")...)
	below := section(help, "Available Commands:")
	if len(below) == 0 {
		return []verb{{path, section(help, "Examples:")}}
	}
	var out []verb
	for _, line := range below {
		out = append(out, verbs(w, append(slices.Clone(path), strings.Fields(line)[0])...)...)
	}
	return out
}

// section is the lines below a heading of a help text.
func section(help, heading string) []string {
	_, rest, found := strings.Cut(help, "\n"+heading+"\n")
	if !found {
		return nil
	}
	text, _, _ := strings.Cut(rest, "\n\n")
	var out []string
	for line := range strings.Lines(text) {
		out = append(out, strings.TrimSpace(line))
	}
	return out
}

// given is what must be there for the examples of a verb, as command lines.
func given(verb string) []string {
	front := "network create --subnet 172.30.0.0/24 --label tier=web front"
	web := "sandbox create web --network front --label role=web"
	switch verb {
	case "network create", "network ls", "diff", "version", "completion", "help", "events":
		return nil
	case "network connect":
		return []string{"network create --subnet 172.30.0.0/24 back", "sandbox create web"}
	case "network disconnect":
		return []string{"network create back", "sandbox create web --network bridge --network back"}
	case "network rm", "network prune":
		return []string{front, "network create back"}
	case "sandbox create":
		return []string{front, "network create back"}
	case "run", "plan":
		return []string{front}
	case "probe", "trace":
		return []string{front, web, "sandbox create db --network front"}
	case "resolve":
		return []string{front, web, "sandbox create db --network front -p 8080:80"}
	}
	all := []string{front, "network create back", web, "sandbox create db --network back"}
	if verb == "unpublish" || verb == "port" {
		all = append(all, "publish web 8080:80")
	}
	return all
}

// TestExamples runs every example of every help text, each where there is what
// it names and nothing else.
func TestExamples(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := netns.Create("/run/netns/web"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netns.Remove("/run/netns/web") })
	all := verbs(w)
	if len(all) < 15 {
		t.Fatalf("the help names few commands: %q", all)
	}
	for _, v := range all {
		name := strings.Join(v.path, " ")
		if len(v.examples) == 0 {
			t.Errorf("towpath %s: no example in its help", name)
		}
		for _, line := range v.examples {
			empty(w)
			for _, g := range given(name) {
				w.must(strings.Fields(g)...)
			}
			if out, err := example(w, line); err != nil {
				t.Errorf("example of towpath %s: %s: %v\n%s", name, line, err, out)
			}
		}
	}
	empty(w)
}

// empty removes what the example before left.
func empty(w *world) {
	w.Helper()
	for _, name := range strings.Fields(w.must("sandbox", "ls", "-q")) {
		// One of run may end by itself meanwhile.
		if out, err := w.command("sandbox", "rm", "-f", name).CombinedOutput(); err != nil && !strings.Contains(string(out), "does not exist") {
			w.Fatalf("remove sandbox %s: %v\n%s", name, err, out)
		}
	}
	w.must("network", "prune")
	if err := w.clean(); err != nil {
		w.Error(err)
	}
}

// example runs a line of a help text as it would be typed.
func example(w *world, line string) (string, error) {
	dir := w.TempDir()
	cmd := exec.CommandContext(w.Context(), "sh", "-c", line)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), w.environ()...), "XDG_STATE_HOME="+dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestEachVerbHasItsScript keeps the tutorials complete.
func TestEachVerbHasItsScript(t *testing.T) {
	t.Parallel()
	testnet.Require(t, "netns")
	for _, v := range verbs(newWorld(t)) {
		name := strings.Join(v.path, "-")
		if name == "help" {
			continue
		}
		if _, err := os.Stat(filepath.Join("testdata", name+".txtar")); err != nil {
			t.Errorf("towpath %s: %v", strings.Join(v.path, " "), err)
		}
	}
}
