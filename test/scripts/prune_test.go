package scripts

import (
	"fmt"
	"strings"
	"testing"
)

// TestPrunesAtOnce: several that run at once find each network already gone, or
// remove it; each is told of as removed once, and none of it is an error.
func TestPrunesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const networks, prunes = 12, 4
	for i := range networks {
		w.must("network", "create", fmt.Sprintf("n%d", i))
	}
	type result struct {
		out []byte
		err error
	}
	results := make(chan result)
	for range prunes {
		go func() {
			out, err := w.command("network", "prune").CombinedOutput()
			results <- result{out, err}
		}()
	}
	removed := map[string]int{}
	for range prunes {
		r := <-results
		if r.err != nil {
			t.Errorf("%v\n%s", r.err, r.out)
		}
		for _, name := range strings.Fields(string(r.out)) {
			removed[name]++
		}
	}
	for i := range networks {
		if name := fmt.Sprintf("n%d", i); removed[name] != 1 {
			t.Errorf("%s was removed %d times", name, removed[name])
		}
	}
	if err := w.clean(); err != nil {
		t.Error(err)
	}
}
