package owner

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ParseDocker reads config.v2.json of Docker's containers directory.
func ParseDocker(data []byte) (Record, error) {
	var c struct {
		ID              string
		Name            string
		NetworkSettings struct {
			SandboxKey string
			Networks   map[string]struct{ NetworkID string }
		}
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return Record{}, fmt.Errorf("read container of Docker: %w", err)
	}
	r := Record{Engine: Docker, ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), Netns: c.NetworkSettings.SandboxKey}
	for name, n := range c.NetworkSettings.Networks {
		r.Networks = append(r.Networks, Network{Engine: Docker, Name: name, ID: n.NetworkID})
	}
	slices.SortFunc(r.Networks, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	return r, nil
}

// ParseStorage reads containers.json of the storage that Podman and CRI-O keep
// containers in. Those of CRI-O say so by their names, k8s_CONTAINER_POD_....
func ParseStorage(data []byte) ([]Record, error) {
	var all []struct {
		ID    string   `json:"id"`
		Names []string `json:"names"`
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("read containers of Podman: %w", err)
	}
	var out []Record
	for _, c := range all {
		r := Record{Engine: Podman, ID: c.ID}
		if len(c.Names) > 0 {
			r.Name = c.Names[0]
		}
		if strings.HasPrefix(r.Name, "k8s_") {
			r.Engine = CRIO
		}
		out = append(out, r)
	}
	return out, nil
}

// ParseBundle reads config.json of an OCI bundle (runtime-spec, config.md): its
// namespace, and the names that engines put into annotations. The id is that of
// the bundle's directory.
func ParseBundle(data []byte, engine, id string) (Record, error) {
	var c struct {
		Annotations map[string]string `json:"annotations"`
		Linux       struct {
			Namespaces []struct{ Type, Path string } `json:"namespaces"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return Record{}, fmt.Errorf("read bundle of container %s: %w", short(id), err)
	}
	r := Record{Engine: engine, ID: id}
	for _, n := range c.Linux.Namespaces {
		if n.Type == "network" {
			r.Netns = n.Path
		}
	}
	a := c.Annotations
	for _, key := range []string{"nerdctl/name", "io.kubernetes.cri.container-name", "io.kubernetes.cri-o.ContainerName"} {
		if r.Name == "" {
			r.Name = a[key]
		}
	}
	if r.Name == "" && strings.Trim(id, "0123456789abcdef") != "" {
		r.Name = id // no hash: whoever made it chose it, as ctr asks for
	}
	for _, keys := range [][2]string{
		{"io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-name"},
		{"io.kubernetes.pod.namespace", "io.kubernetes.pod.name"},
	} {
		if r.Pod == "" && a[keys[1]] != "" {
			r.Pod = a[keys[0]] + "/" + a[keys[1]]
		}
	}
	return r, nil
}

// ParseCNIResult reads what libcni keeps of an attachment (/var/lib/cni/results):
// the runtime's arguments name the pod, the result the namespace.
func ParseCNIResult(data []byte) (Record, error) {
	var c struct {
		ContainerID string      `json:"containerId"`
		NetworkName string      `json:"networkName"`
		Netns       string      `json:"netns"`
		Args        [][2]string `json:"cniArgs"`
		Result      struct {
			Interfaces []struct{ Name, Sandbox string } `json:"interfaces"`
		} `json:"result"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return Record{}, fmt.Errorf("read result of CNI: %w", err)
	}
	r := Record{Engine: CNI, ID: c.ContainerID, Netns: c.Netns}
	n := Network{Engine: CNI, Name: c.NetworkName}
	for _, i := range c.Result.Interfaces {
		switch {
		case i.Sandbox != "":
			r.Netns = i.Sandbox
		case n.Device == "": // the plug-ins list their bridge first
			n.Device = i.Name
		}
	}
	if n.Name != "" {
		r.Networks = []Network{n}
	}
	args := map[string]string{}
	for _, a := range c.Args {
		args[a[0]] = a[1]
	}
	if name := args["K8S_POD_NAME"]; name != "" {
		r.Pod = args["K8S_POD_NAMESPACE"] + "/" + name
	}
	return r, nil
}

// ParseCNINetwork reads a configuration or list of configurations of CNI: the
// network, and the bridge its plug-in makes.
func ParseCNINetwork(data []byte) (Network, error) {
	type plugin struct {
		Type   string `json:"type"`
		Bridge string `json:"bridge"`
	}
	var c struct {
		Name    string   `json:"name"`
		Plugins []plugin `json:"plugins"`
		plugin
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return Network{}, fmt.Errorf("read network of CNI: %w", err)
	}
	n := Network{Engine: CNI, Name: c.Name}
	for _, p := range append(c.Plugins, c.plugin) {
		if n.Device == "" && p.Type == "bridge" {
			n.Device = p.Bridge
			if p.Bridge == "" {
				n.Device = "cni0" // the plug-in's default
			}
		}
	}
	return n, nil
}

// ParsePodmanNetwork reads a network of Podman's netavark backend.
func ParsePodmanNetwork(data []byte) (Network, error) {
	var c struct {
		Name   string `json:"name"`
		ID     string `json:"id"`
		Device string `json:"network_interface"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return Network{}, fmt.Errorf("read network of Podman: %w", err)
	}
	return Network{Engine: Podman, Name: c.Name, ID: c.ID, Device: c.Device}, nil
}

// Parts of libvirt's network XML that are looked for; what surrounds them is
// not ours to understand.
var (
	libvirtName   = regexp.MustCompile(`<name>([^<]+)</name>`)
	libvirtBridge = regexp.MustCompile(`<bridge[^>]*\sname=['"]([^'"]+)['"]`)
)

// ParseLibvirtNetwork reads a network of libvirt.
func ParseLibvirtNetwork(data []byte) (Network, error) {
	name, bridge := libvirtName.FindSubmatch(data), libvirtBridge.FindSubmatch(data)
	if name == nil || bridge == nil {
		return Network{}, fmt.Errorf("read network of libvirt: no name or no bridge in it")
	}
	return Network{Engine: Libvirt, Name: string(name[1]), Device: string(bridge[1])}, nil
}
