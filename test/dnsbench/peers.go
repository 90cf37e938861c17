package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// peer is a resolver that is measured.
type peer struct {
	name  string
	needs []program
	start func(ctx context.Context, w *world) (*server, error)
}

// program is a file and the Debian package that it is in.
type program struct{ path, pkg string }

// Names of the peers.
const (
	towpath  = "towpath"
	docker   = "docker"
	aardvark = "aardvark-dns"
	dnsmasq  = "dnsmasq"
)

func peers() []peer {
	return []peer{
		{towpath, nil, startTowpath},
		{aardvark, []program{{"/usr/lib/podman/aardvark-dns", "aardvark-dns"}}, startAardvark},
		{docker, []program{
			{"/usr/sbin/dockerd", "docker.io"},
			{"/usr/bin/docker", "docker.io"},
			{"/usr/bin/containerd", "containerd"},
			{"/usr/sbin/runc", "runc"},
			{"/bin/busybox", "busybox-static"},
			{"/usr/sbin/iptables", "iptables"},
		}, startDocker},
		{dnsmasq, []program{{"/usr/sbin/dnsmasq", "dnsmasq-base"}}, startDnsmasq},
	}
}

// startTowpath runs the resolver of this project for a thousand sandboxes of
// one network, with sockets in that of the client.
func startTowpath(ctx context.Context, w *world) (*server, error) {
	cmd, err := w.daemon(ctx, "ready", "/proc/self/exe", "serve", "-ns", "/run/netns/box", "-upstream", upstreamAddr+":53")
	if err != nil {
		return nil, err
	}
	return &server{ns: "/run/netns/box", addr: stubAddr + ":53", pid: cmd.Process.Pid}, nil
}

// startAardvark runs Podman's resolver on the bridge, as netavark does.
func startAardvark(ctx context.Context, w *world) (*server, error) {
	dir := filepath.Join(w.dir, "aardvark")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", bridgeAddr, upstreamAddr)
	fmt.Fprintf(&b, "%064x %s  box\n", 1, boxAddr)
	for i := range localNames {
		fmt.Fprintf(&b, "%064x 10.89.%d.%d  %s\n", i+2, 1+i/250, 1+i%250, localName(i))
	}
	if err := os.WriteFile(filepath.Join(dir, "bench"), []byte(b.String()), 0o644); err != nil {
		return nil, err
	}
	if _, err := command(ctx, "", "/usr/lib/podman/aardvark-dns", "--config", dir, "-p", "53", "run"); err != nil {
		return nil, err
	}
	// It goes on as a daemon, which writes its number when it has its sockets.
	pid, err := numberIn(ctx, filepath.Join(dir, "aardvark.pid"))
	return &server{ns: "/run/netns/box", addr: bridgeAddr + ":53", pid: pid}, err
}

// numberIn waits for a file with a number, at most ten seconds.
func numberIn(ctx context.Context, name string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if text, err := os.ReadFile(name); err == nil && len(text) > 0 {
			return strconv.Atoi(strings.TrimSpace(string(text)))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for %s: %w", name, ctx.Err())
		}
	}
}

// startDnsmasq runs dnsmasq on the bridge, with a file of hosts.
func startDnsmasq(ctx context.Context, w *world) (*server, error) {
	hosts := filepath.Join(w.dir, "hosts")
	var b strings.Builder
	for i := range localNames {
		fmt.Fprintf(&b, "10.89.%d.%d %s\n", 1+i/250, 1+i%250, localName(i))
	}
	if err := os.WriteFile(hosts, []byte(b.String()), 0o644); err != nil {
		return nil, err
	}
	cmd, err := w.daemon(ctx, "", "/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file=",
		"--no-resolv", "--server="+upstreamAddr, "--no-hosts", "--addn-hosts="+hosts, "--listen-address="+bridgeOther,
		"--bind-interfaces", "--cache-size=1000", "--log-facility=-")
	if err != nil {
		return nil, err
	}
	return &server{ns: "/run/netns/box", addr: bridgeOther + ":53", pid: cmd.Process.Pid}, nil
}

// startDocker runs Docker's daemon with a network of two containers: the
// client's, and one that has all the names.
func startDocker(ctx context.Context, w *world) (*server, error) {
	if os.Getuid() != 0 {
		return nil, absentError("not measured, as dockerd needs root")
	}
	data := filepath.Join(w.dir, "docker")
	if err := os.MkdirAll(filepath.Join(data, "image", "bin"), 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(data, "daemon.json") // none of the machine's
	if err := os.WriteFile(config, []byte("{}\n"), 0o600); err != nil {
		return nil, err
	}
	group := "towpath-dnsbench-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().Unix(), 36)
	w.undo = append(w.undo, func() { removeGroups(group) })
	const socket = "unix:///run/dnsbench/docker.sock"
	daemon, err := w.daemon(ctx, "", "/usr/sbin/dockerd", "--data-root", filepath.Join(data, "lib"), "--exec-root", filepath.Join(data, "exec"),
		"--pidfile", filepath.Join(data, "pid"), "-H", socket, "--iptables=false", "--storage-driver=vfs", "--bridge=none",
		"--cgroup-parent=/"+group, "--config-file", config)
	if err != nil {
		return nil, err
	}
	w.undo = append(w.undo, func() { // containers first, so that their groups are empty
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, _ = command(ctx, "", "docker", "-H", socket, "rm", "-f", "client", "names")
	})
	script := `set -e
D="docker -H ` + socket + `"
for i in $(seq 100); do $D version >/dev/null 2>&1 && break; sleep 0.1; done
mkdir -p ` + data + `/image/bin
cp /bin/busybox ` + data + `/image/bin/sleep
tar -C ` + data + `/image -c . | $D import - idle >/dev/null
$D network create --subnet 10.202.0.0/16 bench >/dev/null
A=; for i in $(seq 0 ` + strconv.Itoa(localNames-1) + `); do A="$A --network-alias $(printf w%03d $i)"; done
$D run -d --network bench --name names $A idle sleep 100000 >/dev/null
$D run -d --network bench --name client --dns ` + upstreamAddr + ` idle sleep 100000 >/dev/null
$D inspect -f '{{.NetworkSettings.SandboxKey}}' client
`
	key, err := command(ctx, script, "sh")
	if err != nil {
		text, _ := os.ReadFile(daemon.Stderr.(*os.File).Name())
		return nil, fmt.Errorf("%w\n%s", err, text[max(0, len(text)-2000):])
	}
	return &server{ns: key, addr: stubAddr + ":53", pid: daemon.Process.Pid}, nil
}

// removeGroups removes the empty groups of processes that dockerd made: they
// belong to the machine, not to a namespace.
func removeGroups(name string) {
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + name, "/sys/fs/cgroup/" + name} {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			inner, _ := filepath.Glob(filepath.Join(dir, "*"))
			for _, d := range append(inner, dir) {
				_ = os.Remove(d) // a folder of files that the kernel keeps, or one of those
			}
		}
	}
}
