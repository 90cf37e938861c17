package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/towpath/towpath/internal/machine"
	"github.com/towpath/towpath/internal/owner"
)

// tree writes files below a new root.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestRead(t *testing.T) {
	id := func(digit string) string { return strings.Repeat(digit, 64) }
	bundle := func(path, annotations string) string {
		return fmt.Sprintf(`{"annotations":{%s},"linux":{"namespaces":[{"type":"network","path":%q}]}}`, annotations, path)
	}
	root := tree(t, map[string]string{
		"/etc/docker/daemon.json":                                                                       `{"data-root":"/srv/docker"}`,
		"/srv/docker/containers/a/config.v2.json":                                                       `{"ID":"` + id("a") + `","Name":"/web","NetworkSettings":{"SandboxKey":"/var/run/docker/netns/1","Networks":{"shop":{"NetworkID":"` + id("f") + `"}}}}`,
		"/var/lib/containers/storage/overlay-containers/containers.json":                                `[{"id":"` + id("b") + `","names":["db"]},{"id":"` + id("9") + `","names":["new"]}]`,
		"/var/lib/containers/storage/overlay-containers/" + id("b") + "/userdata/config.json":           bundle("/run/netns/netns-1", ""),
		"/home/ann/.local/share/containers/storage/vfs-containers/containers.json":                      `[{"id":"` + id("c") + `","names":["cache"]}]`,
		"/home/ann/.local/share/containers/storage/vfs-containers/" + id("c") + "/userdata/config.json": bundle("/run/user/1000/netns/netns-2", ""),
		"/run/containerd/io.containerd.runtime.v2.task/k8s.io/" + id("d") + "/config.json":              bundle("/var/run/netns/cni-1", `"io.kubernetes.cri.sandbox-name":"x","io.kubernetes.cri.sandbox-namespace":"default"`),
		"/run/containerd/io.containerd.runtime.v2.task/moby/" + id("a") + "/config.json":                bundle("/proc/1/ns/net", ""),
		"/run/containerd/io.containerd.runtime.v2.task/default/" + id("e") + "/config.json":             bundle("/run/netns/e", `"nerdctl/name":"tool"`),
		"/run/containerd/io.containerd.runtime.v2.task/default/shop-frontend/config.json":               bundle("", ""),
		"/run/containerd/io.containerd.runtime.v2.task/default/shop-frontend/init.pid":                  "4711",
		"/run/containerd/io.containerd.runtime.v2.task/default/ended/config.json":                       bundle("", ""),
		"/run/containerd/io.containerd.runtime.v2.task/default/odd/config.json":                         bundle("", ""),
		"/run/containerd/io.containerd.runtime.v2.task/default/odd/init.pid":                            "-1",
		"/var/lib/cni/results/mynet-c1-eth0":                                                            `{"containerId":"c1","networkName":"mynet","cniArgs":[["K8S_POD_NAMESPACE","default"],["K8S_POD_NAME","y"]],"result":{"interfaces":[{"name":"cni0"},{"sandbox":"/run/netns/cni-2"}]}}`,
		"/etc/cni/net.d/10-other.conflist":                                                              `{"name":"other","plugins":[{"type":"bridge","bridge":"cni7"}]}`,
		"/etc/cni/net.d/20-macvlan.conf":                                                                `{"name":"lan","type":"macvlan"}`,
		"/etc/containers/networks/backend.json":                                                         `{"name":"backend","network_interface":"podman3"}`,
		"/etc/libvirt/qemu/networks/default.xml":                                                        `<network><name>default</name><bridge name='virbr0'/></network>`,
		"/etc/libvirt/qemu/networks/broken.xml":                                                         `<network>`,
		"/etc/libvirt/qemu/networks/autostart/link.xml":                                                 `not looked at`,
	})
	facts, notes := Read(root)
	if len(notes) != 1 || !strings.Contains(notes[0], "broken.xml: read network of libvirt") {
		t.Errorf("notes: %q", notes)
	}
	names := owner.New(facts)
	for path, want := range map[string]string{
		"/run/docker/netns/1":          "container web (Docker)",
		"/run/netns/netns-1":           "container db (Podman)",
		"/run/user/1000/netns/netns-2": "container cache (Podman)",
		"/run/netns/cni-1":             "pod default/x (CNI)",
		"/run/netns/cni-2":             "pod default/y (CNI)",
		"/run/netns/e":                 "container tool (containerd)",
	} {
		if got := names.Space(&machine.Space{Holders: []machine.Holder{{Path: path}}}).String(); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	// A namespace that the runtime made itself goes with its first process.
	for pid, want := range map[int]string{4711: "container shop-frontend (containerd)", 4712: "process httpd [4712]", -1: "process httpd [-1]"} {
		s := &machine.Space{Holders: []machine.Holder{{PID: pid, Command: "httpd"}}}
		if got := names.Space(s).String(); got != want {
			t.Errorf("process %d: got %q, want %q", pid, got, want)
		}
	}
	for device, want := range map[string]string{
		"br-ffffffffffff": "shop", "cni7": "other", "cni0": "mynet", "podman3": "backend", "virbr0": "default",
	} {
		if n, ok := names.Network(&machine.Link{Name: device, Type: "bridge"}); !ok || n.Name != want {
			t.Errorf("%s: got %+v, want %q", device, n, want)
		}
	}
}

func TestReadOfNothing(t *testing.T) {
	if facts, notes := Read(t.TempDir()); len(facts.Records)+len(facts.Networks)+len(notes) != 0 {
		t.Errorf("from nothing: %+v %q", facts, notes)
	}
}

// TestReadRefuses: files of others are not waited for, and not read for ever.
func TestReadRefuses(t *testing.T) {
	root := tree(t, map[string]string{
		"/etc/cni/net.d/10-long.conf": strings.Repeat(" ", maxBytes+1),
		"/etc/cni/net.d/30-bad.conf":  "{",
	})
	if err := syscall.Mkfifo(filepath.Join(root, "/etc/cni/net.d/20-pipe.conf"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, notes := Read(root)
	want := []string{"10-long.conf: it is larger than 1048576 bytes", "20-pipe.conf: it is no regular file", "30-bad.conf: read network of CNI: unexpected end"}
	if len(notes) != len(want) {
		t.Fatalf("notes: %q", notes)
	}
	for i, w := range want {
		if !strings.Contains(notes[i], w) {
			t.Errorf("note %q, want %q", notes[i], w)
		}
	}
}
