package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Addresses. The host is the namespace that all begins in.
const (
	upstreamAddr = "10.250.0.2" // in namespace up, one veth pair away from the host
	bridgeAddr   = "10.89.0.1"
	bridgeOther  = "10.89.0.3" // for a second server on the bridge
	boxAddr      = "10.89.0.2" // in namespace box, the client's
	stubAddr     = "127.0.0.11"
	stubPort     = 40053
)

// topology makes the namespaces. That of the client has the rewriting of ports
// that is made in each sandbox.
const topology = `set -e
ip netns add up
ip netns add box
ip link set lo up
ip link add up0 type veth peer name eth0 netns up
ip address add 10.250.0.1/24 dev up0
ip link set up0 up
ip -n up address add 10.250.0.2/24 dev eth0
ip -n up link set lo up
ip -n up link set eth0 up
ip -n up route add default via 10.250.0.1
ip link add br0 type bridge
ip address add 10.89.0.1/16 dev br0
ip address add 10.89.0.3/16 dev br0
ip link set br0 up
ip link add box0 type veth peer name eth0 netns box
ip link set box0 master br0
ip link set box0 up
ip -n box address add 10.89.0.2/16 dev eth0
ip -n box link set lo up
ip -n box link set eth0 up
ip -n box route add default via 10.89.0.1
ip netns exec box nft -f - <<END
table netdev towpath {
	chain resolver {
		type filter hook ingress device "lo" priority filter; policy accept;
		ip daddr 127.0.0.11 udp dport 53 udp dport set 40053
		ip daddr 127.0.0.11 tcp dport 53 tcp dport set 40053
		ip saddr 127.0.0.11 udp sport 40053 udp sport set 53
		ip saddr 127.0.0.11 tcp sport 40053 tcp sport set 53
	}
}
END
`

// world is what is running.
type world struct {
	dir     string
	running []*server
	undo    []func()
}

// server is a resolver that answers.
type server struct {
	name string
	ns   string // of the client
	addr string
	pid  int // whose processor time is its cost
}

// newWorld makes the namespaces and starts the upstream.
func newWorld(ctx context.Context) (*world, error) {
	for _, need := range [][2]string{{"ip", "iproute2"}, {"nft", "nftables"}, {"sh", "dash"}} {
		if _, err := exec.LookPath(need[0]); err != nil {
			return nil, fmt.Errorf("needs %s: install %s", need[0], need[1])
		}
	}
	// The parent's /proc shows the processes of another PID namespace.
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return nil, fmt.Errorf("mount /proc: %w", err)
	}
	w := &world{dir: "/run/dnsbench"}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return nil, err
	}
	if _, err := command(ctx, topology, "sh"); err != nil {
		return nil, err
	}
	_, err := w.daemon(ctx, "ready", "ip", "netns", "exec", "up", "/proc/self/exe", "upstream", "-listen", upstreamAddr+":53")
	return w, err
}

// close undoes what the end of the namespaces does not.
func (w *world) close() {
	for i := len(w.undo) - 1; i >= 0; i-- {
		w.undo[i]()
	}
}

// daemon starts a program that goes on running, and waits until it prints a line
// with a word; "" is no waiting.
func (w *world) daemon(ctx context.Context, ready string, argv ...string) (*exec.Cmd, error) {
	if argv[0] == "ip" { // whose own /proc/self/exe is another
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		for i, arg := range argv {
			if arg == "/proc/self/exe" {
				argv[i] = self
			}
		}
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	log, err := os.Create(filepath.Join(w.dir, fmt.Sprintf("log-%d", len(w.undo))))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.undo = append(w.undo, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	for ready != "" && lines.Scan() {
		if strings.Contains(lines.Text(), ready) {
			go func() {
				for lines.Scan() { // so that it never waits for us
				}
			}()
			return cmd, nil
		}
	}
	if ready == "" {
		return cmd, nil
	}
	text, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("run %s: it ended: %s", strings.Join(argv[:min(len(argv), 6)], " "), strings.TrimSpace(string(text)))
}

// start starts a peer and waits until it answers.
func (w *world) start(ctx context.Context, p peer) error {
	for _, program := range p.needs {
		if _, err := os.Stat(program.path); err != nil {
			return absentError(fmt.Sprintf("not measured, as %s is not there: install %s", program.path, program.pkg))
		}
	}
	s, err := p.start(ctx, w)
	if err != nil {
		return err
	}
	s.name = p.name
	for _, names := range []kind{local, kept, fresh} {
		if err := w.answers(ctx, s, names); err != nil {
			return err
		}
	}
	w.running = append(w.running, s)
	return nil
}

// answers waits until a server answers, at most ten seconds.
func (w *world) answers(ctx context.Context, s *server, names kind) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		_, err := w.load(ctx, s, "-count", "1", "-names", string(names))
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// absentError says that a peer is not installed.
type absentError string

func (e absentError) Error() string { return string(e) }

// load runs clients against a server.
func (w *world) load(ctx context.Context, s *server, args ...string) (answered, error) {
	var a answered
	out, err := command(ctx, "", append([]string{"/proc/self/exe", "load", "-ns", s.ns, "-server", s.addr}, args...)...)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal([]byte(out), &a)
}

// figures are of one run.
type figures struct {
	answered
	cpu time.Duration // of the server
}

// perSecond is the rate.
func (f figures) perSecond() float64 { return float64(f.Queries) / f.Took.Seconds() }

// perQuery is the server's processor time in microseconds.
func (f figures) perQuery() float64 { return float64(f.cpu.Nanoseconds()) / 1e3 / float64(f.Queries) }

// measure runs one load.
func (w *world) measure(ctx context.Context, s *server, l workload, period time.Duration, flags ...string) (figures, error) {
	before, err := spent(s.pid)
	if err != nil {
		return figures{}, err
	}
	a, err := w.load(ctx, s, append(flags, "-clients", strconv.Itoa(l.clients), "-for", period.String(), "-names", string(l.names))...)
	if err != nil {
		return figures{}, err
	}
	after, err := spent(s.pid)
	return figures{a, after - before}, err
}

// spent is the processor time of a process in all its threads: utime and stime
// of proc(5), in ticks of 1/100 s.
func spent(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, errors.New("read processor time: /proc/PID/stat is short")
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100), err
}

// memory is the resident memory of a process in bytes, VmRSS of proc(5).
func memory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "VmRSS:"); found {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("read memory: no VmRSS")
}
