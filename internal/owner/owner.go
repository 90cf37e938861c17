// Package owner tells whose a network namespace or a network is: a sandbox of
// Towpath, a container of Docker, Podman or another engine, a pod of a CNI
// runtime, or a process. It decides over plain data, and reads the files in
// which the engines keep their names; nothing is opened here.
package owner

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/towpath/towpath/internal/machine"
)

// Kind is what a namespace is to the people who use it.
type Kind string

// The kinds.
const (
	Host      Kind = "host"
	Sandbox   Kind = "sandbox"
	Container Kind = "container"
	Pod       Kind = "pod"
	Machine   Kind = "machine"   // a guest of LXC or systemd-nspawn
	Bound     Kind = "namespace" // kept by a mount of its own, as by ip netns
	Running   Kind = "process"
	Unknown   Kind = "unknown"
)

// Engines, by the names they give themselves.
const (
	Towpath    = "Towpath"
	Docker     = "Docker"
	Podman     = "Podman"
	Containerd = "containerd"
	CRIO       = "CRI-O"
	CNI        = "CNI"
	LXC        = "LXC"
	Nspawn     = "systemd-nspawn"
	Libvirt    = "libvirt"
	Kubernetes = "Kubernetes"
)

// Owner is whose a namespace is.
type Owner struct {
	Kind   Kind
	Name   string // as its engine has it; of a process, what it runs
	Engine string // "": none
	ID     string // of a container, in full
	PID    int    // of a process
}

// String is the owner in words: sandbox web (Towpath), process nginx [4711].
func (o Owner) String() string {
	switch {
	case o.Kind == Host:
		return string(Host)
	case o.Kind == Running:
		return fmt.Sprintf("process %s [%d]", o.Name, o.PID)
	case o.Engine != "":
		return fmt.Sprintf("%s %s (%s)", o.Kind, o.Name, o.Engine)
	case o.Name == "":
		return string(o.Kind)
	}
	return string(o.Kind) + " " + o.Name
}

// Qualified is the name with the engine before it, for where two engines have
// one: docker:web. Others than containers are known by their names alone.
func (o Owner) Qualified() string {
	if o.Kind != Container || o.Engine == "" || o.Name == "" {
		return ""
	}
	return strings.ToLower(o.Engine) + ":" + o.Name
}

// Record is what an engine has written down of a container.
type Record struct {
	Engine string
	ID     string
	Name   string
	Pod    string // NAMESPACE/NAME of the pod whose namespace it is in
	Netns  string // path of its namespace; "": not written down
	PID    int    // its first process; 0: not written down
	// Networks are those it is on, by name.
	Networks []Network
}

// Network is a network of an engine.
type Network struct {
	Engine string
	Name   string
	ID     string
	Device string // "": not written down
}

// Facts is what is known beside the kernel.
type Facts struct {
	RunDir   string // of Towpath
	Records  []Record
	Networks []Network
}

// Names answers whose things are.
type Names struct {
	runDir   string
	byPath   map[string]Record // by the namespace
	byID     map[string]Record
	byPID    map[int]Record
	byDevice map[string]Network
}

// New makes Names of what is known.
func New(f Facts) *Names {
	n := &Names{runDir: f.RunDir, byPath: map[string]Record{}, byID: map[string]Record{}, byPID: map[int]Record{}, byDevice: map[string]Network{}}
	for _, r := range f.Records {
		if p := canonical(r.Netns); r.Netns != "" && better(r, n.byPath[p]) {
			n.byPath[p] = r
		}
		if better(r, n.byID[r.ID]) {
			n.byID[r.ID] = r
		}
		if r.PID != 0 && better(r, n.byPID[r.PID]) {
			n.byPID[r.PID] = r
		}
		for _, net := range r.Networks {
			n.byDevice[net.device()] = net
		}
	}
	// What is written down in a file of its own counts for more.
	for _, net := range f.Networks {
		n.byDevice[net.device()] = net
	}
	return n
}

// better puts a record that names a pod before one that names a container of
// it, and any name before none.
func better(r, than Record) bool {
	rank := func(r Record) int {
		switch {
		case r.Pod != "":
			return 2
		case r.Name != "":
			return 1
		}
		return 0
	}
	return than.Engine == "" || rank(r) > rank(than)
}

// canonical makes paths comparable: /var/run is /run.
func canonical(p string) string {
	if rest, ok := strings.CutPrefix(path.Clean(p), "/var/run/"); ok {
		return "/run/" + rest
	}
	return path.Clean(p)
}

// Space tells whose a namespace is.
func (n *Names) Space(s *machine.Space) Owner {
	if s.Name == machine.HostName {
		return Owner{Kind: Host, Name: string(Host)}
	}
	return n.held(s.Inode, s.Holders)
}

// Unread tells whose a namespace is that could not be read.
func (n *Names) Unread(u machine.Unread) Owner { return n.held(u.Inode, u.Holders) }

// held decides by what keeps a namespace: what is written down before what a
// name looks like, and that before a process.
func (n *Names) held(inode uint64, holders []machine.Holder) Owner {
	var paths []string
	var processes []machine.Holder
	for _, h := range holders {
		if h.PID == 0 {
			paths = append(paths, canonical(h.Path))
		} else {
			processes = append(processes, h)
		}
	}
	slices.Sort(paths)
	for _, find := range []func(string) (Owner, bool){n.sandbox, n.written} {
		for _, p := range paths {
			if o, ok := find(p); ok {
				return o
			}
		}
	}
	slices.SortFunc(processes, func(a, b machine.Holder) int { return cmp.Compare(a.PID, b.PID) })
	for _, p := range processes {
		if r, ok := n.byPID[p.PID]; ok {
			return recorded(r)
		}
	}
	for _, p := range processes {
		if o, ok := n.fromCgroup(p.Cgroup); ok {
			return o
		}
	}
	for _, p := range paths {
		if o, ok := fromPath(p); ok {
			return o
		}
	}
	if len(processes) == 0 {
		return Owner{Kind: Unknown, Name: fmt.Sprintf("net:[%d]", inode)}
	}
	return Owner{Kind: Running, Name: processes[0].Command, PID: processes[0].PID}
}

// written is the owner that an engine has written down for a path.
func (n *Names) written(p string) (Owner, bool) {
	r, ok := n.byPath[p]
	if !ok {
		return Owner{}, false
	}
	return recorded(r), true
}

// sandbox knows one of ours by where it is bound.
func (n *Names) sandbox(p string) (Owner, bool) {
	if n.runDir == "" || path.Dir(p) != path.Join(canonical(n.runDir), "netns") {
		return Owner{}, false
	}
	return Owner{Kind: Sandbox, Name: path.Base(p), Engine: Towpath}, true
}

// recorded is the owner that a record names.
func recorded(r Record) Owner {
	if r.Pod != "" {
		engine := r.Engine
		if engine == Containerd {
			engine = CNI
		}
		return Owner{Kind: Pod, Name: r.Pod, Engine: engine, ID: r.ID}
	}
	return Owner{Kind: Container, Name: cmp.Or(r.Name, short(r.ID)), Engine: r.Engine, ID: r.ID}
}

// short is an id as the engines print it.
func short(id string) string { return id[:min(len(id), 12)] }

// cgroups are the forms that the engines give the path of a container's cgroup,
// with the cgroupfs and the systemd driver.
var cgroups = []struct {
	form   *regexp.Regexp
	engine string
	kind   Kind
}{
	{regexp.MustCompile(`/libpod-([0-9a-f]{64})`), Podman, Container},
	{regexp.MustCompile(`/docker[-/]([0-9a-f]{64})`), Docker, Container},
	{regexp.MustCompile(`/crio-([0-9a-f]{64})`), CRIO, Container},
	{regexp.MustCompile(`/cri-containerd-([0-9a-f]{64})`), Containerd, Container},
	{regexp.MustCompile(`/nerdctl-([0-9a-f]{64})`), Containerd, Container},
	{regexp.MustCompile(`/kubepods[^\n]*/([0-9a-f]{64})`), Containerd, Container},
	{regexp.MustCompile(`/lxc\.payload\.([^/\n]+)`), LXC, Machine},
	{regexp.MustCompile(`/lxc/([^/\n]+)`), LXC, Machine},
	{regexp.MustCompile(`/machine\.slice/systemd-nspawn@([^/\n]+)\.service`), Nspawn, Machine},
	{regexp.MustCompile(`/(?:default|moby|k8s\.io)/([0-9a-f]{64})`), Containerd, Container},
}

// fromCgroup knows a container by the cgroup of a process in it.
func (n *Names) fromCgroup(cgroup string) (Owner, bool) {
	for _, c := range cgroups {
		m := c.form.FindStringSubmatch(cgroup)
		switch {
		case m == nil:
		case c.kind == Machine:
			return Owner{Kind: Machine, Name: m[1], Engine: c.engine}, true
		default:
			r, ok := n.byID[m[1]]
			if !ok {
				r = Record{Engine: c.engine, ID: m[1]}
			}
			return recorded(r), true
		}
	}
	return Owner{}, false
}

// podmanName is the name that Podman gives its namespaces, in /run/netns like ip's.
var podmanName = regexp.MustCompile(`^netns-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// fromPath knows an engine by where it binds its namespaces.
func fromPath(p string) (Owner, bool) {
	dir, base := path.Split(p)
	switch {
	case dir == "/run/docker/netns/":
		return Owner{Kind: Container, Name: base, Engine: Docker}, true
	case strings.HasSuffix(dir, "/netns/") && podmanName.MatchString(base):
		return Owner{Kind: Container, Name: short(strings.TrimPrefix(base, "netns-")), Engine: Podman}, true
	case strings.HasSuffix(dir, "/netns/") && strings.HasPrefix(base, "cni-"):
		return Owner{Kind: Pod, Name: short(strings.TrimPrefix(base, "cni-")), Engine: CNI}, true
	case dir == "/run/netns/":
		return Owner{Kind: Bound, Name: base}, true
	case strings.HasPrefix(p, "/proc/"):
		return Owner{}, false
	}
	return Owner{Kind: Bound, Name: p}, true
}
