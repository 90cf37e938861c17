package scripts

import (
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// podman is Podman with netavark on the host, without a daemon, as it is.
type podman struct {
	*world
	dir string
}

// podmanConf is for machines of any kind: the files of events rather than a
// journal, no systemd, and limits that any caller may set.
const podmanConf = `[containers]
default_ulimits=["nofile=1024:1024","nproc=1024:1024"]
log_driver="k8s-file"
[network]
network_backend="netavark"
[engine]
cgroup_manager="cgroupfs"
events_logger="file"
runtime="runc"
`

// newPodman gives Podman places of its own, where it and Towpath look for its
// files on every machine; only this test's mount namespace sees them so.
func newPodman(w *world) *podman {
	w.Helper()
	w.hide("/var/lib")
	w.hide("/etc/containers")
	p := &podman{world: w, dir: w.TempDir()}
	w.Cleanup(p.leave)
	policy := `{"default":[{"type":"insecureAcceptAnything"}]}`
	for name, text := range map[string]string{"/etc/containers/policy.json": policy, "/etc/containers/containers.conf": podmanConf} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			w.Fatal(err)
		}
	}
	return p
}

// hide puts an empty directory over one of the machine's.
func (w *world) hide(dir string) {
	w.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID, "mode=755"); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// ask is `podman ARGS` on the host. The cgroups of containers have a parent that
// goes with the test.
func (p *podman) ask(args ...string) (string, error) {
	if args[0] == "run" {
		args = append([]string{"run", "--cgroup-parent", cgroup()}, args[1:]...)
	}
	return p.onHost(append([]string{"podman", "--storage-driver", "vfs"}, args...)...)
}

func (p *podman) run(args ...string) error { _, err := p.ask(args...); return err }

// leave ends what Podman leaves: the server of names, when the last container is
// gone, and the monitors, which clean up after their containers; they hold
// nothing of this test when its places go.
func (p *podman) leave() {
	if !soon(func() bool {
		running, _ := filepath.Glob("/run/netns/netns-*")
		return len(running) == 0
	}) {
		p.Error("namespaces of Podman are left")
	}
	if !soon(func() bool {
		removeCgroups()
		left, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroup())
		return len(left) == 0
	}) {
		p.Error("cgroups of Podman are left")
	}
}

func (p *podman) box() {
	p.Helper()
	if err := p.run("import", busybox(p.world, p.dir), "box"); err != nil {
		p.Fatal(err)
	}
}

func (p *podman) name() string { return "Podman" }

// busybox makes an image of the programs of busybox that containers here run.
func busybox(w *world, dir string) string {
	w.Helper()
	script := `mkdir -p image/bin && cp "$(command -v busybox)" image/bin/busybox && for name in sh httpd nc sleep; do ln -s busybox image/bin/$name; done && tar -C image -cf image.tar .`
	cmd := exec.CommandContext(w.Context(), "sh", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("make image: %v\n%s", err, out)
	}
	return filepath.Join(dir, "image.tar")
}
