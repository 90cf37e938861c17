// Command demo is a tour of Towpath in throw-away network namespaces: a host, a
// machine outside, and three containers. It needs no root where user namespaces
// are allowed, changes nothing of the machine, and leaves nothing behind.
//
// Usage: demo DIR, the directory of the binaries towpath and towpathd.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/towpath/towpath/internal/linux/netns"
	"github.com/towpath/towpath/internal/testnet"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "dial" { // in a container
		os.Exit(dial(os.Args[2]))
	}
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo DIR, the directory of towpath and towpathd")
		os.Exit(2)
	}
	os.Exit(testnet.Main(tour{bin: os.Args[1]}))
}

// dial opens a TCP connection and says what the far end saw.
func dial(addr string) int {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		fmt.Printf("no connection to %s: %v\n", addr, err)
		return 1
	}
	defer c.Close()
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		fmt.Printf("connected to %s, but no answer: %v\n", addr, err)
		return 1
	}
	fmt.Printf("connected to %s; it says: %s", addr, line)
	return 0
}

// tour is the demo, run in namespaces of its own.
type tour struct {
	bin  string
	host *os.File // the namespace the daemon treats as the host
	run  string
	// outside is the namespace of a machine beyond the host's uplink.
	outside *os.File
}

// Run is the demo.
func (d tour) Run() int {
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	if reason := os.Getenv("TOWPATH_TESTNET_REASON"); reason != "" {
		fmt.Fprintf(os.Stderr, "demo: it needs network namespaces, and this machine allows none here: %s\nRun it as root, or allow user namespaces.\n", reason)
		return 1
	}
	if err := d.all(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		return 1
	}
	return 0
}

func (d tour) all(ctx context.Context) error {
	var err error
	if d.run, err = os.MkdirTemp("/run", "demo"); err != nil {
		return err
	}
	if d.outside, err = d.build(ctx); err != nil {
		return fmt.Errorf("build the stage: %w", err)
	}
	defer d.outside.Close() //nolint:errcheck // ends with the process
	stop, err := d.daemon(ctx)
	if err != nil {
		return err
	}
	defer stop()
	for _, step := range []func(context.Context) error{d.networks, d.traffic, d.names, d.published, d.packets, d.survive, d.overview, d.cleanUp} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func say(format string, args ...any) { fmt.Printf("\n# "+format+"\n", args...) }

// networks makes the objects of the tour.
func (d tour) networks(ctx context.Context) error {
	say("two networks, and three containers on them")
	return d.commands(ctx,
		"network create front --ipv6",
		"network create back",
		"sandbox create web --network front",
		"sandbox create api --network front",
		"sandbox create db --network back",
		"network ls",
		"sandbox ls",
	)
}

// traffic shows who reaches whom.
func (d tour) traffic(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	say("from a container to a machine outside, over IPv4 and IPv6: it sees the host's address")
	for _, addr := range []string{"192.0.2.1:80", "[2001:db8::1]:80"} {
		if err := d.towpath(ctx, 0, "exec", "web", "--", self, "dial", addr); err != nil {
			return err
		}
	}
	say("the two containers of network front talk; db, on network back, is out of reach")
	for name, expect := range map[string]int{"api": 0, "db": 1} {
		addr, stop, err := d.serve(ctx, name)
		if err != nil {
			return err
		}
		err = d.towpath(ctx, expect, "exec", "web", "--", self, "dial", addr)
		stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// names shows who is found by name, and by whom one is told.
func (d tour) names(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	say("by name: web finds api, on both addresses; db is on no network of web's, so web is told of no such name")
	_, stop, err := d.serve(ctx, "api")
	if err != nil {
		return err
	}
	defer stop()
	if err := d.commands(ctx, "exec web -- cat /etc/resolv.conf", "resolve web api"); err != nil {
		return err
	}
	if err := d.towpath(ctx, 0, "exec", "web", "--", self, "dial", "api:80"); err != nil {
		return err
	}
	return d.towpath(ctx, 1, "resolve", "web", "db.towpath.internal", "A")
}

// published shows a port of a container at a port of the host.
func (d tour) published(ctx context.Context) error {
	say("a published port: from the machine outside, which the container sees by its own address, and from the host's loopback")
	_, stop, err := d.serve(ctx, "web")
	if err != nil {
		return err
	}
	defer stop()
	if err := d.commands(ctx, "publish web 8080:80"); err != nil {
		return err
	}
	for _, c := range []struct {
		who  string
		ns   *os.File
		addr string
	}{{"outside", d.outside, "192.0.2.10:8080"}, {"host", d.host, "127.0.0.1:8080"}} {
		fmt.Printf("%s$ demo dial %s\n", c.who, c.addr)
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, self, "dial", c.addr)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		if err := runIn(c.ns, cmd); err != nil {
			return fmt.Errorf("%s cannot reach the published port: %w", c.who, err)
		}
	}
	return nil
}

// packets sends one that arrives and one that does not, and shows what became of
// each, and then the whole plan.
func (d tour) packets(ctx context.Context) error {
	say("one packet from web to api: the path it should take beside the one it took")
	_, stop, err := d.serve(ctx, "api")
	if err != nil {
		return err
	}
	defer stop()
	if err := d.towpath(ctx, 0, "probe", "web", "api:80"); err != nil {
		return err
	}
	say("and one from web to db: where it ended, by which rule, and what to do about it")
	if err := d.towpath(ctx, 1, "probe", "web", "db:80"); err != nil {
		return err
	}
	say("all of it, as one page")
	return d.commands(ctx, "plan")
}

// survive kills the daemon and shows that the kernel goes on without it.
func (d tour) survive(ctx context.Context) error {
	say("kill -9 of the daemon: traffic goes on; a new one finds nothing to do (diff prints nothing)")
	pid, err := os.ReadFile(filepath.Join(d.run, "pid"))
	if err != nil {
		return err
	}
	if err := exec.CommandContext(ctx, "kill", "-9", string(pid)).Run(); err != nil {
		return fmt.Errorf("kill daemon: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	web, err := netns.Open(filepath.Join(d.run, "netns", "web"))
	if err != nil {
		return err
	}
	defer web.Close() //nolint:errcheck // only read
	cmd := exec.CommandContext(ctx, self, "dial", "192.0.2.1:80")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := runIn(web, cmd); err != nil {
		return fmt.Errorf("without the daemon: %w", err)
	}
	stop, err := d.daemon(ctx)
	if err != nil {
		return err
	}
	defer stop()
	return d.commands(ctx, "diff")
}

// overview draws what there is.
func (d tour) overview(ctx context.Context) error {
	stop, err := d.daemon(ctx)
	if err != nil {
		return err
	}
	defer stop()
	say("the map: everything on this host, from its kernel (-o svg draws it)")
	return d.commands(ctx, "map")
}

// cleanUp takes everything down.
func (d tour) cleanUp(ctx context.Context) error {
	stop, err := d.daemon(ctx)
	if err != nil {
		return err
	}
	defer stop()
	say("and away with it")
	return d.commands(ctx,
		"sandbox rm web api db",
		"network rm front back",
		"sandbox ls",
	)
}

// commands runs towpath with each line, which must succeed.
func (d tour) commands(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if err := d.towpath(ctx, 0, strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

// towpath shows a command and runs it on the host; it must exit with want.
func (d tour) towpath(ctx context.Context, want int, args ...string) error {
	shown := make([]string, len(args))
	for i, a := range args {
		if filepath.IsAbs(a) {
			a = filepath.Base(a)
		}
		shown[i] = a
	}
	fmt.Printf("$ towpath %s\n", strings.Join(shown, " "))
	cmd := d.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	err := runIn(d.host, cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		return fmt.Errorf("towpath %s: exit %d, expected %d", strings.Join(args, " "), got, want)
	}
	return nil
}

func (d tour) output(ctx context.Context, args ...string) (string, error) {
	cmd := d.command(ctx, args...)
	var b strings.Builder
	cmd.Stdout, cmd.Stderr = &b, os.Stderr
	err := runIn(d.host, cmd)
	return b.String(), err
}

func (d tour) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "towpath"), args...)
	cmd.Env = append(os.Environ(), "TOWPATH_SOCKET="+filepath.Join(d.run, "towpath.sock"))
	return cmd
}

// runIn runs a program in a namespace.
func runIn(ns *os.File, cmd *exec.Cmd) error {
	if err := netns.Do(ns, cmd.Start); err != nil {
		return err
	}
	return cmd.Wait()
}

// tell answers every connection with the address it came from.
func tell(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		_, _ = io.WriteString(c, "this is "+name+", I see you as "+from+"\n")
		_ = c.Close()
	}
}
