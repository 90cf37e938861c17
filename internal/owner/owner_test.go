package owner

import (
	"strings"
	"testing"

	"github.com/towpath/towpath/internal/machine"
)

const (
	web = "0f3c6e0d5b1a49c8a7e6d5c4b3a291807f6e5d4c3b2a19080706050403020100"
	db  = "aa3c6e0d5b1a49c8a7e6d5c4b3a291807f6e5d4c3b2a190807060504030201ff"
)

// space is a namespace as its holders show it.
type space struct {
	Name      string
	Paths     []string
	Processes []machine.Holder
}

func TestNames(t *testing.T) {
	facts := Facts{
		RunDir: "/run/towpath",
		Records: []Record{
			{Engine: Docker, ID: web, Name: "web", Netns: "/var/run/docker/netns/2cf0aa"},
			{Engine: Podman, ID: db, Name: "db"},
			{Engine: Containerd, ID: strings.Repeat("1", 64), Name: "app", Netns: "/var/run/netns/cni-1"},
			{Engine: CNI, ID: strings.Repeat("1", 64), Pod: "default/x", Netns: "/var/run/netns/cni-1"},
		},
	}
	tests := []struct {
		space space
		want  string
	}{
		{space{Name: "host", Paths: []string{"/run/netns/dkh"}}, "host"},
		{space{Paths: []string{"/run/netns/a", "/run/towpath/netns/web"}}, "sandbox web (Towpath)"},
		{space{Paths: []string{"/run/docker/netns/2cf0aa"}}, "container web (Docker)"},
		{space{Paths: []string{"/run/docker/netns/99"}, Processes: []machine.Holder{{PID: 7, Command: "nginx", Cgroup: "0::/docker/" + web}}}, "container web (Docker)"},
		{space{Paths: []string{"/run/docker/netns/99"}}, "container 99 (Docker)"},
		{space{Processes: []machine.Holder{{PID: 7, Command: "postgres", Cgroup: "0::/machine.slice/libpod-" + db + ".scope/container"}}}, "container db (Podman)"},
		{space{Paths: []string{"/run/netns/netns-0d6fd1a5-02f5-8a0b-ce21-1c3a7f2f5d11"}}, "container 0d6fd1a5-02f (Podman)"},
		{space{Paths: []string{"/run/netns/cni-1"}}, "pod default/x (CNI)"},
		{space{Paths: []string{"/run/netns/cni-77aa"}}, "pod 77aa (CNI)"},
		{space{Processes: []machine.Holder{{PID: 7, Command: "x", Cgroup: "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + strings.Repeat("2", 64) + ".scope"}}}, "container 222222222222 (containerd)"},
		{space{Processes: []machine.Holder{{PID: 7, Command: "init", Cgroup: "0::/lxc.payload.guest/init.scope"}}}, "machine guest (LXC)"},
		{space{Paths: []string{"/run/netns/blue"}}, "namespace blue"},
		{space{Paths: []string{"/proc/9/ns/net"}, Processes: []machine.Holder{{PID: 4712, Command: "worker", Cgroup: "0::/"}, {PID: 4711, Command: "nginx", Cgroup: "0::/"}}}, "process nginx [4711]"},
		{space{}, "unknown net:[4026532281]"},
	}
	names := New(facts)
	for _, tt := range tests {
		s := machine.Space{Name: tt.space.Name, Inode: 4026532281, Holders: tt.space.Processes}
		for _, p := range tt.space.Paths {
			s.Holders = append(s.Holders, machine.Holder{Path: p})
		}
		if got := names.Space(&s).String(); got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.space, got, tt.want)
		}
		if got := names.Unread(machine.Unread{Inode: s.Inode, Holders: s.Holders}).String(); got != tt.want && tt.want != "host" {
			t.Errorf("%+v, not read: got %q, want %q", tt.space, got, tt.want)
		}
	}
}

func TestNetworkOfDevice(t *testing.T) {
	facts := Facts{
		Records:  []Record{{Engine: Docker, Networks: []Network{{Engine: Docker, Name: "shop", ID: web}}}},
		Networks: []Network{{Engine: Podman, Name: "backend", Device: "podman3"}, {Engine: Libvirt, Name: "default", Device: "virbr0"}},
	}
	tests := []struct {
		device machine.Link
		want   string // engine and name; "": none
	}{
		{machine.Link{Name: "tp-front", Type: "bridge", Alias: "towpath network/front"}, "Towpath front"},
		{machine.Link{Name: "v-web-eth0", Type: "veth", Alias: "towpath endpoint/web/eth0"}, ""},
		{machine.Link{Name: "docker0", Type: "bridge", Alias: ""}, "Docker bridge"},
		{machine.Link{Name: "br-" + web[:12], Type: "bridge", Alias: ""}, "Docker shop"},
		{machine.Link{Name: "br-0123456789ab", Type: "bridge", Alias: ""}, "Docker br-0123456789ab"},
		{machine.Link{Name: "br-lan", Type: "bridge", Alias: ""}, ""},
		{machine.Link{Name: "podman3", Type: "bridge", Alias: ""}, "Podman backend"},
		{machine.Link{Name: "podman0", Type: "bridge", Alias: ""}, "Podman podman0"},
		{machine.Link{Name: "cni0", Type: "bridge", Alias: ""}, "CNI cni0"},
		{machine.Link{Name: "flannel.1", Type: "vxlan", Alias: ""}, "CNI flannel"},
		{machine.Link{Name: "virbr0", Type: "bridge", Alias: ""}, "libvirt default"},
		{machine.Link{Name: "eth0", Type: "", Alias: ""}, ""},
	}
	for _, tt := range tests {
		n, ok := New(facts).Network(&tt.device)
		got := ""
		if ok {
			got = n.Engine + " " + n.Name
		}
		if got != tt.want {
			t.Errorf("%+v: got %q, want %q", tt.device, got, tt.want)
		}
	}
}

// dockerConfig and the others have the fields of real files that are looked at,
// and some that are not.
const (
	dockerConfig = `{"State":{"Running":true,"Pid":731},"ID":"` + web + `","Name":"/web","Driver":"overlay2",
		"NetworkSettings":{"Bridge":"","SandboxKey":"/var/run/docker/netns/2cf0aa","Networks":
		{"shop":{"IPAMConfig":{},"NetworkID":"` + db + `","IPAddress":"172.18.0.2"},"bridge":{"NetworkID":"` + web + `"}}}}`
	bundle = `{"ociVersion":"1.0.2","process":{},"annotations":{"io.kubernetes.cri.sandbox-name":"x","io.kubernetes.cri.sandbox-namespace":"default",
		"io.kubernetes.cri.container-type":"sandbox"},"linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/var/run/netns/cni-1"}]}}`
	cniResult = `{"kind":"cniCacheV1","containerId":"c1","config":"e30=","ifName":"eth0","networkName":"mynet",
		"cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","default"],["K8S_POD_NAME","x"]],
		"result":{"cniVersion":"1.0.0","interfaces":[{"name":"cni0","mac":"aa"},{"name":"vethd1"},{"name":"eth0","sandbox":"/var/run/netns/cni-1"}]}}`
	conflist       = `{"cniVersion":"1.0.0","name":"mynet","plugins":[{"type":"bridge","bridge":"cni0"},{"type":"portmap"}]}`
	podmanNetwork  = `{"name":"backend","id":"` + db + `","driver":"bridge","network_interface":"podman3","subnets":[{"subnet":"10.89.2.0/24"}]}`
	libvirtNetwork = "<network>\n  <name>default</name>\n  <forward mode='nat'/>\n  <bridge stp='on' name='virbr0' delay='0'/>\n</network>"
	storage        = `[{"id":"` + db + `","names":["db"],"image":"x","metadata":"{}"},{"id":"` + web + `","names":["k8s_app_x_default_1_0"]}]`
)

func TestRecords(t *testing.T) {
	r, err := ParseDocker([]byte(dockerConfig))
	if err != nil || r.ID != web || r.Name != "web" || r.Netns != "/var/run/docker/netns/2cf0aa" || len(r.Networks) != 2 || r.Networks[1].Name != "shop" {
		t.Errorf("Docker: %+v %v", r, err)
	}
	r, err = ParseBundle([]byte(bundle), Containerd, "c1")
	if err != nil || r.Pod != "default/x" || r.Netns != "/var/run/netns/cni-1" {
		t.Errorf("bundle: %+v %v", r, err)
	}
	r, err = ParseCNIResult([]byte(cniResult))
	if err != nil || r.Pod != "default/x" || r.Netns != "/var/run/netns/cni-1" || r.Networks[0] != (Network{Engine: CNI, Name: "mynet", Device: "cni0"}) {
		t.Errorf("CNI: %+v %v", r, err)
	}
	all, err := ParseStorage([]byte(storage))
	if err != nil || len(all) != 2 || all[0].Engine != Podman || all[0].ID != db || all[0].Name != "db" || all[1].Engine != CRIO {
		t.Errorf("storage: %+v %v", all, err)
	}
	for name, got := range map[string]func() (Network, error){
		"CNI mynet cni0":         func() (Network, error) { return ParseCNINetwork([]byte(conflist)) },
		"CNI one cni0":           func() (Network, error) { return ParseCNINetwork([]byte(`{"name":"one","type":"bridge"}`)) },
		"CNI mac ":               func() (Network, error) { return ParseCNINetwork([]byte(`{"name":"mac","type":"macvlan"}`)) },
		"Podman backend podman3": func() (Network, error) { return ParsePodmanNetwork([]byte(podmanNetwork)) },
		"libvirt default virbr0": func() (Network, error) { return ParseLibvirtNetwork([]byte(libvirtNetwork)) },
	} {
		n, err := got()
		if text := n.Engine + " " + n.Name + " " + n.Device; err != nil || text != name {
			t.Errorf("got %q %v, want %q", text, err, name)
		}
	}
}

func TestRecordsThatAreDamaged(t *testing.T) {
	bad := []byte(`{"ID":`)
	_, docker := ParseDocker(bad)
	_, bundle := ParseBundle(bad, Podman, web)
	_, result := ParseCNIResult(bad)
	_, store := ParseStorage(bad)
	_, network := ParseCNINetwork(bad)
	_, podman := ParsePodmanNetwork(bad)
	_, libvirt := ParseLibvirtNetwork([]byte("<network/>"))
	for name, err := range map[string]error{
		"container of Docker": docker, "bundle of container 0f3c6e0d5b1a": bundle, "result of CNI": result, "containers of Podman": store,
		"network of CNI": network, "network of Podman": podman, "network of libvirt": libvirt,
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "read "+name+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRecords: files of others never stop the reader, and what they say never
// stops a namespace from having a name.
func FuzzRecords(f *testing.F) {
	for _, s := range []string{dockerConfig, bundle, cniResult, conflist, podmanNetwork, libvirtNetwork, storage, "{}", "[]", "null"} {
		f.Add([]byte(s), "0::/docker/"+web, "/run/netns/cni-1")
	}
	f.Fuzz(func(t *testing.T, data []byte, cgroup, bound string) {
		facts := Facts{RunDir: "/run/towpath"}
		if r, err := ParseDocker(data); err == nil {
			facts.Records = append(facts.Records, r)
		}
		if r, err := ParseBundle(data, Containerd, "id"); err == nil {
			facts.Records = append(facts.Records, r)
		}
		if r, err := ParseCNIResult(data); err == nil {
			facts.Records = append(facts.Records, r)
		}
		if all, err := ParseStorage(data); err == nil {
			facts.Records = append(facts.Records, all...)
		}
		if n, err := ParseCNINetwork(data); err == nil {
			facts.Networks = append(facts.Networks, n)
		}
		if n, err := ParsePodmanNetwork(data); err == nil {
			facts.Networks = append(facts.Networks, n)
		}
		if n, err := ParseLibvirtNetwork(data); err == nil {
			facts.Networks = append(facts.Networks, n)
		}
		n := New(facts)
		for _, holders := range [][]machine.Holder{{{Path: bound}}, {{PID: 1, Command: "x", Cgroup: cgroup}}, {{Path: "/run/netns/cni-1"}}} {
			if o := n.Space(&machine.Space{Inode: 1, Holders: holders}); o.Kind == "" || o.String() == "" {
				t.Errorf("%+v has no name: %+v", holders, o)
			}
		}
		n.Network(&machine.Link{Name: bound, Type: "bridge"})
	})
}
