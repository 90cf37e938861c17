package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/towpath/towpath/internal/linux/rt"
	"github.com/towpath/towpath/internal/testnet"
)

// install types `make install` in a folder with the binaries under test, their
// man pages and completions, and gives the folder installed into.
func install(t testing.TB, args ...string) string {
	t.Helper()
	testnet.Require(t, "make-binary")
	source, dest := t.TempDir(), t.TempDir()
	repo, err := filepath.Abs("../..")
	must(t, err)
	must(t, os.Mkdir(filepath.Join(source, "bin"), 0o755))
	for link, to := range map[string]string{
		"Makefile": filepath.Join(repo, "Makefile"), "dist": filepath.Join(repo, "dist"),
		"bin/towpath": filepath.Join(binDir, "towpath"), "bin/towpathd": filepath.Join(binDir, "towpathd"),
	} {
		must(t, os.Symlink(to, filepath.Join(source, link)))
	}
	typed(t, repo, "go", "run", "-buildvcs=false", "./dist/gen", filepath.Join(source, "bin"))
	if len(args) == 0 {
		args = []string{"DESTDIR=%s"}
	}
	for i := range args {
		args[i] = fmt.Sprintf(args[i], dest)
	}
	typed(t, source, append([]string{"make", "install"}, args...)...)
	return dest
}

// typed runs a command line in a folder and gives what it prints.
func typed(t testing.TB, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree is the files below a folder, and what is in them.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir)] = string(text)
		return err
	}))
	return files
}

// TestInstall: what is installed is where it is looked for, says what the
// binaries say, and is all gone when it is removed as the documentation says.
func TestInstall(t *testing.T) {
	dest := install(t)
	files := tree(t, dest)
	pages := map[string]string{}
	for name, text := range files {
		if base := filepath.Base(name); strings.HasPrefix(name, "/usr/local/share/man/man1/") {
			pages[strings.TrimSuffix(base, ".1")+"(1)"] = text
			delete(files, name)
		}
	}
	want := []string{
		"/etc/NetworkManager/conf.d/towpath.conf",
		"/usr/local/bin/towpath",
		"/usr/local/bin/towpathd",
		"/usr/local/lib/systemd/network/05-towpath-bridge.network",
		"/usr/local/lib/systemd/network/05-towpath-veth.network",
		"/usr/local/lib/systemd/network/05-towpath.link",
		"/usr/local/lib/systemd/network/05-towpath.network",
		"/usr/local/lib/systemd/system/towpathd.service",
		"/usr/local/lib/udev/rules.d/70-towpath.rules",
		"/usr/local/share/bash-completion/completions/towpath",
		"/usr/local/share/fish/vendor_completions.d/towpath.fish",
		"/usr/local/share/man/man8/towpathd.8",
		"/usr/local/share/zsh/site-functions/_towpath",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(files))); diff != "" {
		t.Errorf("installed (-want +got):\n%s", diff)
	}
	pages["towpathd(8)"] = files["/usr/local/share/man/man8/towpathd.8"]
	for name, page := range pages {
		for _, other := range regexp.MustCompile(`towpath[a-z\\-]*\([18]\)`).FindAllString(page, -1) {
			if other = strings.ReplaceAll(other, `\`, ""); pages[other] == "" {
				t.Errorf("%s refers to %s, which is not there", name, other)
			}
		}
	}
	for _, name := range []string{"towpath(1)", "towpath-network-create(1)", "towpath-exec(1)"} {
		if pages[name] == "" {
			t.Errorf("there is no page %s", name)
		}
	}
	unit := files["/usr/local/lib/systemd/system/towpathd.service"]
	if !strings.Contains(unit, "\nExecStart=/usr/local/bin/towpathd\n") {
		t.Errorf("the unit does not start what is installed:\n%s", unit)
	}
	for shell, name := range map[string]string{
		"bash": "bash-completion/completions/towpath", "zsh": "zsh/site-functions/_towpath", "fish": "fish/vendor_completions.d/towpath.fish",
	} {
		if script := typed(t, "", filepath.Join(binDir, "towpath"), "completion", shell); script != files["/usr/local/share/"+name] {
			t.Errorf("the completion of %s is not what towpath completion prints", shell)
		}
	}
	for _, line := range documented(t, "sudo rm ") {
		typed(t, "", "sh", "-c", strings.ReplaceAll(strings.TrimPrefix(line, "sudo "), " /", " "+dest+"/"))
	}
	if left := tree(t, dest); len(left) > 0 {
		t.Errorf("left after removal: %q", slices.Sorted(maps.Keys(left)))
	}
}

// documented are the command lines of the documentation that begin so.
func documented(t testing.TB, prefix string) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/install.md")
	must(t, err)
	var out []string
	for line := range strings.Lines(string(text)) {
		if line, ok := strings.CutPrefix(line, "    "); ok && strings.HasPrefix(line, prefix) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	if len(out) == 0 {
		t.Fatalf("no line of the documentation begins with %q", prefix)
	}
	return out
}

// TestHooksDocumented: the documentation names the base chains that there are.
func TestHooksDocumented(t *testing.T) {
	w := newWorld(t)
	w.start()
	doc, err := os.ReadFile("../../docs/firewalls.md")
	w.check(err)
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `?([\\w-]+)`?(?: \\(-?\\d+\\))? \\|").FindAllStringSubmatch(string(doc), -1) {
		rows[m[1]+" "+m[2]] = true
	}
	chains := map[string]bool{}
	for _, m := range regexp.MustCompile(`hook (\w+) priority (\S+);`).FindAllStringSubmatch(w.must("plan"), -1) {
		chains[m[1]+" "+m[2]] = true
	}
	if diff := cmp.Diff(chains, rows); diff != "" {
		t.Errorf("base chains (-plan +documentation):\n%s", diff)
	}
}

// TestUnitVerifies: systemd finds nothing wrong with the unit, and man with the pages.
func TestUnitVerifies(t *testing.T) {
	dest := install(t, "PREFIX=%s", "NMCONF=%s/nm")
	t.Setenv("MANPATH", filepath.Join(dest, "share/man"))
	t.Setenv("LC_ALL", "C.UTF-8")
	t.Run("unit", func(t *testing.T) {
		testnet.Require(t, "systemd-analyze-binary")
		if out := typed(t, "", "systemd-analyze", "verify", filepath.Join(dest, "lib/systemd/system/towpathd.service")); out != "" {
			t.Error(out)
		}
	})
	t.Run("man pages", func(t *testing.T) {
		testnet.Require(t, "man-binary", "groff-binary")
		pages, err := filepath.Glob(filepath.Join(dest, "share/man/man?/*"))
		must(t, err)
		for _, page := range pages {
			cmd := exec.CommandContext(t.Context(), "groff", "-man", "-Tutf8", "-ww", "-z", page)
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("%s: %v\n%s", page, err, out)
			}
		}
		if text := typed(t, "", "man", "-P", "cat", "towpath-network-create"); !strings.Contains(text, "towpath network create NAME") {
			t.Errorf("man towpath-network-create prints\n%s", text)
		}
	})
	t.Run("bash", func(t *testing.T) {
		testnet.Require(t, "bash-binary")
		typed(t, "", "bash", "-n", filepath.Join(dest, "share/bash-completion/completions/towpath"))
	})
}

// networkd is where Debian and Fedora have it.
const networkd = "/lib/systemd/systemd-networkd"

// TestNetworkd: a file for networkd that matches every link does not get ours.
func TestNetworkd(t *testing.T) {
	testnet.Require(t, "root", networkd+"-binary")
	w := newWorld(t)
	w.start()
	w.must("sandbox", "create", "web")
	w.must("network", "create", "front")
	c := w.host.Conn(t)
	w.check(c.AddLink(t.Context(), "bridge", rt.LinkSpec{Name: "tp-not-known"}))
	w.check(c.AddLink(t.Context(), "bridge", rt.LinkSpec{Name: "other"}))
	all := "[Match]\nName=*\n[Network]\nAddress=10.99.0.1/24\nLinkLocalAddressing=no\n"
	// networkd waits for udev where /sys can be written to.
	script := `set -e
mount -t tmpfs tmpfs /run && mount -t sysfs -o ro sysfs /sys
mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network /run/systemd/netif
cp "$1"/usr/local/lib/systemd/network/*.network /run/systemd/network
printf "$2" >/run/systemd/network/10-all.network
exec ` + networkd
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", install(t), all)
	cmd.Stderr = w.log
	w.check(w.host.Start(cmd))
	defer func() { cancel(); _ = cmd.Wait() }()
	administers := func(name string) string {
		l, err := c.LinkByName(t.Context(), name)
		w.check(err)
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/root/run/systemd/netif/links/%d", cmd.Process.Pid, l.Index)) // not there at first
		_, state, _ := strings.Cut(string(text), "ADMIN_STATE=")
		state, _, _ = strings.Cut(state, "\n")
		return state
	}
	for name, want := range map[string]string{
		"other": "configured", "towpath0": "unmanaged", "tp-front": "unmanaged", "tp-not-known": "unmanaged", "v-web-eth0": "unmanaged",
	} {
		state := ""
		w.eventually("networkd has made up its mind on "+name, func() bool {
			state = administers(name)
			return slices.Contains([]string{"configured", "unmanaged", "failed"}, state)
		})
		if state != want {
			t.Errorf("to networkd %s is %s, want %s", name, state, want)
		}
	}
	w.clean()
}

// TestUdev: udev leaves name and address of our links as they are, though its
// default would change them, and tells others whose they are.
func TestUdev(t *testing.T) {
	testnet.Require(t, "root", "udevadm-binary")
	w := newWorld(t)
	w.start()
	w.must("sandbox", "create", "web")
	w.must("network", "create", "front", "--interface-name", "br0")
	script := `set -e
mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys
mkdir -p /run/udev/rules.d /run/systemd/network
cp "$1"/usr/local/lib/udev/rules.d/* /run/udev/rules.d
cp "$1"/usr/local/lib/systemd/network/*.link /run/systemd/network
printf '[Match]\nOriginalName=*\n[Link]\nMACAddressPolicy=persistent\nName=other\n' >/run/systemd/network/10-all.link
udevadm test --action=add "/sys/devices/virtual/net/$2" 2>&1`
	dest := install(t)
	for _, name := range []string{"towpath0", "br0", "v-web-eth0"} {
		before, err := w.host.Conn(t).LinkByName(t.Context(), name)
		w.check(err)
		out, err := w.host.Output(t.Context(), "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", dest, name)
		w.check(err)
		for _, line := range []string{"TOWPATH=1", "NM_UNMANAGED=1", "ID_NET_MANAGED_BY=io.towpath", "ID_NET_LINK_FILE=/run/systemd/network/05-towpath.link"} {
			if !strings.Contains(out, line+"\n") {
				t.Errorf("udev does not say %s of %s:\n%s", line, name, out)
			}
		}
		after, err := w.host.Conn(t).LinkByName(t.Context(), name)
		w.check(err)
		if before.MAC != after.MAC {
			t.Errorf("udev gave %s the address %s instead of %s", name, after.MAC, before.MAC)
		}
	}
	w.clean()
}
