package owner

import (
	"cmp"
	"strings"

	"github.com/towpath/towpath/internal/machine"
)

// ourAlias begins the ifalias of links of Towpath, which names the unit they
// were made for: network/NAME or endpoint/SANDBOX/IFNAME.
const ourAlias = "towpath "

// Network tells which network a link carries; ok is false where it is none that
// is known. A veth is no network's: what it is a port of is.
func (n *Names) Network(l *machine.Link) (net Network, ok bool) {
	if unit, ours := strings.CutPrefix(l.Alias, ourAlias); ours {
		name, isNetwork := strings.CutPrefix(unit, "network/")
		return Network{Engine: Towpath, Name: name, Device: l.Name}, isNetwork
	}
	if net, ok := n.byDevice[l.Name]; ok {
		return net, true
	}
	return byName(l)
}

// device is where a network is. Docker gives docker0 to its first, to any other
// a device named after the first 12 digits of its id.
func (n Network) device() string {
	switch {
	case n.Device != "" || n.Engine != Docker:
		return n.Device
	case n.Name == "bridge":
		return "docker0"
	case len(n.ID) >= 12:
		return "br-" + n.ID[:12]
	}
	return ""
}

// known are names that an engine gives its devices by default. A name that ends
// in * is the beginning of one.
var known = []struct{ device, kind, engine, network string }{
	{"docker0", "bridge", Docker, "bridge"},
	{"docker_gwbridge", "bridge", Docker, "docker_gwbridge"},
	{"br-*", "bridge", Docker, ""},
	{"cni-podman*", "bridge", Podman, ""},
	{"podman*", "bridge", Podman, ""},
	{"cni0", "bridge", CNI, ""},
	{"cbr0", "bridge", Kubernetes, ""},
	{"nerdctl*", "bridge", Containerd, ""},
	{"flannel*", "vxlan", CNI, "flannel"},
	{"vxlan.calico", "vxlan", CNI, "calico"},
	{"cilium_*", "", CNI, "cilium"},
	{"kube-ipvs0", "", Kubernetes, "services"},
	{"weave", "bridge", CNI, "weave"},
	{"virbr*", "bridge", Libvirt, ""},
	{"lxcbr*", "bridge", LXC, ""},
	{"lxdbr*", "bridge", LXC, ""},
	{"incusbr*", "bridge", LXC, ""},
}

// byName knows a device by the name its engine gives it.
func byName(l *machine.Link) (Network, bool) {
	for _, k := range known {
		prefix, open := strings.CutSuffix(k.device, "*")
		if k.kind != "" && k.kind != l.Type || l.Name != k.device && (!open || !strings.HasPrefix(l.Name, prefix)) {
			continue
		}
		if k.engine == Docker && open && len(l.Name) != len("br-0123456789ab") {
			continue
		}
		return Network{Engine: k.engine, Name: cmp.Or(k.network, l.Name), Device: l.Name}, true
	}
	return Network{}, false
}
