package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/linux/rt"
)

// TestCheck: --check says what a start would do, and does nothing.
func TestCheck(t *testing.T) {
	w := newWorld(t)
	w.settle()
	before := w.snapshot()
	if out := w.checkOnly(); !strings.Contains(out, "+ host: table inet towpath") {
		t.Errorf("before the first start: %s", out)
	}
	w.same(before)
	w.start()
	w.must("network", "create", "front")
	w.must("sandbox", "create", "web", "--network", "front")
	w.kill()
	if out := w.checkOnly(); out != "" {
		t.Errorf("when all is there: %s", out)
	}
	host := w.host.Conn(t)
	l, err := host.LinkByName(t.Context(), "v-web-eth0")
	w.check(err)
	w.check(host.DelLink(t.Context(), l.Index))
	if out := w.checkOnly(); !strings.HasPrefix(out, "+ host: link v-web-eth0 type veth") {
		t.Errorf("when a link is gone: %s", out)
	}
	if links, err := host.Links(t.Context(), rt.LinkFilter{Kind: "veth", Group: markGroup}); err != nil || len(links) > 0 {
		t.Errorf("--check made %v, %v", links, err)
	}
	w.start()
	w.clean()
}

func (w *world) checkOnly() string {
	w.Helper()
	r := w.finish(exec.Command(filepath.Join(binDir, "towpathd"), "--run-dir", w.run, "--state-dir", w.state, "--check"))
	if r.code != 0 {
		w.Errorf("--check: exit %d: %s", r.code, r.stderr)
	}
	// Where the kernel has table flags a start takes the table over, whose owner
	// went with the daemon before; so did its sockets.
	return strings.NewReplacer(
		"~ host: table inet towpath flags owner,persist\n", "", "~ host: table ip towpath flags owner,persist\n", "",
		"~ host: table netdev towpath flags owner,persist\n", "",
		"+ web: socket udp,tcp 127.0.0.11:40053\n", "",
	).Replace(r.stdout)
}
