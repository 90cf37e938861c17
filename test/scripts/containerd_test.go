package scripts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/towpath/towpath/internal/testnet"
)

// podsNetwork is what an administrator of a machine with containerd writes for CNI.
const podsNetwork = `{"cniVersion": "0.4.0", "name": "pods", "plugins": [{
	"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
	"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.85.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
}]}`

// TestContainerd: containers that containerd made and the plug-ins of CNI connected
// have their names in maps and paths, and rules of the plug-ins their author.
func TestContainerd(t *testing.T) {
	testnet.Require(t, "netns", "root", "containerd-binary", "ctr-binary", "runc-binary", "/usr/lib/cni/bridge-binary", "iptables-nft-binary", "busybox-binary")
	w := newWorld(t)
	for _, dir := range []string{"/var/lib", "/etc/cni", "/opt"} { // seen so by this test only
		if _, err := os.Stat(dir); err != nil {
			t.Cleanup(func() { _ = os.Remove(dir) })
		}
		w.hide(dir)
	}
	for _, dir := range []string{"/etc/cni/net.d", "/opt/cni/bin"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("/usr/lib/cni", "/opt/cni/bin", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/etc/cni/net.d/10-pods.conflist", []byte(podsNetwork), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/run", "ctr")
	if err != nil {
		t.Fatal(err)
	}
	busybox(w, dir)
	d := &docker{world: w, dir: dir}
	socket := filepath.Join(dir, "c.sock")
	// Its tasks are looked for where they are on every machine.
	d.daemonOf("containerd", "--root", filepath.Join(dir, "root"), "--state", "/run/containerd", "--address", socket)
	ctr := func(line string) error {
		_, err := w.onHost(append([]string{"ctr", "-a", socket}, strings.Fields(line)...)...)
		return err
	}
	if !soon(func() bool { return ctr("version") == nil }) {
		log, _ := os.ReadFile(filepath.Join(dir, "containerd.log"))
		t.Fatalf("containerd does not answer: %v\n%s", ctr("version"), log)
	}
	for _, name := range []string{"web", "db"} {
		t.Cleanup(func() {
			_ = ctr("task kill -s KILL " + name)
			soon(func() bool { return ctr("container rm "+name) == nil })
		})
		if err := ctr("run -d --rootfs --cni --cgroup " + cgroup() + "/" + name + " " + filepath.Join(dir, "image") + " " + name + " /bin/httpd -f -p 80"); err != nil {
			t.Fatal(err)
		}
	}
	d.says([]string{"map"}, 0, "cni0      network pods (CNI)  bridge  10.85.0.0/24  gateway 10.85.0.1",
		"container web (containerd)  eth0  10.85.0.2/24", "container db (containerd)  eth0  10.85.0.3/24")
	d.says([]string{"probe", "web", "db:80"}, 0, `web -> db:80  tcp syn`, `network "pods" (CNI)`, "answered")
	d.says([]string{"explain", "web", "192.0.2.1:443"}, 0, "masquerade   10.85.0.2:49152 -> 192.0.2.10:49152", "(cni)")
}
